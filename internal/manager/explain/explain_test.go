package explain_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/explain"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// now is an hour into the tests' time.
var now = statetest.Epoch.Add(time.Hour)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }

// web is a service of image shop:2 at revision 2.
func web(replicas uint32, edits ...func(*warrenv1.Service)) *warrenv1.Service {
	return statetest.Replicated("web", replicas, append([]func(*warrenv1.Service){func(s *warrenv1.Service) {
		s.Revision, s.LastRevision, s.PreviousRevision, s.WrittenBy = 2, 2, 1, "olga"
		s.Spec.Task.Container.Image = "shop:2"
	}}, edits...)...)
}

// task is one of revision 2 on node n1, unless edits say otherwise.
func task(slot uint32, edits ...func(*warrenv1.Task)) *warrenv1.Task {
	return statetest.Task(fmt.Sprintf("t%d", slot), "web", slot, "n1", append([]func(*warrenv1.Task){statetest.Of(2)}, edits...)...)
}

func old(slot uint32, edits ...func(*warrenv1.Task)) *warrenv1.Task {
	return task(slot, append([]func(*warrenv1.Task){func(t *warrenv1.Task) { t.Meta.Id, t.Revision = fmt.Sprintf("old%d", slot), 1 }}, edits...)...)
}

func on(node string) func(*warrenv1.Task) { return func(t *warrenv1.Task) { t.NodeId = node } }

// ended has a task have ended by itself.
func ended(s warrenv1.TaskState, err, output string) func(*warrenv1.Task) {
	return func(t *warrenv1.Task) {
		statetest.Ended(s, now.Add(-time.Minute))(t)
		t.Status.Error, t.Status.Exit = err, &warrenv1.TaskExit{Code: 1, LastOutput: output, At: ago(time.Minute)}
	}
}

func says(message string) func(*warrenv1.Task) {
	return func(t *warrenv1.Task) { t.Status.Message = message }
}

func waits(message string) func(*warrenv1.Task) {
	return func(t *warrenv1.Task) {
		t.NodeId, t.Status = "", &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_PENDING, Message: message, Since: ago(time.Minute)}
	}
}

func unhealthy(t *warrenv1.Task) {
	t.Status.Serving = false
	t.Status.Health = &warrenv1.TaskHealth{State: warrenv1.HealthState_HEALTH_STATE_UNHEALTHY, Since: ago(time.Minute), Output: "GET /healthz: 500\nmore"}
}

func incidents(kinds ...warrenv1.IncidentKind) func(*warrenv1.Task) {
	return func(t *warrenv1.Task) {
		for i, kind := range kinds {
			t.Status.Incidents = append(t.Status.Incidents, &warrenv1.Incident{
				At: ago(time.Duration(len(kinds)-i) * time.Minute), Attempt: uint32(i + 1), Kind: kind, Message: "exit code 1\npanic: no database",
			})
		}
	}
}

func node(id string, edits ...func(*warrenv1.Node)) *warrenv1.Node {
	return statetest.Node(id, edits...)
}

func is(s warrenv1.NodeState) func(*warrenv1.Node) {
	return func(n *warrenv1.Node) {
		n.Status.State, n.Status.Since, n.Status.Message = s, ago(10*time.Minute), "not heard of for 3.5s"
	}
}

func drained(n *warrenv1.Node) {
	n.Spec.Availability, n.WrittenBy = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN, "anna"
}

func restarts(condition warrenv1.RestartCondition) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) { s.Spec.Task.Restart = &warrenv1.RestartPolicy{Condition: condition} }
}

func rollout(s warrenv1.RolloutState, message string) func(*warrenv1.Service) {
	return func(service *warrenv1.Service) {
		service.Rollout = &warrenv1.Rollout{From: 1, To: 2, State: s, StartedAt: ago(5 * time.Minute), Since: ago(2 * time.Minute), Message: message}
	}
}

func orders(by string) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) { s.Orders = &warrenv1.RolloutOrders{Paused: true, By: by} }
}

const (
	failed    = warrenv1.TaskState_TASK_STATE_FAILED
	rejected  = warrenv1.TaskState_TASK_STATE_REJECTED
	preparing = warrenv1.TaskState_TASK_STATE_PREPARING
	exit      = warrenv1.IncidentKind_INCIDENT_KIND_EXIT
	ill       = warrenv1.IncidentKind_INCIDENT_KIND_UNHEALTHY
	paused    = warrenv1.RolloutState_ROLLOUT_STATE_PAUSED
)

