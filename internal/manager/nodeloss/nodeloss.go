// Package nodeloss says which tasks wait for a node that is down instead of being lost with it: those whose service
// says so with --on-node-loss. It decides nothing; the liveness loop acts by it, and other loops ask it whether a
// task that does not serve is merely waiting.
package nodeloss

import (
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Waits tells whether t waits for its node n, which is down, as its service wants it to. Until when is the liveness
// loop's business: it calls the task lost then. What is not wanted any more waits for nothing, and what the scheduler
// has not given to the node yet has nothing there.
func Waits(service *warrenv1.Service, n *warrenv1.Node, t *warrenv1.Task) bool {
	return service != nil && !service.GetRemoving() && n.GetStatus().GetState() == warrenv1.NodeState_NODE_STATE_DOWN &&
		lifecycle.Wanted(t) && t.GetStatus().GetState() > warrenv1.TaskState_TASK_STATE_PENDING &&
		service.GetSpec().GetNodeLoss().GetAction() == warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT
}

// End is when tasks of a service that waits cease to wait for a node that is down since then; the zero time for never.
func End(service *warrenv1.Service, downSince time.Time) time.Time {
	wait := service.GetSpec().GetNodeLoss().GetWait().AsDuration()
	if wait <= 0 {
		return time.Time{}
	}
	return downSince.Add(wait)
}
