package specflags

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
)

func TestEveryFlagAboutRolloutsSetsItsField(t *testing.T) {
	for _, c := range []struct{ flags, want string }{
		{"--update-monitor 10s --update-failure-action pause --update-max-failure-ratio 0.25 --update-progress-deadline 20m", `update { monitor { seconds: 10 } failure_action: FAILURE_ACTION_PAUSE max_failure_ratio: 0.25 progress_deadline { seconds: 1200 } }`},
		{"--update-monitor 0s", `update { monitor {} }`},
		{"--update-failure-action revert", `update { failure_action: FAILURE_ACTION_ROLLBACK }`},
		{"--update-failure-action continue", `update { failure_action: FAILURE_ACTION_CONTINUE }`},
		{"--update-max-unavailable 3", `update { max_unavailable: 3 }`},
		{"--max-unavailable 3", `update { max_unavailable: 3 }`},
		{"--update-strategy rolling", `update { strategy: ROLLOUT_STRATEGY_ROLLING }`},
		{"--strategy blue-green --keep 10m --manual-promote", `update { strategy: ROLLOUT_STRATEGY_BLUE_GREEN keep { seconds: 600 } manual: true }`},
		{"--update-strategy bluegreen --update-keep 0s --update-manual", `update { strategy: ROLLOUT_STRATEGY_BLUE_GREEN keep {} manual: true }`},
		{"--strategy canary --canary 10,50%:5m", `update { strategy: ROLLOUT_STRATEGY_CANARY canary { weight: 10 } canary { weight: 50 hold { seconds: 300 } } }`},
		{"--strategy canary --weight 10", `update { strategy: ROLLOUT_STRATEGY_CANARY canary { weight: 10 } }`},
		{"--update-strategy canary --update-canary 100", `update { strategy: ROLLOUT_STRATEGY_CANARY canary { weight: 100 } }`},
		{"--rollback-parallelism 0 --rollback-delay 1s --rollback-order stop-first --rollback-monitor 2s --rollback-failure-action continue --rollback-max-failure-ratio 1", `rollback { delay { seconds: 1 } order: UPDATE_ORDER_STOP_FIRST monitor { seconds: 2 } failure_action: FAILURE_ACTION_CONTINUE max_failure_ratio: 1 }`},
		{"--rollback-parallelism 4", `rollback { parallelism: 4 }`},
		{"--on-node-loss wait", `node_loss { action: NODE_LOSS_ACTION_WAIT }`},
		{"--on-node-loss wait=1h30m", `node_loss { action: NODE_LOSS_ACTION_WAIT wait { seconds: 5400 } }`},
		{"--on-node-loss replace", ``},
	} {
		got, err := parse(t, &Create{}, strings.Fields(c.flags)...).Spec("nginx", nil)
		if err != nil {
			t.Errorf("%s: %v", c.flags, err)
			continue
		}
		want := spec(t, `replicated { replicas: 1 } task { container { image: "nginx" } } `+c.want)
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", c.flags, diff)
		}
	}
}

func TestAnUpdateChangesOfTheRolloutPolicyWhatIsGiven(t *testing.T) {
	const canary = `update { parallelism: 2 strategy: ROLLOUT_STRATEGY_CANARY canary { weight: 5 } } `
	const green = `update { strategy: ROLLOUT_STRATEGY_BLUE_GREEN keep { seconds: 9 } manual: true } `
	for _, c := range []struct{ before, flags, after string }{
		{canary, "--canary 20", `update { parallelism: 2 strategy: ROLLOUT_STRATEGY_CANARY canary { weight: 20 } }`},
		{canary, "--canary=", `update { parallelism: 2 strategy: ROLLOUT_STRATEGY_CANARY }`},
		{canary, "--strategy rolling", `update { parallelism: 2 strategy: ROLLOUT_STRATEGY_ROLLING }`},
		{canary, "--strategy blue-green --keep 1s", `update { parallelism: 2 strategy: ROLLOUT_STRATEGY_BLUE_GREEN keep { seconds: 1 } }`},
		{green, "--manual-promote=false", `update { strategy: ROLLOUT_STRATEGY_BLUE_GREEN keep { seconds: 9 } }`},
		{green, "--strategy canary", `update { strategy: ROLLOUT_STRATEGY_CANARY }`},
		{`update { progress_deadline { seconds: 9 } }`, "--update-progress-deadline 0s", `update {}`},
		{`update { canary { weight: 5 } keep { seconds: 1 } }`, "--update-parallelism 3", `update { parallelism: 3 canary { weight: 5 } keep { seconds: 1 } }`},
		{`node_loss { action: NODE_LOSS_ACTION_WAIT wait { seconds: 9 } }`, "--on-node-loss replace", `node_loss { action: NODE_LOSS_ACTION_REPLACE }`},
		{`node_loss { action: NODE_LOSS_ACTION_WAIT wait { seconds: 9 } }`, "--on-node-loss wait", `node_loss { action: NODE_LOSS_ACTION_WAIT }`},
	} {
		const task = ` task { container { image: "nginx" } }`
		got := spec(t, c.before+task)
		if err := parse(t, &Update{}, strings.Fields(c.flags)...).Apply(got); err != nil {
			t.Errorf("%s: %v", c.flags, err)
		}
		if diff := cmp.Diff(spec(t, c.after+task), got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", c.flags, diff)
		}
	}
}