// snapshot holds a service with its revisions 1 and 2, and objects.
func snapshot(t *testing.T, service *warrenv1.Service, objects ...state.Object) state.Snapshot {
	t.Helper()
	for number := range uint64(2) {
		id := state.RevisionID("web", number+1)
		if slices.ContainsFunc(objects, func(o state.Object) bool { return o.GetMeta().GetId() == id }) {
			continue
		}
		objects = append(objects, &warrenv1.Revision{
			Meta:      &warrenv1.Meta{Id: id, CreatedAt: ago(time.Duration(10-number) * time.Minute)},
			ServiceId: "web", Number: number + 1, WrittenBy: []string{"root", "olga"}[number],
			Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: fmt.Sprintf("shop:%d", number+1)}, Limits: service.GetSpec().GetTask().GetLimits()},
		})
	}
	return statetest.New(t, append(objects, service)...).Snapshot()
}

func causes(r *warrenv1.ExplainResponse) (said []string) {
	for _, c := range r.GetCauses() {
		said = append(said, c.GetMessage())
	}
	return said
}

// The likeliest cause comes first, with what to do about it, and says of how many tasks it holds.
func TestTheLikeliestCauseComesFirst(t *testing.T) {
	const noRoom = "no node fits: 2 nodes: 2 lack 1 cpu"
	gone := func(s *warrenv1.Service) {
		s.Revision, s.PreviousRevision = 1, 2
		s.Spec.Task.Container.Image = "shop:1"
		s.Rollout = &warrenv1.Rollout{From: 2, To: 1, Rollback: true, State: warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE, StartedAt: ago(time.Minute), Since: ago(time.Minute)}
	}
	failure := &warrenv1.Revision{
		Meta: &warrenv1.Meta{Id: state.RevisionID("web", 2)}, ServiceId: "web", Number: 2, Failure: "1 of 3 tasks failed: exit code 1",
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "shop:2"}},
	}
	for name, c := range map[string]struct {
		service *warrenv1.Service
		objects []state.Object
		want    []string // the causes' messages
		remedy  string   // in the first cause's
	}{
		"all is well": {web(2), []state.Object{node("n1"), task(1), task(2)}, nil, ""},
		"image cannot be pulled": {web(3, rollout(paused, "1 of 3 tasks failed")), []state.Object{
			node("n1"), old(1), old(2), old(3),
			task(1, ended(rejected, "pull image shop:2: image not found: registry docker.io has no shop:2", "")),
		}, []string{
			"web.1: pull image shop:2: image not found: registry docker.io has no shop:2",
			"the rollout to revision 2 is paused since 00:58:00 UTC: 1 of 3 tasks failed",
			"2 tasks: waits for its turn to be replaced by one of revision 2",
		}, "push shop:2, or correct it"},
		"registry that is away": {web(1), []state.Object{node("n1"), task(1, statetest.In(preparing), says("trying again: pull image shop:2: dial tcp: i/o timeout"))},
			[]string{"web.1: pull image shop:2: dial tcp: i/o timeout"}, "node n1 reaches the registry of shop:2"},
		"crash loop": {web(3), []state.Object{
			node("n1"), task(1, ended(failed, "exit code 1", "a\npanic: no database\n")), task(2, ended(failed, "exit code 1", "panic: no database at 10.0.0.2\n")), task(3),
		}, []string{"2 tasks: exit code 1: panic: no database"}, "warrenctl service logs web"},
		"crash loop that runs at the moment": {web(1), []state.Object{node("n1"), task(1, incidents(exit, exit, exit), func(t *warrenv1.Task) {
			t.Status.Attempt, t.Status.Error, t.Status.Exit = 4, "exit code 1", &warrenv1.TaskExit{Code: 1, LastOutput: "panic: no database"}
		})}, []string{"web.1: exit code 1: panic: no database (attempt 4)"}, "service rollback web"},
		"out of memory": {web(1, func(s *warrenv1.Service) { s.Spec.Task.Limits = &warrenv1.Resources{MemoryBytes: 1 << 20} }), []state.Object{
			node("n1"), task(1, ended(failed, "out of memory: used more than its limit of 1 MiB", ""), func(t *warrenv1.Task) { t.Status.Exit.OomKilled = true }),
		}, []string{"web.1: out of memory: used more than its limit of 1 MiB"}, "--limit-memory"},
		"unhealthy": {web(2), []state.Object{node("n1"), task(1, unhealthy), task(2)},
			[]string{"web.1: is unhealthy since 00:59:00 UTC: GET /healthz: 500"}, "correct the health check"},
		"restarted as unhealthy": {web(1), []state.Object{node("n1"), task(1, ended(failed, "killed by signal 15 (SIGTERM)", ""), func(t *warrenv1.Task) {
			t.Status.Incidents = []*warrenv1.Incident{{Kind: ill, Attempt: 1, Message: "500"}, {Kind: exit, Attempt: 1, Message: "signal 15"}}
		})}, []string{"web.1: became unhealthy and was restarted: 500"}, "service logs web"},
		"no room": {web(2), []state.Object{node("n1"), node("n2"), task(1, waits(noRoom)), task(2, waits(noRoom))},
			[]string{"2 tasks: " + noRoom}, "--reserve-cpu"},
		"constraint": {web(1), []state.Object{node("n1"), task(1, waits("no node fits: 1 node: 1 does not meet node.labels.disk==ssd"))},
			[]string{"web.1: no node fits: 1 node: 1 does not meet node.labels.disk==ssd"}, "--label-add"},
		"port of a node in use": {web(1), []state.Object{node("n1"), task(1, waits("no node fits: 1 node: 1 has port 80/tcp taken by another task"))},
			[]string{"web.1: no node fits: 1 node: 1 has port 80/tcp taken by another task"}, "publish another port"},
		"node down that is waited for": {web(1, func(s *warrenv1.Service) {
			s.Spec.NodeLoss = &warrenv1.NodeLossPolicy{Action: warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT, Wait: durationpb.New(time.Hour)}
		}), []state.Object{node("n1", is(warrenv1.NodeState_NODE_STATE_DOWN)), task(1, statetest.NotServing)},
			[]string{"web.1: waits for node n1, which is down since 00:50:00 UTC, as the service's policy for lost nodes says, for 1h0m0s at the most"}, "bring n1 back"},
		"node without a manager": {web(1), []state.Object{node("n1", is(warrenv1.NodeState_NODE_STATE_DISCONNECTED)), task(1, statetest.In(warrenv1.TaskState_TASK_STATE_ASSIGNED))},
			[]string{"web.1: waits for a manager: node n1 is not connected to any since 00:50:00 UTC; what runs there goes on, and what is new does not get there"}, "systemctl status warren-agent"},
		"rollout paused by a user": {web(2, rollout(paused, ""), orders("pat")), []state.Object{node("n1"), old(1), task(2)}, []string{
			"the rollout to revision 2 is paused since 00:58:00 UTC by pat", "web.1: waits for its turn to be replaced by one of revision 2"}, "service resume web"},
		"rollout that waits": {web(1, rollout(warrenv1.RolloutState_ROLLOUT_STATE_WAITING, "")), []state.Object{node("n1"), old(1)}, []string{
			"the rollout to revision 2 waits to be promoted since 00:58:00 UTC", "web.1: waits for its turn to be replaced by one of revision 2"}, "service promote web"},
		"rolled back by a failure": {web(2, gone), []state.Object{node("n1"), old(1), old(2), failure, task(1, ended(failed, "exit code 1", "panic: no database"))}, []string{
			"the rollout to revision 2 failed, and the service went back to revision 1: 1 of 3 tasks failed: exit code 1",
			"web.1: of revision 2: exit code 1: panic: no database"}, "service update web"},
		"drained node with nothing else that fits": {web(2), []state.Object{
			node("n1", drained), node("n2"), task(1), task(1, waits(noRoom), func(t *warrenv1.Task) { t.Meta.Id = "next" }), task(2, on("n2")),
		}, []string{"web.1: stays on node n1, which is drained by anna, until its replacement has a place: " + noRoom}, "--reserve-cpu"},
		"listens nowhere": {web(1), []state.Object{node("n1"), task(1, statetest.NotServing, says("runs, but does not listen on 80/tcp yet"))},
			[]string{"web.1: runs, but does not listen on 80/tcp yet"}, "0.0.0.0"},
		"published port in use": {web(1, func(s *warrenv1.Service) {
			s.Endpoint = &warrenv1.ServiceEndpoint{Ports: []*warrenv1.PublishedPort{{Protocol: warrenv1.Protocol_PROTOCOL_TCP, Published: 80, Target: 80}}}
		}), []state.Object{node("n1", func(n *warrenv1.Node) {
			n.Status.Overlay = &warrenv1.OverlayStatus{TakenPorts: []*warrenv1.TakenPort{{Port: 80, By: "apache2"}}}
		}), task(1)}, []string{"n1: the published port 80/tcp is apache2's, and leads there and not to the service"}, "publish another port"},
		"on its way": {web(1), []state.Object{node("n1"), task(1, statetest.In(preparing), says("pulls shop:2: 40 %"))}, []string{"web.1: is preparing: pulls shop:2: 40 %"}, ""},
		"its last one crashed, and the next is on its way": {web(1), []state.Object{
			node("n1"), task(1, ended(failed, "exit code 1", "panic")), task(1, statetest.In(preparing), func(t *warrenv1.Task) { t.Meta.Id = "next" }),
		}, []string{"web.1: exit code 1: panic"}, "logs"},
		"program that the image has not": {web(2), []state.Object{
			node("n1"), task(1, ended(rejected, `create container t1-1: exec: "/nope": stat /nope: no such file or directory`, "")),
			task(2, ended(rejected, `create container t2-1: exec: "/nope": stat /nope: no such file or directory`, "")),
		}, []string{`2 tasks: cannot be started: exec: "/nope": stat /nope: no such file or directory`}, "service update web --entrypoint"},
		"failed and not to be restarted": {web(1, restarts(warrenv1.RestartCondition_RESTART_CONDITION_NONE)), []state.Object{node("n1"), task(1, ended(failed, "exit code 3", "no input"))},
			[]string{"web.1: exit code 3: no input; its restart condition, none, lets it rest"}, "service update web --force"},
		"completed, as it may": {web(2, restarts(warrenv1.RestartCondition_RESTART_CONDITION_ON_FAILURE)), []state.Object{
			node("n1"), task(1, ended(warrenv1.TaskState_TASK_STATE_COMPLETE, "", "")), task(2, ended(failed, "exit code 1", "panic")),
		}, []string{"web.2: exit code 1: panic", "web.1: has ended with exit code 0; its restart condition, on-failure, lets it rest"}, "logs web"},
		"paused, and tried again at the moment": {web(1, rollout(paused, "1 of 1 slots failed: web.1: exit code 1")), []state.Object{
			node("n1"), old(1), task(1, incidents(exit), func(t *warrenv1.Task) {
				t.Status.Attempt, t.Status.Error, t.Status.Exit = 2, "exit code 1", &warrenv1.TaskExit{Code: 1, LastOutput: "panic: no database"}
			})}, []string{
			"web.1: exit code 1: panic: no database (attempt 2)",
			"the rollout to revision 2 is paused since 00:58:00 UTC: 1 of 1 slots failed: web.1: exit code 1"}, "service logs web"},
		"taken back before it was restarted": {web(2, gone), []state.Object{node("n1"), old(1), old(2), failure, task(1, incidents(exit), func(t *warrenv1.Task) {
			statetest.Ended(warrenv1.TaskState_TASK_STATE_SHUTDOWN, now)(t)
			t.Status.Error, t.Status.Exit = "exit code 1", &warrenv1.TaskExit{Code: 1, LastOutput: "panic: no database"}
		})}, []string{
			"the rollout to revision 2 failed, and the service went back to revision 1: 1 of 3 tasks failed: exit code 1",
			"web.1: of revision 2: exit code 1: panic: no database"}, "service update web"},
		"mount that is not there": {web(1), []state.Object{node("n1"), task(1, ended(rejected, "mount /data: /srv does not exist on this node: create it there, or correct the mount's source", ""))},
			[]string{"web.1: cannot be started: mount /data: /srv does not exist on this node: create it there, or correct the mount's source"}, "on node n1"},
		"removing": {web(2, func(s *warrenv1.Service) { s.Removing = true }), []state.Object{node("n1"), task(1, statetest.Desired(warrenv1.DesiredState_DESIRED_STATE_REMOVE))},
			[]string{"is being removed: 1 task still to end"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := snapshot(t, c.service, c.objects...)
			got := explain.Service(s, s.Service("web"), nil, now)
			if !slices.Equal(causes(got), c.want) {
				t.Errorf("got  %q\nwant %q", causes(got), c.want)
			}
			if len(got.GetCauses()) > 0 && (!strings.Contains(got.GetCauses()[0].GetRemedy(), c.remedy) || (c.remedy == "") != (got.GetCauses()[0].GetRemedy() == "")) {
				t.Errorf("remedy %q", got.GetCauses()[0].GetRemedy())
			}
			if got.GetWanted() == "" || got.GetActual() == "" {
				t.Errorf("wanted %q, actual %q", got.GetWanted(), got.GetActual())
			}
		})
	}
}

