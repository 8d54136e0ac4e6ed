package liveness

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func in(s warrenv1.NodeState, since time.Time) func(*warrenv1.Node) {
	return func(n *warrenv1.Node) { n.Status.State, n.Status.Since = s, timestamppb.New(since) }
}

const (
	unknown      = warrenv1.NodeState_NODE_STATE_UNKNOWN
	disconnected = warrenv1.NodeState_NODE_STATE_DISCONNECTED
	down         = warrenv1.NodeState_NODE_STATE_DOWN
)

func TestDecisions(t *testing.T) {
	start := statetest.Epoch
	running := statetest.Task("a", "web", 1, "n1")
	ended := statetest.Task("b", "web", 2, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_FAILED))
	patient := statetest.Cluster(func(c *warrenv1.Cluster) {
		c.Spec.NodeGrace, c.Spec.RestartGrace = durationpb.New(time.Minute), durationpb.New(time.Hour)
	})
	for _, c := range []struct {
		name    string
		objects []state.Object
		after   time.Duration // since the beginning
		leading time.Duration
		want    []string
		wake    time.Duration
	}{
		{"a ready node is left alone", []state.Object{statetest.Node("n1"), running}, time.Hour, 0, nil, 0},
		{"a silent node has its grace", []state.Object{statetest.Node("n1", in(unknown, start)), running}, time.Second, 0, nil, DefaultNodeGrace},
		{"then it is down and its tasks are lost", []state.Object{statetest.Node("n1", in(unknown, start)), running, ended}, DefaultNodeGrace, 0,
			[]string{"down n1", "lost a"}, 0},
		{"one that said goodbye has longer", []state.Object{statetest.Node("n1", in(disconnected, start)), running}, time.Second, 0, nil, DefaultRestartGrace},
		{"but not for ever", []state.Object{statetest.Node("n1", in(disconnected, start)), running}, DefaultRestartGrace, 0, []string{"down n1", "lost a"}, 0},
		{"the cluster says how long the grace is", []state.Object{patient, statetest.Node("n1", in(unknown, start))}, time.Second, 0, nil, time.Minute},
		{"also after a goodbye", []state.Object{patient, statetest.Node("n1", in(disconnected, start))}, time.Second, 0, nil, time.Hour},
		{"a new leader gives a fresh grace", []state.Object{statetest.Node("n1", in(unknown, start))}, time.Hour, time.Hour, nil, time.Hour + DefaultNodeGrace},
		{"also after a goodbye", []state.Object{statetest.Node("n1", in(disconnected, start))}, time.Hour, time.Hour, nil, time.Hour + DefaultRestartGrace},
		{"a task that came to a node when it was down is lost", []state.Object{statetest.Node("n1", in(down, start)), running, ended}, time.Second, 0, []string{"lost a"}, 0},
		{"a down node without tasks needs nothing", []state.Object{statetest.Node("n1", in(down, start)), ended}, time.Second, 0, nil, 0},
		{"the tasks of a removed node are lost", []state.Object{running, ended}, time.Second, 0, []string{"lost a"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := statetest.New(t, c.objects...).Snapshot()
			transaction, wake := decide(s, "n1", start.Add(c.after), start.Add(c.leading))
			if want := c.wake; want != 0 && !wake.Equal(start.Add(want)) || want == 0 && !wake.IsZero() {
				t.Errorf("wakes at %v, want %v", wake, want)
			}
			if transaction == nil {
				if len(c.want) > 0 {
					t.Errorf("decided nothing, want %q", c.want)
				}
				return
			}
			if got := statetest.Describe(s, transaction); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if len(c.want) == 0 && transaction.Len() > 0 {
				t.Error("a transaction that only checks")
			}
			again, _ := decide(s, "n1", start.Add(c.after), start.Add(c.leading))
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

// A leader that comes into a cluster whose grace is over waits all of it; one that saw the silence begin
// does not wait longer because it leads.
func TestANewLeaderCountsTheGraceFromItsOwnBeginning(t *testing.T) {
	for _, c := range []struct {
		state warrenv1.NodeState
		grace time.Duration
	}{{unknown, DefaultNodeGrace}, {disconnected, DefaultRestartGrace}} {
		for name, since := range map[string]time.Duration{"long before": -time.Hour, "just before": -time.Second, "during": 10 * time.Second} {
			t.Run(fmt.Sprint(c.state, " ", name), func(t *testing.T) {
				leading := statetest.Epoch
				s := statetest.New(t, statetest.Node("n1", in(c.state, leading.Add(since))), statetest.Task("a", "web", 1, "n1")).Snapshot()
				l := New(leading)
				l.Reset(s)
				end := leading.Add(max(since, 0) + c.grace)
				if d := l.Decide(s, leading.Add(max(since, 0))); len(d.Proposals) > 0 || !d.Wake.Equal(end) {
					t.Errorf("decided %d proposals, and to look again at %v; want %v", len(d.Proposals), d.Wake, end)
				}
				if d := l.Decide(s, end.Add(-time.Nanosecond)); len(d.Proposals) > 0 {
					t.Error("given up before the grace was over")
				}
				if d := l.Decide(s, end); len(d.Proposals) != 1 {
					t.Errorf("%d proposals when the grace was over", len(d.Proposals))
				}
			})
		}
	}
}

func TestAClockThatWasAheadKeepsNoNodeFromBeingGivenUp(t *testing.T) {
	for _, is := range []warrenv1.NodeState{unknown, disconnected} {
		s := begin(t, statetest.Node("n1", in(is, statetest.Epoch.Add(time.Hour))), statetest.Task("a", "web", 1, "n1"))
		grace, _ := graceOf(s.store.Snapshot().Node("n1"), nil)
		if wake := s.after(0); !wake.Equal(statetest.Epoch.Add(grace)) {
			t.Errorf("%v: wakes at %v, want %v", is, wake, statetest.Epoch.Add(grace))
		}
		if got := s.store.Snapshot().Node("n1").GetStatus().GetState(); got != is {
			t.Errorf("%v: the node is %v at once", is, got)
		}
		s.after(grace)
		if got := s.store.Snapshot().Node("n1").GetStatus().GetState(); got != down {
			t.Errorf("%v: the node is %v when its grace is over", is, got)
		}
	}
}

func TestALostTaskSaysWhyAndIsNotWantedAnyMore(t *testing.T) {
	store := statetest.New(t, statetest.Node("n1", in(unknown, statetest.Epoch)),
		statetest.Task("a", "web", 1, "n1"),
		statetest.Task("b", "web", 2, "n1", statetest.Desired(warrenv1.DesiredState_DESIRED_STATE_REMOVE)))
	transaction, _ := decide(store.Snapshot(), "n1", statetest.Epoch.Add(time.Minute), statetest.Epoch)
	statetest.Commit(t, statetest.NewProposer(store), transaction)
	a, b := store.Snapshot().Task("a"), store.Snapshot().Task("b")
	if got, want := a.GetStatus().GetError(), "node n1 is down since 2000-01-01T00:01:00Z"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
	if a.GetDesired() != warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN || b.GetDesired() != warrenv1.DesiredState_DESIRED_STATE_REMOVE {
		t.Errorf("wanted %v and %v", a.GetDesired(), b.GetDesired())
	}
	if got, want := store.Snapshot().Node("n1").GetStatus().GetMessage(), "not heard of for 1m0s"; got != want {
		t.Errorf("the node says %q, want %q", got, want)
	}
}

func TestANodeThatCameBackKeepsItsTasks(t *testing.T) {
	for _, s := range []warrenv1.NodeState{unknown, down} {
		store := statetest.New(t, statetest.Node("n1", in(s, statetest.Epoch)), statetest.Task("a", "web", 1, "n1"))
		transaction, _ := decide(store.Snapshot(), "n1", statetest.Epoch.Add(time.Minute), statetest.Epoch)
		statetest.Put(t, store, statetest.Node("n1"))
		if results, err := statetest.NewProposer(store).Propose(t.Context(), transaction); err != nil || results == nil {
			t.Errorf("giving up a node that was %v and is back got %v, %v", s, results, err)
		}
	}
}

func TestManyTasksAreLostInBoundedTransactions(t *testing.T) {
	store := statetest.New(t, statetest.Node("n1", in(unknown, statetest.Epoch)))
	for i := range 2500 {
		statetest.Put(t, store, statetest.Task(fmt.Sprintf("t%d", i), "web", uint32(i+1), "n1"))
	}
	proposer, rounds := statetest.NewProposer(store), 0
	for {
		transaction, _ := decide(store.Snapshot(), "n1", statetest.Epoch.Add(time.Minute), statetest.Epoch)
		if transaction.Len() == 0 {
			break
		}
		if transaction.Len() > loop.MaxOperations+1 {
			t.Fatalf("a transaction of %d operations", transaction.Len())
		}
		statetest.Commit(t, proposer, transaction)
		rounds++
	}
	for task := range store.Snapshot().Tasks() {
		if task.GetStatus().GetState() != warrenv1.TaskState_TASK_STATE_LOST {
			t.Fatalf("a task is %v", task.GetStatus().GetState())
		}
	}
	if rounds != 3 {
		t.Errorf("took %d transactions", rounds)
	}
}

func TestOnlyTasksOfNodesThatAreDownOrGoneAreLookedAt(t *testing.T) {
	s := statetest.New(t, statetest.Node("n1"), statetest.Node("n2", in(down, statetest.Epoch)),
		statetest.Task("a", "web", 1, "n1"), statetest.Task("b", "web", 2, "n4")).Snapshot()
	for node, want := range map[string]bool{"n1": false, "n2": true, "n3": true, "": false} {
		got := slices.Collect(affected(s, state.Change{After: statetest.Task("t", "web", 1, node)}))
		if (len(got) > 0) != want {
			t.Errorf("a change of a task on %q: looks at %v", node, got)
		}
	}
	if got, want := slices.Collect(all(s)), []string{"n1", "n2", "n4"}; !slices.Equal(got, want) {
		t.Errorf("begins with %v, want %v", got, want)
	}
}
