package rollout

import (
	"cmp"
	"slices"

	"github.com/cuemby/warren/internal/manager/slot"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// pairs tells which slots are to have tasks of both revisions: all of them, or as many as a canary's step asks for, those first
// that have a new task already, then those that have had one.
func (v *survey) pairs(slots []slot.Slot) []bool {
	paired, to := make([]bool, len(slots)), v.service.GetRevision()
	used := 0
	has := func(tasks []*warrenv1.Task) bool {
		for _, t := range tasks {
			if t.GetRevision() == to {
				return true
			}
		}
		return false
	}
	for i := range slots {
		if slots[i].InUse() && (slots[i].NodeID == "" || v.open(slots[i].NodeID)) {
			used++
		}
	}
	wanted := used
	if v.policy.Strategy == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY {
		weight := int(v.policy.Canary[v.service.GetRollout().GetStep()].GetWeight())
		wanted = (used*weight + 99) / 100
	}
	for _, fits := range []func(s *slot.Slot) bool{
		func(s *slot.Slot) bool { return has(s.Live) },
		func(s *slot.Slot) bool { return has(s.Ended) },
		func(*slot.Slot) bool { return true },
	} {
		for i := range slots {
			s := &slots[i]
			if paired[i] || !s.InUse() || s.NodeID != "" && !v.open(s.NodeID) || !fits(s) {
				continue
			}
			if wanted <= 0 && !has(s.Live) {
				break
			}
			paired[i] = true
			wanted--
		}
	}
	return paired
}

// lookAtPair looks at a slot that is to have a task of the old revision, and of the new one where it is paired.
func (v *survey) lookAtPair(s *slot.Slot, paired bool) {
	p := place{Slot: s, paired: paired}
	p.closed = s.NodeID != "" && !v.open(s.NodeID)
	if paired && !p.closed {
		to := v.service.GetRevision()
		p.fresh, p.leaving = v.of(s, to)
		if v.active {
			v.count(&p)
		}
	}
	if !paired && len(s.Live) == 1 && s.Live[0].GetRevision() == v.service.GetRollout().GetFrom() && v.leaves(s.Live[0]) == nothing && !v.images.mixes(s.Live[0]) {
		return // nearly always
	}
	v.places = append(v.places, p)
}

// of returns the slot's live tasks of a revision: those that may stay as they are, and the others.
func (v *survey) of(s *slot.Slot, revision uint64) (staying, leaving []*warrenv1.Task) {
	for _, t := range s.Live {
		switch {
		case t.GetRevision() != revision:
		case v.leaves(t) == nothing && !v.images.mixes(t):
			staying = append(staying, t)
		default:
			leaving = append(leaving, t)
		}
	}
	v.overdueLast(leaving)
	return staying, leaving
}

// pair sees to a slot while both revisions are kept: each is looked after by itself, and nothing of one takes the place of the
// other.
func (d *decision) pair(p *place) {
	if len(p.Live) == 0 {
		return // the replicas loop fills it first
	}
	from, to := d.service.GetRollout().GetFrom(), d.service.GetRevision()
	serves := d.half(p, from)
	if p.paired {
		of := d.half(p, to)
		serves = cmp.Or(serves, of)
	}
	rest := make([]*warrenv1.Task, 0, len(p.Live))
	for _, t := range p.Live {
		if t.GetRevision() != from && t.GetRevision() != to {
			rest = append(rest, t)
		}
	}
	d.overdueLast(rest)
	switch {
	case len(rest) == 0:
	case serves != nil:
		d.retireFor(serves, rest)
	case d.leaves(rest[0]) == overdue:
		d.retire(rest)
	case !slot.Serving(rest[0]) && len(rest) < len(p.Live):
		d.retire(rest)
	default:
		d.retireFor(rest[0], rest[1:]) // stays until something else does its work
	}
}

// half sees to a slot's tasks of one revision, and returns one that serves and stays; nil for none.
func (d *decision) half(p *place, revision uint64) *warrenv1.Task {
	staying, leaving := d.of(p.Slot, revision)
	if len(staying) > 0 {
		d.retireFor(staying[0], staying[1:])
		if d.relied(p, staying[0]) {
			d.retireFor(staying[0], leaving)
			return staying[0]
		}
	} else if d.lacks(p, revision, len(leaving) > 0) {
		d.check(d.service)
		if len(leaving) > 0 && slot.Running(leaving[0]) && d.leaves(leaving[0]) != overdue {
			d.rely(leaving[0])
			d.restOn(leaving[0])
		}
		d.create(p.Key, revision)
		if revision == d.service.GetRevision() {
			d.begun++
		}
	}
	if len(leaving) > 0 && d.leaves(leaving[0]) != overdue && (slot.Serving(leaving[0]) || slot.Running(leaving[0]) && !d.standsIn(p.Live[0])) {
		d.retireFor(leaving[0], leaving[1:])
		staying = append(staying, leaving[0])
	} else {
		d.retire(leaving)
	}
	if i := slices.IndexFunc(staying, slot.Serving); i >= 0 {
		return staying[i]
	}
	return nil
}

// standsIn tells whether a task, a slot's best, is of a revision between the two and does the slot's work until one of them does. What
// does not serve beside it need not stay for its replacement.
func (d *decision) standsIn(best *warrenv1.Task) bool {
	return slot.Serving(best) && best.GetRevision() != d.service.GetRollout().GetFrom() && !d.current(best)
}

// lacks tells whether a slot is to get a task of a revision of which it has none that may stay. moves: there is one that must
// leave its node.
func (d *decision) lacks(p *place, revision uint64, moves bool) bool {
	if p.closed || d.full() || p.Done(d.service, revision) {
		return false
	}
	if !moves && revision == d.service.GetRevision() {
		if !d.active || d.begun > 0 && !d.images.known(revision) {
			return false
		}
	}
	if at := p.NotBefore(d.service, revision, d.now); at.After(d.now) {
		d.wakeAt(at)
		return false
	}
	return true
}
