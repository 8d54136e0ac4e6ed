package liveness

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// waiting has tasks wait for a node that is down: for ever where d is zero.
func waiting(d time.Duration) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) {
		s.Spec.NodeLoss = &warrenv1.NodeLossPolicy{Action: warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT, Wait: durationpb.New(d)}
	}
}

func replacing(s *warrenv1.Service) {
	s.Spec.NodeLoss = &warrenv1.NodeLossPolicy{Action: warrenv1.NodeLossAction_NODE_LOSS_ACTION_REPLACE}
}

// story is a state and the loop, driven by hand.
type story struct {
	t     *testing.T
	store *state.Store
	log   *statetest.Proposer
	feed  *state.Feed
	loop  loop.Loop
	now   time.Time
}

func begin(t *testing.T, objects ...state.Object) *story {
	s := &story{t: t, store: statetest.New(t, objects...), loop: New(statetest.Epoch), now: statetest.Epoch}
	s.log = statetest.NewProposer(s.store)
	var at state.Snapshot
	at, s.feed = s.store.Watch()
	s.loop.Reset(at)
	return s
}

// settle has the loop decide until it rests, and returns when it wants to look again.
func (s *story) settle() (wake time.Time) {
	s.t.Helper()
	for range 100 {
		d := s.loop.Decide(s.store.Snapshot(), s.now)
		if len(d.Proposals) == 0 && (d.Wake.IsZero() || d.Wake.After(s.now)) {
			return d.Wake
		}
		for _, p := range d.Proposals {
			statetest.Commit(s.t, s.log, p.Transaction)
		}
		s.observe()
	}
	s.t.Fatal("the loop never comes to rest")
	return time.Time{}
}

// observe has the loop see what was written.
func (s *story) observe() {
	batch := s.feed.Take()
	s.loop.Observe(batch.Snapshot, batch.Changes)
}

func (s *story) after(d time.Duration) (wake time.Time) {
	s.t.Helper()
	s.now = statetest.Epoch.Add(d)
	return s.settle()
}

// write changes an object as others would.
func write[T state.Object](s *story, o T, edit func(T)) {
	s.t.Helper()
	transaction := state.New(s.now)
	state.Update(transaction, o, edit)
	statetest.Commit(s.t, s.log, transaction)
	s.observe()
}

func (s *story) expect(task string, is warrenv1.TaskState, serving bool, message string) {
	s.t.Helper()
	status := s.store.Snapshot().Task(task).GetStatus()
	if status.GetState() != is || status.GetServing() != serving || status.GetMessage() != message {
		s.t.Errorf("after %s task %s is %v, serves %v, says %q; want %v, %v, %q", s.now.Sub(statetest.Epoch), task,
			status.GetState(), status.GetServing(), status.GetMessage(), is, serving, message)
	}
}

func (s *story) at(d time.Duration) time.Time { return statetest.Epoch.Add(d) }

const (
	running = warrenv1.TaskState_TASK_STATE_RUNNING
	lost    = warrenv1.TaskState_TASK_STATE_LOST
	forEver = "node n1 is down since 2000-01-01T00:00:03Z; waits for it, as --on-node-loss says"
	anHour  = "node n1 is down since 2000-01-01T00:00:03Z; waits for it until 2000-01-01T01:00:03Z, as --on-node-loss says"
)

func TestATaskThatWaitsIsOutOfRotationAndStaysAsItIs(t *testing.T) {
	s := begin(t, statetest.Node("n1", in(unknown, statetest.Epoch)), statetest.Replicated("db", 1, waiting(0)), statetest.Replicated("web", 1),
		statetest.Task("d", "db", 1, "n1"), statetest.Task("w", "web", 1, "n1"),
		statetest.Task("p", "db", 2, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)))
	before := s.store.Snapshot().Task("d")
	if wake := s.after(DefaultNodeGrace); !wake.IsZero() {
		t.Errorf("wakes at %v", wake)
	}
	s.expect("d", running, false, forEver)
	s.expect("w", lost, false, "")
	s.expect("p", lost, false, "") // nothing of it can be there
	d := s.store.Snapshot().Task("d")
	if d.GetDesired() != before.GetDesired() || !d.GetStatus().GetSince().AsTime().Equal(before.GetStatus().GetSince().AsTime()) ||
		d.GetStatus().GetAttempt() != before.GetStatus().GetAttempt() {
		t.Errorf("the task is %v, was %v", d, before)
	}
	s.after(1000 * time.Hour)
	s.expect("d", running, false, forEver)
}

func TestAWaitThatIsOverLosesTheTask(t *testing.T) {
	s := begin(t, statetest.Node("n1", in(unknown, statetest.Epoch)), statetest.Replicated("db", 1, waiting(time.Hour)), statetest.Task("d", "db", 1, "n1"))
	end := DefaultNodeGrace + time.Hour
	if wake := s.after(DefaultNodeGrace); !wake.Equal(s.at(end)) {
		t.Errorf("wakes at %v", wake)
	}
	s.expect("d", running, false, anHour)
	s.after(end - 1)
	s.expect("d", running, false, anHour)
	s.after(end)
	s.expect("d", lost, false, "")
	if got := s.store.Snapshot().Task("d").GetStatus().GetError(); got != "node n1 is down since 2000-01-01T00:00:03Z" {
		t.Errorf("error %q", got)
	}
}

