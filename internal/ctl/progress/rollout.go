package progress

import (
	"fmt"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// advance is what of a rollout tells that it goes on, beside the number of tasks.
type advance struct {
	to, resumes, promotes uint64
	state                 warrenv1.RolloutState
	step, weight          uint32
	at                    int64
}

func advanceOf(r *warrenv1.Rollout) advance {
	return advance{
		r.GetTo(), r.GetResumes(), r.GetPromotes(), r.GetState(), r.GetStep(), r.GetWeight(), r.GetAdvancedAt().AsTime().UnixNano(),
	}
}

// rollout returns the rollout to the service's current revision; nil if there is none, or none yet.
func (t *Tracker) rollout() *warrenv1.Rollout {
	s := t.latest.GetService()
	if r := s.GetRollout(); r.GetTo() == s.GetRevision() && !t.target.Removal {
		return r
	}
	return nil
}

// rolledBack returns the rollout that takes back what was ordered; nil if none does.
func (t *Tracker) rolledBack() *warrenv1.Rollout {
	r := t.rollout()
	if t.target.Revision != 0 && r.GetRollback() && r.GetFrom() == t.target.Revision && r.GetTo() != t.target.Revision {
		return r
	}
	return nil
}

// underWay tells that tasks are being replaced, or that this rests half-way.
func (t *Tracker) underWay() bool {
	switch t.rollout().GetState() {
	case warrenv1.RolloutState_ROLLOUT_STATE_RUNNING, warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, warrenv1.RolloutState_ROLLOUT_STATE_WAITING:
		return !t.switched()
	default:
		return false
	}
}

// rolling tells that a rollout is not done: it is under way, or was ordered and has not begun.
func (t *Tracker) rolling() bool {
	if t.target.Removal {
		return false
	}
	s := t.latest.GetService()
	return t.underWay() || t.target.Revision != 0 && s.GetRevision() == t.target.Revision && t.rollout() == nil
}

// switched tells that a blue-green rollout has switched over, and that all it waits for is the time to retire what
// is kept.
func (t *Tracker) switched() bool {
	return t.strategy() == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN && t.rollout().GetKeepUntil() != nil
}

func (t *Tracker) strategy() warrenv1.RolloutStrategy {
	if t.rollout().GetRollback() {
		return warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING
	}
	return t.latest.GetService().GetSpec().GetUpdate().GetStrategy()
}

// decideRollout reaches a verdict where the rollout has come to rest, by itself or for a user to go on.
func (t *Tracker) decideRollout() bool {
	r, s := t.rollout(), t.latest.GetService()
	if r == nil || t.lost != "" {
		return false
	}
	name, message := t.target.Name, output.OneLine(r.GetMessage())
	because := func(why string) string {
		if message != "" {
			why += ": " + message
		}
		return why
	}
	switch state := r.GetState(); {
	case state == warrenv1.RolloutState_ROLLOUT_STATE_PAUSED && r.GetResumes() >= s.GetOrders().GetResumes():
		if t.target.Revision == 0 { // what was ordered is something else
			if !t.manned() {
				return false
			}
			t.verdict, t.gist = Arrived, because("done, while the rollout is paused")
			return true
		}
		what := "paused"
		if r.GetRollback() {
			what = "the rollback is paused"
		}
		t.verdict, t.rests, t.gist = Stuck, true, because(what)
		t.why = t.gist + fmt.Sprintf(" (%s); see `warrenctl why service %s`, and go on with `warrenctl service resume %s` or back with `warrenctl service abort %s`", t.Counts(), name, name, name)
	case state == warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE && t.rolledBack() != nil:
		t.verdict, t.rests, t.gist = Stuck, true, because(fmt.Sprintf("rolled back to revision %d", r.GetTo()))
		t.why = t.gist + fmt.Sprintf("; see `warrenctl why service %s`", name)
	case state == warrenv1.RolloutState_ROLLOUT_STATE_WAITING && r.GetPromotes() >= s.GetOrders().GetPromotes() && t.manned():
		t.verdict, t.gist = Arrived, t.Phase(time.Time{})
		t.hint = fmt.Sprintf("Go on with `warrenctl service promote %s`, or back with `warrenctl service abort %s`.", name, name)
	case t.switched() && t.latest.GetProgress().GetUpdated() >= t.latest.GetProgress().GetDesired():
		t.verdict = Arrived
		t.arrive()
	default:
		return false
	}
	return true
}

// manned tells that as many tasks run as are wanted, of whatever revision.
func (t *Tracker) manned() bool {
	return t.latest.GetProgress().GetRunning() >= t.latest.GetProgress().GetDesired()
}

// arrive notes what people can do about a service that has arrived.
func (t *Tracker) arrive() {
	if t.switched() {
		t.hint = fmt.Sprintf("The old tasks of %s are kept until %s: `warrenctl service rollback %s` switches back at once.",
			t.target.Name, t.rollout().GetKeepUntil().AsTime().In(t.began.Location()).Format("15:04:05"), t.target.Name)
	}
}

// holding tells that a canary rests at a step for a time, which is no stall.
func (t *Tracker) holding() bool {
	return t.rollout().GetState() == warrenv1.RolloutState_ROLLOUT_STATE_RUNNING && t.step().GetHold().AsDuration() > 0
}

// step is the step that a canary is at; nil past the last one, and of other rollouts.
func (t *Tracker) step() *warrenv1.CanaryStep {
	if t.strategy() != warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY || t.rollout() == nil {
		return nil
	}
	steps := t.latest.GetService().GetSpec().GetUpdate().GetCanary()
	if at := int(t.rollout().GetStep()); at < len(steps) {
		return steps[at]
	}
	return nil
}

// Phase says what the rollout is at, beside the numbers: that the first tasks must be good, a canary's step, why
// it is paused. At the zero time it has no time in it that runs.
func (t *Tracker) Phase(now time.Time) string {
	r := t.rollout()
	if r == nil || t.verdict != Working && !now.IsZero() {
		return ""
	}
	message := output.OneLine(r.GetMessage())
	said := func(phase string) string {
		if message != "" && !strings.Contains(phase, message) {
			phase += ": " + message
		}
		return phase
	}
	switch r.GetState() {
	case warrenv1.RolloutState_ROLLOUT_STATE_PAUSED:
		return said("paused")
	case warrenv1.RolloutState_ROLLOUT_STATE_WAITING:
		if t.strategy() == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN {
			return said("blue-green: all new tasks are good, and the switch waits to be promoted")
		}
		return said(t.canary(now) + ", waits to be promoted")
	case warrenv1.RolloutState_ROLLOUT_STATE_RUNNING:
	default:
		return ""
	}
	phase := t.running(now)
	if r.GetRollback() {
		phase = "rolling back"
	}
	if n := r.GetFailed(); n > 0 {
		phase += fmt.Sprintf(", %d failed", n)
	}
	return said(strings.TrimPrefix(phase, ", "))
}

// running says what a rollout that goes on is at.
func (t *Tracker) running(now time.Time) string {
	p, policy := t.latest.GetProgress(), t.latest.GetService().GetSpec().GetUpdate()
	switch t.strategy() {
	case warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN:
		if t.switched() {
			return "blue-green: switched"
		}
		return "blue-green: all new tasks must be good before the switch"
	case warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY:
		if w := t.rollout().GetWeight(); w > 0 && w < 100 && t.step() != nil {
			return t.canary(now)
		}
	}
	batch := min(max(policy.GetParallelism(), 1), p.GetDesired())
	switch updated := p.GetUpdated(); {
	case updated >= p.GetDesired():
		return "the last ones must be seen to be good"
	case updated <= batch && batch == 1:
		return "the first one must be good before the others follow"
	case updated <= batch:
		return fmt.Sprintf("the first %d must be good before the others follow", batch)
	}
	return ""
}

// canary says at which step a canary is, and when the next one comes.
func (t *Tracker) canary(now time.Time) string {
	r, steps := t.rollout(), t.latest.GetService().GetSpec().GetUpdate().GetCanary()
	said := fmt.Sprintf("canary: %d %% at step %d of %d", r.GetWeight(), r.GetStep()+1, max(len(steps), 1))
	hold := t.step().GetHold().AsDuration()
	if hold <= 0 {
		return said
	}
	if now.IsZero() {
		return said + ", which lasts " + hold.String()
	}
	if left := r.GetStepSince().AsTime().Add(hold).Sub(now); r.GetStepSince() != nil && left > 0 {
		return said + ", next in " + view.Lasting(left)
	}
	return said
}

// phaseAges tells that what Phase says changes with the time.
func (t *Tracker) phaseAges() bool { return t.verdict == Working && t.holding() }
