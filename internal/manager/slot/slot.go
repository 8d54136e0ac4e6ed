package slot

import (
	"cmp"
	"iter"
	"slices"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Key names a slot within its service.
type Key struct {
	// Number is 1, 2, 3 … in a replicated service and 0 in a global one.
	Number uint32
	// NodeID is the slot's node in a global service and empty in a replicated one.
	NodeID string
}

// KeyOf returns the key of the slot that t fills.
func KeyOf(t *warrenv1.Task) Key {
	if t.GetSlot() > 0 {
		return Key{Number: t.GetSlot()}
	}
	return Key{NodeID: t.GetNodeId()}
}

// Fits tells whether a service has slots of this kind. One that has turned from replicated to global
// may have tasks in slots of the other kind.
func (k Key) Fits(service *warrenv1.Service) bool {
	return (service.GetSpec().GetGlobal() != nil) == (k.Number == 0)
}

func compareKeys(a, b Key) int {
	if c := cmp.Compare(a.Number, b.Number); c != 0 {
		return c
	}
	return cmp.Compare(a.NodeID, b.NodeID)
}

// Slot is one slot and the tasks in it. The tasks are the state's own: never change them.
type Slot struct {
	Key
	// Live tasks are wanted and have not ended. The one to keep, if one is too many, stands first:
	// serving before running before neither, then the newest revision, then the furthest, then the oldest.
	Live []*warrenv1.Task
	// Ending tasks are not wanted any more, but may still run.
	Ending []*warrenv1.Task
	// Ended is the slot's history: the task that ended last stands first.
	Ended []*warrenv1.Task
	// Spent are records nobody needs: of tasks that are to be removed and have ended, or that are not
	// wanted and never were given to a node.
	Spent []*warrenv1.Task
}

// InUse tells whether the service still has this slot. A slot is given up by wanting all its tasks
// removed, ended ones as well.
func (s *Slot) InUse() bool {
	return len(s.Live) > 0 || len(s.Ended) > 0 || slices.ContainsFunc(s.Ending, func(t *warrenv1.Task) bool {
		return t.GetDesired() != warrenv1.DesiredState_DESIRED_STATE_REMOVE
	})
}

// Of returns a service's slots that hold a task of any kind, in order.
func Of(s state.Snapshot, serviceID string) []Slot {
	return group(s.TasksByService(serviceID))
}

// At returns one slot of a service, at a cost that does not grow with the service.
func At(s state.Snapshot, serviceID string, key Key) Slot {
	tasks := s.TasksBySlot(serviceID, key.Number)
	if key.Number == 0 {
		tasks = s.TasksByNode(key.NodeID)
	}
	slots := group(func(yield func(*warrenv1.Task) bool) {
		for t := range tasks {
			if t.GetServiceId() == serviceID && KeyOf(t) == key && !yield(t) {
				return
			}
		}
	})
	if len(slots) == 0 {
		return Slot{Key: key}
	}
	return slots[0]
}

// group sorts tasks into slots. All slots share one array, so that a service of ten thousand tasks
// is looked at with few allocations.
func group(tasks iter.Seq[*warrenv1.Task]) []Slot {
	all := slices.Collect(tasks)
	slices.SortStableFunc(all, func(a, b *warrenv1.Task) int { return compareKeys(KeyOf(a), KeyOf(b)) })
	slots := make([]Slot, 0, len(all))
	for len(all) > 0 {
		s := Slot{Key: KeyOf(all[0])}
		n := 1
		for n < len(all) && KeyOf(all[n]) == s.Key {
			n++
		}
		rest := all[:n:n]
		if n > 1 {
			slices.SortFunc(rest, compareTasks)
		}
		s.Live, rest = take(rest, live)
		s.Ending, rest = take(rest, ending)
		s.Ended, rest = take(rest, ended)
		s.Spent = rest
		slots, all = append(slots, s), all[n:]
	}
	return slots
}

// class is which list of a slot a task belongs to.
type class int

const (
	live class = iota
	ending
	ended
	spent
)

func classOf(t *warrenv1.Task) class {
	switch {
	case lifecycle.Wanted(t):
		return live
	case lifecycle.Ended(t.GetStatus().GetState()):
		if t.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_REMOVE {
			return spent
		}
		return ended
	case Unassigned(t):
		return spent
	}
	return ending
}

// take cuts the tasks of a class off the front.
func take(tasks []*warrenv1.Task, c class) (taken, rest []*warrenv1.Task) {
	n := 0
	for n < len(tasks) && classOf(tasks[n]) == c {
		n++
	}
	return tasks[:n:n], tasks[n:]
}

// compareTasks sorts the tasks of one slot into their lists, and each list into its order.
func compareTasks(a, b *warrenv1.Task) int {
	if c := cmp.Compare(classOf(a), classOf(b)); c != 0 {
		return c
	}
	if classOf(a) == ended {
		// The raft index of the last write is when the managers learned of the end. Unlike times, it
		// never goes back.
		if c := cmp.Compare(b.GetMeta().GetVersion(), a.GetMeta().GetVersion()); c != 0 {
			return c
		}
	}
	return cmp.Or(
		compareBools(Serving(b), Serving(a)),
		compareBools(Running(b), Running(a)),
		cmp.Compare(b.GetRevision(), a.GetRevision()),
		cmp.Compare(b.GetStatus().GetState(), a.GetStatus().GetState()),
		a.GetMeta().GetCreatedAt().AsTime().Compare(b.GetMeta().GetCreatedAt().AsTime()),
		cmp.Compare(a.GetMeta().GetId(), b.GetMeta().GetId()),
	)
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// Running tells whether t's program runs. It may not do its work yet: see Serving.
func Running(t *warrenv1.Task) bool {
	return t.GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_RUNNING
}

// Serving tells whether t does its work, so that it may take another's place: its program runs and listens
// on every port that its service declares, as its node's agent has found.
func Serving(t *warrenv1.Task) bool {
	return Running(t) && t.GetStatus().GetServing()
}

// Unassigned tells whether t was never given to a node, so that nothing of it can be running.
func Unassigned(t *warrenv1.Task) bool {
	return t.GetStatus().GetState() <= warrenv1.TaskState_TASK_STATE_PENDING
}
