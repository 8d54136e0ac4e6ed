package scheduler

import (
	"slices"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// place chooses nodes for tasks that wait, within limit writes, and claims what it has chosen. It
// tells whether there is more to place at once.
func (v *view) place(now time.Time, limit int) (more bool) {
	room := func() bool { return len(v.placed)+len(v.told) < limit }
	v.placeBound(room)
	if len(v.better) > 0 && !v.placeBlocked(now, room) {
		return true
	}
	clear(v.better)
	for i, g := range v.queued {
		if !room() {
			v.queued = slices.Delete(v.queued, 0, i)
			return true
		}
		if !v.placeGroup(g, nil, now, room) && len(g.pending) > 0 {
			v.queued = slices.Delete(v.queued, 0, i)
			return true
		}
		g.queued = false
		if len(g.pending) > 0 {
			g.blocked, g.reason = true, reason{untold: true}
			v.blocked = append(v.blocked, g)
		}
	}
	v.queued = v.queued[:0]
	return len(v.pinned) > 0
}

// boundTask is a waiting task whose node was chosen before, and its group.
type boundTask struct {
	task  *warrenv1.Task
	group *group
}

// placeBound decides about the tasks whose node was chosen before. They bear their reason at once.
func (v *view) placeBound(room func() bool) {
	for _, n := range sorted(v.pinned) {
		waiting := make([]boundTask, 0, len(n.waiting))
		for _, t := range n.waiting {
			waiting = append(waiting, boundTask{t, v.services[t.GetServiceId()].groups[t.GetRevision()]})
		}
		slices.SortFunc(waiting, func(a, b boundTask) int { return byAge(a.task, b.task) })
		for _, w := range waiting {
			if !room() {
				return
			}
			if why := w.group.judgeBound(n); why == fits {
				v.claim(w.group, w.task, n)
			} else if text := w.group.whyNot(n, why); text != w.task.GetStatus().GetMessage() {
				v.told = append(v.told, remark{w.task, text})
			}
		}
		v.pinned.remove(n)
	}
}

// placeBlocked tries what fits nowhere on the nodes that have become better, and on no others. It tells
// whether it got through.
func (v *view) placeBlocked(now time.Time, room func() bool) bool {
	var most amount
	for n := range v.better {
		if n.open {
			most.cpus = max(most.cpus, n.capacity.cpus-n.reserved.cpus)
			most.memory = max(most.memory, n.capacity.memory-n.reserved.memory)
		}
	}
	better := sorted(v.better)
	for _, g := range v.blocked {
		if g.need.cpus > most.cpus && g.need.cpus > 0 || g.need.memory > most.memory && g.need.memory > 0 {
			continue
		}
		if !slices.ContainsFunc(better, func(n *node) bool {
			why := g.judge(n)
			return why == fits || why == full && g.outgrows()
		}) {
			continue
		}
		if !v.placeGroup(g, better, now, room) {
			return false
		}
	}
	v.blocked = slices.DeleteFunc(v.blocked, func(g *group) bool {
		if len(g.pending) == 0 {
			g.blocked = false
		}
		return !g.blocked
	})
	return true
}

// placeGroup gives each waiting task of g the best candidate among some nodes, or all where some is nil, until none of either is
// left. It returns false where there was no room for all.
//
// The tasks are equal, so that they are served from the same candidates; but for those that replace others, for which their slot
// counts nowhere meanwhile. Once one of these is placed, what is known of the others' candidates is out of date, and the other way
// round.
func (v *view) placeGroup(g *group, some []*node, now time.Time, room func() bool) bool {
	find := func(home *node) *candidates {
		if some == nil {
			return v.everywhere(g, home, now)
		}
		return v.among(g, some, home, now)
	}
	var best, moving *candidates
	for len(g.pending) > 0 {
		if !room() {
			return false
		}
		t := g.next()
		var n, home *node
		switch {
		case !g.service.replaces(t.GetSlot()):
			if moving = nil; best == nil {
				best = find(nil)
			}
			n = best.take()
		case g.hopeless() != "" || g.unlike() || moving == nil && len(g.pending)*len(g.service.wanted) <= len(v.nodes):
			best, moving = nil, nil
			home = g.setAside(t.GetSlot())
			n = find(home).take()
			g.bringBack(t.GetSlot())
		default:
			if best = nil; moving == nil {
				nodes := some
				if nodes == nil {
					nodes = v.inOrder().nodes
				}
				moving = v.manyReplacements(g, nodes, now)
			}
			home = g.setAside(t.GetSlot())
			n = moving.replacement(home)
			g.bringBack(t.GetSlot())
		}
		if n == nil {
			return v.placeBeside(g, now, room)
		}
		g.queue = g.queue[1:]
		v.claim(g, t, n)
		v.placed[len(v.placed)-1].but = g.resort(n, now)
		if best != nil {
			best.placed()
		}
		if moving != nil {
			moving.replaced(home, g.service.slots.counted(t.GetSlot()))
		}
	}
	return true
}

// unlike tells whether tasks of g that replace others fit on different nodes, or one node is worse than others by more than its count.
func (g *group) unlike() bool { return g.outgrows() || len(g.service.troubles) > 0 }

// placeBeside gives the waiting tasks for which there is no candidate the nodes where they fit because of what they replace.
func (v *view) placeBeside(g *group, now time.Time, room func() bool) bool {
	if !g.outgrows() {
		return true
	}
	for _, id := range slices.Clone(g.queue) {
		t := g.pending[id]
		if t == nil {
			continue
		}
		if n := g.beside(t.GetSlot()); n != nil {
			if !room() {
				return false
			}
			v.claim(g, t, n)
			v.placed[len(v.placed)-1].but = g.resort(n, now)
		}
	}
	return true
}

// next returns the task that waits longest.
func (g *group) next() (t *warrenv1.Task) {
	for {
		if t := g.pending[g.queue[0]]; t != nil {
			return t
		}
		g.queue = g.queue[1:]
	}
}
