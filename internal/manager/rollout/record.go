package rollout

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/rollout/policy"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	running   = warrenv1.RolloutState_ROLLOUT_STATE_RUNNING
	paused    = warrenv1.RolloutState_ROLLOUT_STATE_PAUSED
	waiting   = warrenv1.RolloutState_ROLLOUT_STATE_WAITING
	complete  = warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE
	abandoned = warrenv1.RolloutState_ROLLOUT_STATE_ABANDONED
)

// Warren is who has written a service that has gone back by itself.
const Warren = "warren"

// next takes the record of a service's rollout one step on, and returns the service as it is then; nil where there is no
// step to take. What it finds out of revisions that failed it notes in failures.
func (v *survey) next(failures map[uint64]string) *warrenv1.Service {
	r := v.service.GetRollout()
	switch {
	case v.service.GetRevision() != cmp.Or(r.GetTo(), 1):
		if policy.Underway(r) {
			return v.into(abandoned, fmt.Sprintf("given up for revision %d%s", v.service.GetRevision(), by(v.service.GetWrittenBy())))
		}
		return v.begin()
	case r == nil:
		return nil
	}
	switch r.GetState() {
	case paused:
		return v.resume()
	case complete:
		return v.letGo()
	case abandoned:
		return v.begin()
	case running, waiting:
		if next := v.pause(); next != nil {
			return next
		}
		if next := v.fail(failures); next != nil {
			return next
		}
		if v.sideBySide {
			return v.turn()
		}
		return v.finish(failures)
	}
	return nil
}

// by adds who it was, where that is known and was not Warren.
func by(who string) string {
	if who == "" || who == Warren {
		return ""
	}
	return " by " + who
}

// into returns the service with its rollout in another state.
func (v *survey) into(s warrenv1.RolloutState, message string) *warrenv1.Service {
	return edited(v.service, func(r *warrenv1.Rollout) { v.enter(r, s, message) })
}

func (v *survey) enter(r *warrenv1.Rollout, s warrenv1.RolloutState, message string) {
	r.State, r.Since, r.Message = s, timestamppb.New(v.now), message
	if at := v.lastGood; at.After(r.GetAdvancedAt().AsTime()) && !at.After(v.now) {
		r.AdvancedAt = timestamppb.New(at)
	}
}

// begin begins the rollout of the current revision.
func (v *survey) begin() *warrenv1.Service {
	was, to := v.service.GetRollout(), v.service.GetRevision()
	r := v.rollout(to)
	switch {
	case was == nil:
		r.From = cmp.Or(v.service.GetPreviousRevision(), 1)
	case was.GetState() == complete, was.GetRollback():
		r.From = was.GetTo()
	default:
		r.From = was.GetFrom() // the one in between was never complete
	}
	r.Rollback = v.service.GetReverted()
	if r.From == to { // back to where the one that was given up came from: whoever asks for that, and however, gives that up
		r.From, r.Rollback = was.GetTo(), true
	}
	if r.From == to {
		r.From = was.GetFrom()
	}
	changed := proto.CloneOf(v.service)
	changed.Rollout = r
	carryOver(was, changed)
	return changed
}

// rollout returns the record of one that begins now. Orders that were given before are not meant for it.
func (v *survey) rollout(to uint64) *warrenv1.Rollout {
	now, orders := timestamppb.New(v.now), v.service.GetOrders()
	return &warrenv1.Rollout{
		To: to, State: running, StartedAt: now, Since: now, AdvancedAt: now,
		Resumes: orders.GetResumes(), Promotes: orders.GetPromotes(),
	}
}

// carryOver: where a blue-green rollout goes back the way that another came, each revision keeps the part of the connections it
// has, so that what was not switched over needs no switching back.
func carryOver(was *warrenv1.Rollout, service *warrenv1.Service) {
	r := service.GetRollout()
	back := r.GetRollback() && was.GetFrom() == r.GetTo() && was.GetTo() == r.GetFrom()
	if back && policy.Of(service).Strategy == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN &&
		(was.GetState() != complete || was.GetKeepUntil() != nil) {
		r.Weight = 100 - min(was.GetWeight(), 100)
	}
}

// pause follows the order to pause.
func (v *survey) pause() *warrenv1.Service {
	orders := v.service.GetOrders()
	if !orders.GetPaused() {
		return nil
	}
	return edited(v.service, func(r *warrenv1.Rollout) {
		v.enter(r, paused, "paused"+by(orders.GetBy()))
		r.Resumes = orders.GetResumes()
	})
}

// resume follows the order to go on. What failed before is forgiven.
func (v *survey) resume() *warrenv1.Service {
	orders := v.service.GetOrders()
	if orders.GetPaused() || orders.GetResumes() <= v.service.GetRollout().GetResumes() {
		return nil
	}
	return edited(v.service, func(r *warrenv1.Rollout) {
		v.enter(r, running, "")
		r.Resumes, r.Failed, r.AdvancedAt = orders.GetResumes(), 0, r.Since
	})
}

