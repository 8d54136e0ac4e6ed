package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/digest"
	"github.com/cuemby/warren/internal/manager/slot"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// maxHappenings bounds how many are told.
const maxHappenings = 200

// routine are the events of tasks that come with every one of them: they are told as far as there is room.
var routine = map[string]bool{
	"created": true, "assigned": true, "preparing": true, "starting": true, "running": true, "stopping": true, "shutdown": true, "healthy": true,
}

// fortunes are the events of nodes that bear on their tasks.
var fortunes = map[string]bool{
	"ready": true, "unknown": true, "disconnected": true, "down": true, "removed": true,
	"drained": true, "drain-complete": true, "paused": true, "activated": true,
}

// incidental are the events of tasks that their incidents tell better, and tell also where they were not seen as events.
var incidental = map[string]bool{"failed": true, "rejected": true, "unhealthy": true, "healthy": true, "restarted": true}

// history collects what has happened.
type history struct {
	scene
	// weighty is told before what is routine.
	weighty, rest []telling
	// seen are the events that are told, by object and action.
	seen map[string]bool
	// stands is where each event that is remembered stands among all that is told, and marks are what they tell of tasks.
	stands []time.Time
	marks  map[string][]mark
}

func (s scene) history() *history {
	h := &history{scene: s, seen: map[string]bool{}, marks: map[string][]mark{}}
	h.order()
	return h
}

// add adds a happening; nothing where it has no time.
func (h *history) add(at *timestamppb.Timestamp, object warrenv1.EventObject, name, who, format string, args ...any) {
	if at != nil {
		told := &warrenv1.Happening{At: at, Object: object, ObjectName: name, By: who, Message: digest.Shorten(fmt.Sprintf(format, args...))}
		h.weighty = append(h.weighty, telling{told, at.AsTime()})
	}
}

// befalls adds what has befallen a task, by its node's clock.
func (h *history) befalls(t *warrenv1.Task, to step, at *timestamppb.Timestamp, format string, args ...any) {
	before := len(h.weighty)
	h.add(at, warrenv1.EventObject_EVENT_OBJECT_TASK, h.taskName(t), "", format, args...)
	for i := range h.weighty[before:] {
		h.weighty[before+i].stands = h.between(t.GetMeta().GetId(), to, at.AsTime())
	}
}

// events adds the remembered events that are of concern.
func (h *history) events(concerns func(*warrenv1.Event) bool) {
	for i, e := range h.told {
		if !concerns(e) {
			continue
		}
		told := telling{&warrenv1.Happening{At: e.GetTime(), Object: e.GetObject(), ObjectName: e.GetObjectName(), Message: e.GetMessage(), By: e.GetBy()}, h.stands[i]}
		h.seen[e.GetObjectId()+" "+e.GetAction()] = true
		if e.GetObject() == warrenv1.EventObject_EVENT_OBJECT_TASK && routine[e.GetAction()] {
			h.rest = append(h.rest, told)
		} else {
			h.weighty = append(h.weighty, told)
		}
	}
}

// list returns what has happened in order: of too much the weightier, of that the newest.
func (h *history) list() []*warrenv1.Happening {
	order := func(a, b telling) int { return a.stands.Compare(b.stands) }
	newest := func(all []telling, n int) []telling {
		slices.SortStableFunc(all, order)
		return all[max(0, len(all)-n):]
	}
	all := slices.Clone(newest(h.weighty, maxHappenings))
	all = append(all, newest(h.rest, maxHappenings-len(all))...)
	slices.SortStableFunc(all, order)
	said := make([]*warrenv1.Happening, 0, len(all))
	for _, t := range all {
		said = append(said, t.Happening)
	}
	return said
}