// What a remedy names must be there to be taken.
func TestARemedyFitsTheService(t *testing.T) {
	crashed := task(1, ended(failed, "exit code 1", "panic"))
	for name, c := range map[string]struct {
		edit       func(*warrenv1.Service)
		task       *warrenv1.Task
		health     *warrenv1.HealthCheck
		want, lack string
	}{
		"goes back":             {func(*warrenv1.Service) {}, crashed, nil, "service rollback web", "--health"},
		"has none to go to":     {func(s *warrenv1.Service) { s.PreviousRevision = 0 }, crashed, nil, "service logs web", "rollback"},
		"probed by HTTP":        {func(*warrenv1.Service) {}, task(1, unhealthy), &warrenv1.HealthCheck{Probe: &warrenv1.HealthCheck_Http{Http: &warrenv1.HttpProbe{}}}, "--health-http", "--health-cmd"},
		"probed by its image's": {func(*warrenv1.Service) {}, task(1, unhealthy), nil, "--health-cmd", "--health-http"},
		"probed by a shell that is not there": {func(*warrenv1.Service) {}, task(1, unhealthy, func(t *warrenv1.Task) {
			t.Status.Health.Output = `OCI runtime exec failed: exec failed: exec: "/bin/sh": stat /bin/sh: no such file or directory`
		}), nil, "--health-http", "--health-cmd"},
		"is on its way back": {func(s *warrenv1.Service) { s.Rollout.Rollback = true; orders("pat")(s) }, old(1), nil, "service resume web", "abort"},
		"paused by a user":   {orders("pat"), old(1), nil, "service abort web", "rollback"},
	} {
		t.Run(name, func(t *testing.T) {
			service := web(1, rollout(paused, ""), c.edit)
			s := snapshot(t, service, node("n1"), c.task, &warrenv1.Revision{
				Meta: &warrenv1.Meta{Id: state.RevisionID("web", 2)}, ServiceId: "web", Number: 2,
				Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "shop:2"}, Health: c.health},
			})
			remedy := explain.Service(s, s.Service("web"), nil, now).GetCauses()[0].GetRemedy()
			if !strings.Contains(remedy, c.want) || strings.Contains(remedy, c.lack) {
				t.Errorf("remedy %q", remedy)
			}
		})
	}
}

