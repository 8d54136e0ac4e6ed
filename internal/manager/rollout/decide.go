package rollout

import (
	"cmp"
	"slices"
	"time"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// trial is how long a task that has ended before must run for an update to go on.
const trial = 5 * time.Second

// outcome is what decide comes to.
type outcome struct {
	transaction *state.Transaction
	wake        time.Time
	// underway tells that a slot's task is due or being replaced, so that every step counts.
	underway bool
}

// decide decides about one service.
func decide(s state.Snapshot, serviceID string, now time.Time, newID func() string) outcome {
	service := s.Service(serviceID)
	if service == nil || service.GetRemoving() {
		return outcome{}
	}
	d := &decision{
		judge: newJudge(s, service), stopFirst: slot.StopFirst(service), delay: service.GetSpec().GetUpdate().GetDelay().AsDuration(),
		now: now, newID: newID, transaction: state.New(now), checked: map[state.Key]bool{},
	}
	slots := slot.Of(s, serviceID)
	for i := range slots {
		if slots[i].Fits(service) {
			d.survey(&slots[i])
		}
	}
	d.advance()
	if d.underway && !d.trialEnds.IsZero() {
		d.wakeAt(d.trialEnds)
	}
	return outcome{d.transaction, d.wake, d.underway}
}

// decision is one decision in the making.
type decision struct {
	judge
	stopFirst bool
	now       time.Time
	newID     func() string

	candidates []candidate
	// moving slots are in the middle of being replaced; unwell ones have no serving task for another
	// reason. Both hold up an update; only the first hold up a drain that starts the new task first.
	moving, unwell int
	// newest is when the newest replacement began to run, where a delay counts from it.
	newest time.Time
	delay  time.Duration
	// trialEnds is when the next running task may be relied on, where one has ended before.
	trialEnds time.Time

	transaction *state.Transaction
	checked     map[state.Key]bool
	wake        time.Time
	underway    bool
}

// candidate is a slot whose task is due and whose replacement has not begun.
type candidate struct {
	slot  *slot.Slot
	task  *warrenv1.Task
	cause cause
	// failed: a replacement was tried and failed, so that this slot holds up the others.
	failed bool
}

func (d *decision) full() bool { return d.transaction.Len() >= loop.MaxOperations }

// survey sees what one slot is at. It finishes what was begun in it, and leaves what could be begun to
// advance.
func (d *decision) survey(s *slot.Slot) {
	fresh, due := d.divide(s.Live)
	d.underway = d.underway || len(due) > 0 || len(s.Live) > 1
	switch {
	case len(s.Live) == 0:
		d.surveyEmpty(s)
	case len(fresh) == 0:
		d.retire(due[1:]) // the first serves, or is the next best: nothing is gained by more than one
		d.surveyDue(s, due[0])
	default:
		d.retire(fresh[1:])
		d.surveyFresh(s, fresh[0], due)
	}
}

// divide parts tasks that may stay from tasks that are due, each in the order they had.
func (d *decision) divide(live []*warrenv1.Task) (fresh, due []*warrenv1.Task) {
	if len(live) == 1 && d.due(live[0]) == nothing {
		return live, nil // nearly always, so worth no allocation
	}
	for _, t := range live {
		if d.due(t) == nothing {
			fresh = append(fresh, t)
		} else {
			due = append(due, t)
		}
	}
	return fresh, due
}

// surveyEmpty: the replicas loop is about to fill the slot, or waits for something.
func (d *decision) surveyEmpty(s *slot.Slot) {
	if !s.InUse() || s.Done(d.service) || s.NodeID != "" && !d.open(s.NodeID) {
		return
	}
	if replaced(s) {
		d.moving++
	} else {
		d.unwell++
	}
}

// surveyFresh: the slot's task is as it should be. The old ones, if any, are stopped when it serves, or at
// once where they do not run themselves.
func (d *decision) surveyFresh(s *slot.Slot, fresh *warrenv1.Task, due []*warrenv1.Task) {
	if slot.Serving(fresh) && d.proven(s, fresh) {
		d.retire(due)
		if d.delay > 0 {
			d.newest = later(d.newest, startOf(fresh))
		}
		return
	}
	running := 0
	for running < len(due) && slot.Running(due[running]) {
		running++
	}
	d.retire(due[min(running, 1):])
	if len(due) > 0 {
		d.moving++
	} else {
		d.count(s, fresh)
	}
}

// count counts a slot whose task does not serve yet and took nothing's place that does.
//
// One that waits for room and never had it says nothing about the others, and does not count: a service
// that does not fit as a whole can still be updated. Where old tasks are stopped first that is too bold if
// the slot had a task before: the next one would be stopped while this one is still missing.
func (d *decision) count(s *slot.Slot, t *warrenv1.Task) {
	had := len(s.Ended) > 0 && s.Ended[0].GetStatus().GetState() != warrenv1.TaskState_TASK_STATE_LOST
	switch {
	case replaced(s):
		d.moving++
	case !slot.Unassigned(t) || failedBefore(s, d.service) || d.stopFirst && had:
		d.unwell++
	}
}

// surveyDue: the slot's task is to be replaced.
func (d *decision) surveyDue(s *slot.Slot, t *warrenv1.Task) {
	c := candidate{slot: s, task: t, cause: d.due(t)}
	if s.NodeID != "" && !d.open(s.NodeID) {
		return // a global service's node that takes no new task keeps what it has
	}
	if c.cause == outdated && s.Done(d.service) {
		d.retire([]*warrenv1.Task{t}) // the replacement has run and is done already
		return
	}
	c.failed = c.cause == outdated && failedBefore(s, d.service)
	d.candidates = append(d.candidates, c)
}

// proven tells whether a serving task may be relied on: it has not ended yet, nor has one of its
// revision before it in the slot, or it has run for a while since. Without this a program that crashes
// soon after its start would be carried from slot to slot each time it runs for a moment.
func (d *decision) proven(s *slot.Slot, fresh *warrenv1.Task) bool {
	if fresh.GetStatus().GetAttempt() <= 1 && !failedBefore(s, d.service) {
		return true
	}
	at := startOf(fresh).Add(trial)
	if !at.After(d.now) {
		return true
	}
	if d.trialEnds.IsZero() || at.Before(d.trialEnds) {
		d.trialEnds = at
	}
	return false
}

// failedBefore tells whether the slot's last task was of the current revision and ended by itself.
func failedBefore(s *slot.Slot, service *warrenv1.Service) bool {
	if len(s.Ended) == 0 || s.Ended[0].GetRevision() != service.GetRevision() {
		return false
	}
	switch s.Ended[0].GetStatus().GetState() {
	case warrenv1.TaskState_TASK_STATE_FAILED, warrenv1.TaskState_TASK_STATE_REJECTED, warrenv1.TaskState_TASK_STATE_COMPLETE:
		return true
	}
	return false
}

// replaced tells whether the slot's last task was stopped to make room for the next.
func replaced(s *slot.Slot) bool {
	if len(s.Ending) > 0 {
		return true
	}
	return len(s.Ended) > 0 && s.Ended[0].GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_SHUTDOWN
}

// startOf returns when a running task began to run. That is told by its node's clock, which is believed as
// far as the managers' allow.
func startOf(t *warrenv1.Task) time.Time {
	created, updated := t.GetMeta().GetCreatedAt().AsTime(), t.GetMeta().GetUpdatedAt().AsTime()
	if started := later(created, t.GetStatus().GetStartedAt().AsTime()); started.Before(updated) {
		return started
	}
	return updated
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// advance begins replacements, as many as the policy lets be underway at a time.
func (d *decision) advance() {
	slices.SortStableFunc(d.candidates, func(a, b candidate) int { return cmp.Compare(a.urgency(), b.urgency()) })
	parallelism := max(1, int(d.service.GetSpec().GetUpdate().GetParallelism()))
	resume := d.newest.Add(d.delay)
	for _, c := range d.candidates {
		if d.full() {
			return
		}
		busy := d.moving
		if c.cause == outdated || d.stopFirst {
			busy += d.unwell
		}
		switch retry := c.slot.NotBefore(d.service); {
		case slot.Unassigned(c.task):
			d.swap(c) // nothing runs here that could be missed
			d.count(c.slot, c.task)
		case busy >= parallelism:
		case c.failed && retry.After(d.now):
			d.moving++
			d.wakeAt(retry)
		case !c.failed && resume.After(d.now):
			d.wakeAt(resume)
		default:
			d.moving++
			d.replace(c)
		}
	}
}

// urgency sorts candidates: first slots where the replacement failed, which others must wait for, then those
// where nothing runs anyway, then those where what runs does not serve.
func (c candidate) urgency() int {
	switch {
	case c.failed:
		return 0
	case !slot.Running(c.task):
		return 1
	case !slot.Serving(c.task):
		return 2
	}
	return 3
}

// replace begins a replacement.
func (d *decision) replace(c candidate) {
	switch {
	case d.stopFirst:
		slot.Retire(d.transaction, c.task)
	case slot.Running(c.task):
		d.transaction.Check(c.task)
		d.create(c.slot.Key)
	default:
		d.swap(c)
		return
	}
	d.restOn(c.task)
}

// swap retires a task that does not run and creates the new one beside it.
func (d *decision) swap(c candidate) {
	slot.Retire(d.transaction, c.task)
	d.create(c.slot.Key)
	d.restOn(c.task)
}

func (d *decision) create(key slot.Key) {
	d.transaction.Create(slot.NewTask(d.newID(), d.service, key, d.now))
}

// retire stops tasks that have been replaced or are too many.
func (d *decision) retire(tasks []*warrenv1.Task) {
	for _, t := range tasks {
		if d.full() {
			return
		}
		slot.Retire(d.transaction, t)
		d.restOn(t)
	}
}

// restOn has the transaction refused if what makes t due has changed meanwhile.
func (d *decision) restOn(t *warrenv1.Task) {
	d.check(d.service)
	if n := d.snapshot.Node(t.GetNodeId()); n != nil && d.due(t) == displaced {
		d.check(n)
	}
}

func (d *decision) check(o state.Object) {
	if k := state.KeyOf(o); !d.checked[k] {
		d.checked[k] = true
		d.transaction.Check(o)
	}
}

func (d *decision) wakeAt(at time.Time) {
	if d.wake.IsZero() || at.Before(d.wake) {
		d.wake = at
	}
}

func (d *decision) open(nodeID string) bool {
	n := d.snapshot.Node(nodeID)
	return n != nil && placement.Open(n)
}
