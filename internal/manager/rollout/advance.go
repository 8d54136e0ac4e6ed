package rollout

import (
	"cmp"
	"slices"
	"time"

	"github.com/cuemby/warren/internal/manager/slot"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// advance begins replacements, as many as the policy lets be underway at a time.
func (d *decision) advance() {
	slices.SortStableFunc(d.candidates, func(a, b candidate) int { return cmp.Compare(a.urgency(), b.urgency()) })
	for _, c := range d.candidates {
		if d.full() {
			return
		}
		if c.cause == outdated && !d.updates() {
			continue
		}
		switch {
		case c.cause == overdue:
			d.swap(c) // whether or not there is another place for it
		case slot.Unassigned(c.task) && (c.cause > outdated || len(c.leaving) == 0):
			d.swap(c) // nothing runs here that could be missed
			if failedBefore(c.Slot, d.service.GetRevision()) {
				d.unwell++
			}
		case d.busy(c):
		case d.waits(c):
		default:
			d.began(c)
			d.replace(c)
		}
	}
}

// updates tells whether outdated tasks are replaced now: by a rollout that goes on, or because they have outlasted one.
func (d *decision) updates() bool {
	r := d.service.GetRollout()
	return !underway(d.service) || r.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_RUNNING
}

// busy tells whether as much is underway as may be.
func (d *decision) busy(c candidate) bool {
	switch {
	case c.cause == outdated && c.failed && d.active:
		return false // the policy lets it fail: tried again beside the others
	case c.cause == outdated:
		limit := d.policy.Parallelism
		busy := d.updating + d.unwell
		if d.policy.StopFirst {
			busy += d.moving
		}
		// While nobody knows what its image is, one task of a revision finds out.
		blind := d.begun > 0 && !d.images.known(d.service.GetRevision())
		return busy >= limit || blind || d.active && !d.proven() && d.begun >= limit
	case d.policy.StopFirst:
		return d.updating+d.unwell+d.moving >= d.policy.MaxUnavailable
	case c.cause == drained:
		return false // nothing is missing meanwhile
	}
	return d.moving >= d.policy.Parallelism
}

// waits tells whether a replacement must wait for a time to come.
func (d *decision) waits(c candidate) bool {
	var until time.Time
	switch {
	case c.failed:
		until = c.NotBefore(d.service, d.service.GetRevision(), d.now)
	case c.cause == drained && !d.policy.StopFirst:
		return false
	default:
		if !d.newest.IsZero() {
			until = d.newest.Add(d.policy.Delay)
		}
		if c.task.GetRevision() == d.service.GetRevision() && c.cause == outdated && len(c.Ended) > 0 && d.images.mixes(c.Ended[0]) {
			// The one before had another image as well: its node may not be able to get the right one.
			until = later(until, c.Ended[0].GetMeta().GetUpdatedAt().AsTime().Add(slot.LongestBackOff))
		}
	}
	if !until.After(d.now) {
		return false
	}
	d.wakeAt(until)
	if c.failed && !d.active {
		d.updating++
	}
	return true
}

func (d *decision) began(c candidate) {
	if c.cause == outdated {
		d.updating++
		d.begun++
	} else {
		d.moving++
	}
}

// urgency sorts candidates: first those that leave a node; then slots where the replacement failed, which others may
// have to wait for, then those where nothing runs anyway, then those where what runs does not serve.
func (c candidate) urgency() int {
	switch {
	case c.cause > outdated:
		return int(outdated - c.cause)
	case c.failed:
		return 1
	case !slot.Running(c.task):
		return 2
	case !slot.Serving(c.task):
		return 3
	}
	return 4
}

// replace begins a replacement.
func (d *decision) replace(c candidate) {
	switch {
	case d.policy.StopFirst:
		d.stop(c.task)
	case slot.Running(c.task) && (c.cause > outdated || len(c.leaving) == 0):
		d.rely(c.task)
		d.create(c.Key, d.successor(c))
		d.restOn(c.task)
	default:
		d.swap(c)
	}
}

// swap retires a task that does not run, must not any more, or is there for one that serves, and creates the new one beside it.
func (d *decision) swap(c candidate) {
	d.stop(c.task)
	if !d.policy.StopFirst || slot.Unassigned(c.task) {
		d.create(c.Key, d.successor(c))
	}
}

// successor returns the revision that a task's replacement is to be of. One that must leave its node stays of the revision it is of
// as long as its rollout does not go on, or has not shown that the new one is good.
func (d *decision) successor(c candidate) uint64 {
	r := d.service.GetRollout()
	if c.cause > outdated && underway(d.service) &&
		(r.GetState() != warrenv1.RolloutState_ROLLOUT_STATE_RUNNING || !d.proven() || d.failed > 0) {
		return c.task.GetRevision()
	}
	return d.service.GetRevision()
}

func (d *decision) create(key slot.Key, revision uint64) {
	d.transaction.Create(slot.NewTaskOf(d.newID(), d.service, revision, key, d.now))
}
