package progress

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Target is a service that was ordered to change.
type Target struct {
	// Name is what people call it; ID names it even if another takes its name.
	Name, ID string
	// Version is that of the write that ordered the change: progress of an older one does not count.
	Version uint64
	// Removal tells that the service was ordered to go.
	Removal bool
	// Revision is the one that was ordered, where the order was to roll to it; else 0.
	Revision uint64
	// Moving tells that tasks were ordered to be moved: there are some to be moved, as their records say.
	Moving bool
}

// Limits say how long to look on.
type Limits struct {
	// Monitor is how long a service must have been as ordered, no task changing its state, before it
	// counts as arrived.
	Monitor time.Duration
	// Timeout bounds the whole. 0: no bound.
	Timeout time.Duration
	// Stall bounds the time in which nothing comes nearer to what was ordered. 0: no bound.
	Stall time.Duration
}

// Verdict is where a service is on its way.
type Verdict int

// The verdicts.
const (
	Working Verdict = iota
	Arrived
	// Stuck: it will not arrive, or not in time.
	Stuck
)

// Tracker folds what is told of one service into a verdict and a picture. The time is always given.
type Tracker struct {
	target Target
	limits Limits
	began  time.Time

	latest  *warrenv1.WatchServiceResponse // nil before the first that counts
	culprit *warrenv1.GetTaskResponse      // the task that the reason is about; may lag or be nil
	lost    string                         // why the manager is out of reach; empty when it is not
	removed bool
	toMove  int // tasks that are still to be moved

	steady   time.Time // since when it is as ordered with no task changing; zero if it is not
	slots    []slotState
	nearest  int // the least distance from what was ordered so far, for this order
	order    order
	advance  advance
	improved time.Time

	verdict Verdict
	why     string
	rests   bool   // stuck, and nothing is tried any more
	gist    string // of a rollout that rests, in few words
	hint    string // what people can do about a service that has arrived
}

// slotState is what must not change while a service is being monitored.
type slotState struct {
	task    string
	state   warrenv1.TaskState
	attempt uint32
}

// order is what distances are measured from: when it changes they begin anew.
type order struct {
	desired  uint32
	revision uint64
}

// NewTracker returns the tracker of a service whose change was ordered at now.
func NewTracker(t Target, l Limits, now time.Time) *Tracker {
	return &Tracker{target: t, limits: l, began: now, improved: now, nearest: -1}
}

// Observe takes in a message of the watch. culprit is the task that the progress gives as a reason,
// nil if there is none or it is not known.
func (t *Tracker) Observe(m *warrenv1.WatchServiceResponse, culprit *warrenv1.GetTaskResponse, now time.Time) {
	t.lost = ""
	if m.GetRemoved() {
		t.removed = true
		t.decide(now)
		return
	}
	if m.GetService().GetMeta().GetVersion() < t.target.Version {
		return
	}
	p := m.GetProgress()
	t.latest, t.culprit = m, culprit

	states := make([]slotState, len(p.GetSlots()))
	for i, s := range p.GetSlots() {
		states[i] = slotState{s.GetTaskId(), s.GetState(), s.GetAttempt()}
	}
	switch {
	case !p.GetConverged() || t.target.Removal || t.toMove > 0:
		t.steady = time.Time{}
	case t.steady.IsZero() || !slices.Equal(states, t.slots):
		t.steady = now
	}
	t.slots = states

	if o := (order{p.GetDesired(), m.GetService().GetRevision()}); o != t.order {
		t.order, t.nearest = o, -1
	}
	if d := distance(p) + t.toMove; t.nearest < 0 || d < t.nearest {
		t.nearest, t.improved = d, now
	}
	if a := advanceOf(m.GetService().GetRollout()); a != t.advance {
		t.advance, t.improved = a, now
	}
	t.decide(now)
}

// Move takes in how many tasks are still to be moved, before the message that it belongs to.
func (t *Tracker) Move(left int) { t.toMove = left }

// distance counts the steps still to be taken.
func distance(p *warrenv1.ServiceProgress) int {
	return apart(p.GetDesired(), p.GetRunning()) + apart(p.GetDesired(), p.GetUpdated()) + int(p.GetStopping())
}

func apart(a, b uint32) int { return int(max(a, b) - min(a, b)) }

