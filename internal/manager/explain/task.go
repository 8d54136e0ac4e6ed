package explain

import (
	"fmt"
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/digest"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Task explains a task.
func Task(at state.Snapshot, t *warrenv1.Task, told []*warrenv1.Event, now time.Time) *warrenv1.ExplainResponse {
	s := scene{at, told, now}
	return &warrenv1.ExplainResponse{
		Object: warrenv1.EventObject_EVENT_OBJECT_TASK, Id: t.GetMeta().GetId(), Name: s.taskName(t),
		Wanted: s.wantedOfTask(t), Actual: s.actualOfTask(t),
		Causes:     s.taskCauses(t).told(),
		Happenings: s.ofTask(t),
	}
}

func (s scene) wantedOfTask(t *warrenv1.Task) string {
	what := fmt.Sprintf("%s of %s, revision %d", t.GetServiceName(),
		digest.Shorten(s.Revision(t.GetServiceId(), t.GetRevision()).GetTask().GetContainer().GetImage()), t.GetRevision())
	switch t.GetDesired() {
	case warrenv1.DesiredState_DESIRED_STATE_RUNNING:
		return "running: " + what
	case warrenv1.DesiredState_DESIRED_STATE_REMOVE:
		return "to be stopped and forgotten: " + what
	}
	return "to be stopped: " + what
}

func (s scene) actualOfTask(t *warrenv1.Task) string {
	status := t.GetStatus()
	text := word(status.GetState().String(), "TASK_STATE_")
	if t.GetNodeId() != "" {
		text += " on node " + s.nodeName(t.GetNodeId())
	}
	text += s.since(status.GetSince())
	if status.GetAttempt() > 1 {
		text += fmt.Sprintf(", attempt %d", status.GetAttempt())
	}
	if health := status.GetHealth().GetState(); health != warrenv1.HealthState_HEALTH_STATE_UNSPECIFIED && slot.Running(t) {
		text += ", health: " + word(health.String(), "HEALTH_STATE_")
	}
	if slot.Running(t) && !slot.Serving(t) {
		text += ", takes no connections"
	}
	return text
}

// taskCauses finds why a task is not running, or why it is to go.
func (s scene) taskCauses(t *warrenv1.Task) causes {
	var all causes
	add := func(c cause) {
		c.objects = nil // it is the one that is asked about
		all.add(c)
	}
	c, ails := s.ailment(t)
	switch {
	case ails && (lifecycle.Wanted(t) || lifecycle.Ended(t.GetStatus().GetState())):
		add(c)
	case !lifecycle.Wanted(t) && t.GetStatus().GetState() != warrenv1.TaskState_TASK_STATE_COMPLETE:
		add(s.dismissal(t))
	}
	if lifecycle.Wanted(t) && t.GetDisplaced() {
		add(cause{rank: given, key: "displaced", message: "is to be moved, to balance its service"})
	}
	if lifecycle.Wanted(t) {
		if service := s.Service(t.GetServiceId()); service != nil && service.GetRevision() != t.GetRevision() {
			s.rolloutCauses(&all, service)
		}
		in := slot.At(s.Snapshot, t.GetServiceId(), slot.KeyOf(t))
		if next := successor(&in, t); next != nil && slot.Unassigned(next) {
			s.stuck(&all, in.Live, next)
		}
	}
	return all
}

// dismissal tells why a task was told to stop.
func (s scene) dismissal(t *warrenv1.Task) cause {
	c := cause{rank: given, key: "dismissed"}
	service := s.Service(t.GetServiceId())
	n := s.Node(t.GetNodeId())
	in := slot.At(s.Snapshot, t.GetServiceId(), slot.KeyOf(t))
	switch {
	case service == nil || service.GetRemoving():
		c.message = "its service is removed"
	case t.GetDisplaced():
		c.message = "was moved, to balance its service"
	case t.GetRevision() != service.GetRevision():
		c.message = fmt.Sprintf("its service is at revision %d now%s", service.GetRevision(), by(service.GetWrittenBy()))
	case n.GetSpec().GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
		c.message = fmt.Sprintf("node %s is drained%s", s.nodeName(t.GetNodeId()), by(n.GetWrittenBy()))
	case t.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_REMOVE && len(in.Live) == 0:
		c.message = "its service has fewer replicas now, or its placement allows the node no more"
	case len(in.Live) > 0:
		c.message = "another task has its place"
	default:
		c.message = "the managers want it stopped"
	}
	if len(in.Live) > 0 && in.Live[0] != t {
		c.message += fmt.Sprintf("; in its place is task %s, %s on node %s", in.Live[0].GetMeta().GetId(),
			word(in.Live[0].GetStatus().GetState().String(), "TASK_STATE_"), s.nodeName(in.Live[0].GetNodeId()))
	}
	return c
}
