package rollout

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/manager/rollout/policy"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// mostSteps bounds how many steps of its record one decision takes. Each leads on, so that a few are all there can be.
const mostSteps = 8

// outcome is what decide comes to.
type outcome struct {
	transaction *state.Transaction
	wake        time.Time
	// underway tells that a slot's task is due or being replaced, so that every step counts.
	underway bool
}

// decide decides about one service, for a manager that leads since a time: what its rollout has come to, then what is to be done in
// its slots.
func decide(s state.Snapshot, serviceID string, now, leading time.Time, newID func() string) outcome {
	stored := s.Service(serviceID)
	if stored == nil || stored.GetRemoving() {
		return outcome{}
	}
	slots := slices.DeleteFunc(slot.Of(s, serviceID), func(of slot.Slot) bool { return !of.Fits(stored) })
	images := imagesOf(s, serviceID, slots)
	service, failures, outcomes := stored, map[uint64]string{}, map[uint64]*warrenv1.RolloutOutcome{}
	v := look(s, service, slots, images, now, leading)
	for range mostSteps {
		next := v.next(failures)
		if next == nil {
			break
		}
		note(outcomes, failures, service.GetRollout(), next.GetRollout())
		service = next
		v = look(s, service, slots, images, now, leading)
		if service.GetRollout().GetState() == warrenv1.RolloutState_ROLLOUT_STATE_ABANDONED {
			break // written for all to see before the next one begins
		}
	}
	d := &decision{survey: v, newID: newID, transaction: state.New(now), checked: map[state.Key]bool{}}
	d.record(stored, failures, outcomes)
	if service.GetRollout().GetState() != warrenv1.RolloutState_ROLLOUT_STATE_ABANDONED {
		d.act()
	}
	if d.underway {
		d.wakeAt(v.trialEnds)
	}
	return outcome{d.transaction, d.wake, d.underway}
}

// decision is one decision in the making: what was seen, and what is done about it.
type decision struct {
	*survey
	newID       func() string
	transaction *state.Transaction
	checked     map[state.Key]bool

	// relying are tasks on which the decision rests although it leaves them alone.
	relying    []*warrenv1.Task
	candidates []candidate
	// updating slots are in the middle of being updated, moving ones in the middle of being moved from their node; unwell
	// ones have no serving task for another reason.
	updating, moving, unwell int
}

// note notes how a rollout has ended, by the revision that it led to. One that goes back was given up for the next.
func note(outcomes map[uint64]*warrenv1.RolloutOutcome, failures map[uint64]string, was, r *warrenv1.Rollout) {
	switch state := r.GetState(); {
	case state == was.GetState() && r.GetTo() == was.GetTo():
	case state == complete, state == abandoned:
		outcomes[r.GetTo()] = &warrenv1.RolloutOutcome{State: state, Message: r.GetMessage(), At: r.GetSince(), Rollback: r.GetRollback()}
	case policy.Underway(was) && r.GetTo() != was.GetTo():
		outcomes[was.GetTo()] = &warrenv1.RolloutOutcome{State: abandoned, Message: cmp.Or(failures[was.GetTo()], r.GetMessage()), At: r.GetSince(), Rollback: was.GetRollback()}
	}
}

// record writes what the rollout has come to, the revisions' images that are known now, those that have failed, and how rollouts to them have ended.
func (d *decision) record(stored *warrenv1.Service, failures map[uint64]string, outcomes map[uint64]*warrenv1.RolloutOutcome) {
	if d.service != stored {
		d.checked[state.KeyOf(stored)] = true
		state.Update(d.transaction, stored, func(s *warrenv1.Service) {
			s.Rollout = d.service.GetRollout()
			if d.service.GetRevision() != stored.GetRevision() {
				s.Spec, s.Revision = d.service.GetSpec(), d.service.GetRevision()
				s.PreviousRevision, s.LastRevision = d.service.GetPreviousRevision(), d.service.GetLastRevision()
				s.Reverted = d.service.GetReverted()
				s.WrittenBy, s.Trace, s.WrittenAt = d.service.GetWrittenBy(), d.service.GetTrace(), 0 // who has read it before must read it again
			} else if s.WrittenAt == 0 {
				// For a user who has read the service before this, nothing has changed.
				s.WrittenAt = stored.GetMeta().GetVersion()
			}
		})
	}
	for _, number := range d.images.news(failures, outcomes) {
		r := d.snapshot.Revision(stored.GetMeta().GetId(), number)
		state.Update(d.transaction, r, func(r *warrenv1.Revision) {
			r.ImageDigest = d.images.digest(number)
			if why, known := failures[number]; known {
				r.Failure = why
			}
			if ended := outcomes[number]; ended != nil {
				r.Outcome = ended
			}
		})
	}
}

// act does what is to be done in the slots.
func (d *decision) act() {
	for i := range d.places {
		if d.full() {
			break
		}
		switch p := &d.places[i]; {
		case d.sideBySide:
			d.pair(p)
		default:
			d.settle(p)
		}
	}
	d.advance()
	for _, t := range d.relying {
		d.check(t)
	}
}

// edited returns a copy of the service whose rollout is changed.
func edited(service *warrenv1.Service, edit func(*warrenv1.Rollout)) *warrenv1.Service {
	changed := proto.CloneOf(service)
	edit(changed.GetRollout())
	return changed
}

// underway tells whether a service's rollout is to its current revision and neither complete nor given up.
func underway(service *warrenv1.Service) bool {
	return policy.Underway(service.GetRollout()) && service.GetRollout().GetTo() == service.GetRevision()
}
