package events

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/digest"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// From returns the events that a change amounts to, none where it is of no interest to people. s is
// the state after the change; now is the time of a removal where the change does not tell it: that leaves no object to bear one.
func From(s state.Snapshot, c state.Change, now time.Time) []*warrenv1.Event {
	w := words{snapshot: s, by: c.By}
	if c.After != nil {
		w.index, w.time = c.After.GetMeta().GetVersion(), c.After.GetMeta().GetUpdatedAt()
	} else {
		w.index, w.time = s.Index(), cmp.Or(c.At, timestamppb.New(now))
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
	case *warrenv1.Network:
		before, _ := c.Before.(*warrenv1.Network)
		w.network(before, o, c.After == nil)
	case *statev1.Member:
		before, _ := c.Before.(*statev1.Member)
		w.manager(before, o, c.After == nil)
	case *statev1.Authority:
		before, _ := c.Before.(*statev1.Authority)
		w.authority(before, o, c.After == nil)
	case *warrenv1.User:
		before, _ := c.Before.(*warrenv1.User)
		w.user(before, o, c.After == nil)
	}
	return w.events
}

// words collects the events of one change.
type words struct {
	snapshot state.Snapshot
	index    uint64
	time     *timestamppb.Timestamp
	by       string // who has made the change, as far as it is known
	events   []*warrenv1.Event
}

// about returns a function that adds an event of one object. Its message begins with what the object is
// and its name.
func (w *words) about(kind warrenv1.EventObject, what, id, name string) func(action, format string, args ...any) {
	return func(action, format string, args ...any) {
		e := &warrenv1.Event{
			Index: w.index, Time: w.time, Object: kind, ObjectId: id, ObjectName: name,
			Action: action, Message: what + " " + name + " " + digest.Shorten(fmt.Sprintf(format, args...)), By: w.by,
		}
		switch kind {
		case warrenv1.EventObject_EVENT_OBJECT_SERVICE:
			e.ServiceId = id
		case warrenv1.EventObject_EVENT_OBJECT_NODE:
			e.NodeId, e.NodeName = id, name
		}
		w.events = append(w.events, e)
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
	say := w.about(warrenv1.EventObject_EVENT_OBJECT_NODE, "node", n.GetMeta().GetId(), nodeName(n))
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
		if state == warrenv1.NodeState_NODE_STATE_DOWN {
			w.waiting(n)
		}
	}
	if before == nil || proto.Equal(n.GetSpec(), before.GetSpec()) {
		return
	}
	w.by = cmp.Or(w.by, n.GetWrittenBy())
	if now := availability(n); now != availability(before) {
		switch now {
		case warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE:
			say("activated", "takes tasks again")
		case warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE:
			say("paused", "takes no new tasks")
		case warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
			say("drained", "is being drained of its tasks%s", until(n))
			if !w.occupied(n) {
				say("drain-complete", "is drained: it has no tasks")
			}
		}
	} else {
		say("updated", "updated")
	}
}

// until tells when a drain is to be over.
func until(n *warrenv1.Node) string {
	if n.GetSpec().GetDrainDeadline() == nil {
		return ""
	}
	return ", which are stopped at " + n.GetSpec().GetDrainDeadline().AsTime().UTC().Format(time.RFC3339) + " at the latest"
}

// occupied tells whether a task of a node has not ended.
func (w *words) occupied(n *warrenv1.Node) bool {
	for t := range w.snapshot.TasksByNode(n.GetMeta().GetId()) {
		if !lifecycle.Ended(t.GetStatus().GetState()) {
			return true
		}
	}
	return false
}

// waiting tells of the tasks that wait for a node that is down, where others of it are lost.
func (w *words) waiting(n *warrenv1.Node) {
	for t := range w.snapshot.TasksByNode(n.GetMeta().GetId()) {
		loss := w.snapshot.Service(t.GetServiceId()).GetSpec().GetNodeLoss()
		if !lifecycle.Wanted(t) || loss.GetAction() != warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT {
			continue
		}
		limit := ""
		if wait := loss.GetWait().AsDuration(); wait > 0 {
			limit = fmt.Sprintf(", %v at the most", wait)
		}
		w.aboutTask(t)("waiting", "waits for node %s to come back%s", nodeName(n), limit)
	}
}

func nodeName(n *warrenv1.Node) string {
	return cmp.Or(n.GetFacts().GetHostname(), n.GetMeta().GetId())
}

func (w *words) network(before, n *warrenv1.Network, removed bool) {
	say := w.about(warrenv1.EventObject_EVENT_OBJECT_NETWORK, "network", n.GetMeta().GetId(), n.GetSpec().GetName())
	switch {
	case removed:
		say("removed", "removed")
	case before == nil:
		say("created", "created")
	case !proto.Equal(before.GetSpec(), n.GetSpec()): // a service that comes onto it writes it too
		say("updated", "updated")
	}
}

func availability(n *warrenv1.Node) warrenv1.NodeAvailability {
	return cmp.Or(n.GetSpec().GetAvailability(), warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE)
}

