package rollout

import (
	"cmp"
	"slices"
	"time"

	"github.com/cuemby/warren/internal/manager/rollout/policy"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// survey is what one look at a service has shown. Nothing is decided in it.
type survey struct {
	*judge
	trial
	policy policy.Policy
	// sideBySide: the rollout keeps tasks of both revisions; paired are the slots that are to have both.
	sideBySide bool
	paired     []bool
	// active: new tasks are watched, and failures count.
	active bool

	// places are the slots in which something goes on or is to be done.
	places []place
	// counted slots take part in the rollout; of these, begun ones have a new task, good ones a good one, failed ones one that failed,
	// and left ones are not done with.
	counted, begun, good, failed, left int
	// roomless slots have a new task that waits for room where there never was any.
	roomless int

	// newest is when the newest replacement began to run, where a delay counts from it.
	newest time.Time
	// lastGood is when the task that was found good last was, or will be, if it goes on as it does.
	lastGood time.Time
	// trialEnds is when the next serving task may be good.
	trialEnds time.Time
	// awaited is a task for which the rollout waits, and blamed one that failed.
	awaited, blamed *warrenv1.Task

	wake     time.Time
	underway bool
}

// place is a slot as the rollout sees it. Its live tasks are parted, each part in the order of the slot's.
type place struct {
	*slot.Slot
	// fresh tasks are as they should be; stale ones are outdated, but may stay where they are; leaving ones must not.
	fresh, stale, leaving []*warrenv1.Task
	cause                 cause // of leaving[0]
	// good: the new task is. failed: one has failed since the rollout began.
	good, failed bool
	// closed: the slot's node takes no new task, or is waited for.
	closed bool
	// paired: tasks of both revisions are to be in it.
	paired bool
}

// look looks at a service's slots as its record says that it is.
func look(s state.Snapshot, service *warrenv1.Service, slots []slot.Slot, images *images, now, leading time.Time) *survey {
	p, r := policy.Of(service), service.GetRollout()
	v := &survey{
		judge:  newJudge(s, service, images, now),
		policy: p,
		trial: trial{
			monitor: p.Monitor, watch: p.Monitor, probing: probing(service.GetSpec().GetTask().GetHealth()),
			horizon: r.GetSince().AsTime(), leading: leading, rests: rests(service),
		},
	}
	if underway(service) {
		v.sideBySide = policy.SideBySide(service)
		v.endless = v.sideBySide
		v.active = r.GetState() != warrenv1.RolloutState_ROLLOUT_STATE_PAUSED
		v.underway = v.active
	}
	if v.sideBySide {
		v.paired = v.pairs(slots)
	}
	for i := range slots {
		if v.sideBySide {
			v.lookAtPair(&slots[i], v.paired[i])
		} else {
			v.lookAt(&slots[i])
		}
	}
	if v.good == 0 {
		v.left += v.roomless // nothing can be said of the new revision while it runs nowhere
	}
	v.wakeAt(v.deadline)
	return v
}

// rests tells whether a task that completes is not run again.
func rests(service *warrenv1.Service) bool {
	switch service.GetSpec().GetTask().GetRestart().GetCondition() {
	case warrenv1.RestartCondition_RESTART_CONDITION_ON_FAILURE, warrenv1.RestartCondition_RESTART_CONDITION_NONE:
		return true
	}
	return false
}

// lookAt looks at one slot.
func (v *survey) lookAt(s *slot.Slot) {
	p := v.part(s)
	if v.policy.Delay > 0 && len(p.fresh) > 0 && slot.Serving(p.fresh[0]) {
		v.newest = later(v.newest, startOf(p.fresh[0]))
	}
	if len(s.Live) == 0 {
		v.lookAtEmpty(&p)
		return
	}
	p.closed = v.shut(&p)
	v.underway = v.underway || len(s.Live) > 1 || len(p.fresh) == 0 && !p.closed
	if v.active && !p.closed {
		v.count(&p)
	}
	if len(s.Live) == 1 && len(p.fresh) == 1 && v.relied(&p, p.fresh[0]) {
		return // nearly always
	}
	v.places = append(v.places, p)
}

// part parts a slot's live tasks.
func (v *survey) part(s *slot.Slot) place {
	p := place{Slot: s}
	if len(s.Live) == 1 && v.due(s.Live[0]) == nothing {
		p.fresh = s.Live // nearly always, so worth no allocation
		return p
	}
	kept := v.keeps()
	for _, t := range s.Live {
		switch c := v.due(t); {
		case c > outdated:
			p.leaving = append(p.leaving, t)
		case c == outdated:
			p.stale = append(p.stale, t)
		default:
			p.fresh = append(p.fresh, t)
		}
	}
	if len(p.leaving) > 0 {
		v.overdueLast(p.leaving)
		p.cause = v.leaves(p.leaving[0])
	}
	if kept && (len(p.fresh) > 0 || slices.ContainsFunc(p.leaving, v.current)) {
		// One that is kept is sent no connections, so that it can take nobody's place.
		p.stale = without(p.stale, v.service.GetRollout().GetFrom())
	}
	return p
}

// current tells whether a task is of the current revision.
func (v *survey) current(t *warrenv1.Task) bool { return t.GetRevision() == v.service.GetRevision() }

// overdueLast puts tasks that must not stay any longer behind those that may stay for a while.
func (v *survey) overdueLast(tasks []*warrenv1.Task) {
	slices.SortStableFunc(tasks, func(a, b *warrenv1.Task) int {
		return cmp.Compare(max(v.leaves(a), drained), max(v.leaves(b), drained))
	})
}

// keeps tells whether the tasks of the revision before are kept beside the new ones, to be switched back to.
func (v *survey) keeps() bool {
	r := v.service.GetRollout()
	return r.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE && r.GetKeepUntil() != nil && r.GetTo() == v.service.GetRevision()
}

func without(tasks []*warrenv1.Task, revision uint64) []*warrenv1.Task {
	var rest []*warrenv1.Task
	for _, t := range tasks {
		if t.GetRevision() != revision {
			rest = append(rest, t)
		}
	}
	return rest
}

// shut tells whether no new task can be put beside or in place of what is in a slot: a global service's node takes
// none, or the service waits for the node that has it.
func (v *survey) shut(p *place) bool {
	if len(p.fresh) > 0 {
		return false
	}
	return p.NodeID != "" && !v.open(p.NodeID) || v.away(p.Live[0])
}

// lookAtEmpty: the replicas loop is about to fill the slot, or waits for something.
func (v *survey) lookAtEmpty(p *place) {
	if !p.InUse() || p.NodeID != "" && !v.open(p.NodeID) {
		return
	}
	if v.active {
		v.count(p)
	}
	if p.Done(v.service, v.service.GetRevision()) {
		return
	}
	v.places = append(v.places, *p)
}

// count counts a slot for the rollout.
func (v *survey) count(p *place) {
	v.counted++
	if len(p.fresh) == 0 && p.Done(v.service, v.service.GetRevision()) {
		p.good = true
		v.begun, v.good = v.begun+1, v.good+1
		return
	}
	p.failed = v.failedIn(p)
	if p.failed {
		v.failed++
	}
	fresh := p.fresh
	if len(fresh) == 0 {
		// One that must leave its node is of the new revision all the same.
		for _, t := range p.leaving {
			if t.GetRevision() == v.service.GetRevision() {
				fresh = append(fresh, t)
			}
		}
	}
	if len(fresh) == 0 {
		v.left++
		if len(p.Live) == 0 && replaced(p.Slot) && !p.failed {
			v.begun++ // the old one was stopped for one that is about to come
		}
		if v.awaited == nil && len(p.Live) == 0 && len(p.Ended) > 0 {
			v.awaited = p.Ended[0]
		}
		return
	}
	t := fresh[0]
	if slot.Serving(t) {
		if at := v.goodAt(t); at.After(v.now) {
			soonest(&v.trialEnds, at)
		}
		if t.GetStatus().GetAttempt() <= 1 {
			v.lastGood = later(v.lastGood, v.goodAt(t))
		}
	}
	p.good = v.trial.good(t, v.now)
	switch {
	case p.good:
		v.begun, v.good = v.begun+1, v.good+1
		return
	case len(p.stale)+len(p.leaving) == 0 && !replaced(p.Slot) && !v.holdsUp(p.Slot, t) && !v.sideBySide:
		v.roomless++
		return
	default:
		v.left++
	}
	if !p.failed {
		v.begun++
	}
	if v.awaited == nil || v.awaited.GetRevision() != t.GetRevision() {
		v.awaited = t
	}
}

// failedIn tells whether a task of the new revision has failed in a slot since the rollout began, or was resumed.
func (v *survey) failedIn(p *place) bool {
	for _, tasks := range [][]*warrenv1.Task{p.Live, p.Ended} {
		for _, t := range tasks {
			if t.GetRevision() == v.service.GetRevision() && v.trial.failed(t) {
				if v.blamed == nil {
					v.blamed = t
				}
				return true
			}
		}
	}
	return false
}

// relied tells whether a task may be relied on to take another's place: it serves, and has not ended yet, nor has one of its
// revision before it in the slot, or it is good since. Without this a program that crashes soon after its start
// would be carried from slot to slot each time it runs for a moment.
func (v *survey) relied(p *place, t *warrenv1.Task) bool {
	if !slot.Serving(t) {
		return false
	}
	if t.GetStatus().GetAttempt() <= 1 && !failedBefore(p.Slot, t.GetRevision()) || v.trial.good(t, v.now) {
		return true
	}
	soonest(&v.trialEnds, v.goodAt(t))
	return false
}

// holdsUp tells whether others wait for a slot whose task does not serve yet and took nothing's place that does.
//
// One that waits for room and never had it says nothing about the others: a service that does not fit as a whole can
// still be updated. Where old tasks are stopped first that is too bold if the slot had a task before: the next one
// would be stopped while this one is still missing.
func (v *survey) holdsUp(s *slot.Slot, t *warrenv1.Task) bool {
	had := len(s.Ended) > 0 && s.Ended[0].GetStatus().GetState() != warrenv1.TaskState_TASK_STATE_LOST
	return !slot.Unassigned(t) || failedBefore(s, t.GetRevision()) || v.policy.StopFirst && had
}

// failedBefore tells whether the slot's last task was of that revision and ended by itself.
func failedBefore(s *slot.Slot, revision uint64) bool {
	if len(s.Ended) == 0 || s.Ended[0].GetRevision() != revision {
		return false
	}
	switch s.Ended[0].GetStatus().GetState() {
	case warrenv1.TaskState_TASK_STATE_FAILED, warrenv1.TaskState_TASK_STATE_REJECTED, warrenv1.TaskState_TASK_STATE_COMPLETE:
		return true
	}
	return false
}

// failedOnTheWay is failedBefore for the current revision. Where a rollout goes on that leads to it once more, how it did before that
// began is not this one's, nor is what was forgiven.
func (v *survey) failedOnTheWay(s *slot.Slot) bool {
	return failedBefore(s, v.service.GetRevision()) && (!v.active || !s.Ended[0].GetMeta().GetUpdatedAt().AsTime().Before(v.horizon))
}

// replaced tells whether the slot's last task was stopped to make room for the next.
func replaced(s *slot.Slot) bool {
	if len(s.Ending) > 0 {
		return true
	}
	return len(s.Ended) > 0 && s.Ended[0].GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_SHUTDOWN
}

// proven tells whether the first batch of new tasks has been found good, so that the others may follow.
func (v *survey) proven() bool {
	return v.service.GetRollout().GetRollback() ||
		v.good > 0 && v.good >= min(v.policy.Parallelism, v.counted-v.roomless-v.failed)
}

func (v *survey) wakeAt(at time.Time) {
	if !at.IsZero() && (v.wake.IsZero() || at.Before(v.wake)) {
		v.wake = at
	}
}

// soonest keeps the earlier of two times in the first; zero stands for never.
func soonest(kept *time.Time, at time.Time) {
	if kept.IsZero() || at.Before(*kept) {
		*kept = at
	}
}
