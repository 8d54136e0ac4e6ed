package shares_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/rollout/shares"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	running   = warrenv1.RolloutState_ROLLOUT_STATE_RUNNING
	paused    = warrenv1.RolloutState_ROLLOUT_STATE_PAUSED
	waiting   = warrenv1.RolloutState_ROLLOUT_STATE_WAITING
	complete  = warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE
	abandoned = warrenv1.RolloutState_ROLLOUT_STATE_ABANDONED

	rolling   = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING
	blueGreen = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN
	canary    = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY
)

func TestSharesFollowFromTheRollout(t *testing.T) {
	with := func(strategy warrenv1.RolloutStrategy, edits ...func(*warrenv1.Service)) *warrenv1.Service {
		s := statetest.Replicated("web", 3)
		s.Spec.Update = &warrenv1.UpdatePolicy{Strategy: strategy, Canary: []*warrenv1.CanaryStep{{Weight: 10}, {Weight: 50}}}
		s.Rollout = &warrenv1.Rollout{From: 1, To: 2, State: running}
		for _, edit := range edits {
			edit(s)
		}
		return s
	}
	is := func(state warrenv1.RolloutState, weight, step uint32) func(*warrenv1.Service) {
		return func(s *warrenv1.Service) { s.Rollout.State, s.Rollout.Weight, s.Rollout.Step = state, weight, step }
	}
	back := func(s *warrenv1.Service) { s.Rollout.Rollback = true }
	for _, c := range []struct {
		name    string
		service *warrenv1.Service
		want    string
	}{
		{"no rollout", statetest.Replicated("web", 3), ""},
		{"a rolling one", with(rolling), ""},
		{"blue-green before the switch", with(blueGreen), "1:100 2:0"},
		{"while it waits for it", with(blueGreen, is(waiting, 0, 0)), "1:100 2:0"},
		{"after it", with(blueGreen, is(running, 100, 1)), "1:0 2:100"},
		{"while the old tasks are kept", with(blueGreen, is(complete, 100, 1), func(s *warrenv1.Service) { s.Rollout.KeepUntil = timestamppb.Now() }), "1:0 2:100"},
		{"when they are gone", with(blueGreen, is(complete, 100, 1)), ""},
		{"given up for another, until that has begun", with(blueGreen, is(abandoned, 0, 0)), "1:100 2:0"},
		{"a canary", with(canary, is(running, 10, 0)), "1:90 2:10"},
		{"paused", with(canary, is(paused, 50, 1)), "1:50 2:50"},
		{"whose last step is over", with(canary, is(running, 0, 2)), ""},
		{"going back from blue-green", with(blueGreen, is(running, 0, 0), back), "1:100 2:0"},
		{"and when it is switched back nothing is kept", with(blueGreen, is(running, 100, 1), back), ""},
		{"going back from a canary is rolling", with(canary, is(running, 0, 0), back), ""},
		{"where the old task is stopped first there is nothing to share", with(blueGreen, func(s *warrenv1.Service) {
			s.Spec.Update.Order = warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST
		}), ""},
	} {
		var got []string
		for _, share := range shares.Of(c.service) {
			got = append(got, fmt.Sprintf("%d:%d", share.GetRevision(), share.GetPercent()))
		}
		if said := strings.Join(got, " "); said != c.want {
			t.Errorf("%s: %q, want %q", c.name, said, c.want)
		}
	}
}
