package events

import (
	"fmt"

	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// unwanted tells why a task is stopped, as far as it shows. The order is that of what outlasts what: a service that is removed is
// also scaled down, and a task on a drained node may be of an old revision.
func (w *words) unwanted(t *warrenv1.Task) string {
	s := w.snapshot.Service(t.GetServiceId())
	node := w.snapshot.Node(t.GetNodeId())
	switch {
	case t.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING:
		return "" // it stops of its own accord
	case s == nil || s.GetRemoving():
		return ": its service is removed"
	case s.GetSpec().GetReplicated() != nil && t.GetSlot() > replicas(s):
		return fmt.Sprintf(": its service is scaled to %d", replicas(s))
	case t.GetDisplaced():
		return ": it is moved to balance its service"
	case availability(node) == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
		return ": its node is drained"
	case t.GetRevision() != s.GetRevision():
		return fmt.Sprintf(": its service is at revision %d", s.GetRevision())
	}
	return ""
}

// instead tells what a new task takes the place of, if its slot had one: the latest that is not wanted any more.
func (w *words) instead(t *warrenv1.Task) string {
	if t.GetSlot() == 0 {
		return ""
	}
	var last *warrenv1.Task
	for other := range w.snapshot.TasksBySlot(t.GetServiceId(), t.GetSlot()) {
		if other.GetMeta().GetId() != t.GetMeta().GetId() && other.GetMeta().GetCreatedAt().AsTime().Before(t.GetMeta().GetCreatedAt().AsTime()) &&
			(last == nil || compareWrites(other, last) > 0) {
			last = other
		}
	}
	switch {
	case last == nil || last.GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_COMPLETE:
		return ""
	case last.GetRevision() != t.GetRevision():
		return fmt.Sprintf(" of revision %d, in place of one of %d", t.GetRevision(), last.GetRevision())
	}
	of := fmt.Sprintf(" in place of the one on node %s", w.hostname(last))
	switch state := last.GetStatus().GetState(); {
	case state == warrenv1.TaskState_TASK_STATE_LOST:
		return of + ", which is lost"
	case lifecycle.Ended(state) && state != warrenv1.TaskState_TASK_STATE_SHUTDOWN:
		return of + ", which " + word(state.String(), "TASK_STATE_") // failed, rejected
	case last.GetNodeId() == "":
		return ""
	case availability(w.snapshot.Node(last.GetNodeId())) == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
		return of + ", which is drained"
	}
	return of
}