func TestAChangeOfThePolicyCountsWhileATaskWaits(t *testing.T) {
	s := begin(t, statetest.Node("n1", in(unknown, statetest.Epoch)), statetest.Replicated("db", 1, waiting(0)), statetest.Task("d", "db", 1, "n1"))
	s.after(DefaultNodeGrace)
	write(s, s.store.Snapshot().Service("db"), waiting(time.Hour))
	if wake := s.after(time.Minute); !wake.Equal(s.at(DefaultNodeGrace + time.Hour)) {
		t.Errorf("wakes at %v", wake)
	}
	s.expect("d", running, false, anHour)
	write(s, s.store.Snapshot().Service("db"), waiting(0))
	if wake := s.after(2 * time.Hour); !wake.IsZero() {
		t.Errorf("wakes at %v", wake)
	}
	s.expect("d", running, false, forEver)
	write(s, s.store.Snapshot().Service("db"), replacing)
	s.after(3 * time.Hour)
	s.expect("d", lost, false, "")
}

func TestWhatIsNotWantedWaitsForNothing(t *testing.T) {
	for name, edit := range map[string]func(*story){
		"scaled down": func(s *story) {
			write(s, s.store.Snapshot().Task("d"), func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_REMOVE })
		},
		"replaced": func(s *story) {
			write(s, s.store.Snapshot().Task("d"), func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN })
		},
		"removed": func(s *story) {
			write(s, s.store.Snapshot().Service("db"), func(o *warrenv1.Service) { o.Removing = true })
		},
		"the node is removed": func(s *story) {
			transaction := state.New(s.now)
			transaction.Delete(s.store.Snapshot().Node("n1"))
			statetest.Commit(s.t, s.log, transaction)
			s.observe()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t, statetest.Node("n1", in(unknown, statetest.Epoch)), statetest.Replicated("db", 1, waiting(0)), statetest.Task("d", "db", 1, "n1"))
			s.after(DefaultNodeGrace)
			s.expect("d", running, false, forEver)
			edit(s)
			s.settle()
			s.expect("d", lost, false, "")
		})
	}
}

// Managers that have had no leader for an hour have heard of no node either.
func TestANewLeaderLetsANodeComeBackBeforeAWaitIsOver(t *testing.T) {
	leading := statetest.Epoch.Add(2 * time.Hour)
	s := statetest.New(t, statetest.Node("n1", in(down, statetest.Epoch)), statetest.Replicated("db", 1, waiting(time.Hour)), statetest.Task("d", "db", 1, "n1")).Snapshot()
	transaction, wake := decide(s, "n1", leading, leading)
	if got := statetest.Describe(s, transaction); !slices.Equal(got, []string{"running d"}) || !wake.Equal(leading.Add(DefaultNodeGrace)) {
		t.Errorf("%q, wakes at %v", got, wake)
	}
	transaction, _ = decide(s, "n1", leading.Add(DefaultNodeGrace), leading)
	if got := statetest.Describe(s, transaction); !slices.Equal(got, []string{"lost d"}) {
		t.Errorf("%q when the grace was over", got)
	}
}

func TestANodeThatCameBackHasNoTaskWaitForIt(t *testing.T) {
	store := statetest.New(t, statetest.Node("n1", in(down, statetest.Epoch)), statetest.Replicated("db", 1, waiting(time.Hour)), statetest.Task("d", "db", 1, "n1"))
	for _, at := range []time.Duration{0, 2 * time.Hour} {
		transaction, _ := decide(store.Snapshot(), "n1", statetest.Epoch.Add(at), statetest.Epoch)
		statetest.Put(t, store, statetest.Node("n1"))
		if results, err := statetest.NewProposer(store).Propose(t.Context(), transaction); err != nil || results == nil {
			t.Errorf("after %s: got %v, %v", at, results, err)
		}
		statetest.Put(t, store, statetest.Node("n1", in(down, statetest.Epoch)))
	}
}

func TestALoopThatBeginsWithManyTasksGivesAllUp(t *testing.T) {
	s := begin(t, statetest.Node("n1", in(unknown, statetest.Epoch)))
	for i := range 3500 {
		statetest.Put(t, s.store, statetest.Task(fmt.Sprintf("t%d", i), "web", uint32(i+1), "n1"))
	}
	s.after(DefaultNodeGrace)
	for task := range s.store.Snapshot().Tasks() {
		if task.GetStatus().GetState() != lost {
			t.Fatalf("task %s is %v", task.GetMeta().GetId(), task.GetStatus().GetState())
		}
	}
}
