package replicas

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	preparing = warrenv1.TaskState_TASK_STATE_PREPARING
	pending   = warrenv1.TaskState_TASK_STATE_PENDING
	complete  = warrenv1.TaskState_TASK_STATE_COMPLETE
	failed    = warrenv1.TaskState_TASK_STATE_FAILED
	lost      = warrenv1.TaskState_TASK_STATE_LOST

	toShutDown = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN
	toRemove   = warrenv1.DesiredState_DESIRED_STATE_REMOVE
)

func stopFirst(s *warrenv1.Service) {
	s.Spec.Update = &warrenv1.UpdatePolicy{Order: warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST}
}

func restart(c warrenv1.RestartCondition) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) { s.Spec.Task.Restart = &warrenv1.RestartPolicy{Condition: c} }
}

func revised(s *warrenv1.Service)  { s.Revision = 2 }
func removing(s *warrenv1.Service) { s.Removing = true }

func available(a warrenv1.NodeAvailability) func(*warrenv1.Node) {
	return func(n *warrenv1.Node) { n.Spec.Availability = a }
}

func in(s warrenv1.NodeState) func(*warrenv1.Node) {
	return func(n *warrenv1.Node) { n.Status.State = s }
}

func constrained(s *warrenv1.Service) {
	s.Spec.Placement = &warrenv1.Placement{Constraints: []string{"node.labels.zone == a"}}
}

