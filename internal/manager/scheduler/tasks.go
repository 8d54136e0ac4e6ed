package scheduler

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// waits tells whether a node is to be chosen for t, or accepted where t has one.
func waits(t *warrenv1.Task) bool {
	return lifecycle.Wanted(t) && t.GetStatus().GetState() <= warrenv1.TaskState_TASK_STATE_PENDING
}

// occupies tells whether t is on its node, so that what it reserves is in use.
func occupies(t *warrenv1.Task) bool {
	s := t.GetStatus().GetState()
	return t.GetNodeId() != "" && s > warrenv1.TaskState_TASK_STATE_PENDING && !lifecycle.Ended(s)
}

// setTask replaces what the view holds of a task; before or after is nil where there is none.
func (v *view) setTask(s state.Snapshot, before, after *warrenv1.Task) {
	if before != nil && after != nil && v.stillWaits(before, after) {
		return
	}
	v.noteFailure(before, after)
	// Counted in before it is counted out, so that its group is not forgotten between the two.
	from, to := v.groupOf(s, before), v.groupOf(s, after)
	if to != nil {
		to.tasks++
	}
	if from != nil {
		from.tasks--
		v.leave(from, before)
		v.releaseGroup(from)
	}
	if to != nil {
		v.join(to, after)
	}
}

// stillWaits takes in that a waiting task waits on: at the same place in the queue. It tells whether
// that is so.
func (v *view) stillWaits(before, after *warrenv1.Task) bool {
	if !waits(before) || !waits(after) || before.GetNodeId() != after.GetNodeId() {
		return false
	}
	id := after.GetMeta().GetId()
	g := v.service(after.GetServiceId()).groups[after.GetRevision()]
	switch {
	case g == nil || before.GetRevision() != after.GetRevision():
		return false
	case g.pending[id] != nil:
		g.pending[id] = after
		// Someone else has written it, perhaps before the reason could be.
		g.reason.untold = g.reason.untold || after.GetStatus().GetMessage() != g.reason.text
	case g.bound[id] != nil:
		n := v.node(after.GetNodeId())
		n.waiting[id], g.bound[id] = after, after
		if after.GetStatus().GetMessage() == before.GetStatus().GetMessage() {
			v.pinned.add(n)
		}
	default:
		return false
	}
	return true
}

// join puts t where it belongs: onto its node, or among those that wait.
func (v *view) join(g *group, t *warrenv1.Task) {
	id := t.GetMeta().GetId()
	switch {
	case occupies(t):
		v.occupy(g, v.node(t.GetNodeId()), t)
	case waits(t) && t.GetNodeId() != "":
		n := v.node(t.GetNodeId())
		n.waiting[id], g.bound[id] = t, t
		v.pinned.add(n)
	case waits(t):
		g.pending[id] = t
		g.queue = append(g.queue, id)
		g.reason.untold = true
		if g.blocked && g.beside(t.GetSlot()) != nil {
			v.retry(g)
		}
		v.enqueue(g)
	}
}

// leave takes t away from where join put it. A task that was claimed is nowhere by then.
func (v *view) leave(g *group, t *warrenv1.Task) {
	id := t.GetMeta().GetId()
	switch {
	case occupies(t):
		v.vacate(g, v.node(t.GetNodeId()), t)
	case waits(t) && t.GetNodeId() != "":
		n := v.node(t.GetNodeId())
		delete(n.waiting, id)
		delete(g.bound, id)
		v.releaseNode(n)
	case waits(t):
		delete(g.pending, id)
		g.shorten()
	}
}

// shorten drops from the queue those that wait no more, when they have become many.
func (g *group) shorten() {
	if len(g.queue) > 2*len(g.pending)+64 {
		g.queue = slices.DeleteFunc(g.queue, func(id string) bool { return g.pending[id] == nil })
	}
}

// claim places a waiting task in the view, before that is written.
func (v *view) claim(g *group, t *warrenv1.Task, n *node) {
	v.leave(g, t)
	v.occupy(g, n, t)
	v.claims[t.GetMeta().GetId()] = claim{group: g, node: n, task: t}
	v.placed = append(v.placed, choice{task: t, node: n})
}