// ofService tells what has happened to a service, its tasks, and the nodes that they are on.
func (s scene) ofService(service *warrenv1.Service) []*warrenv1.Happening {
	h := s.history()
	id, name := service.GetMeta().GetId(), service.GetSpec().GetName()
	tasks := slices.Collect(s.TasksByService(id))
	nodes := map[string]bool{}
	for _, t := range tasks {
		nodes[t.GetNodeId()] = true
	}
	born := service.GetMeta().GetCreatedAt().AsTime()
	h.events(func(e *warrenv1.Event) bool {
		switch e.GetObject() {
		case warrenv1.EventObject_EVENT_OBJECT_SERVICE:
			return e.GetObjectId() == id
		case warrenv1.EventObject_EVENT_OBJECT_TASK:
			// Tasks that are forgotten are known by their names, which another service may have borne before.
			return strings.HasPrefix(e.GetObjectName(), name+".") && !e.GetTime().AsTime().Before(born) && !s.better(e)
		case warrenv1.EventObject_EVENT_OBJECT_NODE:
			return nodes[e.GetObjectId()] && fortunes[e.GetAction()] && !e.GetTime().AsTime().Before(born)
		}
		return false
	})
	h.spec(service)
	for _, t := range tasks {
		h.incidents(t)
	}
	for node := range nodes {
		h.standing(node)
	}
	return h.list()
}

// better tells whether what an event tells of a task is told better by the task's incidents.
func (s scene) better(e *warrenv1.Event) bool {
	if !incidental[e.GetAction()] {
		return false
	}
	incidents := s.Task(e.GetObjectId()).GetStatus().GetIncidents()
	// Nodes' clocks may be a little off the managers'.
	return len(incidents) > 0 && !e.GetTime().AsTime().Before(incidents[0].GetAt().AsTime().Add(-time.Minute))
}

// spec adds who has written what of a service's template, and its latest rollout, where no event is remembered.
func (h *history) spec(service *warrenv1.Service) {
	const object = warrenv1.EventObject_EVENT_OBJECT_SERVICE
	id, name := service.GetMeta().GetId(), service.GetSpec().GetName()
	for r := range h.Revisions(id) {
		if h.wroteAt(id, r.GetMeta().GetCreatedAt().AsTime()) {
			continue
		}
		h.add(r.GetMeta().GetCreatedAt(), object, name, r.GetWrittenBy(), "service %s was given revision %d: %s", name, r.GetNumber(), r.GetTask().GetContainer().GetImage())
	}
	r := service.GetRollout()
	if r == nil || h.rolledSince(id, r.GetStartedAt().AsTime()) {
		return
	}
	h.add(r.GetStartedAt(), object, name, "", "service %s is rolled out from revision %d to %d", name, r.GetFrom(), r.GetTo())
	if r.GetSince().AsTime().After(r.GetStartedAt().AsTime()) {
		h.add(r.GetSince(), object, name, "", "its rollout to revision %d is %s%s", r.GetTo(), word(r.GetState().String(), "ROLLOUT_STATE_"), because(r.GetMessage()))
	}
}

// wroteAt tells whether a write of a service's spec at that time, as of one transaction with a revision, is remembered
// as an event.
func (h *history) wroteAt(id string, at time.Time) bool {
	return slices.ContainsFunc(h.told, func(e *warrenv1.Event) bool {
		return e.GetObjectId() == id && (e.GetAction() == "created" || e.GetAction() == "updated") && e.GetTime().AsTime().Equal(at)
	})
}

// rolledSince tells whether events tell of a service's rollout.
func (h *history) rolledSince(id string, at time.Time) bool {
	return slices.ContainsFunc(h.told, func(e *warrenv1.Event) bool {
		return e.GetObjectId() == id && (e.GetAction() == "rollout-started" || e.GetAction() == "rollback-started") && !e.GetTime().AsTime().Before(at)
	})
}

// incidents adds what befell a task on its node, and why it waits.
func (h *history) incidents(t *warrenv1.Task) {
	const object = warrenv1.EventObject_EVENT_OBJECT_TASK
	name, id, status := h.taskName(t), t.GetMeta().GetId(), t.GetStatus()
	for _, i := range status.GetIncidents() {
		h.befalls(t, stepOf(i), i.GetAt(), "task %s %s on node %s%s", name, befell(i.GetKind()), h.nodeName(t.GetNodeId()), because(lines(unprefixed(i.GetMessage()))))
	}
	if exit := status.GetExit(); exit != nil && len(status.GetIncidents()) == 0 && failed(status.GetState()) && !h.seen[id+" "+word(status.GetState().String(), "TASK_STATE_")] {
		h.befalls(t, step{status.GetAttempt(), rankExit}, cmp.Or(exit.GetAt(), status.GetSince()), "task %s ended on node %s%s%s", name, h.nodeName(t.GetNodeId()),
			because(status.GetError()), because(lastLine(exit.GetLastOutput())))
	}
	if lifecycle.Wanted(t) && slot.Unassigned(t) && status.GetMessage() != "" && !h.seen[id+" waiting"] {
		h.add(status.GetSince(), object, name, "", "task %s waits: %s", name, status.GetMessage())
	}
}