func TestOfWhatKeepsATaskFromEveryNodeTheNearestIsRemediedFirst(t *testing.T) {
	labelled := func(n *warrenv1.Node) { n.Spec.Labels = map[string]string{"disk": "ssd"} }
	const unmet = "no node fits: 2 nodes: 1 is drained, 1 does not meet node.labels.disk==ssd"
	for name, c := range map[string]struct {
		nodes []state.Object
		why   string
		want  []string // in this order
		lack  string
	}{
		"the one that meets the constraint is drained": {[]state.Object{node("n1", drained, labelled), node("n2")}, unmet, []string{"node activate", "--label-add"}, "join"},
		"it is another that is drained":                {[]state.Object{node("n1", drained), node("n2")}, unmet, []string{"--label-add"}, "activate"},
		"the one that meets it is full": {[]state.Object{node("n1"), node("n2", labelled)}, "no node fits: 2 nodes: 1 lacks 1 cpu, 1 does not meet node.labels.disk==ssd",
			[]string{"--reserve-cpu", "--label-add"}, "activate"},
		"all are drained": {[]state.Object{node("n1", drained), node("n2", drained)}, "no node fits: 2 nodes: 2 are drained", []string{"node activate"}, "label"},
	} {
		t.Run(name, func(t *testing.T) {
			s := snapshot(t, web(1, func(s *warrenv1.Service) {
				s.Spec.Placement = &warrenv1.Placement{Constraints: []string{"node.labels.disk==ssd"}}
			}),
				append(c.nodes, task(1, waits(c.why)))...)
			remedy := explain.Service(s, s.Service("web"), nil, now).GetCauses()[0].GetRemedy()
			last := -1
			for _, want := range c.want {
				at := strings.Index(remedy, want)
				if at <= last {
					t.Errorf("%s is not where it should be: %q", want, remedy)
				}
				last = at
			}
			if strings.Contains(remedy, c.lack) {
				t.Errorf("remedy %q", remedy)
			}
		})
	}
}

