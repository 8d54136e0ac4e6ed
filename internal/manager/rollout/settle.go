package rollout

import (
	"slices"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// candidate is a slot whose task is due and whose replacement has not begun.
type candidate struct {
	*place
	task  *warrenv1.Task
	cause cause
	// failed: a replacement was tried and failed.
	failed bool
}

func (d *decision) full() bool { return d.transaction.Len()+len(d.relying) >= loop.MaxOperations }

// settle finishes what was begun in a slot, and leaves what could be begun to advance.
func (d *decision) settle(p *place) {
	switch {
	case len(p.Live) == 0:
		d.await(p)
	case len(p.fresh) > 0:
		d.settleFresh(p, p.fresh[0])
	case len(p.stale) > 0:
		d.settleStale(p, p.stale[0])
	default:
		// The first serves, or is the next best: nothing is gained by more than one.
		d.retireFor(p.leaving[0], p.leaving[1:])
		d.propose(p, p.leaving[0], p.cause)
	}
}

// settleFresh: the slot's task is as it should be. The others, if any, are stopped when it is relied on, or at once where
// they do not run themselves.
func (d *decision) settleFresh(p *place, fresh *warrenv1.Task) {
	d.retireFor(fresh, p.fresh[1:])
	due := slices.Concat(p.stale, p.leaving)
	if d.takesOver(p, fresh) {
		d.retireFor(fresh, due)
		return
	}
	kept := d.keeper(due)
	for _, t := range due {
		if t != kept {
			d.retire([]*warrenv1.Task{t})
		}
	}
	d.await(p)
}

// takesOver tells whether a new task may take the others' place now. The first batch of a rollout keeps the old tasks until
// the new ones are good: a release that crashes soon costs nothing.
func (d *decision) takesOver(p *place, fresh *warrenv1.Task) bool {
	if len(p.stale) > 0 && underway(d.service) && (!d.active || !d.proven() || p.failed) {
		return d.trial.good(fresh, d.now)
	}
	return d.relied(p, fresh)
}

// keeper returns the task that stays until the new one is relied on, nil for none: the best of those that run and may stay
// so long.
func (d *decision) keeper(due []*warrenv1.Task) *warrenv1.Task {
	var best *warrenv1.Task
	for _, t := range due {
		if slot.Running(t) && d.due(t) != overdue && (best == nil || !slot.Serving(best) && slot.Serving(t)) {
			best = t
		}
	}
	return best
}

// settleStale: nothing in the slot is of the current revision. What must leave its node goes when what may stay serves.
func (d *decision) settleStale(p *place, stale *warrenv1.Task) {
	d.retireFor(stale, p.stale[1:])
	if len(p.leaving) == 0 {
		d.propose(p, stale, outdated)
		return
	}
	if d.relied(p, stale) {
		d.retireFor(stale, p.leaving)
		return
	}
	if p.cause == overdue || !slot.Serving(p.leaving[0]) {
		d.retire(p.leaving)
		p.leaving = nil
		d.propose(p, stale, outdated)
		return
	}
	d.retireFor(p.leaving[0], p.leaving[1:])
	d.moving++
	d.propose(p, stale, outdated) // it may never serve
}

// propose makes a slot's task a candidate for being replaced.
func (d *decision) propose(p *place, t *warrenv1.Task, why cause) {
	if p.closed && why == outdated {
		return
	}
	if why == outdated && p.Done(d.service, d.service.GetRevision()) {
		d.retire([]*warrenv1.Task{t}) // the replacement has run and is done already
		return
	}
	failed := why == outdated && (p.failed || d.failedOnTheWay(p.Slot))
	d.candidates = append(d.candidates, candidate{place: p, task: t, cause: why, failed: failed})
}

// await counts a slot for which others may have to wait. One that failed, where the policy lets some, holds up nothing.
func (d *decision) await(p *place) {
	switch {
	case p.failed:
	case len(p.Live) == 0 && replaced(p.Slot), len(p.stale) > 0:
		d.updating++
	case len(p.Live) == 0:
		d.unwell++
	case len(p.leaving) > 0:
		d.moving++
	case d.relied(p, p.fresh[0]):
	case replaced(p.Slot):
		d.updating++
	case d.holdsUp(p.Slot, p.fresh[0]):
		d.unwell++
	}
}

// retireFor stops tasks because another is there to do their work, and has the transaction refused if that has changed
// meanwhile.
func (d *decision) retireFor(kept *warrenv1.Task, tasks []*warrenv1.Task) {
	if len(tasks) > 0 {
		d.rely(kept)
	}
	d.retire(tasks)
}

// retire stops tasks that have been replaced or are too many.
func (d *decision) retire(tasks []*warrenv1.Task) {
	for _, t := range tasks {
		if d.full() {
			return
		}
		d.stop(t)
	}
}

// stop retires one task.
func (d *decision) stop(t *warrenv1.Task) {
	slot.Retire(d.transaction, t)
	d.checked[state.KeyOf(t)] = true
	d.restOn(t)
}

// rely has the transaction refused if a task that stays has changed meanwhile. Whether it stays is known at the end.
func (d *decision) rely(t *warrenv1.Task) { d.relying = append(d.relying, t) }

// restOn has the transaction refused if what makes t due has changed meanwhile.
func (d *decision) restOn(t *warrenv1.Task) {
	d.check(d.service)
	if n := d.snapshot.Node(t.GetNodeId()); n != nil && d.leaves(t) != nothing {
		d.check(n)
	}
}

func (d *decision) check(o state.Object) {
	if k := state.KeyOf(o); !d.checked[k] {
		d.checked[k] = true
		d.transaction.Check(o)
	}
}