func TestDecisions(t *testing.T) {
	now := statetest.Epoch
	soon := now.Add(100 * time.Millisecond)
	web := func(n uint32, edits ...func(*warrenv1.Service)) *warrenv1.Service {
		return statetest.Replicated("web", n, edits...)
	}
	log := func(edits ...func(*warrenv1.Service)) *warrenv1.Service { return statetest.Global("web", edits...) }
	task := func(id string, slot uint32, node string, edits ...func(*warrenv1.Task)) *warrenv1.Task {
		return statetest.Task(id, "web", slot, node, edits...)
	}
	for _, c := range []struct {
		name    string
		objects []state.Object
		want    []string
		wake    time.Duration
	}{
		{"a new service gets its slots", []state.Object{web(3)},
			[]string{"create web.1@1", "create web.2@1", "create web.3@1"}, 0},
		{"a service at its size is left alone", []state.Object{web(1), task("a", 1, "n1")}, nil, 0},
		{"more replicas take the lowest free numbers", []state.Object{web(3), task("a", 2, "n1")},
			[]string{"create web.1@1", "create web.3@1"}, 0},
		{"a number is free when its last task has ended", []state.Object{web(2),
			task("a", 1, "n1", statetest.Desired(toRemove)), task("b", 2, "n1", statetest.In(failed), statetest.Desired(toRemove))},
			[]string{"create web.2@1", "create web.3@1"}, 0},
		{"fewer replicas drop what does not run first", []state.Object{web(1),
			task("a", 1, "n1", statetest.In(pending)), task("b", 2, "n1"), task("c", 3, "n1", statetest.In(failed))},
			[]string{"remove c", "remove a"}, 0},
		{"fewer replicas drop copies from the fullest node and keep the numbers of the others", []state.Object{web(2),
			task("a", 1, "n1"), task("b", 2, "n1"), task("c", 3, "n2"), task("d", 4, "n1")},
			[]string{"remove d", "remove b"}, 0},
		{"what runs and takes no connections goes before what does, after what does not run", []state.Object{web(1),
			task("a", 1, "n1"), task("b", 2, "n2", statetest.NotServing), task("c", 3, "n2", statetest.In(preparing))},
			[]string{"remove c", "remove b"}, 0},
		{"of the fullest node's the newest goes", []state.Object{web(2),
			task("a", 1, "n1", statetest.Created(now.Add(time.Minute))), task("b", 2, "n1", statetest.Created(now)), task("c", 3, "n2", statetest.Created(now.Add(time.Hour)))},
			[]string{"remove a"}, 0},
		{"among equals the highest number goes", []state.Object{web(1), task("a", 1, "n1"), task("b", 2, "n2")},
			[]string{"remove b"}, 0},
		{"a dropped slot loses its history too", []state.Object{web(0), task("a", 1, "n1"), task("b", 1, "n1", statetest.In(failed))},
			[]string{"remove a", "remove b"}, 0},
		{"a failed task is replaced at once", []state.Object{web(1), task("a", 1, "n1", statetest.In(failed))},
			[]string{"create web.1@1"}, 0},
		{"a lost task is replaced at once", []state.Object{web(1), task("a", 1, "n1", statetest.In(lost), statetest.Desired(toShutDown))},
			[]string{"create web.1@1"}, 0},
		{"a second failure waits", []state.Object{web(1),
			task("a", 1, "n1", statetest.Ended(failed, now)), task("b", 1, "n1", statetest.Created(now), statetest.Ended(failed, soon))},
			nil, soon.Add(time.Second).Sub(now)},
		{"a new revision does not wait", []state.Object{web(1, revised),
			task("a", 1, "n1", statetest.Ended(failed, now)), task("b", 1, "n1", statetest.Created(now), statetest.Ended(failed, soon))},
			[]string{"create web.1@2"}, 0},
		{"a done slot stays", []state.Object{web(1, restart(warrenv1.RestartCondition_RESTART_CONDITION_ON_FAILURE)),
			task("a", 1, "n1", statetest.In(complete))}, nil, 0},
		{"a done slot runs again at a new revision", []state.Object{web(1, restart(warrenv1.RestartCondition_RESTART_CONDITION_NONE), revised),
			task("a", 1, "n1", statetest.In(complete))}, []string{"create web.1@2"}, 0},
		{"stop-first waits until the old task has ended", []state.Object{web(1, stopFirst), task("a", 1, "n1", statetest.Desired(toShutDown))}, nil, 0},
		{"start-first does not", []state.Object{web(1), task("a", 1, "n1", statetest.Desired(toShutDown))}, []string{"create web.1@1"}, 0},
		{"a removed service takes down its tasks first", []state.Object{web(1, removing), task("a", 1, "n1"), task("b", 2, "n1", statetest.In(failed))},
			[]string{"remove a", "remove b"}, 0},
		{"then waits for the last of them to go", []state.Object{web(1, removing), task("a", 1, "n1", statetest.Desired(toRemove))}, nil, 0},
		{"then goes with its revisions", []state.Object{web(1, removing), statetest.Revision(web(1)), statetest.Revision(web(1, revised))},
			[]string{"delete revision web.1", "delete revision web.2", "delete service web"}, 0},

		{"a global service goes to every open node", []state.Object{log(), statetest.Node("n1"), statetest.Node("n2"),
			statetest.Node("n3", available(warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE)),
			statetest.Node("n4", in(warrenv1.NodeState_NODE_STATE_UNKNOWN)), task("a", 0, "n2")},
			[]string{"create web.n1@1"}, 0},
		{"a paused node keeps its global task", []state.Object{log(), task("a", 0, "n1"),
			statetest.Node("n1", available(warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE))}, nil, 0},
		{"a drained node's global task is shut down", []state.Object{log(), task("a", 0, "n1"), task("b", 0, "n1", statetest.In(failed)),
			statetest.Node("n1", available(warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN))}, []string{"shutdown a"}, 0},
		{"a global task goes from where the placement forbids it", []state.Object{log(constrained), task("a", 0, "n1"), statetest.Node("n1"), statetest.Node("n2")},
			[]string{"remove a"}, 0},
		{"a global task goes with its node", []state.Object{log(), task("a", 0, "n1", statetest.In(lost))}, []string{"remove a"}, 0},
		{"a node that is back gets its global task again", []state.Object{log(), task("a", 0, "n1", statetest.In(lost), statetest.Desired(toShutDown)), statetest.Node("n1")},
			[]string{"create web.n1@1"}, 0},
		{"a service that turns global gives up its numbered slots", []state.Object{log(), statetest.Node("n1"), task("a", 1, "n1")},
			[]string{"remove a", "create web.n1@1"}, 0},
		{"a service that turns replicated gives up its nodes", []state.Object{web(1), statetest.Node("n1"), task("a", 0, "n1")},
			[]string{"remove a", "create web.1@1"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := statetest.New(t, c.objects...).Snapshot()
			transaction, wake := decide(s, "web", soon, statetest.Counter("new"))
			if got := statetest.Describe(s, transaction); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if want := c.wake; want != 0 && !wake.Equal(now.Add(want)) || want == 0 && !wake.IsZero() {
				t.Errorf("wakes at %v, want %v", wake, want)
			}
			again, _ := decide(s, "web", soon, statetest.Counter("new"))
			if !proto.Equal(transaction.Message(), again.Message()) {
				t.Error("decided differently on the same")
			}
			for _, write := range statetest.Writes(s, transaction) {
				if !slices.Contains(Outputs, write) {
					t.Errorf("writes %s, which is not among its outputs", write)
				}
			}
		})
	}
}