// A task on a node that is down is held to run, which is not to say that anybody reaches it.
func TestHowManyAreReachedIsToldBesideHowManyRun(t *testing.T) {
	s := snapshot(t, web(4), node("n1", is(warrenv1.NodeState_NODE_STATE_DOWN)), node("n2"),
		task(1, statetest.NotServing), task(2, on("n2"), unhealthy), task(3, on("n2")), task(4, on("n2")))
	if got := explain.Service(s, s.Service("web"), nil, now).GetActual(); got != "4 running, 1 unhealthy, 1 taking no connections" {
		t.Error(got)
	}
}

func TestACauseNamesTenAndCountsAll(t *testing.T) {
	objects := []state.Object{node("n1")}
	for slot := range uint32(15) {
		objects = append(objects, task(slot+1, unhealthy))
	}
	s := snapshot(t, web(15), objects...)
	got := explain.Service(s, s.Service("web"), nil, now).GetCauses()
	if len(got) != 1 || len(got[0].GetObjects()) != 10 || got[0].GetCount() != 15 || !strings.HasPrefix(got[0].GetMessage(), "15 tasks: ") {
		t.Errorf("got %v", got)
	}
}

func TestATaskIsExplained(t *testing.T) {
	for name, c := range map[string]struct {
		service        *warrenv1.Service
		task           *warrenv1.Task
		others         []state.Object
		wanted, actual string
		want           []string
	}{
		"runs": {web(1), task(1), nil, "running: web of shop:2, revision 2", "running on node n1 since 00:00:00 UTC", nil},
		"unhealthy": {web(1), task(1, unhealthy), nil, "running: web of shop:2, revision 2", "running on node n1 since 00:00:00 UTC, health: unhealthy, takes no connections",
			[]string{"is unhealthy since 00:59:00 UTC: GET /healthz: 500"}},
		"crashed": {web(1), task(1, ended(failed, "exit code 1", "panic")), nil, "running: web of shop:2, revision 2", "failed on node n1 since 00:59:00 UTC", []string{"exit code 1: panic"}},
		"replaced": {web(1), old(1, statetest.Ended(warrenv1.TaskState_TASK_STATE_SHUTDOWN, now), statetest.Desired(warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN)), []state.Object{task(1)},
			"to be stopped: web of shop:1, revision 1", "shutdown on node n1 since 01:00:00 UTC", []string{"its service is at revision 2 now by olga; in its place is task t1, running on node n1"}},
		"held up": {web(1, rollout(paused, ""), orders("pat")), old(1), nil, "running: web of shop:1, revision 1", "running on node n1 since 00:00:00 UTC",
			[]string{"the rollout to revision 2 is paused since 00:58:00 UTC by pat"}},
		"displaced": {web(1), task(1, func(t *warrenv1.Task) { t.Displaced = true }), nil, "running: web of shop:2, revision 2", "running on node n1 since 00:00:00 UTC",
			[]string{"is to be moved, to balance its service"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := snapshot(t, c.service, append(c.others, c.task, node("n1"))...)
			got := explain.Task(s, s.Task(c.task.GetMeta().GetId()), nil, now)
			if got.GetWanted() != c.wanted || got.GetActual() != c.actual || !slices.Equal(causes(got), c.want) {
				t.Errorf("wanted %q, actual %q, causes %q", got.GetWanted(), got.GetActual(), causes(got))
			}
		})
	}
}