// Lose takes in that the manager is out of reach; why is empty as long as nobody need know.
func (t *Tracker) Lose(why string) {
	t.lost = why
	// What is not seen is not known to be steady.
	t.steady = time.Time{}
}

// Gone takes in that the service does not exist any more.
func (t *Tracker) Gone(now time.Time) {
	t.removed = true
	t.decide(now)
}

// Verdict returns where the service is at now, and why if it is stuck.
func (t *Tracker) Verdict(now time.Time) (Verdict, string) {
	t.decide(now)
	return t.verdict, t.why
}

// Next returns when the verdict can change although nothing is observed; zero if it cannot.
func (t *Tracker) Next() time.Time {
	var next time.Time
	for _, at := range []time.Time{
		after(t.steady, t.limits.Monitor, !t.steady.IsZero()),
		after(t.improved, t.limits.Stall, t.limits.Stall > 0),
		after(t.began, t.limits.Timeout, t.limits.Timeout > 0),
	} {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

func after(t time.Time, d time.Duration, counts bool) time.Time {
	if !counts {
		return time.Time{}
	}
	return t.Add(d)
}

// decide reaches a verdict, once.
func (t *Tracker) decide(now time.Time) {
	reached := func(since time.Time, d time.Duration) bool { return !now.Before(since.Add(d)) }
	switch {
	case t.verdict != Working:
	case t.removed && t.target.Removal:
		t.verdict = Arrived
	case t.removed:
		t.verdict, t.why = Stuck, "it was removed meanwhile"
	case t.decideRollout():
	case !t.steady.IsZero() && reached(t.steady, t.limits.Monitor) && !t.rolling():
		t.verdict = Arrived
		t.arrive()
	case t.decideEnded():
	case t.limits.Timeout > 0 && reached(t.began, t.limits.Timeout):
		t.verdict, t.why = Stuck, "not there within "+t.limits.Timeout.String()
	case t.limits.Stall > 0 && t.holding():
		t.improved = now // it is in no hurry
	case t.limits.Stall > 0 && reached(t.improved, t.limits.Stall):
		t.verdict, t.why = Stuck, "no nearer for "+t.limits.Stall.String()
	}
}

// decideEnded settles a service whose tasks end by themselves and are not replaced.
func (t *Tracker) decideEnded() bool {
	m := t.latest
	if t.target.Removal || m.GetService().GetSpec().GetTask().GetRestart().GetCondition() != warrenv1.RestartCondition_RESTART_CONDITION_NONE {
		return false
	}
	slots := m.GetProgress().GetSlots()
	if len(slots) == 0 || len(slots) != int(m.GetProgress().GetDesired()) {
		return false
	}
	failed := 0
	for _, s := range slots {
		if !s.GetCurrent() || !view.Ended(s.GetState()) {
			return false
		}
		if s.GetState() != warrenv1.TaskState_TASK_STATE_COMPLETE {
			failed++
		}
	}
	t.verdict = Arrived
	if failed > 0 {
		t.verdict, t.why = Stuck, fmt.Sprintf("%d of %d tasks ended without success, and its restart condition is none", failed, len(slots))
	}
	return true
}

// Counts says in a few words how far the service is.
func (t *Tracker) Counts() string {
	p := t.latest.GetProgress()
	switch {
	case t.removed:
		return "removed"
	case t.latest == nil:
		return "waiting for the manager"
	case t.target.Removal:
		if left := p.GetRunning() + p.GetStopping(); left > 0 {
			return fmt.Sprintf("removing, %d still running", left)
		}
		return "removing"
	}
	var said string
	if t.underWay() {
		said = fmt.Sprintf("%d/%d updated", p.GetUpdated(), p.GetDesired())
		if p.GetRunning() != p.GetDesired() {
			said += fmt.Sprintf(", %d running", p.GetRunning())
		}
	} else {
		said = fmt.Sprintf("%d/%d running", p.GetRunning(), p.GetDesired())
		if p.GetUpdated() != p.GetRunning() {
			said += fmt.Sprintf(", %d updated", p.GetUpdated())
		}
	}
	if n := p.GetUnhealthy(); n > 0 {
		said += fmt.Sprintf(", %d unhealthy", n)
	}
	if t.toMove > 0 {
		said += fmt.Sprintf(", %d to move", t.toMove)
	}
	if n := p.GetStopping(); n > 0 {
		said += fmt.Sprintf(", %d stopping", n)
	}
	return said
}

// ending says what there is to say beside the numbers of a service that has arrived.
func (t *Tracker) ending() string {
	switch {
	case t.target.Removal:
		return ""
	case t.gist != "":
		return ", " + t.gist
	}
	return ", done"
}

// Stages says what the tasks that do not run yet are at: 2 preparing, 1 starting.
func (t *Tracker) Stages() string {
	number := map[warrenv1.TaskState]int{}
	for _, s := range t.latest.GetProgress().GetSlots() {
		if s.GetState() < warrenv1.TaskState_TASK_STATE_RUNNING {
			number[s.GetState()]++
		}
	}
	var said []string
	for state := warrenv1.TaskState_TASK_STATE_PENDING; state < warrenv1.TaskState_TASK_STATE_RUNNING; state++ {
		if n := number[state]; n > 0 {
			said = append(said, fmt.Sprintf("%d %s", n, view.State(state)))
		}
	}
	return strings.Join(said, ", ")
}

// Doing returns what the first task that is being prepared reports, such as how far its pull is.
func (t *Tracker) Doing() string {
	for _, s := range t.latest.GetProgress().GetSlots() {
		if s.GetState() == warrenv1.TaskState_TASK_STATE_PREPARING && s.GetMessage() != "" {
			return t.slotName(s) + ": " + output.OneLine(s.GetMessage())
		}
	}
	return ""
}

func (t *Tracker) slotName(s *warrenv1.SlotProgress) string {
	if s.GetSlot() != 0 {
		return fmt.Sprintf("%s.%d", t.target.Name, s.GetSlot())
	}
	return t.target.Name + "." + view.ShortID(cmp.Or(s.GetNodeId(), s.GetTaskId()))
}

// Reason says why the service is not as ordered: which task, how it ended, where, and the error.
func (t *Tracker) Reason() string {
	if t.lost != "" {
		return t.lost
	}
	p := t.latest.GetProgress()
	reason := output.OneLine(p.GetReason())
	if reason == "" || t.verdict == Arrived {
		return ""
	}
	if t.target.Removal && reason == output.OneLine(t.latest.GetService().GetRollout().GetMessage()) {
		return "" // a removal does not wait for a rollout
	}
	if t.verdict == Working && reason == output.OneLine(t.rollout().GetMessage()) && t.Phase(time.Time{}) != "" {
		return "" // which says it
	}
	task := t.culprit.GetEntry().GetTask()
	if task.GetMeta().GetId() != p.GetReasonTaskId() || p.GetReasonTaskId() == "" {
		return reason
	}
	where := view.TaskName(task, t.culprit.GetEntry().GetNodeHostname())
	state := view.State(task.GetStatus().GetState())
	if view.Ended(task.GetStatus().GetState()) && !strings.HasPrefix(reason, state) {
		where += ": " + state
	}
	if host := t.culprit.GetEntry().GetNodeHostname(); host != "" {
		where += " on " + host
	}
	// The manager may name the task in its reason as well.
	return where + ": " + strings.TrimPrefix(reason, view.TaskName(task, t.culprit.GetEntry().GetNodeHostname())+": ")
}

// LastOutput returns the last lines that the task at fault wrote.
func (t *Tracker) LastOutput(lines int) []string {
	if t.Reason() == "" || t.lost != "" || t.culprit.GetEntry().GetTask().GetMeta().GetId() != t.latest.GetProgress().GetReasonTaskId() {
		return nil
	}
	text := strings.TrimRight(t.culprit.GetEntry().GetTask().GetStatus().GetExit().GetLastOutput(), "\r\n")
	if text == "" {
		return nil
	}
	all := strings.Split(text, "\n")
	all = all[max(0, len(all)-lines):]
	for i := range all {
		all[i] = output.OneLine(all[i])
	}
	return all
}

// reasonAge says how long ago the reason arose.
func (t *Tracker) reasonAge(now time.Time) string {
	if at := t.latest.GetProgress().GetReasonAt(); at != nil && t.lost == "" {
		return view.Ago(at, now)
	}
	return ""
}
