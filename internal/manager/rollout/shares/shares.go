// Package shares says how a service's new connections are shared out among its revisions while a rollout that sends
// them by weight is on. All of it follows from the service; nothing is decided here.
//
// The rollout loop writes the weight, and agents' networks are told of what follows from it (see
// docs/decisions/0014-rollouts.md). A rolling update has no shares: each task takes its part as soon as it serves.
package shares

import warrenv1 "github.com/cuemby/warren/proto/warren/v1"

// Of returns the shares of the revisions of a service, which come to 100 percent; nil where connections go to all
// serving tasks alike.
func Of(service *warrenv1.Service) []*warrenv1.RevisionShare {
	r := service.GetRollout()
	if r.GetRollback() || r.GetFrom() == r.GetTo() || !weighed(service) {
		return nil
	}
	weight := min(r.GetWeight(), 100)
	var all []*warrenv1.RevisionShare
	if weight < 100 {
		all = append(all, &warrenv1.RevisionShare{Revision: r.GetFrom(), Percent: 100 - weight})
	}
	if weight > 0 {
		all = append(all, &warrenv1.RevisionShare{Revision: r.GetTo(), Percent: weight})
	}
	return all
}

// weighed tells whether the service's rollout sends connections by weight now.
func weighed(service *warrenv1.Service) bool {
	r := service.GetRollout()
	on := false
	switch r.GetState() {
	case warrenv1.RolloutState_ROLLOUT_STATE_RUNNING, warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, warrenv1.RolloutState_ROLLOUT_STATE_WAITING:
		on = true
	}
	switch service.GetSpec().GetUpdate().GetStrategy() {
	case warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN:
		return on || r.GetKeepUntil() != nil // the old tasks are still there
	case warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY:
		return on && r.GetWeight() < 100 // the rest follows as in a rolling update
	}
	return false
}
