package slot_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	pending  = warrenv1.TaskState_TASK_STATE_PENDING
	starting = warrenv1.TaskState_TASK_STATE_STARTING
	complete = warrenv1.TaskState_TASK_STATE_COMPLETE
	failed   = warrenv1.TaskState_TASK_STATE_FAILED
	shutdown = warrenv1.TaskState_TASK_STATE_SHUTDOWN
	rejected = warrenv1.TaskState_TASK_STATE_REJECTED
	lost     = warrenv1.TaskState_TASK_STATE_LOST

	toShutDown = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN
	toRemove   = warrenv1.DesiredState_DESIRED_STATE_REMOVE
)

func ids(tasks []*warrenv1.Task) []string {
	var ids []string
	for _, t := range tasks {
		ids = append(ids, t.GetMeta().GetId())
	}
	return ids
}

func expect(t *testing.T, what string, got []*warrenv1.Task, want ...string) {
	t.Helper()
	if !slices.Equal(ids(got), want) {
		t.Errorf("%s: got %v, want %v", what, ids(got), want)
	}
}

func TestTasksAreSortedIntoTheirSlots(t *testing.T) {
	store := statetest.New(t,
		statetest.Task("b", "web", 2, "n1"),
		statetest.Task("gone", "web", 1, "n1", statetest.In(failed), statetest.Desired(toRemove)),
		statetest.Task("new", "web", 1, "", statetest.In(pending), statetest.Of(2)),
		statetest.Task("never", "web", 1, "", statetest.In(pending), statetest.Desired(toRemove)),
		statetest.Task("first", "web", 1, "n1", statetest.In(failed)),
		statetest.Task("second", "web", 1, "n1", statetest.In(shutdown), statetest.Desired(toShutDown)),
		statetest.Task("old", "web", 1, "n1"),
		statetest.Task("stopping", "web", 1, "n1", statetest.Desired(toShutDown)),
		statetest.Task("elsewhere", "webs", 1, "n1"),
	)
	slots := slot.Of(store.Snapshot(), "web")
	if len(slots) != 2 || slots[0].Key != (slot.Key{Number: 1}) || slots[1].Key != (slot.Key{Number: 2}) {
		t.Fatalf("slots %v", slots)
	}
	expect(t, "live", slots[0].Live, "old", "new")
	expect(t, "ending", slots[0].Ending, "stopping")
	expect(t, "ended", slots[0].Ended, "second", "first")
	expect(t, "spent", slots[0].Spent, "gone", "never")
	expect(t, "live in slot 2", slots[1].Live, "b")
	expect(t, "live in slot 2 looked at by itself", slotAt(store.Snapshot(), 2, "").Live, "b")
}

func TestTheTaskThatIsBestKeptStandsFirst(t *testing.T) {
	store := statetest.New(t,
		statetest.Task("newest", "web", 1, "n1", statetest.In(starting), statetest.Of(3)),
		statetest.Task("silent", "web", 1, "n1", statetest.NotServing, statetest.Of(2)),
		statetest.Task("silent-old", "web", 1, "n1", statetest.NotServing),
		statetest.Task("serving", "web", 1, "n1"),
	)
	expect(t, "live", slotAt(store.Snapshot(), 1, "").Live, "serving", "silent", "silent-old", "newest")
}

func slotAt(s state.Snapshot, number uint32, node string) *slot.Slot {
	at := slot.At(s, "web", slot.Key{Number: number, NodeID: node})
	return &at
}

func TestAGlobalServiceHasASlotOnEachNode(t *testing.T) {
	store := statetest.New(t,
		statetest.Task("a", "web", 0, "n2"), statetest.Task("b", "web", 0, "n1"),
		statetest.Task("other", "log", 0, "n1"),
	)
	slots := slot.Of(store.Snapshot(), "web")
	if len(slots) != 2 || slots[0].NodeID != "n1" || slots[1].NodeID != "n2" {
		t.Fatalf("slots %v", slots)
	}
	expect(t, "slot on n1", slotAt(store.Snapshot(), 0, "n1").Live, "b")
}

