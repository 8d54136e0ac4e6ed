package rollout

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/rollout/policy"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	isPending   = warrenv1.TaskState_TASK_STATE_PENDING
	isPreparing = warrenv1.TaskState_TASK_STATE_PREPARING
	isComplete  = warrenv1.TaskState_TASK_STATE_COMPLETE
	hasFailed   = warrenv1.TaskState_TASK_STATE_FAILED
	isRejected  = warrenv1.TaskState_TASK_STATE_REJECTED
	isShutDown  = warrenv1.TaskState_TASK_STATE_SHUTDOWN
	isLost      = warrenv1.TaskState_TASK_STATE_LOST

	toShutDown = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN
)

// Tasks of package statetest began at its epoch: now they have been good for long, unless they are young.
var now = statetest.Epoch.Add(time.Minute)

// ago has a task have begun that long ago.
func ago(d time.Duration) func(*warrenv1.Task) {
	return func(t *warrenv1.Task) {
		statetest.Created(now.Add(-d))(t)
		t.Meta.UpdatedAt, t.Status.Since = t.Meta.CreatedAt, t.Meta.CreatedAt
	}
}

var young = ago(time.Second)

func isDrained(n *warrenv1.Node) {
	n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
}

func until(t time.Time) func(*warrenv1.Node) {
	return func(n *warrenv1.Node) { isDrained(n); n.Spec.DrainDeadline = timestamppb.New(t) }
}

func isPaused(n *warrenv1.Node) {
	n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE
}

func isDown(n *warrenv1.Node) { n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN }

// at has a service be at a revision, with a rollout to it from the one before that has gone on for half a minute.
func at(revision uint64) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) {
		s.Revision, s.LastRevision, s.PreviousRevision = revision, revision, revision-1
		began := timestamppb.New(now.Add(-30 * time.Second))
		s.Rollout = &warrenv1.Rollout{From: revision - 1, To: revision, State: running, StartedAt: began, Since: began, AdvancedAt: began}
	}
}

// rollout changes the record.
func rollout(edit func(*warrenv1.Rollout)) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) { edit(s.Rollout) }
}

func in(s warrenv1.RolloutState) func(*warrenv1.Service) {
	return rollout(func(r *warrenv1.Rollout) { r.State = s })
}

// back has the rollout be one that goes back from revision 2 to 1.
func back(s *warrenv1.Service) {
	at(2)(s)
	s.Revision, s.PreviousRevision = 1, 0
	s.Rollout.From, s.Rollout.To, s.Rollout.Rollback = 2, 1, true
}

func policyOf(edit func(*warrenv1.UpdatePolicy)) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) {
		if s.Spec.Update == nil {
			s.Spec.Update = &warrenv1.UpdatePolicy{}
		}
		edit(s.Spec.Update)
	}
}

var stopFirst = policyOf(func(p *warrenv1.UpdatePolicy) { p.Order = warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST })

func parallel(n uint32) func(*warrenv1.Service) {
	return policyOf(func(p *warrenv1.UpdatePolicy) { p.Parallelism = n })
}

func delayed(d time.Duration) func(*warrenv1.Service) {
	return policyOf(func(p *warrenv1.UpdatePolicy) { p.Delay = durationpb.New(d) })
}

func onFailing(a warrenv1.FailureAction, ratio float64) func(*warrenv1.Service) {
	return policyOf(func(p *warrenv1.UpdatePolicy) { p.FailureAction, p.MaxFailureRatio = a, ratio })
}

func onFailure(s *warrenv1.Service) {
	s.Spec.Task.Restart = &warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_ON_FAILURE}
}

func zoned(s *warrenv1.Service) {
	s.Spec.Placement = &warrenv1.Placement{Constraints: []string{"node.labels.zone == a"}}
}

