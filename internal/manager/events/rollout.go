package events

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// returned tells whether a change is that of a rollout which has failed and takes the service back by itself.
func returned(before, s *warrenv1.Service) bool {
	r := s.GetRollout()
	return r.GetRollback() && r.GetTo() == s.GetRevision() && s.GetRevision() != before.GetRevision() && another(before.GetRollout(), r)
}

// another tells whether a rollout is not the one that was before.
func another(was, r *warrenv1.Rollout) bool {
	return r != nil && (was == nil || was.GetFrom() != r.GetFrom() || was.GetTo() != r.GetTo() || was.GetRollback() != r.GetRollback() ||
		!proto.Equal(was.GetStartedAt(), r.GetStartedAt()))
}

// rollout tells what a service's rollout has come to, and who has ordered it.
func (w *words) rollout(say func(action, format string, args ...any), before, s *warrenv1.Service) {
	was, r := before.GetRollout(), s.GetRollout()
	w.by = ""
	if another(was, r) {
		was = nil
		if r.GetRollback() {
			why := strings.TrimPrefix(r.GetMessage(), fmt.Sprintf("going back from revision %d: ", r.GetFrom()))
			say("rollback-started", "goes back from revision %d to %d%s", r.GetFrom(), r.GetTo(), because(why))
		} else {
			say("rollout-started", "is rolled out from revision %d to %d", r.GetFrom(), r.GetTo())
		}
	}
	if r != nil {
		w.orders(say, was, r, s.GetOrders().GetBy())
		w.stage(say, was, r, s.GetOrders())
	}
	w.hold(say, before, s)
}

// orders tells that the rollout has followed what was ordered.
func (w *words) orders(say func(action, format string, args ...any), was, r *warrenv1.Rollout, by string) {
	if was == nil {
		return
	}
	w.by = by
	if r.GetResumes() > was.GetResumes() {
		say("rollout-resumed", "goes on with its rollout to revision %d", r.GetTo())
	}
	if r.GetPromotes() > was.GetPromotes() {
		say("rollout-promoted", "has its rollout to revision %d promoted", r.GetTo())
	}
	w.by = ""
}

// stage tells where the rollout has come to.
func (w *words) stage(say func(action, format string, args ...any), was, r *warrenv1.Rollout, orders *warrenv1.RolloutOrders) {
	if r.GetWeight() > was.GetWeight() && r.GetState() != warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE {
		say("rollout-weighted", "sends %d %% of new connections to revision %d", r.GetWeight(), r.GetTo())
	}
	if r.GetState() == was.GetState() {
		return
	}
	switch r.GetState() {
	case warrenv1.RolloutState_ROLLOUT_STATE_PAUSED:
		if orders.GetPaused() {
			w.by = orders.GetBy() // which is why
			say("rollout-paused", "has its rollout to revision %d paused", r.GetTo())
			w.by = ""
			return
		}
		say("rollout-paused", "has its rollout to revision %d paused%s", r.GetTo(), because(r.GetMessage()))
	case warrenv1.RolloutState_ROLLOUT_STATE_RUNNING:
		if was.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_PAUSED && r.GetResumes() == was.GetResumes() {
			w.by = orders.GetBy()
			say("rollout-resumed", "goes on with its rollout to revision %d", r.GetTo())
			w.by = ""
		}
	case warrenv1.RolloutState_ROLLOUT_STATE_WAITING:
		say("rollout-waiting", "waits for its rollout to revision %d to be promoted%s", r.GetTo(), because(r.GetMessage()))
	case warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE:
		if r.GetRollback() {
			say("rolled-back", "is back at revision %d", r.GetTo())
		} else {
			say("rollout-complete", "is at revision %d as a whole", r.GetTo())
		}
	case warrenv1.RolloutState_ROLLOUT_STATE_ABANDONED:
		say("rollout-abandoned", "has its rollout to revision %d given up%s", r.GetTo(), because(r.GetMessage()))
	}
}

// hold tells of an order to pause for which there is no rollout yet.
func (w *words) hold(say func(action, format string, args ...any), before, s *warrenv1.Service) {
	now, was := s.GetOrders().GetPaused(), before.GetOrders().GetPaused()
	if now == was || before == nil {
		return
	}
	switch s.GetRollout().GetState() {
	case warrenv1.RolloutState_ROLLOUT_STATE_RUNNING, warrenv1.RolloutState_ROLLOUT_STATE_WAITING, warrenv1.RolloutState_ROLLOUT_STATE_PAUSED:
		return // told when it follows
	}
	w.by = s.GetOrders().GetBy()
	if now {
		say("rollout-held", "has its next rollout wait until it is resumed")
	} else {
		say("rollout-released", "lets its next rollout begin by itself again")
	}
	w.by = ""
}
