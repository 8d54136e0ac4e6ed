package events

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// From returns the events that a change amounts to, none where it is of no interest to people. s is
// the state after the change; now is the time of a removal, which leaves no object to bear one.
func From(s state.Snapshot, c state.Change, now time.Time) []*warrenv1.Event {
	w := words{snapshot: s}
	if c.After != nil {
		w.index, w.time = c.After.GetMeta().GetVersion(), c.After.GetMeta().GetUpdatedAt()
	} else {
		w.index, w.time = s.Index(), timestamppb.New(now)
	}
	switch o := cmp.Or(c.After, c.Before).(type) {
	case *warrenv1.Cluster:
		before, _ := c.Before.(*warrenv1.Cluster)
		w.cluster(before, o, c.After == nil)
	case *warrenv1.Node:
		before, _ := c.Before.(*warrenv1.Node)
		w.node(before, o, c.After == nil)
	case *warrenv1.Service:
		before, _ := c.Before.(*warrenv1.Service)
		w.service(before, o, c.After == nil)
	case *warrenv1.Task:
		if c.After != nil { // a task leaves when its history is forgotten: no news
			before, _ := c.Before.(*warrenv1.Task)
			w.task(before, o)
		}
	}
	return w.events
}

// words collects the events of one change.
type words struct {
	snapshot state.Snapshot
	index    uint64
	time     *timestamppb.Timestamp
	events   []*warrenv1.Event
}

// about returns a function that adds an event of one object. Its message begins with what the object is
// and its name.
func (w *words) about(kind warrenv1.EventObject, what, id, name string) func(action, format string, args ...any) {
	return func(action, format string, args ...any) {
		w.events = append(w.events, &warrenv1.Event{
			Index: w.index, Time: w.time, Object: kind, ObjectId: id, ObjectName: name,
			Action: action, Message: what + " " + name + " " + fmt.Sprintf(format, args...),
		})
	}
}

func (w *words) cluster(before, c *warrenv1.Cluster, removed bool) {
	say := w.about(warrenv1.EventObject_EVENT_OBJECT_CLUSTER, "cluster", c.GetMeta().GetId(), c.GetSpec().GetName())
	switch {
	case removed:
	case before == nil:
		say("created", "created")
	default:
		say("updated", "updated")
	}
}

func (w *words) node(before, n *warrenv1.Node, removed bool) {
	name := cmp.Or(n.GetFacts().GetHostname(), n.GetMeta().GetId())
	say := w.about(warrenv1.EventObject_EVENT_OBJECT_NODE, "node", n.GetMeta().GetId(), name)
	if removed {
		say("removed", "removed")
		return
	}
	if before == nil {
		say("created", "joined the cluster")
	}
	if state := n.GetStatus().GetState(); state != before.GetStatus().GetState() {
		if action := word(state.String(), "NODE_STATE_"); action != "" {
			say(action, "is %s%s", action, because(n.GetStatus().GetMessage()))
		}
	}
	if before == nil {
		return
	}
	if now := availability(n); now != availability(before) {
		switch now {
		case warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE:
			say("activated", "takes tasks again")
		case warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE:
			say("paused", "takes no new tasks")
		case warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
			say("drained", "is being drained of its tasks")
		}
	} else if !proto.Equal(n.GetSpec(), before.GetSpec()) {
		say("updated", "updated")
	}
}

func availability(n *warrenv1.Node) warrenv1.NodeAvailability {
	return cmp.Or(n.GetSpec().GetAvailability(), warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE)
}

func (w *words) service(before, s *warrenv1.Service, removed bool) {
	name := s.GetSpec().GetName()
	say := w.about(warrenv1.EventObject_EVENT_OBJECT_SERVICE, "service", s.GetMeta().GetId(), name)
	switch {
	case removed:
		say("removed", "removed")
	case before == nil:
		say("created", "created: %s, %s", s.GetSpec().GetTask().GetContainer().GetImage(), size(s))
	case s.GetRemoving() && !before.GetRemoving():
		say("removing", "is being removed")
	case s.GetRevision() != before.GetRevision():
		say("updated", "updated to revision %d", s.GetRevision())
	case replicas(s) != replicas(before):
		say("scaled", "scaled from %d to %d", replicas(before), replicas(s))
	case !proto.Equal(s.GetSpec(), before.GetSpec()):
		say("updated", "updated")
	}
}

func replicas(s *warrenv1.Service) uint32 { return s.GetSpec().GetReplicated().GetReplicas() }

func size(s *warrenv1.Service) string {
	switch {
	case s.GetSpec().GetGlobal() != nil:
		return "on every node"
	case replicas(s) == 1:
		return "1 replica"
	}
	return fmt.Sprintf("%d replicas", replicas(s))
}

func (w *words) task(before, t *warrenv1.Task) {
	node := cmp.Or(w.snapshot.Node(t.GetNodeId()).GetFacts().GetHostname(), t.GetNodeId())
	name := lifecycle.Name(t, node)
	say := w.about(warrenv1.EventObject_EVENT_OBJECT_TASK, "task", t.GetMeta().GetId(), name)
	if before == nil {
		say("created", "created")
	}
	now, was := t.GetStatus(), before.GetStatus()
	if now.GetState() == was.GetState() && now.GetAttempt() == was.GetAttempt() {
		return
	}
	if was.GetAttempt() > 0 && now.GetAttempt() > was.GetAttempt() {
		say("restarted", "restarts, attempt %d%s", now.GetAttempt(), because(now.GetError()))
		if now.GetState() == warrenv1.TaskState_TASK_STATE_STARTING {
			return // that is what restarting is
		}
	}
	switch now.GetState() {
	case warrenv1.TaskState_TASK_STATE_UNSPECIFIED, warrenv1.TaskState_TASK_STATE_PENDING:
	case warrenv1.TaskState_TASK_STATE_ASSIGNED:
		say("assigned", "assigned to node %s", node)
	case warrenv1.TaskState_TASK_STATE_RUNNING:
		say("running", "is running on node %s", node)
	case warrenv1.TaskState_TASK_STATE_SHUTDOWN:
		say("shutdown", "was shut down")
	case warrenv1.TaskState_TASK_STATE_COMPLETE:
		say("complete", "completed")
	case warrenv1.TaskState_TASK_STATE_LOST:
		say("lost", "lost%s", because(cmp.Or(now.GetError(), "node "+node+" is gone")))
	default:
		action := word(now.GetState().String(), "TASK_STATE_")
		verb := "is " + action
		if lifecycle.Ended(now.GetState()) { // failed, rejected
			verb = action
		}
		say(action, "%s%s", verb, because(now.GetError()))
	}
}

// word makes an action of an enum value's name.
func word(value, prefix string) string {
	action := strings.ToLower(strings.TrimPrefix(value, prefix))
	if action == "unspecified" {
		return ""
	}
	return strings.ReplaceAll(action, "_", "-")
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}
