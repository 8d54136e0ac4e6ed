package shares_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/rollout/shares"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestSharesFollowFromTheRollout(t *testing.T) {
	const (
		rolling   = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING
		blueGreen = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN
		canary    = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY

		running  = warrenv1.RolloutState_ROLLOUT_STATE_RUNNING
		waiting  = warrenv1.RolloutState_ROLLOUT_STATE_WAITING
		complete = warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE
	)
	for _, c := range []struct {
		name     string
		strategy warrenv1.RolloutStrategy
		rollout  *warrenv1.Rollout
		want     string
	}{
		{"before the first rollout", canary, nil, ""},
		{"rolling", rolling, &warrenv1.Rollout{From: 1, To: 2, State: running}, ""},
		{"a canary before its first step", canary, &warrenv1.Rollout{From: 1, To: 2, State: running}, " 1:100"},
		{"a canary", canary, &warrenv1.Rollout{From: 1, To: 2, State: waiting, Weight: 10}, " 1:90 2:10"},
		{"a canary's last step", canary, &warrenv1.Rollout{From: 1, To: 2, State: running, Weight: 100}, ""},
		{"a canary that is done", canary, &warrenv1.Rollout{From: 1, To: 2, State: complete, Weight: 100}, ""},
		{"green beside blue", blueGreen, &warrenv1.Rollout{From: 3, To: 4, State: running}, " 3:100"},
		{"switched, and blue is kept", blueGreen, &warrenv1.Rollout{From: 3, To: 4, State: complete, Weight: 100, KeepUntil: timestamppb.Now()}, " 4:100"},
		{"blue is gone", blueGreen, &warrenv1.Rollout{From: 3, To: 4, State: complete, Weight: 100}, ""},
		{"going back", canary, &warrenv1.Rollout{From: 2, To: 1, State: running, Rollback: true}, ""},
	} {
		var got strings.Builder
		for _, s := range shares.Of(&warrenv1.Service{Spec: &warrenv1.ServiceSpec{Update: &warrenv1.UpdatePolicy{Strategy: c.strategy}}, Rollout: c.rollout}) {
			fmt.Fprintf(&got, " %d:%d", s.GetRevision(), s.GetPercent())
		}
		if got.String() != c.want {
			t.Errorf("%s: %q, want %q", c.name, got.String(), c.want)
		}
	}
}