// told says what an outcome does, in the words of statetest.Describe, and what it records: "2 running" for the rollout to revision 2,
// with its weight where it has one; "image 2" and "blame 2" of revisions.
func told(s state.Snapshot, o outcome) []string {
	if o.transaction == nil {
		return nil
	}
	said := statetest.Describe(s, o.transaction)
	i := 0
	for _, op := range o.transaction.Message().GetOperations() {
		switch a := op.GetAction().(type) {
		case *statev1.Operation_Create, *statev1.Operation_Delete:
			i++
		case *statev1.Operation_Update:
			if service := a.Update.GetService(); service != nil {
				said[i] = recorded(service.GetRollout())
			}
			if r := a.Update.GetRevision(); r != nil {
				said[i] = fmt.Sprintf("image %d", r.GetNumber())
				if r.GetImageDigest() == s.Revision(r.GetServiceId(), r.GetNumber()).GetImageDigest() {
					said[i] = fmt.Sprintf("outcome %d", r.GetNumber())
				}
				if r.GetFailure() != s.Revision(r.GetServiceId(), r.GetNumber()).GetFailure() {
					said[i] = fmt.Sprintf("blame %d", r.GetNumber())
				}
			}
			i++
		}
	}
	return said
}

func recorded(r *warrenv1.Rollout) string {
	said := fmt.Sprintf("%d %s", r.GetTo(), map[warrenv1.RolloutState]string{
		running: "running", paused: "paused", waiting: "waiting", complete: "complete", abandoned: "abandoned",
	}[r.GetState()])
	if r.GetWeight() > 0 {
		said += fmt.Sprintf(" %d%%", r.GetWeight())
	}
	if r.GetKeepUntil() != nil {
		said += " keeping"
	}
	return said
}

// scene is a state, and what is decided on it.
type scene struct {
	name    string
	objects []state.Object
	want    []string
	wake    time.Duration
}

// play decides on scenes, and holds every decision to what must hold of any.
func play(t *testing.T, scenes []scene) {
	for _, c := range scenes {
		t.Run(c.name, func(t *testing.T) {
			s := statetest.New(t, c.objects...).Snapshot()
			got := decide(s, "web", now, time.Time{}, statetest.Counter("new"))
			if said := told(s, got); !slices.Equal(said, c.want) {
				t.Errorf("got %q, want %q", said, c.want)
			}
			if want := c.wake; want > 0 && !got.wake.Equal(now.Add(want)) || want == 0 && !got.wake.IsZero() { // else: sometime
				t.Errorf("wakes after %v, want %v", got.wake.Sub(now), want)
			}
			if got.transaction == nil {
				return
			}
			again := decide(s, "web", now, time.Time{}, statetest.Counter("new"))
			if !proto.Equal(got.transaction.Message(), again.transaction.Message()) {
				t.Error("decided differently on the same")
			}
			for _, write := range statetest.Writes(s, got.transaction) {
				if !slices.Contains(Outputs, write) {
					t.Errorf("writes %s, which is not among its outputs", write)
				}
			}
			store := statetest.New(t, c.objects...)
			statetest.Commit(t, statetest.NewProposer(store), decide(store.Snapshot(), "web", now, time.Time{}, statetest.Counter("new")).transaction)
		})
	}
}

// any wake time will do.
const sometime = -1

var (
	of2       = statetest.Of(2)
	notWanted = statetest.Desired(toShutDown)
	n1, n2    = statetest.Node("n1"), statetest.Node("n2")
	stateIs   = statetest.In
)

func web(edits ...func(*warrenv1.Service)) *warrenv1.Service {
	return statetest.Replicated("web", 3, edits...)
}

func task(id string, slot uint32, edits ...func(*warrenv1.Task)) *warrenv1.Task {
	return statetest.Task(id, "web", slot, "n1", edits...)
}

func unplaced(t *warrenv1.Task) { t.NodeId, t.Status.State, t.Status.Serving = "", isPending, false }

// restarted has a task's program have been restarted, as its node has told or not.
func restarted(t *warrenv1.Task) { t.Status.Attempt = 2 }

// crashed has it have ended d after the task was made.
func crashed(d time.Duration) func(*warrenv1.Task) {
	return func(t *warrenv1.Task) {
		if t.Meta.CreatedAt == nil {
			t.Meta.CreatedAt = timestamppb.New(statetest.Epoch)
		}
		t.Status.Attempt++
		t.Status.Incidents = append(t.Status.Incidents, &warrenv1.Incident{
			Kind: warrenv1.IncidentKind_INCIDENT_KIND_EXIT, At: timestamppb.New(t.Meta.CreatedAt.AsTime().Add(d)),
		})
	}
}

