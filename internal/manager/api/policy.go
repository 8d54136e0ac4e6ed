package api

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// What the rollout loop takes where a policy does not say.
const (
	defaultMonitor          = 5 * time.Second
	defaultProgressDeadline = 10 * time.Minute
)

const (
	blueGreen = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN
	canary    = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY
)

// checkPolicies checks what the rules in the proto cannot say of how a service is rolled out, rolled back and of what
// becomes of it when nodes are lost.
func checkPolicies(spec *warrenv1.ServiceSpec) []*validate.Violation {
	update, rollback := spec.GetUpdate(), spec.GetRollback()
	broken := checkPolicy("update", update, update)
	broken = append(broken, checkPolicy("rollback", rollback, overlaid(rollback, update))...)
	broken = append(broken, checkSides(spec, "update", update, update)...)
	broken = append(broken, checkSides(spec, "rollback", rollback, overlaid(rollback, update))...)
	broken = append(broken, checkWeights(spec)...)
	if rollback.GetFailureAction() == warrenv1.FailureAction_FAILURE_ACTION_ROLLBACK {
		broken = append(broken, violation("rollback.failure_action", "a rollback that fails cannot be rolled back: say pause or continue",
			field("spec"), field("rollback"), field("failure_action")))
	}
	if loss := spec.GetNodeLoss(); loss.GetWait() != nil && loss.GetAction() != warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT {
		broken = append(broken, violation("node_loss.wait", "only the action wait has a time to wait: set the action to wait, or leave this out",
			field("spec"), field("node_loss"), field("wait")))
	}
	return broken
}

// checkRestart refuses a longest wait that the first one is longer than: nodes would keep to the first.
func checkRestart(p *warrenv1.RestartPolicy) []*validate.Violation {
	first, longest := p.GetDelay().AsDuration(), p.GetMaxDelay().AsDuration()
	if p.GetMaxDelay() == nil || first <= longest {
		return nil
	}
	return []*validate.Violation{violation("restart.max_delay",
		fmt.Sprintf("the longest wait, %s, is shorter than the first, %s: raise the longest or lower the first (--restart-delay)", plainDuration(longest), plainDuration(first)),
		field("spec"), field("task"), field("restart"), field("max_delay"))}
}

// overlaid is what a rollback's policy comes to, as far as it is checked here: what it leaves out is as in the
// policy for updates.
func overlaid(rollback, update *warrenv1.UpdatePolicy) *warrenv1.UpdatePolicy {
	return &warrenv1.UpdatePolicy{
		Order:            cmp.Or(rollback.GetOrder(), update.GetOrder()),
		Strategy:         cmp.Or(rollback.GetStrategy(), update.GetStrategy()),
		Monitor:          cmp.Or(rollback.GetMonitor(), update.GetMonitor()),
		ProgressDeadline: cmp.Or(rollback.GetProgressDeadline(), update.GetProgressDeadline()),
	}
}