func TestASlotIsGivenUpWhenAllItsTasksAreToBeRemoved(t *testing.T) {
	for _, c := range []struct {
		name  string
		tasks []*warrenv1.Task
		want  bool
	}{
		{"no task", nil, false},
		{"a live task", []*warrenv1.Task{statetest.Task("a", "web", 1, "n1")}, true},
		{"a failed task that waits for its replacement", []*warrenv1.Task{statetest.Task("a", "web", 1, "n1", statetest.In(failed))}, true},
		{"a task being stopped for its replacement", []*warrenv1.Task{statetest.Task("a", "web", 1, "n1", statetest.Desired(toShutDown))}, true},
		{"a task being removed", []*warrenv1.Task{statetest.Task("a", "web", 1, "n1", statetest.Desired(toRemove))}, false},
		{"removed tasks", []*warrenv1.Task{statetest.Task("a", "web", 1, "n1", statetest.Desired(toRemove), statetest.In(failed))}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := statetest.New(t)
			for _, task := range c.tasks {
				statetest.Put(t, store, task)
			}
			if got := slotAt(store.Snapshot(), 1, "").InUse(); got != c.want {
				t.Errorf("in use: %v", got)
			}
		})
	}
}

func TestTheRestartPolicySaysWhenASlotIsDone(t *testing.T) {
	const (
		always    = warrenv1.RestartCondition_RESTART_CONDITION_UNSPECIFIED
		onFailure = warrenv1.RestartCondition_RESTART_CONDITION_ON_FAILURE
		never     = warrenv1.RestartCondition_RESTART_CONDITION_NONE
	)
	for _, c := range []struct {
		condition warrenv1.RestartCondition
		done      []warrenv1.TaskState
	}{
		{always, nil}, {onFailure, []warrenv1.TaskState{complete}}, {never, []warrenv1.TaskState{complete, failed}},
	} {
		for _, end := range []warrenv1.TaskState{complete, failed, shutdown, rejected, lost} {
			store := statetest.New(t, statetest.Task("a", "web", 1, "n1", statetest.In(end)))
			service := statetest.Replicated("web", 1, func(s *warrenv1.Service) {
				s.Spec.Task.Restart = &warrenv1.RestartPolicy{Condition: c.condition}
			})
			if got, want := slotAt(store.Snapshot(), 1, "").Done(service, service.GetRevision()), slices.Contains(c.done, end); got != want {
				t.Errorf("%v and %v: done %v", c.condition, end, got)
			}
			service.Revision = 2
			if slotAt(store.Snapshot(), 1, "").Done(service, service.GetRevision()) {
				t.Errorf("%v and %v: done although the service has changed", c.condition, end)
			}
		}
	}
}