func TestRollingUpdates(t *testing.T) {
	deadline := policy.DefaultProgressDeadline - 30*time.Second
	play(t, []scene{
		{"nothing is due", []state.Object{web(), n1, task("a", 1), task("b", 2)}, nil, 0},
		{"an update begins with one slot", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2)}, []string{"create web.1@2"}, deadline},
		{"or with as many as it may", []state.Object{web(at(2), parallel(2)), n1, task("a", 1), task("b", 2), task("c", 3)}, []string{"create web.1@2", "create web.2@2"}, deadline},
		{"it waits while the new task starts", []state.Object{web(at(2)), n1, task("a", 1), task("a2", 1, of2, stateIs(isPreparing)), task("b", 2)}, nil, deadline},
		{"what a revision did before does not have it come to more slots when it is tried once more", []state.Object{web(at(2)), n1, task("a", 1), task("x", 1, of2, stateIs(hasFailed), ago(40*time.Second)),
			task("b", 2), task("y", 2, of2, stateIs(hasFailed), ago(40*time.Second))}, []string{"create web.1@2"}, deadline},
		{"the first old task stays until the new one is good", []state.Object{web(at(2)), n1, task("a", 1), task("a2", 1, of2, young), task("b", 2)}, nil, 4 * time.Second},
		{"then it is stopped, and the update goes on", []state.Object{web(at(2)), n1, task("a", 1), task("a2", 1, of2), task("b", 2)},
			[]string{"shutdown a", "create web.2@2"}, deadline},
		{"the others are stopped as soon as the new ones serve", []state.Object{web(at(2)), n1, task("a2", 1, of2), task("b", 2), task("b2", 2, of2, young), task("c", 3)},
			[]string{"shutdown b", "create web.3@2"}, 4 * time.Second},
		{"a first batch is as many as may be underway", []state.Object{web(at(2), parallel(2)), n1, task("a2", 1, of2), task("b2", 2, of2, young), task("c", 3)}, nil, 4 * time.Second},
		{"and pays for all", []state.Object{web(at(2), parallel(2)), n1, task("a2", 1, of2), task("b2", 2, of2), task("c", 3)}, []string{"create web.3@2"}, deadline},
		{"of a later batch nothing waits for the slowest", []state.Object{statetest.Replicated("web", 5, at(2), parallel(2)), n1, task("a2", 1, of2), task("b2", 2, of2),
			task("c", 3), task("c2", 3, of2, young), task("d", 4), task("d2", 4, of2, stateIs(isPreparing)), task("e", 5)}, []string{"shutdown c", "create web.5@2"}, 4 * time.Second},
		{"unless nothing is to be monitored", []state.Object{web(at(2), policyOf(func(p *warrenv1.UpdatePolicy) { p.Monitor = durationpb.New(0) })), n1,
			task("a2", 1, of2, young), task("b", 2)}, []string{"create web.2@2"}, deadline + 29*time.Second},
		{"it waits while the new task runs and does not serve", []state.Object{web(at(2)), n1, task("a", 1), task("a2", 1, of2, statetest.NotServing), task("b", 2)}, nil, deadline},
		{"of old tasks it keeps the one that serves", []state.Object{web(at(3)), n1, task("a", 1), task("a2", 1, of2, statetest.NotServing)}, []string{"shutdown a2", "create web.1@3"}, deadline},
		{"and keeps it while the new one does not", []state.Object{web(at(3)), n1, task("a", 1), task("a2", 1, of2, statetest.NotServing), task("a3", 1, statetest.Of(3), statetest.NotServing)},
			[]string{"shutdown a2"}, deadline},
		{"slots whose task does not serve go before those that do", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2, statetest.NotServing)}, []string{"create web.2@2"}, deadline},
		{"a slot whose new task does not serve holds up the others", []state.Object{web(at(2)), n1, task("a", 1), task("b2", 2, of2, statetest.NotServing)}, nil, deadline},
		{"it does not wait for the old task's end", []state.Object{web(at(2)), n1, task("a", 1, notWanted), task("a2", 1, of2), task("b", 2)}, []string{"create web.2@2"}, deadline},
		{"it pauses between replacements", []state.Object{web(at(2), delayed(90*time.Second)), n1, task("a2", 1, of2), task("b", 2)}, nil, 30 * time.Second},
		{"but not before the first", []state.Object{web(at(2), delayed(10*time.Second)), n1, task("a", 1), task("b", 2)}, []string{"create web.1@2"}, deadline + 10*time.Second},
		{"slots whose task does not run go first, at once", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2, stateIs(isPreparing))},
			[]string{"shutdown b", "create web.2@2"}, deadline},
		{"tasks that wait for a node are all replaced at once", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2, unplaced), task("c", 3, unplaced)},
			[]string{"remove b", "create web.2@2", "remove c", "create web.3@2", "create web.1@2"}, deadline},
		{"a slot that waits for room does not hold up the others", []state.Object{web(at(2)), n1, task("a", 1), task("b2", 2, of2, unplaced)}, []string{"create web.1@2"}, deadline},
		{"a replacement that waits for room does", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2), task("b2", 2, of2, unplaced)}, nil, deadline},
		{"so does one whose predecessor was stopped", []state.Object{web(at(2), stopFirst), n1, task("a", 1), task("b", 2, stateIs(isShutDown), notWanted), task("b2", 2, of2, unplaced)}, nil, deadline},
		{"a slot that is being filled holds up an update", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2, stateIs(isLost))}, nil, deadline},
		{"a replacement that is done ends the old task", []state.Object{web(at(2), onFailure), n1, task("a", 1), task("a2", 1, of2, stateIs(isComplete))}, []string{"2 complete", "shutdown a"}, 0},
		{"stop-first stops the old task", []state.Object{web(at(2), stopFirst), n1, task("a", 1), task("b", 2)}, []string{"shutdown a"}, deadline},
		{"stop-first waits for its end", []state.Object{web(at(2), stopFirst), n1, task("a", 1, notWanted), task("b", 2)}, nil, deadline},
		{"and for its replacement to run", []state.Object{web(at(2), stopFirst), n1, task("a", 1, stateIs(isShutDown), notWanted), task("a2", 1, of2, stateIs(isPreparing)), task("b", 2)}, nil, deadline},
		{"and to be good", []state.Object{web(at(2), stopFirst), n1, task("a", 1, stateIs(isShutDown), notWanted), task("a2", 1, of2, young), task("b", 2)}, nil, 4 * time.Second},
		{"and goes on", []state.Object{web(at(2), stopFirst), n1, task("a", 1, stateIs(isShutDown), notWanted), task("a2", 1, of2), task("b", 2)}, []string{"shutdown b"}, deadline},
		{"a replacement that a newer update overtook is retired", []state.Object{web(at(3)), n1, task("a", 1), task("a2", 1, of2, stateIs(isPreparing))},
			[]string{"shutdown a2", "create web.1@3"}, deadline},
		{"a middle revision that runs is kept before an old one", []state.Object{web(at(3)), n1, task("a", 1), task("a2", 1, of2)},
			[]string{"shutdown a", "create web.1@3"}, deadline},
		{"of two tasks that may both stay the worse goes", []state.Object{web(), n1, task("a", 1, stateIs(isPreparing)), task("b", 1)}, []string{"shutdown a"}, 0},
		{"a service that is being removed is left alone", []state.Object{web(at(2), func(s *warrenv1.Service) { s.Removing = true }), n1, task("a", 1)}, nil, 0},

		{"a global service is updated node by node", []state.Object{statetest.Global("web", at(2)), n1, n2, task("a", 0), statetest.Task("b", "web", 0, "n2")}, []string{"create web.n1@2"}, deadline},
		{"stop-first too", []state.Object{statetest.Global("web", at(2), stopFirst), n1, n2, task("a", 0), statetest.Task("b", "web", 0, "n2")}, []string{"shutdown a"}, deadline},
		{"but not on a node that takes no new tasks", []state.Object{statetest.Global("web", at(2)), statetest.Node("n1", isPaused), n2, task("a", 0), statetest.Task("b", "web", 0, "n2")},
			[]string{"create web.n2@2"}, deadline},
		{"which is not waited for", []state.Object{statetest.Global("web", at(2)), statetest.Node("n1", isPaused), n2, task("a", 0), statetest.Task("b", "web", 0, "n2", of2)},
			[]string{"2 complete"}, 0},
		{"and is seen to when it does", []state.Object{statetest.Global("web", at(2), in(complete)), n1, n2, task("a", 0), statetest.Task("b", "web", 0, "n2", of2)},
			[]string{"create web.n1@2"}, 0},
		{"a task on a node that the service waits for is waited for as well", []state.Object{web(at(2)), statetest.Node("n1", isDown), n2, task("a", 1), statetest.Task("b", "web", 2, "n2", of2)},
			[]string{"2 complete"}, 0},
	})
}