func TestFlagsAboutRolloutsThatMakeNoSenseAreExplained(t *testing.T) {
	for flags, want := range map[string]string{
		"--update-failure-action retry":        `--update-failure-action is "retry", but can be rollback or pause or continue`,
		"--rollback-failure-action rollback":   `--rollback-failure-action is "rollback", but can be pause or continue`,
		"--update-max-failure-ratio 1.5":       "--update-max-failure-ratio is 1.5, but can be from 0 (none may fail) to 1 (all may)",
		"--rollback-max-failure-ratio NaN":     "--rollback-max-failure-ratio is NaN",
		"--update-strategy recreate":           `--update-strategy is "recreate", but can be rolling or blue-green or canary`,
		"--canary 10":                          "--update-canary goes with --update-strategy canary",
		"--keep 5m":                            "--update-keep goes with --update-strategy blue-green",
		"--manual-promote":                     "--update-manual goes with --update-strategy blue-green",
		"--strategy canary --manual-promote":   "a canary waits for service promote at each step without a time",
		"--strategy canary --canary 0":         `"0" is not a percentage from 1 to 100`,
		"--strategy canary --canary 10,x":      `"x" is not a percentage from 1 to 100`,
		"--strategy canary --canary 50,10":     "10 comes after 50: each step is more than the one before",
		"--strategy canary --canary 10:soon":   `--update-canary 10:soon: "soon" is no duration: write it with a unit, as 5s, 2m30s, 1h or 30d; leave it out to wait for service promote`,
		"--strategy canary --canary 10:0s":     `a step of no length is none; leave it out to wait for service promote`,
		"--on-node-loss wait=0s":               `--on-node-loss wait=0s: waiting for no time is replace`,
		"--on-node-loss forget":                `--on-node-loss is "forget", but can be replace, wait or wait=DURATION, such as wait=1h`,
		"--on-node-loss wait=long":             `--on-node-loss wait=long: "long" is no duration: write it with a unit`,
		"--on-node-loss replace=1h":            `--on-node-loss is "replace=1h"`,
		"--rollback-order sideways":            `--rollback-order is "sideways", but can be start-first or stop-first`,
		"--strategy blue-green --canary 10:5m": "--update-canary goes with --update-strategy canary",
	} {
		if _, err := parse(t, &Create{}, strings.Fields(flags)...).Spec("nginx", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", flags, err)
		}
	}
}

func TestAFieldAboutHealthOrRolloutsIsNamedByItsFlag(t *testing.T) {
	for path, want := range map[string]string{
		"spec.task.health.http.headers[1]": "--health-header [1]",
		"spec.task.health.http.path":       "--health-http path",
		"spec.task.health.interval":        "--health-interval",
		"spec.update.canary[0].weight":     "--update-canary [0].weight",
		"spec.rollback.monitor":            "--rollback-monitor",
		"spec.node_loss.wait":              "--on-node-loss wait",
		"drain_within":                     "--deadline",
	} {
		if got := FlagOf(path); got != want {
			t.Errorf("FlagOf(%q) = %q, want %q", path, got, want)
		}
	}
}