// letGo lets the old tasks of a blue-green rollout go when their time is over.
func (v *survey) letGo() *warrenv1.Service {
	until := v.service.GetRollout().GetKeepUntil()
	if until == nil {
		return nil
	}
	if until.AsTime().After(v.now) {
		v.wakeAt(until.AsTime())
		return nil
	}
	return edited(v.service, func(r *warrenv1.Rollout) { r.KeepUntil = nil })
}

// fail does what the policy says of a rollout that has failed.
func (v *survey) fail(failures map[uint64]string) *warrenv1.Service {
	r := v.service.GetRollout()
	failed := max(r.GetFailed(), uint32(v.failed))
	why := v.verdict(failed)
	switch {
	case why == "" && failed == r.GetFailed():
		return nil
	case why == "":
		return edited(v.service, func(r *warrenv1.Rollout) { r.Failed = failed })
	case v.policy.Action == warrenv1.FailureAction_FAILURE_ACTION_CONTINUE:
		if failed == r.GetFailed() && r.GetMessage() != "" {
			return nil
		}
		return edited(v.service, func(r *warrenv1.Rollout) { r.Failed, r.Message = failed, why+"; going on" })
	case v.policy.Action == warrenv1.FailureAction_FAILURE_ACTION_ROLLBACK:
		if to := v.refuge(); to != 0 {
			failures[r.GetTo()] = why
			return v.back(to, why)
		}
		why += "; no earlier revision is kept that it could go back to"
	}
	return edited(v.service, func(r *warrenv1.Rollout) {
		v.enter(r, paused, why)
		r.Failed, r.Resumes = failed, v.service.GetOrders().GetResumes()
	})
}

// verdict says why a rollout has failed; empty where it has not.
func (v *survey) verdict(failed uint32) string {
	r := v.service.GetRollout()
	if allowed := math.Floor(v.policy.MaxFailureRatio*float64(v.counted) + 1e-9); float64(failed) > allowed {
		why := fmt.Sprintf("%d of %d slots failed", failed, v.counted)
		if v.blamed != nil {
			why += ": " + words(v.snapshot, v.blamed)
		}
		return why
	}
	if r.GetState() != running || v.left == 0 {
		return ""
	}
	at := later(r.GetAdvancedAt().AsTime(), v.lastGood).Add(v.policy.ProgressDeadline + v.policy.Delay)
	if at.After(v.now) {
		v.wakeAt(at)
		return ""
	}
	why := "no task was found good for " + v.policy.ProgressDeadline.String()
	if v.awaited != nil {
		why += ": " + words(v.snapshot, v.awaited)
	}
	return why
}

// refuge returns the revision to go back to: the one that the rollout came from, unless that has failed itself; 0 for none.
func (v *survey) refuge() uint64 {
	id, r := v.service.GetMeta().GetId(), v.service.GetRollout()
	if from := v.snapshot.Revision(id, r.GetFrom()); from != nil && from.GetFailure() == "" {
		return r.GetFrom()
	}
	return before(v.snapshot, id, r.GetTo())
}

// back makes an earlier revision current again, and begins the rollout to it.
func (v *survey) back(to uint64, why string) *warrenv1.Service {
	was := v.service.GetRollout()
	changed := proto.CloneOf(v.service)
	id := v.service.GetMeta().GetId()
	changed.Spec.Task = proto.CloneOf(v.snapshot.Revision(id, to).GetTask())
	changed.LastRevision = max(v.service.GetLastRevision(), v.service.GetRevision())
	changed.Revision, changed.PreviousRevision = to, before(v.snapshot, id, to)
	changed.WrittenBy, changed.Trace, changed.Reverted = Warren, "", true
	r := v.rollout(to)
	r.From, r.Rollback, r.Message = was.GetTo(), true, fmt.Sprintf("going back from revision %d: %s", was.GetTo(), why)
	changed.Rollout = r
	if policy.Of(changed).Strategy == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN {
		r.Weight = 100 // a bad revision gets no more connections, whether or not all old tasks are there
	}
	return changed
}

// before returns the newest revision before that number which is kept and has not failed; 0 for none.
func before(s state.Snapshot, serviceID string, number uint64) uint64 {
	found := uint64(0)
	for r := range s.Revisions(serviceID) {
		if n := r.GetNumber(); n < number && n > found && r.GetFailure() == "" {
			found = n
		}
	}
	return found
}

// finish ends a rollout whose slots all have a good task of the new revision.
func (v *survey) finish(failures map[uint64]string) *warrenv1.Service {
	if v.left > 0 {
		return nil
	}
	v.forgive(failures)
	return v.into(complete, completed(v.service.GetRollout()))
}

// forgive: a revision that has failed before and is good now has nothing to be said against it.
func (v *survey) forgive(failures map[uint64]string) {
	to := v.service.GetRollout().GetTo()
	if v.snapshot.Revision(v.service.GetMeta().GetId(), to).GetFailure() != "" {
		failures[to] = ""
	}
}

// completed words that a rollout is over; one that went back still says why.
func completed(r *warrenv1.Rollout) string {
	if r.GetRollback() && r.GetMessage() != "" {
		return r.GetMessage()
	}
	return ""
}

func (v *survey) after(since *timestamppb.Timestamp, d time.Duration) bool {
	at := since.AsTime().Add(d)
	if at.After(v.now) {
		v.wakeAt(at)
		return false
	}
	return true
}