func (w *words) service(before, s *warrenv1.Service, removed bool) {
	say := w.about(warrenv1.EventObject_EVENT_OBJECT_SERVICE, "service", s.GetMeta().GetId(), s.GetSpec().GetName())
	if removed {
		say("removed", "removed")
		return
	}
	// A rollout that has failed writes the spec back by itself.
	if !proto.Equal(s.GetSpec(), before.GetSpec()) && !returned(before, s) {
		w.by = cmp.Or(w.by, s.GetWrittenBy())
	}
	switch {
	case before == nil:
		say("created", "created: %s, %s", s.GetSpec().GetTask().GetContainer().GetImage(), size(s))
	case s.GetRemoving() && !before.GetRemoving():
		say("removing", "is being removed")
	case returned(before, s): // told as a rollout
	case s.GetRevision() != before.GetRevision() && s.GetRevision() <= max(before.GetLastRevision(), before.GetRevision()):
		say("updated", "updated, back to revision %d", s.GetRevision())
	case s.GetRevision() != before.GetRevision():
		say("updated", "updated to revision %d", s.GetRevision())
	case replicas(s) != replicas(before):
		say("scaled", "scaled from %d to %d", replicas(before), replicas(s))
	case !proto.Equal(s.GetSpec(), before.GetSpec()):
		say("updated", "updated")
	}
	w.rollout(say, before, s)
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

// aboutTask returns a function that adds an event of a task.
func (w *words) aboutTask(t *warrenv1.Task) func(action, format string, args ...any) {
	say := w.about(warrenv1.EventObject_EVENT_OBJECT_TASK, "task", t.GetMeta().GetId(), lifecycle.Name(t, w.hostname(t)))
	return func(action, format string, args ...any) {
		say(action, format, args...)
		e := w.events[len(w.events)-1]
		e.ServiceId, e.NodeId, e.NodeName, e.Attempt = t.GetServiceId(), t.GetNodeId(), w.hostname(t), t.GetStatus().GetAttempt()
	}
}

func (w *words) hostname(t *warrenv1.Task) string {
	return cmp.Or(w.snapshot.Hostname(t.GetNodeId()), t.GetNodeId())
}

func (w *words) task(before, t *warrenv1.Task) {
	say := w.aboutTask(t)
	if before == nil {
		say("created", "created%s", w.instead(t))
	}
	if t.GetDisplaced() && !before.GetDisplaced() {
		say("displaced", "is to be moved to balance its service")
	}
	if pending(t) && t.GetStatus().GetMessage() != "" && before.GetStatus().GetMessage() == "" {
		say("waiting", "waits: %s", t.GetStatus().GetMessage()) // its figures may change from second to second: told once
	}
	w.progress(say, before.GetStatus(), t)
	w.health(say, before.GetStatus(), t.GetStatus())
	w.drained(before, t)
}

func pending(t *warrenv1.Task) bool {
	return lifecycle.Wanted(t) && t.GetStatus().GetState() <= warrenv1.TaskState_TASK_STATE_PENDING
}

// progress tells what a task has come to.
func (w *words) progress(say func(action, format string, args ...any), was *warrenv1.TaskStatus, t *warrenv1.Task) {
	now, node := t.GetStatus(), w.hostname(t)
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
	case warrenv1.TaskState_TASK_STATE_STOPPING:
		say("stopping", "is stopping%s", w.unwanted(t)) // the error, if any, is of an earlier attempt
	case warrenv1.TaskState_TASK_STATE_SHUTDOWN:
		why := ""
		if was.GetState() != warrenv1.TaskState_TASK_STATE_STOPPING {
			why = w.unwanted(t)
		}
		say("shutdown", "was shut down%s", why)
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

// health tells what probing a task has found. Each attempt begins anew.
func (w *words) health(say func(action, format string, args ...any), was, now *warrenv1.TaskStatus) {
	if now.GetHealth().GetState() == was.GetHealth().GetState() || now.GetState() != warrenv1.TaskState_TASK_STATE_RUNNING {
		return
	}
	switch now.GetHealth().GetState() {
	case warrenv1.HealthState_HEALTH_STATE_UNHEALTHY:
		output, _, _ := strings.Cut(strings.TrimSpace(now.GetHealth().GetOutput()), "\n")
		say("unhealthy", "is unhealthy%s", because(output))
	case warrenv1.HealthState_HEALTH_STATE_HEALTHY:
		say("healthy", "is healthy")
	}
}

// drained tells when the last task of a drained node has ended.
func (w *words) drained(before, t *warrenv1.Task) {
	n := w.snapshot.Node(t.GetNodeId())
	if n == nil || availability(n) != warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN ||
		!lifecycle.Ended(t.GetStatus().GetState()) || lifecycle.Ended(before.GetStatus().GetState()) {
		return
	}
	// Of those that have ended since the state was last looked at, the last one tells.
	for other := range w.snapshot.TasksByNode(t.GetNodeId()) {
		if !lifecycle.Ended(other.GetStatus().GetState()) || compareWrites(other, t) > 0 {
			return
		}
	}
	w.about(warrenv1.EventObject_EVENT_OBJECT_NODE, "node", n.GetMeta().GetId(), nodeName(n))("drain-complete", "is drained: its last task has ended")
}

func compareWrites(a, b *warrenv1.Task) int {
	return cmp.Or(cmp.Compare(a.GetMeta().GetVersion(), b.GetMeta().GetVersion()), strings.Compare(a.GetMeta().GetId(), b.GetMeta().GetId()))
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
