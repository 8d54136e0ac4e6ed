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
		if !v.placeGroup(g, v.everywhere(g, now), room) && len(g.pending) > 0 {
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
			if why := w.group.judge(n); why == fits {
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
		if !slices.ContainsFunc(better, func(n *node) bool { return g.judge(n) == fits }) {
			continue
		}
		if !v.placeGroup(g, v.among(g, better, now), room) {
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

// placeGroup gives each waiting task of g the best candidate, until none of either is left. It returns
// false where there was no room for all.
func (v *view) placeGroup(g *group, best *candidates, room func() bool) bool {
	for len(g.pending) > 0 {
		if !room() {
			return false
		}
		t := g.next()
		n := best.take()
		if n == nil {
			return true
		}
		g.queue = g.queue[1:]
		v.claim(g, t, n)
		v.placed[len(v.placed)-1].but = g.resort(n, best.now)
		best.placed()
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