func TestANodeIsExplained(t *testing.T) {
	const noRoom = "no node fits: 2 nodes: 1 is drained, 1 lacks 1 cpu"
	for name, c := range map[string]struct {
		node           *warrenv1.Node
		others         []state.Object
		wanted, actual string
		want           []string
	}{
		"well": {node("n1"), []state.Object{task(1)}, "ready, takes tasks", "ready since 00:00:00 UTC, 1 task", nil},
		"down": {node("n1", is(warrenv1.NodeState_NODE_STATE_DOWN)), nil, "ready, takes tasks", "down since 00:50:00 UTC, 0 tasks", []string{"is down since 00:50:00 UTC: not heard of for 3.5s"}},
		"drained": {node("n1", drained, func(n *warrenv1.Node) { n.Spec.DrainDeadline = timestamppb.New(now.Add(time.Hour)) }), []state.Object{
			node("n2"),
			task(1), task(1, waits(noRoom), func(t *warrenv1.Task) { t.Meta.Id = "next1" }),
			task(2), task(2, statetest.In(preparing), on("n2"), func(t *warrenv1.Task) { t.Meta.Id = "next2" }),
			task(3), task(4, statetest.Desired(warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN)),
		}, "drained of its tasks by anna, which are stopped at 02:00:00 UTC at the latest", "ready since 00:00:00 UTC, 4 tasks", []string{
			"web.1: stays on node n1, which is drained by anna, until its replacement has a place: " + noRoom,
			"web.2: its replacement is on its way", "web.3: waits for its turn to be replaced", "web.4: is being stopped"}},
		"out of order": {node("n1", func(n *warrenv1.Node) {
			n.Status.Overlay = &warrenv1.OverlayStatus{State: warrenv1.OverlayState_OVERLAY_STATE_FAILED, Error: "no WireGuard"}
			n.Network = &warrenv1.NodeNetwork{Problem: "no subnet is left"}
		}), nil, "ready, takes tasks", "ready since 00:00:00 UTC, 0 tasks", []string{"has no subnet of the overlay: no subnet is left", "its overlay has failed: no WireGuard"}},
		"cannot pull": {node("n1"), []state.Object{task(1, statetest.In(preparing), says("trying again: pull image shop:2: no route to host"))}, "ready, takes tasks", "ready since 00:00:00 UTC, 1 task",
			[]string{"web.1: pull image shop:2: no route to host"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := snapshot(t, web(4), append(c.others, c.node)...)
			got := explain.Node(s, s.Node("n1"), nil, now)
			if got.GetWanted() != c.wanted || got.GetActual() != c.actual || !slices.Equal(causes(got), c.want) {
				t.Errorf("wanted %q, actual %q, causes %q", got.GetWanted(), got.GetActual(), causes(got))
			}
		})
	}
}

