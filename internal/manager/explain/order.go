package explain

import (
	"cmp"
	"slices"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// telling is a happening and where it stands among the others. That need not be when it happened, by the clock of whoever saw it:
// managers' and nodes' clocks differ, and a program has not ended before it ran.
type telling struct {
	*warrenv1.Happening
	stands time.Time
}

// step is how far a task has come: to which attempt, and how far in that.
type step struct {
	attempt uint32
	rank    int
}

func (s step) compare(other step) int {
	return cmp.Or(cmp.Compare(s.attempt, other.attempt), cmp.Compare(s.rank, other.rank))
}

// ranks order what events tell of one attempt of a task. Of what is not among them nothing follows.
var ranks = map[string]int{
	"created": 0, "waiting": 0, "assigned": 1, "restarted": 1, "preparing": 2, "starting": 3, "running": 4,
	"stopping": 7, "complete": 8, "failed": 8, "shutdown": 8, "rejected": 8,
}

// Incidents stand between these.
const (
	rankIll  = 5
	rankExit = 6
)

func stepOf(i *warrenv1.Incident) step {
	if i.GetKind() == warrenv1.IncidentKind_INCIDENT_KIND_EXIT || i.GetKind() == warrenv1.IncidentKind_INCIDENT_KIND_REJECTED {
		return step{i.GetAttempt(), rankExit}
	}
	return step{i.GetAttempt(), rankIll}
}

// mark is a step that a task is known to have taken, and where the event stands that tells of it.
type mark struct {
	step
	stands time.Time
}

// order has events stand in the order in which they were written, whichever managers' clocks they bear, and notes the steps that
// they tell of tasks.
func (h *history) order() {
	var last time.Time
	for _, e := range h.told {
		last = later(last.Add(1), e.GetTime().AsTime()) // no two stand at the same place
		h.stands = append(h.stands, last)
		rank, known := ranks[e.GetAction()]
		if e.GetObject() == warrenv1.EventObject_EVENT_OBJECT_TASK && known {
			h.marks[e.GetObjectId()] = append(h.marks[e.GetObjectId()], mark{step{e.GetAttempt(), rank}, last})
		}
	}
}

// between returns where something stands that a node's clock says befell a task at that time: behind what must have gone before, and
// before what can only have followed.
func (h *history) between(task string, s step, at time.Time) time.Time {
	stands := at
	for _, m := range slices.Backward(h.marks[task]) {
		if m.compare(s) > 0 && !stands.Before(m.stands) {
			stands = m.stands.Add(-1)
		}
	}
	for _, m := range h.marks[task] {
		if m.compare(s) < 0 && !stands.After(m.stands) {
			stands = m.stands.Add(1)
		}
	}
	return stands
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