func TestTheRecordOfARollout(t *testing.T) {
	const later = sometime
	two := func(s *warrenv1.Service) { at(2)(s); s.Rollout = nil }
	given := func(edit func(*warrenv1.RolloutOrders)) func(*warrenv1.Service) {
		return func(s *warrenv1.Service) {
			s.Orders = &warrenv1.RolloutOrders{By: "ann"}
			edit(s.Orders)
		}
	}
	pauseOrder := given(func(o *warrenv1.RolloutOrders) { o.Paused = true })
	resumeOrder := given(func(o *warrenv1.RolloutOrders) { o.Resumes = 1 })
	three := func(s *warrenv1.Service) { s.Revision = 3 }
	play(t, []scene{
		{"a new service has none", []state.Object{web(), n1}, nil, 0},
		{"it begins with a change of the template", []state.Object{web(two), n1, task("a", 1)}, []string{"2 running", "create web.1@2"}, policy.DefaultProgressDeadline},
		{"also where nothing runs", []state.Object{web(two)}, []string{"2 complete"}, 0},
		{"it is complete when every task is good", []state.Object{web(at(2)), n1, task("a", 1, of2), task("b", 2, of2)}, []string{"2 complete"}, 0},
		{"not before", []state.Object{web(at(2)), n1, task("a", 1, of2), task("b", 2, of2, young)}, nil, 4 * time.Second},
		{"what waits for room that it never had is not waited for", []state.Object{web(at(2)), n1, task("a", 1, of2), task("b", 2, of2, unplaced)}, []string{"2 complete"}, 0},
		{"unless there is nothing else", []state.Object{web(at(2)), n1, task("b", 2, of2, unplaced)}, nil, policy.DefaultProgressDeadline - 30*time.Second},
		{"a change in the middle is told first", []state.Object{web(at(2), three), n1, task("a", 1, of2), task("b", 2)}, []string{"2 abandoned"}, later},
		{"and begins another one", []state.Object{web(at(2), three, in(abandoned)), n1, task("a", 1, of2), task("b", 2)}, []string{"3 running", "create web.1@3"}, policy.DefaultProgressDeadline},
		{"a way back is not proved again", []state.Object{web(at(2), func(s *warrenv1.Service) { s.Revision = 1 }, in(abandoned)), n1, task("a", 1, young), task("a2", 1, of2), task("b2", 2, of2)},
			[]string{"1 running", "shutdown a2", "create web.2@1"}, 4 * time.Second},

		{"it pauses when it is told to", []state.Object{web(at(2), pauseOrder), n1, task("a", 1), task("b", 2)}, []string{"2 paused"}, later},
		{"and begins nothing", []state.Object{web(at(2), pauseOrder, in(paused)), n1, task("a", 1), task("b", 2)}, nil, 0},
		{"but finishes what it has begun", []state.Object{web(at(2), pauseOrder, in(paused)), n1, task("a", 1), task("a2", 1, of2), task("b", 2)}, []string{"shutdown a"}, 0},
		{"and moves what must be moved as it is", []state.Object{web(at(2), pauseOrder, in(paused)), statetest.Node("n1", isDrained), n2, task("a", 1)}, []string{"create web.1@1"}, 0},
		{"it goes on when it is told to", []state.Object{web(at(2), resumeOrder, in(paused)), n1, task("a", 1)}, []string{"2 running", "create web.1@2"}, policy.DefaultProgressDeadline},
		{"what failed is forgiven then", []state.Object{web(at(2), resumeOrder, in(paused), rollout(func(r *warrenv1.Rollout) { r.Failed = 1 })), n1, task("a", 1), task("a2", 1, of2, stateIs(hasFailed), ago(10*time.Second))},
			[]string{"2 running", "create web.1@2"}, policy.DefaultProgressDeadline},
	})
}

