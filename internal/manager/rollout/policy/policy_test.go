package policy_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/manager/rollout/policy"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	rollback = warrenv1.FailureAction_FAILURE_ACTION_ROLLBACK
	pause    = warrenv1.FailureAction_FAILURE_ACTION_PAUSE
	goOn     = warrenv1.FailureAction_FAILURE_ACTION_CONTINUE

	rolling   = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING
	blueGreen = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN
	canary    = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY

	startFirst = warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST
	stopFirst  = warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST
)

func service(update, back *warrenv1.UpdatePolicy, goesBack bool) *warrenv1.Service {
	return statetest.Replicated("web", 3, func(s *warrenv1.Service) {
		s.Spec.Update, s.Spec.Rollback = update, back
		s.Rollout = &warrenv1.Rollout{State: warrenv1.RolloutState_ROLLOUT_STATE_RUNNING, From: 2, To: 1, Rollback: goesBack}
	})
}

func TestWhatHoldsWhereNothingIsSaid(t *testing.T) {
	p := policy.Of(statetest.Replicated("web", 3))
	if p.Parallelism != 1 || p.Delay != 0 || p.Monitor != 5*time.Second || p.MaxFailureRatio != 0 || p.Action != rollback ||
		p.ProgressDeadline != 10*time.Minute || p.MaxUnavailable != 1 || p.StopFirst || p.Strategy != rolling || p.Keep != 5*time.Minute || p.Manual {
		t.Errorf("got %+v", p)
	}
	if len(p.Canary) != 1 || p.Canary[0].GetWeight() != 10 || p.Canary[0].GetHold() != nil {
		t.Errorf("steps %v", p.Canary)
	}
}

func TestAMonitorTimeOfNoneIsNone(t *testing.T) {
	if p := policy.Of(service(&warrenv1.UpdatePolicy{Monitor: durationpb.New(0)}, nil, false)); p.Monitor != 0 {
		t.Errorf("monitors for %v", p.Monitor)
	}
}

func TestGoingBackIsAsUpdatingWhereNothingElseIsSaid(t *testing.T) {
	update := &warrenv1.UpdatePolicy{
		Parallelism: 7, Delay: durationpb.New(time.Second), Monitor: durationpb.New(time.Minute), MaxFailureRatio: 0.2,
		FailureAction: goOn, Order: stopFirst, ProgressDeadline: durationpb.New(time.Hour), Manual: true,
	}
	p := policy.Of(service(update, nil, true))
	if p.Parallelism != 7 || p.Delay != time.Second || p.Monitor != time.Minute || p.MaxFailureRatio != 0.2 || !p.StopFirst || p.ProgressDeadline != time.Hour {
		t.Errorf("got %+v", p)
	}
	if p.Action != pause || p.Manual {
		t.Errorf("going back does %v when it fails, and waits: %v", p.Action, p.Manual)
	}
	back := &warrenv1.UpdatePolicy{Parallelism: 2, Monitor: durationpb.New(0), FailureAction: goOn, Order: startFirst}
	p = policy.Of(service(update, back, true))
	if p.Parallelism != 2 || p.Monitor != 0 || p.Action != goOn || p.StopFirst || p.Delay != time.Second {
		t.Errorf("with a policy of its own: %+v", p)
	}
	if p = policy.Of(service(update, back, false)); p.Parallelism != 7 {
		t.Errorf("the policy for going back holds for an update: %+v", p)
	}
	back.FailureAction = rollback
	if p = policy.Of(service(update, back, true)); p.Action != pause {
		t.Errorf("goes in circles: %v", p.Action)
	}
}

func TestStrategies(t *testing.T) {
	for _, c := range []struct {
		name           string
		update, back   *warrenv1.UpdatePolicy
		goesBack       bool
		step, weight   uint32
		want           warrenv1.RolloutStrategy
		wantSideBySide bool
	}{
		{"rolling", &warrenv1.UpdatePolicy{}, nil, false, 0, 0, rolling, false},
		{"blue-green", &warrenv1.UpdatePolicy{Strategy: blueGreen}, nil, false, 1, 100, blueGreen, true},
		{"canary", &warrenv1.UpdatePolicy{Strategy: canary}, nil, false, 0, 10, canary, true},
		{"a canary whose steps are over", &warrenv1.UpdatePolicy{Strategy: canary}, nil, false, 1, 0, canary, false},
		{"back from a canary", &warrenv1.UpdatePolicy{Strategy: canary}, nil, true, 0, 0, rolling, false},
		{"unless it is said", &warrenv1.UpdatePolicy{Strategy: canary}, &warrenv1.UpdatePolicy{Strategy: canary}, true, 0, 0, canary, true},
		{"back from blue-green", &warrenv1.UpdatePolicy{Strategy: blueGreen}, nil, true, 0, 0, blueGreen, true},
		{"which keeps nothing when it is switched back", &warrenv1.UpdatePolicy{Strategy: blueGreen}, nil, true, 1, 100, blueGreen, false},
		{"stop-first", &warrenv1.UpdatePolicy{Strategy: blueGreen, Order: stopFirst}, nil, false, 0, 0, rolling, false},
	} {
		s := service(c.update, c.back, c.goesBack)
		s.Rollout.Step, s.Rollout.Weight = c.step, c.weight
		if got := policy.Of(s).Strategy; got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if got := policy.SideBySide(s); got != c.wantSideBySide {
			t.Errorf("%s: side by side %v", c.name, got)
		}
		over := proto.CloneOf(s)
		over.Rollout.State = warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE
		if policy.SideBySide(over) {
			t.Errorf("%s: still side by side when it is complete", c.name)
		}
	}
}