// befell words what kind of thing has befallen a task.
func befell(kind warrenv1.IncidentKind) string {
	switch kind {
	case warrenv1.IncidentKind_INCIDENT_KIND_EXIT:
		return "ended"
	case warrenv1.IncidentKind_INCIDENT_KIND_UNHEALTHY:
		return "became unhealthy"
	case warrenv1.IncidentKind_INCIDENT_KIND_HEALTHY:
		return "became healthy"
	case warrenv1.IncidentKind_INCIDENT_KIND_REJECTED:
		return "could not be started"
	}
	return "met with something"
}

// lines makes one line of several.
func lines(text string) string {
	return bounded(strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), " | "))
}

// standing adds since when a node is away, or drained, where no event is remembered.
func (h *history) standing(id string) {
	n := h.Node(id)
	if n == nil {
		return
	}
	state := n.GetStatus().GetState()
	if action := word(state.String(), "NODE_STATE_"); state != warrenv1.NodeState_NODE_STATE_READY && state != warrenv1.NodeState_NODE_STATE_UNSPECIFIED && !h.seen[id+" "+action] {
		h.add(n.GetStatus().GetSince(), warrenv1.EventObject_EVENT_OBJECT_NODE, h.nodeName(id), "", "node %s is %s%s", h.nodeName(id), action, because(n.GetStatus().GetMessage()))
	}
}

// ofTask tells what has happened to a task, to its node, and to its service's template before it was made.
func (s scene) ofTask(t *warrenv1.Task) []*warrenv1.Happening {
	h := s.history()
	name := s.taskName(t)
	began := t.GetMeta().GetCreatedAt().AsTime()
	h.events(func(e *warrenv1.Event) bool {
		switch e.GetObject() {
		case warrenv1.EventObject_EVENT_OBJECT_TASK:
			return (e.GetObjectId() == t.GetMeta().GetId() || e.GetObjectName() == name && !routine[e.GetAction()] && e.GetTime().AsTime().Before(began)) && !s.better(e)
		case warrenv1.EventObject_EVENT_OBJECT_NODE:
			return e.GetObjectId() == t.GetNodeId() && fortunes[e.GetAction()] && !e.GetTime().AsTime().Before(began)
		case warrenv1.EventObject_EVENT_OBJECT_SERVICE:
			return e.GetObjectId() == t.GetServiceId()
		}
		return false
	})
	if service := s.Service(t.GetServiceId()); service != nil {
		h.spec(service)
	}
	h.incidents(t)
	in := slot.At(s.Snapshot, t.GetServiceId(), slot.KeyOf(t))
	for _, before := range in.Ended {
		if before.GetMeta().GetId() != t.GetMeta().GetId() && !before.GetMeta().GetCreatedAt().AsTime().After(began) {
			h.incidents(before)
		}
	}
	h.standing(t.GetNodeId())
	if !h.seen[t.GetMeta().GetId()+" created"] {
		h.add(t.GetMeta().GetCreatedAt(), warrenv1.EventObject_EVENT_OBJECT_TASK, name, "", "task %s created", name)
	}
	return h.list()
}

// ofNode tells what has happened to a node and to the tasks on it.
func (s scene) ofNode(n *warrenv1.Node) []*warrenv1.Happening {
	h := s.history()
	id := n.GetMeta().GetId()
	on := map[string]bool{}
	for t := range s.TasksByNode(id) {
		on[t.GetMeta().GetId()] = true
	}
	h.events(func(e *warrenv1.Event) bool {
		switch e.GetObject() {
		case warrenv1.EventObject_EVENT_OBJECT_NODE:
			return e.GetObjectId() == id
		case warrenv1.EventObject_EVENT_OBJECT_TASK:
			return on[e.GetObjectId()] && !s.better(e)
		}
		return false
	})
	for t := range s.TasksByNode(id) {
		h.incidents(t)
	}
	h.standing(id)
	if !h.seen[id+" created"] {
		h.add(n.GetMeta().GetCreatedAt(), warrenv1.EventObject_EVENT_OBJECT_NODE, s.nodeName(id), "", "node %s joined the cluster", s.nodeName(id))
	}
	return h.list()
}