func TestARolloutThatFails(t *testing.T) {
	pause, goOn := warrenv1.FailureAction_FAILURE_ACTION_PAUSE, warrenv1.FailureAction_FAILURE_ACTION_CONTINUE
	r1, r2 := statetest.Revision(web()), statetest.Revision(web(at(2)))
	r1.Task.Container.Image = "image@sha256:1"
	r2.Task.Container.Image = "image@sha256:2"
	failed := func(id string, slot uint32, edits ...func(*warrenv1.Task)) *warrenv1.Task {
		return task(id, slot, append([]func(*warrenv1.Task){of2, young, stateIs(hasFailed), func(t *warrenv1.Task) { t.Status.Error = "exit code 1" }}, edits...)...)
	}
	unhealthy := func(t *warrenv1.Task) {
		t.Status.Serving = false
		t.Status.Health = &warrenv1.TaskHealth{State: warrenv1.HealthState_HEALTH_STATE_UNHEALTHY, Since: timestamppb.New(now)}
	}
	overdueSince := rollout(func(r *warrenv1.Rollout) { r.AdvancedAt = timestamppb.New(now.Add(-policy.DefaultProgressDeadline)) })
	blamed, three := proto.CloneOf(r2), statetest.Revision(web(at(3)))
	blamed.Failure = "failed before"
	s := statetest.New(t, web(at(3)), n1, r1, blamed, three, task("a", 1, of2), failed("a3", 1, statetest.Of(3))).Snapshot()
	if o := decide(s, "web", now, time.Time{}, statetest.Counter("new")); !slices.Equal(told(s, o)[:2], []string{"1 running", "blame 3"}) {
		t.Errorf("a revision that has failed before is not passed over: %q", told(s, o))
	}
	s = statetest.New(t, web(at(2)), n1, r2, task("a", 1), failed("a2", 1)).Snapshot()
	if o := decide(s, "web", now, time.Time{}, statetest.Counter("new")); !slices.Equal(told(s, o), []string{"2 paused"}) {
		t.Errorf("where there is nothing to go back to: %q", told(s, o))
	}
	for _, c := range []struct {
		name    string
		service *warrenv1.Service
		tasks   []state.Object
		want    string
	}{
		{"a new task fails", web(at(2)), []state.Object{task("a", 1), failed("a2", 1), task("b", 2)}, "1 complete"},
		{"cannot be started", web(at(2)), []state.Object{task("a", 1), failed("a2", 1, stateIs(isRejected)), task("b", 2)}, "1 complete"},
		{"is restarted", web(at(2)), []state.Object{task("a", 1), task("a2", 1, of2, ago(10*time.Second), crashed(2*time.Second)), task("b", 2)}, "1 complete"},
		{"is restarted again and again after a long pull", web(at(2)), []state.Object{task("a", 1), task("a2", 1, of2, ago(25*time.Second), crashed(20*time.Second), crashed(22*time.Second)), task("b", 2)}, "1 complete"},
		{"becomes unhealthy", web(at(2)), []state.Object{task("a", 1), task("a2", 1, of2, ago(20*time.Second), unhealthy), task("b", 2)}, "1 complete"},
		{"pauses where the policy says so", web(at(2), onFailing(pause, 0)), []state.Object{task("a", 1), failed("a2", 1), task("b", 2)}, "2 paused"},
		{"goes on where the policy says so", web(at(2), onFailing(goOn, 0)), []state.Object{task("a", 1), failed("a2", 1), task("b", 2)}, "2 running"},
		{"as many as the ratio allows", web(at(2), onFailing(0, 0.5)), []state.Object{task("a", 1), failed("a2", 1), task("b", 2)}, "2 running"},
		{"more than that", web(at(2), onFailing(0, 0.4)), []state.Object{task("a", 1), failed("a2", 1), task("b", 2)}, "1 complete"},
		{"no task is found good for long", web(at(2), overdueSince), []state.Object{task("a", 1), task("a2", 1, of2, unplaced), task("b", 2)}, "1 complete"},
		{"on the way back it pauses", web(back), []state.Object{task("a2", 1, of2), task("a", 1, young, stateIs(hasFailed)), task("b", 2)}, "1 paused"},
		{"what failed before it began is not its own", web(at(2)), []state.Object{task("a", 1), failed("a2", 1, ago(40*time.Second)), task("b", 2)}, ""},
		{"nor is a task that was good, and ended then", web(at(2)), []state.Object{task("a2", 1, of2, stateIs(hasFailed), statetest.Ended(hasFailed, now)), task("b", 2)}, ""},
		{"nor one whose node is gone", web(at(2)), []state.Object{task("a", 1), failed("a2", 1, stateIs(isLost)), task("b", 2)}, ""},
		{"nor one that a power cut has restarted", web(at(2)), []state.Object{task("a", 1), task("a2", 1, of2, young, restarted), task("b", 2)}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := statetest.New(t, append(c.tasks, c.service, n1, n2, r1, r2)...)
			s := store.Snapshot()
			got := decide(s, "web", now, time.Time{}, statetest.Counter("new"))
			said := told(s, got)
			record := ""
			if len(said) > 0 && said[0][0] != 'c' && said[0][0] != 's' {
				record = said[0]
			}
			if record != c.want {
				t.Fatalf("got %q, want %q", said, c.want)
			}
			statetest.Commit(t, statetest.NewProposer(store), got.transaction)
			after := store.Snapshot().Service("web")
			if c.want == "1 complete" || c.want == "1 running" {
				if after.GetRevision() != 1 || after.GetSpec().GetTask().GetContainer().GetImage() != "image@sha256:1" || after.GetLastRevision() != 2 ||
					after.GetWrittenBy() != Warren || after.GetWrittenAt() != 0 || store.Snapshot().Revision("web", 2).GetFailure() == "" {
					t.Errorf("went back to %v", after)
				}
			} else if said != nil && record != "" && after.GetWrittenAt() != c.service.GetWrittenAt() && after.GetWrittenAt() == 0 {
				t.Error("users must read it again although nothing of theirs has changed")
			}
			if c.want != "" && c.service.GetSpec().GetUpdate().GetMaxFailureRatio() != 0.5 && after.GetRollout().GetMessage() == "" {
				t.Error("does not say why")
			}
		})
	}
}
func TestAReplacementIsRefusedWhereItsFactsHaveChanged(t *testing.T) {
	begin := func() (*state.Store, *state.Transaction) {
		store := statetest.New(t, statetest.Replicated("web", 1), statetest.Node("n1", isDrained), statetest.Task("a", "web", 1, "n1"))
		return store, decide(store.Snapshot(), "web", now, time.Time{}, statetest.Counter("new")).transaction
	}
	for name, change := range map[string]state.Object{
		"the old task has failed":      statetest.Task("a", "web", 1, "n1", statetest.In(hasFailed)),
		"the service has been changed": statetest.Replicated("web", 2),
		"the node is active again":     statetest.Node("n1"),
	} {
		store, transaction := begin()
		statetest.Put(t, store, change)
		if results, err := statetest.NewProposer(store).Propose(t.Context(), transaction); err != nil || results == nil {
			t.Errorf("%s, and the replacement got %v, %v", name, results, err)
		}
	}
	store, transaction := begin()
	statetest.Commit(t, statetest.NewProposer(store), transaction)
}

