package rollout

import (
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// turn takes a rollout with tasks of both revisions side by side one step on: the new revision gets more of the connections, or is
// waited for, or has won.
func (v *survey) turn() *warrenv1.Service {
	if v.policy.Strategy == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY {
		return v.turnCanary()
	}
	return v.turnBlueGreen()
}

// turnBlueGreen switches over when every new task is good, and is done when they have been sent all connections for the monitor
// time.
func (v *survey) turnBlueGreen() *warrenv1.Service {
	r, orders := v.service.GetRollout(), v.service.GetOrders()
	promoted := r.GetStep() > 0
	switch {
	case orders.GetPromotes() > r.GetPromotes():
		return edited(v.service, func(r *warrenv1.Rollout) {
			r.Promotes = orders.GetPromotes()
			r.Step = max(r.GetStep(), 1)
			v.proceed(r)
		})
	case v.left > 0:
		return nil
	case r.GetWeight() < 100 && v.policy.Manual && !promoted:
		if r.GetState() == waiting {
			return nil
		}
		return v.into(waiting, "every new task is good: promote it to send them the connections")
	case r.GetWeight() < 100:
		return edited(v.service, func(r *warrenv1.Rollout) {
			r.Weight, r.Step, r.StepSince = 100, 1, timestamppb.New(v.now)
			v.proceed(r)
		})
	case !v.after(r.GetStepSince(), v.policy.Monitor):
		return nil
	}
	return edited(v.service, func(r *warrenv1.Rollout) {
		v.enter(r, complete, "")
		if until := r.GetStepSince().AsTime().Add(v.policy.Keep); until.After(v.now) {
			r.KeepUntil = timestamppb.New(until)
		}
	})
}

// turnCanary gives the new revision the step's part of the connections when as many of its tasks are good, and goes on to the next
// step when they have been well for as long as the step says, or it is promoted. After the last step the rest follows as a
// rolling update.
func (v *survey) turnCanary() *warrenv1.Service {
	r, orders := v.service.GetRollout(), v.service.GetOrders()
	step := v.policy.Canary[r.GetStep()]
	switch {
	case orders.GetPromotes() > r.GetPromotes():
		return edited(v.service, func(r *warrenv1.Rollout) {
			steps := min(orders.GetPromotes()-r.GetPromotes(), uint64(len(v.policy.Canary)))
			r.Promotes = orders.GetPromotes()
			v.climb(r, uint32(steps))
		})
	case v.left > 0:
		return nil
	case r.GetWeight() != step.GetWeight():
		return edited(v.service, func(r *warrenv1.Rollout) {
			r.Weight, r.StepSince = step.GetWeight(), timestamppb.New(v.now)
			v.proceed(r)
		})
	case step.GetHold().AsDuration() == 0:
		if r.GetState() == waiting {
			return nil
		}
		return v.into(waiting, fmt.Sprintf("%d %% of the connections go to revision %d and all is well: promote it to go on", step.GetWeight(), r.GetTo()))
	}
	well := timestamppb.New(later(r.GetStepSince().AsTime(), v.lastGood))
	if !v.after(well, step.GetHold().AsDuration()) {
		return nil
	}
	return edited(v.service, func(r *warrenv1.Rollout) { v.climb(r, 1) })
}

// climb goes up some steps of a canary.
func (v *survey) climb(r *warrenv1.Rollout, steps uint32) {
	r.Step = min(r.GetStep()+steps, uint32(len(v.policy.Canary)))
	if int(r.GetStep()) == len(v.policy.Canary) {
		r.Weight = 0 // all tasks take connections alike from now on
	}
	r.StepSince = timestamppb.New(v.now)
	v.proceed(r)
}

// proceed has a rollout go on that has come further.
func (v *survey) proceed(r *warrenv1.Rollout) {
	if r.GetState() != running {
		v.enter(r, running, "")
	}
	r.AdvancedAt = timestamppb.New(v.now)
}