func TestTheWaitBetweenFailuresDoublesUpToAMinuteHoweverShortTheHistory(t *testing.T) {
	service := statetest.Replicated("web", 1)
	now := statetest.Epoch
	store := statetest.New(t)
	newID := statetest.Counter("t")
	var waits []time.Duration
	for range 10 {
		at := max(0, slotAt(store.Snapshot(), 1, "").NotBefore(service, service.GetRevision(), now).Sub(now))
		waits = append(waits, at)
		// The driver is woken a little late, and the node reports a little later still.
		now = now.Add(at + 3*time.Millisecond)
		created := now
		now = now.Add(200 * time.Millisecond)
		statetest.Put(t, store, statetest.Task(newID(), "web", 1, "n1", statetest.Created(created), statetest.Ended(rejected, now)))
		if ended := slotAt(store.Snapshot(), 1, "").Ended; len(ended) > 2 {
			statetest.Remove(t, store, state.KeyOf(ended[2]))
		}
	}
	s := time.Second
	if want := []time.Duration{0, 0, 1 * s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 60 * s, 60 * s}; !slices.Equal(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
}

func TestNoSlotWaitsForTheTimeOfAClockThatWasAhead(t *testing.T) {
	service, now := statetest.Replicated("web", 1), statetest.Epoch
	for ahead, want := range map[time.Duration]time.Duration{0: 2 * time.Second, 10 * time.Second: 12 * time.Second, time.Hour: 0} {
		end := now.Add(ahead)
		store := statetest.New(t,
			statetest.Task("before", "web", 1, "n1", statetest.Created(end.Add(-3*time.Second)), statetest.Ended(rejected, end.Add(-2*time.Second))),
			statetest.Task("last", "web", 1, "n1", statetest.Created(end.Add(-time.Second)), statetest.Ended(rejected, end)))
		if got := max(0, slotAt(store.Snapshot(), 1, "").NotBefore(service, 1, now).Sub(now)); got != want {
			t.Errorf("a clock ahead by %v: waits %v, want %v", ahead, got, want)
		}
	}
}

func TestOnlyTasksThatGaveUpSoonMakeASlotWait(t *testing.T) {
	now := statetest.Epoch.Add(time.Hour)
	before := statetest.Task("before", "web", 1, "n1", statetest.Created(now.Add(-time.Second)), statetest.Ended(failed, now))
	for _, c := range []struct {
		name string
		last *warrenv1.Task
		edit func(*warrenv1.Service)
		want bool
	}{
		{"failed at once", statetest.Task("last", "web", 1, "n1", statetest.Created(now), statetest.Ended(failed, now)), nil, true},
		{"completed at once", statetest.Task("last", "web", 1, "n1", statetest.Created(now), statetest.Ended(complete, now)), nil, true},
		{"lost with its node", statetest.Task("last", "web", 1, "n1", statetest.Created(now), statetest.Ended(lost, now)), nil, false},
		{"stopped by a rollout", statetest.Task("last", "web", 1, "n1", statetest.Created(now), statetest.Ended(shutdown, now)), nil, false},
		{"failed after five minutes", statetest.Task("last", "web", 1, "n1", statetest.Created(now), statetest.Ended(failed, now.Add(5*time.Minute))), nil, false},
		{"failed after the policy's window", statetest.Task("last", "web", 1, "n1", statetest.Created(now), statetest.Ended(failed, now.Add(time.Minute))), func(s *warrenv1.Service) {
			s.Spec.Task.Restart = &warrenv1.RestartPolicy{Window: durationpb.New(time.Minute)}
		}, false},
		{"failed before the service changed", statetest.Task("last", "web", 1, "n1", statetest.Created(now), statetest.Ended(failed, now)), func(s *warrenv1.Service) {
			s.Revision = 2
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			service := statetest.Replicated("web", 1)
			if c.edit != nil {
				c.edit(service)
			}
			store := statetest.New(t, before, c.last)
			if got := !slotAt(store.Snapshot(), 1, "").NotBefore(service, service.GetRevision(), now).IsZero(); got != c.want {
				t.Errorf("waits: %v", got)
			}
		})
	}
}

func TestPortsOfTheNodeAskForStopFirstUnlessTheUserSaysOtherwise(t *testing.T) {
	fixed := []*warrenv1.PortSpec{{Target: 80}, {Target: 443, Published: 443}}
	for _, c := range []struct {
		order   warrenv1.UpdateOrder
		network warrenv1.NetworkMode
		ports   []*warrenv1.PortSpec
		want    bool
	}{
		{0, 0, nil, false},
		{0, warrenv1.NetworkMode_NETWORK_MODE_NONE, nil, false},
		{0, warrenv1.NetworkMode_NETWORK_MODE_HOST, nil, true},
		{0, 0, fixed[:1], false}, // whichever is free
		{0, 0, fixed, true},
		{warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST, warrenv1.NetworkMode_NETWORK_MODE_HOST, nil, false},
		{warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST, 0, fixed, false},
		{warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST, warrenv1.NetworkMode_NETWORK_MODE_NONE, nil, true},
	} {
		service := statetest.Replicated("web", 1, func(s *warrenv1.Service) {
			s.Spec.Task.Network, s.Spec.Task.HostPorts = c.network, c.ports
			s.Spec.Update = &warrenv1.UpdatePolicy{Order: c.order}
		})
		if got := slot.StopFirst(service); got != c.want {
			t.Errorf("%v with %v and %v: stop-first %v", c.order, c.network, c.ports, got)
		}
	}
}

func TestRetiringNeverRaisesWhatIsWanted(t *testing.T) {
	store := statetest.New(t,
		statetest.Task("running", "web", 1, "n1"),
		statetest.Task("pending", "web", 2, "", statetest.In(pending)),
		statetest.Task("removed", "web", 3, "n1", statetest.In(starting), statetest.Desired(toRemove)),
	)
	transaction := state.New(statetest.Epoch)
	for task := range store.Snapshot().Tasks() {
		slot.Retire(transaction, task)
	}
	if got, want := statetest.Describe(store.Snapshot(), transaction), []string{"remove pending", "shutdown running"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestATaskIsPartOfTheTraceOfAWriteThatItFollowsFrom(t *testing.T) {
	service := statetest.Replicated("web", 1, func(s *warrenv1.Service) {
		s.Trace, s.Meta.UpdatedAt = "trace", timestamppb.New(statetest.Epoch)
	})
	for after, want := range map[time.Duration]string{0: "trace", 10 * time.Minute: "trace", time.Hour: ""} {
		if got := slot.NewTask("t", service, slot.Key{Number: 1}, statetest.Epoch.Add(after)).GetTrace(); got != want {
			t.Errorf("after %v: %q", after, got)
		}
	}
}

func TestASlotComesBackAsTheRolloutHasLeftIt(t *testing.T) {
	const (
		running = warrenv1.RolloutState_ROLLOUT_STATE_RUNNING
		paused  = warrenv1.RolloutState_ROLLOUT_STATE_PAUSED
		over    = warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE
	)
	was := func(revision uint64, state warrenv1.TaskState) *warrenv1.Task {
		return statetest.Task("a", "web", 1, "n1", statetest.Of(revision), statetest.In(state), statetest.Desired(toShutDown))
	}
	for _, c := range []struct {
		name   string
		state  warrenv1.RolloutState
		canary bool
		last   *warrenv1.Task
		want   uint64
	}{
		{"no rollout has begun", 0, false, nil, 2},
		{"and its task was lost", 0, false, was(1, lost), 1},
		{"a new slot of a rolling update", running, false, nil, 2},
		{"a task that was stopped for the next", running, false, was(1, shutdown), 2},
		{"a lost one", running, false, was(1, lost), 1},
		{"one that failed", running, false, was(1, failed), 2},
		{"a lost one of the new revision", running, false, was(2, lost), 2},
		{"a new slot while it is paused", paused, false, nil, 1},
		{"one that failed", paused, false, was(1, failed), 1},
		{"a new one that failed", paused, false, was(2, failed), 2},
		{"a new slot of a canary", running, true, nil, 1},
		{"an old task that failed", running, true, was(1, failed), 1},
		{"a lost one when it is over", over, false, was(1, lost), 2},
	} {
		service := statetest.Replicated("web", 1, func(s *warrenv1.Service) {
			s.Revision = 2
			if c.state != 0 {
				s.Rollout = &warrenv1.Rollout{From: 1, To: 2, State: c.state}
			}
			if c.canary {
				s.Spec.Update = &warrenv1.UpdatePolicy{Strategy: warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY}
			}
		})
		store := statetest.New(t)
		if c.last != nil {
			statetest.Put(t, store, c.last)
		}
		of := slotAt(store.Snapshot(), 1, "")
		if got := of.Next(service); got != c.want {
			t.Errorf("%s: revision %d, want %d", c.name, got, c.want)
		}
	}
}