// confirm tells whether t is written as it was claimed. Then nothing in the view changes.
func (v *view) confirm(t *warrenv1.Task) bool {
	c, ok := v.claims[t.GetMeta().GetId()]
	if !ok || !occupies(t) || !lifecycle.Wanted(t) || t.GetNodeId() != c.node.id || t.GetRevision() != c.group.revision {
		return false
	}
	delete(v.claims, t.GetMeta().GetId())
	return true
}

// unclaim takes a claim back: what came of it is observed, or it was refused.
func (v *view) unclaim(id string) (*group, bool) {
	c, ok := v.claims[id]
	if ok {
		delete(v.claims, id)
		v.vacate(c.group, c.node, c.task)
	}
	return c.group, ok
}

// reread has a task wait again whose placement was refused although nothing about it was observed.
func (v *view) reread(s state.Snapshot, id string) {
	if g, ok := v.unclaim(id); ok {
		if t := s.Task(id); t != nil {
			v.join(g, t)
		}
	}
}

func (v *view) service(id string) *service {
	s := v.services[id]
	if s == nil {
		s = &service{id: id, wanted: map[*node]int{}, groups: map[uint64]*group{}}
		v.services[id] = s
	}
	return s
}

// setService takes in a service as it is now. What waits is tried again where its rules have changed.
func (v *view) setService(o *warrenv1.Service) {
	s := v.service(o.GetMeta().GetId())
	before := s.object
	s.object = o
	if before != nil && before.GetRemoving() == o.GetRemoving() &&
		proto.Equal(before.GetSpec().GetPlacement(), o.GetSpec().GetPlacement()) && slot.StopFirst(before) == slot.StopFirst(o) {
		return
	}
	s.rules, s.broken = placement.Compile(o.GetSpec().GetPlacement())
	for _, g := range s.inOrder() {
		v.retry(g)
	}
}

func (v *view) dropService(id string) {
	s := v.service(id)
	s.object, s.rules, s.troubles = nil, nil, nil
	v.releaseService(s)
}

// releaseService forgets a service that is gone and has no tasks.
func (v *view) releaseService(s *service) {
	if s.object == nil && len(s.groups) == 0 {
		delete(v.services, s.id)
	}
}

// inOrder returns the groups by revision.
func (s *service) inOrder() []*group {
	groups := make([]*group, 0, len(s.groups))
	for _, g := range s.groups {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *group) int { return int(int64(a.revision) - int64(b.revision)) })
	return groups
}

// groupOf returns the group of t, and makes it where there is none yet; nil for no task and for one that
// has ended, which is in no group.
func (v *view) groupOf(s state.Snapshot, t *warrenv1.Task) *group {
	if t == nil || lifecycle.Ended(t.GetStatus().GetState()) {
		return nil
	}
	owner := v.service(t.GetServiceId())
	g := owner.groups[t.GetRevision()]
	if g == nil {
		revision := s.Revision(t.GetServiceId(), t.GetRevision())
		g = &group{
			service: owner, revision: t.GetRevision(),
			need:     amountOf(revision.GetTask().GetReservations()),
			ports:    portsOf(revision.GetTask()),
			overlay:  onOverlay(revision.GetTask()),
			template: revision != nil,
			present:  map[*node]int{},
			pending:  map[string]*warrenv1.Task{},
			bound:    map[string]*warrenv1.Task{},
		}
		owner.groups[t.GetRevision()] = g
	}
	return g
}

// releaseGroup forgets a group that has no tasks left.
func (v *view) releaseGroup(g *group) {
	if g.tasks > 0 {
		return
	}
	delete(g.service.groups, g.revision)
	v.releaseService(g.service)
}

// enqueue has a group's tasks placed, unless they are known to fit nowhere.
func (v *view) enqueue(g *group) {
	if !g.queued && !g.blocked && len(g.pending) > 0 {
		g.queued = true
		v.queued = append(v.queued, g)
	}
}

// retry has a group's tasks tried on every node again.
func (v *view) retry(g *group) {
	if g.blocked {
		g.blocked = false
		v.blocked = slices.DeleteFunc(v.blocked, func(other *group) bool { return other == g })
	}
	v.enqueue(g)
	for _, t := range g.bound {
		v.pinned.add(v.node(t.GetNodeId()))
	}
}