func TestStepsOfTasksCountOnlyWhileAServiceIsUnderway(t *testing.T) {
	store := statetest.New(t, statetest.Replicated("web", 1), statetest.Node("n1"), statetest.Node("n2", isDrained), statetest.Task("a", "web", 1, "n1"))
	r := &rollouts{underway: map[string]bool{}}
	s := store.Snapshot()
	step := state.Change{Before: statetest.Task("a", "web", 1, "n1", statetest.In(isPreparing)), After: s.Task("a")}
	looks := func(c state.Change) bool { return len(slices.Collect(r.affected(s, c))) > 0 }
	if looks(step) {
		t.Error("looks at a task's step although nothing is underway")
	}
	if !looks(state.Change{Before: statetest.Task("b", "web", 1, ""), After: statetest.Task("b", "web", 1, "n2")}) {
		t.Error("does not look at a task that was placed on a node that is drained")
	}
	if !looks(state.Change{Before: statetest.Node("n1"), After: statetest.Node("n1", isDrained)}) {
		t.Error("does not look at the tasks of a node that is drained")
	}
	r.underway["web"] = true
	if !looks(step) {
		t.Error("does not look at a step of a service that is underway")
	}
}

func TestALargeUpdateIsBegunInBoundedTransactions(t *testing.T) {
	store, _ := large(t, at(2), parallel(100_000))
	transaction := decide(store.Snapshot(), "web", now, time.Time{}, statetest.Counter("new")).transaction
	if n := transaction.Len(); n < loop.MaxOperations || n > loop.MaxOperations+10 {
		t.Fatalf("a transaction of %d operations", n)
	}
}

