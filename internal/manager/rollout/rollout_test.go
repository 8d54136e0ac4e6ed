package rollout

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	pending   = warrenv1.TaskState_TASK_STATE_PENDING
	preparing = warrenv1.TaskState_TASK_STATE_PREPARING
	complete  = warrenv1.TaskState_TASK_STATE_COMPLETE
	failed    = warrenv1.TaskState_TASK_STATE_FAILED
	shutdown  = warrenv1.TaskState_TASK_STATE_SHUTDOWN

	toShutDown = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN
)

func drained(n *warrenv1.Node) {
	n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
}
func paused(n *warrenv1.Node) {
	n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE
}

func at(revision uint64) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) { s.Revision = revision }
}

func policy(edit func(*warrenv1.UpdatePolicy)) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) {
		if s.Spec.Update == nil {
			s.Spec.Update = &warrenv1.UpdatePolicy{}
		}
		edit(s.Spec.Update)
	}
}

var stopFirst = policy(func(p *warrenv1.UpdatePolicy) { p.Order = warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST })

func parallel(n uint32) func(*warrenv1.Service) {
	return policy(func(p *warrenv1.UpdatePolicy) { p.Parallelism = n })
}

func delayed(d time.Duration) func(*warrenv1.Service) {
	return policy(func(p *warrenv1.UpdatePolicy) { p.Delay = durationpb.New(d) })
}

func onFailure(s *warrenv1.Service) {
	s.Spec.Task.Restart = &warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_ON_FAILURE}
}

func zoned(s *warrenv1.Service) {
	s.Spec.Placement = &warrenv1.Placement{Constraints: []string{"node.labels.zone == a"}}
}

