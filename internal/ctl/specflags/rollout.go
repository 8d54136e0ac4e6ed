package specflags

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/ctl/durations"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Rollout are the flags that say how tasks are replaced, forwards and back, and what comes of those of a lost node.
type Rollout struct {
	UpdateParallelism      *uint32        `group:"Update" help:"Tasks replaced at a time (1)." placeholder:"N"`
	UpdateDelay            *time.Duration `group:"Update" help:"Pause between replacements (0s)." placeholder:"DURATION"`
	UpdateOrder            *string        `group:"Update" help:"start-first or stop-first (start-first, on the host's network stop-first)." placeholder:"ORDER"`
	UpdateMonitor          *time.Duration `group:"Update" help:"Time that a new task must have served to be good (5s)." placeholder:"DURATION"`
	UpdateFailureAction    *string        `group:"Update" help:"What comes of a rollout that has failed: rollback, pause or continue (rollback)." placeholder:"ACTION"`
	UpdateMaxFailureRatio  *float64       `group:"Update" help:"Part of the tasks, from 0 to 1, that may fail before the rollout has (0)." placeholder:"RATIO"`
	UpdateProgressDeadline *time.Duration `group:"Update" help:"A rollout in which no task becomes good for so long has failed (10m)." placeholder:"DURATION"`
	UpdateMaxUnavailable   *uint32        `aliases:"max-unavailable" group:"Update" help:"Tasks missing at a time in stop-first order while a node is drained or the service rebalanced (as --update-parallelism)." placeholder:"N"`
	UpdateStrategy         *string        `aliases:"strategy" group:"Update" help:"rolling, blue-green (all new ones beside the old, then a switch) or canary (parts of the connections) (rolling). Also --strategy." placeholder:"STRATEGY"`
	UpdateCanary           *string        `aliases:"canary,weight" group:"Update" help:"Canary: percents of new connections, each with how long all must be well for the next to follow, else it waits for service promote: 10,50:5m (10). Also --canary, --weight." placeholder:"STEPS"`
	UpdateKeep             *time.Duration `aliases:"keep" group:"Update" help:"Blue-green: time that the old tasks are kept after the switch (5m). Also --keep." placeholder:"DURATION"`
	UpdateManual           *bool          `aliases:"manual-promote" group:"Update" help:"Blue-green: switch only at service promote. Also --manual-promote."`

	RollbackParallelism     *uint32        `group:"Rollback" help:"Tasks replaced at a time in a rollback (as in an update, and so the others)." placeholder:"N"`
	RollbackDelay           *time.Duration `group:"Rollback" help:"Pause between replacements." placeholder:"DURATION"`
	RollbackOrder           *string        `group:"Rollback" help:"start-first or stop-first." placeholder:"ORDER"`
	RollbackMonitor         *time.Duration `group:"Rollback" help:"Time that a task must have served to be good." placeholder:"DURATION"`
	RollbackFailureAction   *string        `group:"Rollback" help:"What comes of a rollback that has failed: pause or continue (pause)." placeholder:"ACTION"`
	RollbackMaxFailureRatio *float64       `group:"Rollback" help:"Part of the tasks that may fail before the rollback has." placeholder:"RATIO"`

	OnNodeLoss *string `group:"Placement" help:"When a node is down its tasks are replaced elsewhere (replace), or kept until it is back (wait), or for so long (wait=1h) (replace)." placeholder:"WHAT"`
}

// The words of flags about rollouts.
var (
	failureActions = []choice[warrenv1.FailureAction]{
		{"rollback", warrenv1.FailureAction_FAILURE_ACTION_ROLLBACK},
		{"pause", warrenv1.FailureAction_FAILURE_ACTION_PAUSE},
		{"continue", warrenv1.FailureAction_FAILURE_ACTION_CONTINUE},
	}
	rollbackActions = failureActions[1:]
	strategies      = []choice[warrenv1.RolloutStrategy]{
		{"rolling", warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING},
		{"blue-green", warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN},
		{"canary", warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY},
	}
	// synonyms are other tools' words.
	synonyms = map[string]string{
		"revert": "rollback", "roll-back": "rollback", "stop": "pause", "proceed": "continue",
		"rolling-update": "rolling", "bluegreen": "blue-green", "blue/green": "blue-green",
	}
)

// chooseSynonym is choose with other tools' words taken as well.
func chooseSynonym[T any](flag string, given *string, to *T, choices []choice[T]) error {
	if given != nil {
		if meant, ok := synonyms[*given]; ok {
			given = &meant
		}
	}
	return choose(flag, given, to, choices)
}

func (f *Rollout) applyRollout(spec *warrenv1.ServiceSpec) error {
	if err := policy(&spec.Update, f.applyUpdate); err != nil {
		return err
	}
	if err := policy(&spec.Rollback, f.applyRollback); err != nil {
		return err
	}
	return f.applyNodeLoss(spec)
}

// policy changes an update policy that may not be there. One that says nothing is not made.
func policy(is **warrenv1.UpdatePolicy, change func(*warrenv1.UpdatePolicy) error) error {
	p := *is
	if p == nil {
		p = &warrenv1.UpdatePolicy{}
	}
	if err := change(p); err != nil {
		return err
	}
	if *is != nil || proto.Size(p) > 0 {
		*is = p
	}
	return nil
}