// event is one of so long ago.
func event(at time.Duration, object warrenv1.EventObject, id, name, action, message string) *warrenv1.Event {
	return &warrenv1.Event{Time: ago(at), Object: object, ObjectId: id, ObjectName: name, Action: action, Message: message}
}

func happened(r *warrenv1.ExplainResponse) (said []string) {
	for _, h := range r.GetHappenings() {
		text := h.GetAt().AsTime().Format("15:04 ") + h.GetMessage()
		if h.GetBy() != "" {
			text += " by " + h.GetBy()
		}
		said = append(said, text)
	}
	return said
}

const (
	service = warrenv1.EventObject_EVENT_OBJECT_SERVICE
	aTask   = warrenv1.EventObject_EVENT_OBJECT_TASK
	aNode   = warrenv1.EventObject_EVENT_OBJECT_NODE
)

// A manager that has just become the leader remembers no events, and tells what the state remembers.
func TestWithoutEventsTheStateTellsWhatHappened(t *testing.T) {
	s := snapshot(t, web(2, rollout(paused, "1 of 2 tasks failed"), func(s *warrenv1.Service) { s.Meta.CreatedAt = ago(10 * time.Minute) }),
		node("n1", is(warrenv1.NodeState_NODE_STATE_DISCONNECTED)), task(1, incidents(exit, ill)), task(2, waits("no node fits")))
	want := []string{
		"00:50 node n1 is disconnected: not heard of for 3.5s",
		"00:50 service web was given revision 1: shop:1 by root",
		"00:51 service web was given revision 2: shop:2 by olga",
		"00:55 service web is rolled out from revision 1 to 2",
		"00:58 its rollout to revision 2 is paused: 1 of 2 tasks failed",
		"00:58 task web.1 ended on node n1: exit code 1 | panic: no database",
		"00:59 task web.1 became unhealthy on node n1: exit code 1 | panic: no database",
		"00:59 task web.2 waits: no node fits",
	}
	got := happened(explain.Service(s, s.Service("web"), nil, now))
	slices.Sort(got) // of the same minute in any order
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestEventsAreToldOnceAndInOrder(t *testing.T) {
	s := snapshot(t, web(1, rollout(paused, ""), func(s *warrenv1.Service) { s.Meta.CreatedAt = ago(20 * time.Minute) }), node("n1"), task(1, incidents(exit)))
	written := event(9*time.Minute, service, "web", "web", "updated", "service web updated to revision 2")
	written.By = "olga"
	got := happened(explain.Service(s, s.Service("web"), []*warrenv1.Event{
		event(30*time.Minute, aTask, "x", "web.1", "failed", "of a service of that name before"),
		event(10*time.Minute, service, "web", "web", "created", "service web created"),
		written,
		event(8*time.Minute, aNode, "n2", "n2", "down", "of a node without its tasks"),
		event(7*time.Minute, aNode, "n1", "n1", "updated", "of a label"),
		event(6*time.Minute, aNode, "n1", "n1", "ready", "node n1 is ready"),
		event(5*time.Minute, service, "web", "web", "rollout-started", "service web is rolled out from revision 1 to 2"),
		event(4*time.Minute, aTask, "t9", "web.1", "failed", "task web.1 failed: of a task that is forgotten"),
		event(3*time.Minute, aTask, "t7", "webshop.1", "failed", "of another service"),
		event(2*time.Minute, aTask, "t1", "web.1", "running", "task web.1 is running on node n1"),
		event(time.Minute, aTask, "t1", "web.1", "restarted", "that its incident tells"),
		event(0, service, "web", "web", "rollout-paused", "service web has its rollout paused"),
	}, now))
	want := []string{
		"00:50 service web created", "00:51 service web updated to revision 2 by olga", "00:54 node n1 is ready",
		"00:55 service web is rolled out from revision 1 to 2", "00:56 task web.1 failed: of a task that is forgotten",
		"00:58 task web.1 is running on node n1", "00:59 task web.1 ended on node n1: exit code 1 | panic: no database",
		"01:00 service web has its rollout paused",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A node's clock is behind or ahead of the managers' by a minute, and of two managers' one is behind.
func TestNothingIsToldBeforeWhatItFollowsFromWhateverClocksSay(t *testing.T) {
	of := func(attempt uint32, e *warrenv1.Event) *warrenv1.Event {
		e.Attempt = attempt
		return e
	}
	s := func(seconds int) time.Duration { return 5*time.Minute - time.Duration(seconds)*time.Second }
	events := []*warrenv1.Event{
		event(s(0), aTask, "t1", "web.1", "created", "task web.1 created"),
		of(1, event(s(2), aTask, "t1", "web.1", "running", "task web.1 is running on node n1")),
		event(s(1), aNode, "n1", "n1", "drained", "node n1 is being drained"), // by another manager
		of(2, event(s(4), aTask, "t1", "web.1", "restarted", "that its incident tells")),
		of(2, event(s(5), aTask, "t1", "web.1", "running", "task web.1 is running on node n1")),
		of(2, event(s(8), aTask, "t1", "web.1", "shutdown", "task web.1 was shut down")),
	}
	for _, off := range []time.Duration{-time.Minute, 0, time.Minute} {
		at := snapshot(t, web(1, func(s *warrenv1.Service) { s.Meta.CreatedAt = ago(20 * time.Minute) }), node("n1"),
			task(1, statetest.Created(now.Add(-s(0))), statetest.In(warrenv1.TaskState_TASK_STATE_SHUTDOWN), func(t *warrenv1.Task) {
				t.Status.Attempt = 2
				for i, after := range []int{3, 6} {
					t.Status.Incidents = append(t.Status.Incidents, &warrenv1.Incident{
						Kind: []warrenv1.IncidentKind{exit, ill}[i], Attempt: uint32(i + 1), Message: "exit code 1", At: timestamppb.New(now.Add(off - s(after))),
					})
				}
			}))
		var got []string
		for _, h := range explain.Task(at, at.Task("t1"), events, now).GetHappenings() {
			if h.GetObject() != service {
				got = append(got, h.GetMessage())
			}
		}
		want := []string{
			"task web.1 created", "task web.1 is running on node n1", "node n1 is being drained", "task web.1 ended on node n1: exit code 1",
			"task web.1 is running on node n1", "task web.1 became unhealthy on node n1: exit code 1", "task web.1 was shut down",
		}
		if !slices.Equal(got, want) {
			t.Errorf("off by %v: got %q, want %q", off, got, want)
		}
	}
}

func TestWhatIsRoutineGivesWayToWhatIsNot(t *testing.T) {
	s := snapshot(t, web(1, func(s *warrenv1.Service) { s.Meta.CreatedAt = ago(20 * time.Minute) }))
	var told []*warrenv1.Event
	for i := range 500 {
		told = append(told, event(time.Duration(500-i)*time.Second, aTask, strconv.Itoa(i), "web.1", "running", "routine"))
	}
	told = append(told, event(9*time.Minute, aTask, "x", "web.1", "failed", "failed"))
	got := happened(explain.Service(s, s.Service("web"), told, now))
	if len(got) != 200 || !slices.ContainsFunc(got, func(text string) bool { return strings.HasSuffix(text, " failed") }) {
		t.Errorf("%d: %q", len(got), got[:5])
	}
}

func TestTasksAndNodesTellWhatHappenedToThem(t *testing.T) {
	s := snapshot(t, web(1), node("n1", func(n *warrenv1.Node) { n.Meta.CreatedAt = ago(50 * time.Minute) }),
		task(1, statetest.Created(now.Add(-5*time.Minute)), incidents(exit)),
		task(1, statetest.Created(now.Add(-8*time.Minute)), ended(failed, "exit code 1", "panic"), func(t *warrenv1.Task) {
			t.Meta.Id, t.Status.Exit.At = "before", ago(6*time.Minute)
		}))
	events := []*warrenv1.Event{
		event(10*time.Minute, service, "web", "web", "created", "service web created"),
		event(9*time.Minute, service, "web", "web", "updated", "service web updated to revision 2"),
		event(4*time.Minute, aNode, "n1", "n1", "drained", "node n1 is being drained"),
		event(3*time.Minute, aTask, "else", "other.1", "failed", "of another"),
	}
	got := happened(explain.Task(s, s.Task("t1"), events, now))
	if want := []string{"00:50 service web created", "00:51 service web updated to revision 2", "00:54 task web.1 ended on node n1: exit code 1: panic",
		"00:55 task web.1 created", "00:56 node n1 is being drained", "00:59 task web.1 ended on node n1: exit code 1 | panic: no database"}; !slices.Equal(got, want) {
		t.Errorf("task: got  %q\nwant %q", got, want)
	}
	got = happened(explain.Node(s, s.Node("n1"), events, now))
	if want := []string{"00:10 node n1 joined the cluster", "00:54 task web.1 ended on node n1: exit code 1: panic", "00:56 node n1 is being drained",
		"00:59 task web.1 ended on node n1: exit code 1 | panic: no database"}; !slices.Equal(got, want) {
		t.Errorf("node: got  %q\nwant %q", got, want)
	}
}