func TestATaskIsCreatedOnlyForTheServiceThatWasSeen(t *testing.T) {
	store := statetest.New(t, statetest.Replicated("web", 1))
	transaction, _ := decide(store.Snapshot(), "web", statetest.Epoch, statetest.Counter("t"))
	statetest.Put(t, store, statetest.Replicated("web", 1, removing))
	results, err := statetest.NewProposer(store).Propose(t.Context(), transaction)
	if err != nil || results == nil {
		t.Fatalf("creating a task for a service that is being removed got %v, %v", results, err)
	}
}

func TestATaskIsGivenUpOnlyForTheServiceThatWasSeen(t *testing.T) {
	store := statetest.New(t, statetest.Replicated("web", 1), statetest.Task("a", "web", 1, "n1"), statetest.Task("b", "web", 2, "n1"))
	transaction, _ := decide(store.Snapshot(), "web", statetest.Epoch, statetest.Counter("t"))
	statetest.Put(t, store, statetest.Replicated("web", 2)) // scaled again meanwhile
	if results, err := statetest.NewProposer(store).Propose(t.Context(), transaction); err != nil || results == nil {
		t.Errorf("got %v, %v", results, err)
	}
}

func TestALargeServiceIsBuiltAndTakenDownInBoundedTransactions(t *testing.T) {
	const replicas = 3500
	store := statetest.New(t, statetest.Replicated("web", replicas))
	proposer := statetest.NewProposer(store)
	newID := statetest.Counter("t")
	settle := func() (rounds int) {
		for {
			transaction, _ := decide(store.Snapshot(), "web", statetest.Epoch, newID)
			if transaction.Len() == 0 {
				return rounds
			}
			if transaction.Len() > loop.MaxOperations+10 {
				t.Fatalf("a transaction of %d operations", transaction.Len())
			}
			statetest.Commit(t, proposer, transaction)
			rounds++
		}
	}
	if rounds := settle(); rounds != 4 || store.Snapshot().TaskCount() != replicas {
		t.Fatalf("%d tasks after %d transactions", store.Snapshot().TaskCount(), rounds)
	}
	statetest.Put(t, store, statetest.Replicated("web", 10))
	settle()
	left := 0
	for task := range store.Snapshot().Tasks() {
		if task.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING {
			left++
		}
	}
	if left != 10 {
		t.Fatalf("%d tasks left of 10", left)
	}
}

func TestOnlyChangesThatMatterAreLookedAt(t *testing.T) {
	store := statetest.New(t, statetest.Replicated("web", 1), statetest.Global("log"))
	task := statetest.Task("a", "web", 1, "n1")
	ended := statetest.Task("a", "web", 1, "n1", statetest.In(failed))
	for _, c := range []struct {
		name   string
		change state.Change
		want   []string
	}{
		{"a task starts", state.Change{Before: statetest.Task("a", "web", 1, "n1", statetest.In(pending)), After: task}, nil},
		{"a task ends", state.Change{Before: task, After: ended}, []string{"web"}},
		{"a task comes to be", state.Change{After: task}, []string{"web"}},
		{"a task goes", state.Change{Before: ended}, []string{"web"}},
		{"a service changes", state.Change{Before: statetest.Replicated("web", 1), After: statetest.Replicated("web", 2)}, []string{"web"}},
		{"a node changes", state.Change{Before: statetest.Node("n1"), After: statetest.Node("n1")}, []string{"log"}},
		{"the cluster changes", state.Change{Before: statetest.Cluster(), After: statetest.Cluster()}, nil},
	} {
		if got := slices.Collect(affected(store.Snapshot(), c.change)); !slices.Equal(got, c.want) {
			t.Errorf("%s: looks at %v, want %v", c.name, got, c.want)
		}
	}
}

func BenchmarkDecidingNothingForTenThousandTasks(b *testing.B) {
	store := statetest.New(b, statetest.Replicated("web", 10_000))
	proposer := statetest.NewProposer(store)
	transaction := state.New(statetest.Epoch)
	for i := range 10_000 {
		transaction.Create(statetest.Task(fmt.Sprintf("task%012d", i), "web", uint32(i+1), fmt.Sprintf("n%d", i%100)))
	}
	statetest.Commit(b, proposer, transaction)
	s := store.Snapshot()
	for b.Loop() {
		if transaction, _ := decide(s, "web", statetest.Epoch, nil); transaction.Len() > 0 {
			b.Fatal("there was something to decide")
		}
	}
}