func TestDecisions(t *testing.T) {
	now := statetest.Epoch
	soon := now.Add(100 * time.Millisecond)
	of2, notWanted := statetest.Of(2), statetest.Desired(toShutDown)
	web := func(edits ...func(*warrenv1.Service)) *warrenv1.Service {
		return statetest.Replicated("web", 3, edits...)
	}
	log := func(edits ...func(*warrenv1.Service)) *warrenv1.Service { return statetest.Global("web", edits...) }
	task := func(id string, slot uint32, edits ...func(*warrenv1.Task)) *warrenv1.Task {
		return statetest.Task(id, "web", slot, "n1", edits...)
	}
	n1, n2 := statetest.Node("n1"), statetest.Node("n2")
	unplaced := func(t *warrenv1.Task) { t.NodeId, t.Status.State = "", pending }
	restarted := func(t *warrenv1.Task) { t.Status.Attempt = 2 }
	in := statetest.In
	for _, c := range []struct {
		name    string
		objects []state.Object
		want    []string
		wake    time.Duration
	}{
		{"nothing is due", []state.Object{web(), n1, task("a", 1), task("b", 2)}, nil, 0},
		{"an update begins with one slot", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2)}, []string{"create web.1@2"}, 0},
		{"or with as many as it may", []state.Object{web(at(2), parallel(2)), n1, task("a", 1), task("b", 2), task("c", 3)}, []string{"create web.1@2", "create web.2@2"}, 0},
		{"it waits while the new task starts", []state.Object{web(at(2)), n1, task("a", 1), task("a2", 1, of2, in(preparing)), task("b", 2)}, nil, 0},
		{"it stops the old task when the new one runs, and goes on", []state.Object{web(at(2)), n1, task("a", 1), task("a2", 1, of2), task("b", 2)},
			[]string{"shutdown a", "create web.2@2"}, 0},
		{"it waits while the new task runs and does not serve", []state.Object{web(at(2)), n1, task("a", 1), task("a2", 1, of2, statetest.NotServing), task("b", 2)}, nil, 0},
		{"also where the old one does not serve either", []state.Object{web(at(2)), n1, task("a", 1, statetest.NotServing), task("a2", 1, of2, statetest.NotServing), task("b", 2)}, nil, 0},
		{"of old tasks it keeps the one that serves", []state.Object{web(at(3)), n1, task("a", 1), task("a2", 1, of2, statetest.NotServing)}, []string{"shutdown a2", "create web.1@3"}, 0},
		{"and keeps it while the new one does not", []state.Object{web(at(3)), n1, task("a", 1), task("a2", 1, of2, statetest.NotServing), task("a3", 1, statetest.Of(3), statetest.NotServing)},
			[]string{"shutdown a2"}, 0},
		{"slots whose task does not serve go before those that do", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2, statetest.NotServing)}, []string{"create web.2@2"}, 0},
		{"a slot whose new task does not serve holds up the others", []state.Object{web(at(2)), n1, task("a", 1), task("b2", 2, of2, statetest.NotServing)}, nil, 0},
		{"it does not wait for the old task's end", []state.Object{web(at(2)), n1, task("a", 1, notWanted), task("a2", 1, of2), task("b", 2)}, []string{"create web.2@2"}, 0},
		{"it pauses between replacements", []state.Object{web(at(2), delayed(10*time.Second)), n1, task("a2", 1, of2), task("b", 2)}, nil, 10 * time.Second},
		{"but not before the first", []state.Object{web(at(2), delayed(10*time.Second)), n1, task("a", 1), task("b", 2)}, []string{"create web.1@2"}, 0},
		{"slots whose task does not run go first, at once", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2, in(preparing))},
			[]string{"shutdown b", "create web.2@2"}, 0},
		{"tasks that wait for a node are all replaced at once", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2, unplaced), task("c", 3, unplaced)},
			[]string{"remove b", "create web.2@2", "remove c", "create web.3@2", "create web.1@2"}, 0},
		{"a slot that waits for room does not hold up the others", []state.Object{web(at(2)), n1, task("a", 1), task("b2", 2, of2, unplaced)}, []string{"create web.1@2"}, 0},
		{"a replacement that waits for room does", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2), task("b2", 2, of2, unplaced)}, nil, 0},
		{"so does one whose predecessor was stopped", []state.Object{web(at(2), stopFirst), n1, task("a", 1), task("b", 2, in(shutdown), notWanted), task("b2", 2, of2, unplaced)}, nil, 0},
		{"a failed replacement holds up the others", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2), task("b2", 2, of2, in(failed))}, []string{"create web.2@2"}, 0},
		{"and backs off", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2),
			task("b2", 2, of2, statetest.Ended(failed, now)), task("b3", 2, of2, statetest.Created(now), statetest.Ended(failed, soon))}, nil, 1100 * time.Millisecond},
		{"a slot that is being filled holds up an update", []state.Object{web(at(2)), n1, task("a", 1), task("b", 2, of2, in(failed))}, nil, 0},
		{"also while its next task has no node yet", []state.Object{web(at(2), stopFirst), n1, task("a", 1),
			task("b2", 2, of2, in(failed)), task("b3", 2, of2, unplaced)}, nil, 0},
		{"a task that has restarted is not relied on at once", []state.Object{web(at(2)), n1, task("a", 1), task("b2", 2, of2, restarted)}, nil, trial},
		{"nor one whose predecessor failed", []state.Object{web(at(2)), n1, task("a", 1), task("b2", 2, of2, in(failed)), task("b3", 2, of2)}, nil, trial},
		{"a replacement that is done ends the old task", []state.Object{web(at(2), onFailure), n1, task("a", 1), task("a2", 1, of2, in(complete))}, []string{"shutdown a"}, 0},
		{"stop-first stops the old task", []state.Object{web(at(2), stopFirst), n1, task("a", 1), task("b", 2)}, []string{"shutdown a"}, 0},
		{"stop-first waits for its end", []state.Object{web(at(2), stopFirst), n1, task("a", 1, notWanted), task("b", 2)}, nil, 0},
		{"and for its replacement to run", []state.Object{web(at(2), stopFirst), n1, task("a", 1, in(shutdown), notWanted), task("a2", 1, of2, in(preparing)), task("b", 2)}, nil, 0},
		{"and to serve", []state.Object{web(at(2), stopFirst), n1, task("a", 1, in(shutdown), notWanted), task("a2", 1, of2, statetest.NotServing), task("b", 2)}, nil, 0},
		{"and goes on", []state.Object{web(at(2), stopFirst), n1, task("a", 1, in(shutdown), notWanted), task("a2", 1, of2), task("b", 2)}, []string{"shutdown b"}, 0},
		{"a replacement that a newer update overtook is retired", []state.Object{web(at(3)), n1, task("a", 1), task("a2", 1, of2, in(preparing))},
			[]string{"shutdown a2", "create web.1@3"}, 0},
		{"a middle revision that runs is kept before an old one", []state.Object{web(at(3)), n1, task("a", 1), task("a2", 1, of2)},
			[]string{"shutdown a", "create web.1@3"}, 0},
		{"of two tasks that may both stay the worse goes", []state.Object{web(), n1, task("a", 1, in(preparing)), task("b", 1)}, []string{"shutdown a"}, 0},

		{"a drained node's tasks are replaced elsewhere", []state.Object{web(), statetest.Node("n1", drained), task("a", 1), task("b", 2)}, []string{"create web.1@1"}, 0},
		{"and kept while the replacement does not serve", []state.Object{web(), statetest.Node("n1", drained), n2, task("a", 1), statetest.Task("a2", "web", 1, "n2", statetest.NotServing)}, nil, 0},
		{"then stopped", []state.Object{web(), statetest.Node("n1", drained), n2, task("a", 1), statetest.Task("a2", "web", 1, "n2")}, []string{"shutdown a"}, 0},
		{"a crashing slot does not hold up a drain", []state.Object{web(), statetest.Node("n1", drained), task("a", 1), task("b", 2, in(failed))}, []string{"create web.1@1"}, 0},
		{"but does where the old task is stopped first", []state.Object{web(stopFirst), statetest.Node("n1", drained), task("a", 1), task("b", 2, in(failed))}, nil, 0},
		{"a paused node keeps its tasks", []state.Object{web(), statetest.Node("n1", paused), task("a", 1)}, nil, 0},
		{"a node that no longer fits loses its tasks", []state.Object{web(zoned), n1, task("a", 1)}, []string{"create web.1@1"}, 0},
		{"a node that is gone is not this loop's matter", []state.Object{web(), task("a", 1)}, nil, 0},
		{"a service that is being removed is left alone", []state.Object{web(at(2), func(s *warrenv1.Service) { s.Removing = true }), n1, task("a", 1)}, nil, 0},

		{"a global service is updated node by node", []state.Object{log(at(2)), n1, n2, task("a", 0), statetest.Task("b", "web", 0, "n2")}, []string{"create web.n1@2"}, 0},
		{"stop-first too", []state.Object{log(at(2), stopFirst), n1, n2, task("a", 0), statetest.Task("b", "web", 0, "n2")}, []string{"shutdown a"}, 0},
		{"but not on a node that takes no new tasks", []state.Object{log(at(2)), statetest.Node("n1", paused), n2, task("a", 0), statetest.Task("b", "web", 0, "n2")},
			[]string{"create web.n2@2"}, 0},
		{"a drained node's global task is not this loop's matter", []state.Object{log(), statetest.Node("n1", drained), task("a", 0)}, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := statetest.New(t, c.objects...).Snapshot()
			got := decide(s, "web", soon, statetest.Counter("new"))
			if said := describe(s, got); !slices.Equal(said, c.want) {
				t.Errorf("got %q, want %q", said, c.want)
			}
			if want := c.wake; want != 0 && !got.wake.Equal(now.Add(want)) || want == 0 && !got.wake.IsZero() {
				t.Errorf("wakes at %v, want %v", got.wake, want)
			}
			if got.transaction == nil {
				return
			}
			if len(c.want) > 0 && !got.underway {
				t.Error("has something to do but says that nothing is underway")
			}
			again := decide(s, "web", soon, statetest.Counter("new"))
			if !proto.Equal(got.transaction.Message(), again.transaction.Message()) {
				t.Error("decided differently on the same")
			}
			for _, write := range statetest.Writes(s, got.transaction) {
				if !slices.Contains(Outputs, write) {
					t.Errorf("writes %s, which is not among its outputs", write)
				}
			}
		})
	}
}