// large returns a store with a service of ten thousand running tasks on a hundred nodes.
func large(t testing.TB, edits ...func(*warrenv1.Service)) (*state.Store, *statetest.Proposer) {
	store := statetest.New(t, statetest.Replicated("web", 10_000, edits...))
	proposer := statetest.NewProposer(store)
	transaction := state.New(statetest.Epoch)
	for i := range 100 {
		transaction.Create(statetest.Node(fmt.Sprintf("n%d", i)))
	}
	for i := range 10_000 {
		transaction.Create(statetest.Task(fmt.Sprintf("task%012d", i), "web", uint32(i+1), fmt.Sprintf("n%d", i%100)))
	}
	statetest.Commit(t, proposer, transaction)
	return store, proposer
}

func BenchmarkDecidingNothingForTenThousandTasks(b *testing.B) {
	store, _ := large(b)
	s := store.Snapshot()
	for b.Loop() {
		if o := decide(s, "web", now, time.Time{}, nil); o.transaction.Len() > 0 {
			b.Fatal("there was something to decide")
		}
	}
}

func BenchmarkAStepOfARolloutOfTenThousandTasks(b *testing.B) {
	store, _ := large(b, at(2), parallel(100))
	s := store.Snapshot()
	for b.Loop() {
		if o := decide(s, "web", now, time.Time{}, statetest.Counter("new")); o.transaction.Len() == 0 {
			b.Fatal("there was nothing to decide")
		}
	}
}