func (f *Rollout) applyUpdate(u *warrenv1.UpdatePolicy) error {
	set(&u.Parallelism, f.UpdateParallelism)
	setDuration(&u.Delay, f.UpdateDelay)
	setDuration(&u.Monitor, f.UpdateMonitor)
	setTime(&u.ProgressDeadline, f.UpdateProgressDeadline)
	set(&u.MaxUnavailable, f.UpdateMaxUnavailable)
	if err := setRatio("--update-max-failure-ratio", &u.MaxFailureRatio, f.UpdateMaxFailureRatio); err != nil {
		return err
	}
	if err := chooseSynonym("--update-failure-action", f.UpdateFailureAction, &u.FailureAction, failureActions); err != nil {
		return err
	}
	if err := choose("--update-order", f.UpdateOrder, &u.Order, updateOrders); err != nil {
		return err
	}
	return f.applyStrategy(u)
}

// applyStrategy sets the strategy and what belongs to one alone, which goes with it.
func (f *Rollout) applyStrategy(u *warrenv1.UpdatePolicy) error {
	if err := chooseSynonym("--update-strategy", f.UpdateStrategy, &u.Strategy, strategies); err != nil {
		return err
	}
	canary := u.GetStrategy() == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY
	blueGreen := u.GetStrategy() == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN
	switch {
	case f.UpdateCanary != nil && *f.UpdateCanary != "" && !canary:
		return fmt.Errorf("--update-canary goes with --update-strategy canary")
	case f.UpdateKeep != nil && !blueGreen:
		return fmt.Errorf("--update-keep goes with --update-strategy blue-green")
	case f.UpdateManual != nil && *f.UpdateManual && !blueGreen:
		return fmt.Errorf("--update-manual goes with --update-strategy blue-green; a canary waits for service promote at each step without a time, such as 10 of --update-canary 10,50:5m")
	}
	if f.UpdateCanary != nil {
		steps, err := canarySteps(*f.UpdateCanary)
		if err != nil {
			return err
		}
		u.Canary = steps
	}
	setDuration(&u.Keep, f.UpdateKeep)
	set(&u.Manual, f.UpdateManual)
	if f.UpdateStrategy != nil { // what belongs to the one before goes
		if !canary {
			u.Canary = nil
		}
		if !blueGreen {
			u.Keep, u.Manual = nil, false
		}
	}
	return nil
}

// canarySteps reads 10,50:5m: percents in growing order, each with the time it holds where it has one.
func canarySteps(value string) ([]*warrenv1.CanaryStep, error) {
	if value == "" {
		return nil, nil
	}
	var steps []*warrenv1.CanaryStep
	for part := range strings.SplitSeq(value, ",") {
		percent, held, holds := strings.Cut(strings.TrimSpace(part), ":")
		weight, err := strconv.ParseUint(strings.TrimSuffix(percent, "%"), 10, 32)
		if err != nil || weight < 1 || weight > 100 {
			return nil, fmt.Errorf("--update-canary %s: %q is not a percentage from 1 to 100", value, percent)
		}
		if n := len(steps); n > 0 && uint32(weight) <= steps[n-1].GetWeight() {
			return nil, fmt.Errorf("--update-canary %s: %d comes after %d: each step is more than the one before", value, weight, steps[n-1].GetWeight())
		}
		step := &warrenv1.CanaryStep{Weight: uint32(weight)}
		if holds {
			hold, err := durations.Parse(held)
			if err == nil && hold == 0 {
				err = errors.New("a step of no length is none")
			}
			if err != nil {
				return nil, fmt.Errorf("--update-canary %s: %w; leave it out to wait for service promote", value, err)
			}
			step.Hold = durationpb.New(hold)
		}
		steps = append(steps, step)
	}
	return steps, nil
}

func (f *Rollout) applyRollback(u *warrenv1.UpdatePolicy) error {
	set(&u.Parallelism, f.RollbackParallelism)
	setDuration(&u.Delay, f.RollbackDelay)
	setDuration(&u.Monitor, f.RollbackMonitor)
	if err := setRatio("--rollback-max-failure-ratio", &u.MaxFailureRatio, f.RollbackMaxFailureRatio); err != nil {
		return err
	}
	if err := chooseSynonym("--rollback-failure-action", f.RollbackFailureAction, &u.FailureAction, rollbackActions); err != nil {
		return err
	}
	return choose("--rollback-order", f.RollbackOrder, &u.Order, updateOrders)
}

func setRatio(flag string, to, given *float64) error {
	if given != nil && !(*given >= 0 && *given <= 1) {
		return fmt.Errorf("%s is %v, but can be from 0 (none may fail) to 1 (all may)", flag, *given)
	}
	set(to, given)
	return nil
}

// applyNodeLoss reads replace, wait or wait=DURATION.
func (f *Rollout) applyNodeLoss(spec *warrenv1.ServiceSpec) error {
	if f.OnNodeLoss == nil {
		return nil
	}
	what, limit, limited := strings.Cut(*f.OnNodeLoss, "=")
	switch {
	case what == "replace" && !limited:
		if spec.GetNodeLoss() != nil {
			spec.NodeLoss = &warrenv1.NodeLossPolicy{Action: warrenv1.NodeLossAction_NODE_LOSS_ACTION_REPLACE}
		}
	case what == "wait":
		spec.NodeLoss = &warrenv1.NodeLossPolicy{Action: warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT}
		if limited {
			wait, err := durations.Parse(limit)
			if err == nil && wait == 0 {
				err = errors.New("waiting for no time is replace")
			}
			if err != nil {
				return fmt.Errorf("--on-node-loss %s: %w", *f.OnNodeLoss, err)
			}
			spec.NodeLoss.Wait = durationpb.New(wait)
		}
	default:
		return fmt.Errorf("--on-node-loss is %q, but can be replace, wait or wait=DURATION, such as wait=1h", *f.OnNodeLoss)
	}
	return nil
}
