package progress

import (
	"cmp"
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

// strategy is the one by which tasks are replaced now. What was changed step by step goes back at once.
func (t *Tracker) strategy() warrenv1.RolloutStrategy {
	spec := t.latest.GetService().GetSpec()
	s := spec.GetUpdate().GetStrategy()
	if !t.rollout().GetRollback() {
		return s
	}
	if s == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY {
		s = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING
	}
	return cmp.Or(spec.GetRollback().GetStrategy(), s)
}

// message is what the manager says of the rollout, without what is said here in other words.
func message(r *warrenv1.Rollout) string {
	return strings.TrimPrefix(output.OneLine(r.GetMessage()), fmt.Sprintf("going back from revision %d: ", r.GetFrom()))
}

// withWhy adds to words what the manager says of the rollout.
func withWhy(words string, r *warrenv1.Rollout) string {
	switch why := message(r); {
	case why == "":
		return words
	case strings.HasPrefix(why, words): // paused by anna
		return why
	default:
		return words + ": " + why
	}
}

// decideRollout reaches a verdict where the rollout has come to rest, by itself or for a user to go on.
func (t *Tracker) decideRollout() bool {
	r, s := t.rollout(), t.latest.GetService()
	if r == nil || t.lost != "" {
		return false
	}
	name := t.target.Name
	switch state := r.GetState(); {
	case state == warrenv1.RolloutState_ROLLOUT_STATE_PAUSED && r.GetResumes() >= s.GetOrders().GetResumes():
		if t.target.Revision == 0 { // what was ordered is something else
			if !t.manned() {
				return false
			}
			t.verdict, t.gist = Arrived, withWhy("done, while the rollout is paused", r)
			return true
		}
		what := "paused"
		if r.GetRollback() {
			what = "the rollback is paused"
		}
		t.verdict, t.rests, t.gist = Stuck, true, withWhy(what, r)
		t.why = t.gist + fmt.Sprintf(" (%s); see `warrenctl why service %s`, and go on with `warrenctl service resume %s` or %s", t.Counts(), name, name, t.wayBack())
	case state == warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE && t.rolledBack() != nil:
		t.verdict, t.rests, t.gist = Stuck, true, withWhy(fmt.Sprintf("rolled back to revision %d", r.GetTo()), r)
		t.why = t.gist + fmt.Sprintf("; see `warrenctl why service %s`", name)
	case state == warrenv1.RolloutState_ROLLOUT_STATE_WAITING && r.GetPromotes() >= s.GetOrders().GetPromotes() && t.manned():
		t.verdict, t.gist = Arrived, t.Phase(time.Time{})
		t.hint = fmt.Sprintf("Go on with `warrenctl service promote %s`, or %s.", name, t.wayBack())
	case t.switched() && t.latest.GetProgress().GetUpdated() >= t.latest.GetProgress().GetDesired():
		t.verdict = Arrived
		t.arrive()
	default:
		return false
	}
	return true
}

// wayBack says how a rollout that rests is taken back.
func (t *Tracker) wayBack() string {
	if r := t.rollout(); r.GetRollback() { // which abort leaves alone
		return fmt.Sprintf("to revision %d with `warrenctl service rollback %s --to %d`", r.GetFrom(), t.target.Name, r.GetFrom())
	}
	return "back with `warrenctl service abort " + t.target.Name + "`"
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

// steps are those of a canary.
func (t *Tracker) steps() []*warrenv1.CanaryStep {
	if steps := t.latest.GetService().GetSpec().GetUpdate().GetCanary(); len(steps) > 0 {
		return steps
	}
	return []*warrenv1.CanaryStep{{Weight: usualWeight}}
}

// usualWeight is a canary's where it has no steps.
const usualWeight = 10

// step is the step that a canary is at; nil past the last one, and of other rollouts.
func (t *Tracker) step() *warrenv1.CanaryStep {
	if t.strategy() != warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY || t.rollout() == nil {
		return nil
	}
	if at, steps := int(t.rollout().GetStep()), t.steps(); at < len(steps) {
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
	switch r.GetState() {
	case warrenv1.RolloutState_ROLLOUT_STATE_PAUSED:
		return withWhy("paused", r)
	case warrenv1.RolloutState_ROLLOUT_STATE_WAITING:
		if t.strategy() == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN {
			return "blue-green: all new tasks are good, and the switch waits to be promoted"
		}
		return t.canary(now) + ", waits to be promoted"
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
	phase = strings.TrimPrefix(phase, ", ")
	if phase == "" {
		return message(r)
	}
	return withWhy(phase, r)
}

// running says what a rollout that goes on is at.
func (t *Tracker) running(now time.Time) string {
	p, r := t.latest.GetProgress(), t.rollout()
	switch t.strategy() {
	case warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN:
		if r.GetWeight() == 100 {
			return "blue-green: switched; the new tasks must be seen to be good"
		}
		return "blue-green: all new tasks must be good before the switch"
	case warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY:
		switch step := t.step(); {
		case step == nil && p.GetUpdated() < p.GetDesired():
			return "canary: the rest follows"
		case step != nil && r.GetWeight() != step.GetWeight():
			return fmt.Sprintf("canary: the tasks of step %d of %d, for %d %%, must be good", r.GetStep()+1, len(t.steps()), step.GetWeight())
		case step != nil:
			return t.canary(now)
		}
	}
	batch := min(max(t.latest.GetService().GetSpec().GetUpdate().GetParallelism(), 1), p.GetDesired())
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
	r := t.rollout()
	said := fmt.Sprintf("canary: %d %% at step %d of %d", r.GetWeight(), r.GetStep()+1, len(t.steps()))
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