// checkPolicy checks one policy by itself; whole is what it comes to.
func checkPolicy(name string, p, whole *warrenv1.UpdatePolicy) []*validate.Violation {
	if p == nil {
		return nil
	}
	var broken []*validate.Violation
	in := func(path ...*validate.FieldPathElement) []*validate.FieldPathElement {
		return append([]*validate.FieldPathElement{field("spec"), field(name)}, path...)
	}
	if math.IsNaN(p.GetMaxFailureRatio()) {
		broken = append(broken, violation("max_failure_ratio", "must be a number from 0 to 1, such as 0.2", in(field("max_failure_ratio"))...))
	}
	monitor, deadline := orDefault(whole.GetMonitor(), defaultMonitor), orDefault(whole.GetProgressDeadline(), defaultProgressDeadline)
	if deadline <= monitor {
		broken = append(broken, violation("progress_deadline",
			fmt.Sprintf("the deadline, %s, is over before a task can have been found good, which takes the monitor time, %s: raise the deadline or lower the monitor time", plainDuration(deadline), plainDuration(monitor)),
			in(field("progress_deadline"))...))
	}
	for i := 1; i < len(p.GetCanary()); i++ {
		if was, now := p.GetCanary()[i-1].GetWeight(), p.GetCanary()[i].GetWeight(); now <= was {
			broken = append(broken, violation("canary.weight", fmt.Sprintf("each step must have more weight than the one before: write more than %d, or leave this step out", was),
				in(item("canary", i), field("weight"))...))
		}
	}
	if len(p.GetCanary()) > 0 && whole.GetStrategy() != canary {
		broken = append(broken, violation("canary", "only the strategy canary goes by these steps: set the strategy to canary, or leave them out", in(field("canary"))...))
	}
	if p.GetKeep() != nil && whole.GetStrategy() != blueGreen {
		broken = append(broken, violation("keep", "only the strategy blue-green keeps the old tasks: set the strategy to blue-green, or leave this out", in(field("keep"))...))
	}
	if p.GetManual() && whole.GetStrategy() != blueGreen {
		broken = append(broken, violation("manual", "only the strategy blue-green switches at a word: set the strategy to blue-green, or leave this out", in(field("manual"))...))
	}
	return broken
}

// checkSides refuses to have tasks of two revisions side by side where they would meet on a port of their node.
func checkSides(spec *warrenv1.ServiceSpec, name string, p, whole *warrenv1.UpdatePolicy) []*validate.Violation {
	strategy := whole.GetStrategy()
	if strategy != blueGreen && strategy != canary || name == "rollback" && p == nil {
		return nil // what a policy for rollbacks takes over whole is told of the policy for updates
	}
	what := "the strategy " + strategyName(strategy) + " runs tasks of both revisions side by side"
	var broken []*validate.Violation
	if whole.GetOrder() == warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST {
		broken = append(broken, violation("strategy", what+", which the order stop-first rules out: use start-first, or the strategy rolling",
			field("spec"), field(name), field("order")))
	}
	if name == "rollback" && staged(spec.GetUpdate()) {
		return broken // the ports are told of already
	}
	if spec.GetTask().GetNetwork() == warrenv1.NetworkMode_NETWORK_MODE_HOST {
		broken = append(broken, violation("strategy", what+", which would meet on the ports of their node's own network: use the strategy rolling, or another network mode",
			field("spec"), field(name), field("strategy")))
	}
	if len(spec.GetTask().GetHostPorts()) > 0 { // one that is left to Warren is the same for all tasks too
		broken = append(broken, violation("strategy", what+", which would meet on this port of their node: publish it with mode=ingress, or use the strategy rolling",
			field("spec"), field("task"), item("host_ports", 0), field("published")))
	}
	return broken
}

// checkWeights refuses percents of connections where none can be told from another: clients choose by themselves among the addresses that a name of
// mode dnsrr means. Blue-green asks for no percents: there the name means the tasks of one revision and then of the other.
func checkWeights(spec *warrenv1.ServiceSpec) []*validate.Violation {
	if spec.GetEndpoint().GetMode() != warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR {
		return nil
	}
	for name, p := range map[string]*warrenv1.UpdatePolicy{"update": spec.GetUpdate(), "rollback": spec.GetRollback()} {
		if p.GetStrategy() == canary && (name == "update" || spec.GetUpdate().GetStrategy() != canary) {
			return []*validate.Violation{violation("strategy",
				"the strategy canary sends a part of the connections to the new tasks, which the endpoint mode dnsrr cannot, as clients choose among its addresses by themselves: "+
					"use the endpoint mode vip, or the strategy blue-green or rolling", field("spec"), field(name), field("strategy"))}
		}
	}
	return nil
}

func strategyName(s warrenv1.RolloutStrategy) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(s.String(), "ROLLOUT_STRATEGY_")), "_", "-")
}

func orDefault(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}