func TestHowARolloutEndsIsNotedOfItsRevision(t *testing.T) {
	const why = "1 of 1 slots failed: web.1: exit code 1"
	overtaken := func(s *warrenv1.Service) { s.Revision, s.LastRevision, s.WrittenBy = 3, 3, "ann" }
	ofRevision := func(number uint64) *warrenv1.Revision { return statetest.Revision(web(at(number))) }
	for _, c := range []struct {
		name    string
		service *warrenv1.Service
		tasks   []state.Object
		of      uint64
		state   warrenv1.RolloutState
		message string
		back    bool
	}{
		{"it is complete", web(at(2)), []state.Object{task("a", 1, of2)}, 2, complete, "", false},
		{"it was changed again", web(at(2), overtaken), []state.Object{task("a", 1)}, 2, abandoned, "given up for revision 3 by ann", false},
		{"it has failed", web(at(2)), []state.Object{task("a", 1), task("a2", 1, of2, stateIs(hasFailed), ago(10*time.Second), func(t *warrenv1.Task) { t.Status.Error = "exit code 1" })}, 2, abandoned, why, false},
		{"the way back is complete", web(back), []state.Object{task("a", 1)}, 1, complete, "", true},
		{"it goes on", web(at(2)), []state.Object{task("a", 1), task("a2", 1, of2, young)}, 2, 0, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := statetest.New(t, append(c.tasks, c.service, n1, ofRevision(1), ofRevision(2), ofRevision(3))...)
			o := decide(store.Snapshot(), "web", now, time.Time{}, statetest.Counter("new"))
			if o.transaction.Len() > 0 {
				statetest.Commit(t, statetest.NewProposer(store), o.transaction)
			}
			got := store.Snapshot().Revision("web", c.of).GetOutcome()
			if got.GetState() != c.state || got.GetMessage() != c.message || got.GetRollback() != c.back || (c.state != 0) != got.GetAt().IsValid() {
				t.Errorf("noted is %v", got)
			}
		})
	}
}