func describe(s state.Snapshot, o outcome) []string {
	if o.transaction == nil {
		return nil
	}
	return statetest.Describe(s, o.transaction)
}

func TestAReplacementIsRefusedWhereItsFactsHaveChanged(t *testing.T) {
	begin := func() (*state.Store, *state.Transaction) {
		store := statetest.New(t, statetest.Replicated("web", 1), statetest.Node("n1", drained), statetest.Task("a", "web", 1, "n1"))
		return store, decide(store.Snapshot(), "web", statetest.Epoch, statetest.Counter("new")).transaction
	}
	for name, change := range map[string]state.Object{
		"the old task has failed":      statetest.Task("a", "web", 1, "n1", statetest.In(failed)),
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
	store := statetest.New(t, statetest.Replicated("web", 1), statetest.Node("n1"), statetest.Node("n2", drained), statetest.Task("a", "web", 1, "n1"))
	r := &rollouts{underway: map[string]bool{}}
	s := store.Snapshot()
	step := state.Change{Before: statetest.Task("a", "web", 1, "n1", statetest.In(preparing)), After: s.Task("a")}
	looks := func(c state.Change) bool { return len(slices.Collect(r.affected(s, c))) > 0 }
	if looks(step) {
		t.Error("looks at a task's step although nothing is underway")
	}
	if !looks(state.Change{Before: statetest.Task("b", "web", 1, ""), After: statetest.Task("b", "web", 1, "n2")}) {
		t.Error("does not look at a task that was placed on a node that is drained")
	}
	if !looks(state.Change{Before: statetest.Node("n1"), After: statetest.Node("n1", drained)}) {
		t.Error("does not look at the tasks of a node that is drained")
	}
	r.underway["web"] = true
	if !looks(step) {
		t.Error("does not look at a step of a service that is underway")
	}
}

func TestALargeUpdateIsBegunInBoundedTransactions(t *testing.T) {
	store, _ := large(t, at(2), parallel(100_000))
	transaction := decide(store.Snapshot(), "web", statetest.Epoch, statetest.Counter("new")).transaction
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
		if o := decide(s, "web", statetest.Epoch, nil); o.transaction.Len() > 0 {
			b.Fatal("there was something to decide")
		}
	}
}
