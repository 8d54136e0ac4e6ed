// Package policy says by what rules a service's tasks are replaced now: what its users have set, what holds where they have
// set nothing, and which of the two policies is in force, that for updates or that for going back.
//
// Start with Of. The package decides nothing: it reads one service and nothing else, so that the loops, the data plane's
// shares and the API agree.
package policy

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// What holds where a policy says nothing.
const (
	DefaultMonitor          = 5 * time.Second
	DefaultProgressDeadline = 10 * time.Minute
	DefaultKeep             = 5 * time.Minute
	DefaultWeight           = 10
)

// Policy is an update policy with nothing left open.
type Policy struct {
	Parallelism int
	Delay       time.Duration
	// Monitor is how long a new task must have served to be good.
	Monitor          time.Duration
	MaxFailureRatio  float64
	Action           warrenv1.FailureAction
	ProgressDeadline time.Duration
	MaxUnavailable   int
	StopFirst        bool
	// Strategy is rolling wherever the order is stop-first: the others need tasks side by side.
	Strategy warrenv1.RolloutStrategy
	Canary   []*warrenv1.CanaryStep
	// Keep is how long blue-green keeps the old tasks; what was come back from is never kept.
	Keep   time.Duration
	Manual bool
}

// Of returns the policy that is in force for a service: that for going back while a rollout goes back.
func Of(service *warrenv1.Service) Policy {
	update, back := service.GetSpec().GetUpdate(), service.GetSpec().GetRollback()
	going := goesBack(service)
	p := Policy{
		Parallelism:      int(pick(going, back.GetParallelism(), update.GetParallelism())),
		Delay:            duration(0, pick(going, back.GetDelay(), update.GetDelay())),
		Monitor:          duration(DefaultMonitor, pick(going, back.GetMonitor(), update.GetMonitor())),
		MaxFailureRatio:  pick(going, back.GetMaxFailureRatio(), update.GetMaxFailureRatio()),
		ProgressDeadline: duration(DefaultProgressDeadline, pick(going, back.GetProgressDeadline(), update.GetProgressDeadline())),
		MaxUnavailable:   int(pick(going, back.GetMaxUnavailable(), update.GetMaxUnavailable())),
		StopFirst:        stopFirst(service, going),
		Keep:             duration(DefaultKeep, update.GetKeep()),
	}
	p.Parallelism = max(1, p.Parallelism)
	p.MaxUnavailable = cmp.Or(p.MaxUnavailable, p.Parallelism)
	if going {
		p.Action, p.Manual = ofGoingBack(back.GetFailureAction()), back.GetManual()
	} else {
		p.Action, p.Manual = cmp.Or(update.GetFailureAction(), warrenv1.FailureAction_FAILURE_ACTION_ROLLBACK), update.GetManual()
	}
	p.Strategy, p.Canary = strategy(update, back, going)
	if p.StopFirst {
		p.Strategy = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING
	}
	return p
}

// Underway tells whether a rollout has neither been completed nor given up.
func Underway(r *warrenv1.Rollout) bool {
	switch r.GetState() {
	case warrenv1.RolloutState_ROLLOUT_STATE_RUNNING, warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, warrenv1.RolloutState_ROLLOUT_STATE_WAITING:
		return true
	}
	return false
}

// SideBySide tells whether a service's tasks of two revisions are to run beside each other now, for as long as its rollout
// is not decided: by blue-green until the old tasks go, by canary until its last step is over.
func SideBySide(service *warrenv1.Service) bool {
	r := service.GetRollout()
	if !Underway(r) && r.GetState() != warrenv1.RolloutState_ROLLOUT_STATE_ABANDONED || r.GetFrom() == r.GetTo() {
		return false
	}
	switch p := Of(service); p.Strategy {
	case warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN:
		return !r.GetRollback() || r.GetWeight() < 100 // what it came back from need not be kept
	case warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY:
		return int(r.GetStep()) < len(p.Canary)
	}
	return false
}

// StopFirst tells whether a service's tasks are replaced now by stopping the old one before the new one starts.
func StopFirst(service *warrenv1.Service) bool { return stopFirst(service, goesBack(service)) }

func goesBack(service *warrenv1.Service) bool {
	r := service.GetRollout()
	return r.GetRollback() && (Underway(r) || r.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_ABANDONED)
}

// stopFirst: unless the user says, that is so where two tasks would meet on a port. Side by side they would fit on no node that
// has the old one.
func stopFirst(service *warrenv1.Service, going bool) bool {
	spec := service.GetSpec()
	switch pick(going, spec.GetRollback().GetOrder(), spec.GetUpdate().GetOrder()) {
	case warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST:
		return false
	case warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST:
		return true
	}
	return spec.GetTask().GetNetwork() == warrenv1.NetworkMode_NETWORK_MODE_HOST || takesPorts(spec.GetTask())
}

// takesPorts tells whether a task of that template and its successor would meet on a port of their node.
// Where whichever port is free is taken they do not.
func takesPorts(t *warrenv1.TaskSpec) bool {
	return slices.ContainsFunc(t.GetHostPorts(), func(p *warrenv1.PortSpec) bool { return p.GetPublished() != 0 })
}

// ofGoingBack: going back once more would be going in circles.
func ofGoingBack(a warrenv1.FailureAction) warrenv1.FailureAction {
	if a == warrenv1.FailureAction_FAILURE_ACTION_CONTINUE {
		return a
	}
	return warrenv1.FailureAction_FAILURE_ACTION_PAUSE
}

// strategy: a service that is switched over is switched back, but one that was changed step by step goes back as fast as it
// can.
func strategy(update, back *warrenv1.UpdatePolicy, going bool) (warrenv1.RolloutStrategy, []*warrenv1.CanaryStep) {
	s, steps := update.GetStrategy(), update.GetCanary()
	if going {
		if s == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY {
			s = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING
		}
		s = cmp.Or(back.GetStrategy(), s)
		if len(back.GetCanary()) > 0 {
			steps = back.GetCanary()
		}
	}
	if len(steps) == 0 {
		steps = []*warrenv1.CanaryStep{{Weight: DefaultWeight}}
	}
	return cmp.Or(s, warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING), steps
}

// pick returns what holds of a setting that both policies have: going back, what is set for that, if anything.
func pick[T comparable](going bool, back, update T) T {
	if !going {
		return update
	}
	return cmp.Or(back, update)
}

func duration(otherwise time.Duration, d *durationpb.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}
