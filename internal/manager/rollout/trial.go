package rollout

import (
	"cmp"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// What holds of a probe where its template says nothing: see HealthCheck.
const (
	defaultProbing = 30 * time.Second
	defaultRetries = 3
)

// trial tells of new tasks whether they are good, or have failed before they were.
type trial struct {
	monitor time.Duration
	// watch is for how long after its start what befalls a task counts as a failure of its rollout; without end where the rollout
	// keeps both revisions side by side to see how the new one does.
	// One that is probed may take as long as its probes do to be found never to have been well.
	watch, probing time.Duration
	endless        bool
	// horizon: what befell tasks before it was forgiven, or has been counted.
	horizon time.Time
	// leading is since when the manager leads: for the time before it, in which nobody may have, no node could tell that a task does
	// not serve any more.
	leading time.Time
	// rests: a task that completes has done all it is for.
	rests bool
}

// goodAt returns when a task that serves now will have done so for long enough. Where it is probed that counts from when it became
// healthy. Else nobody has noted when it began to serve, but it was told, and nothing has been told of the task since.
func (tr *trial) goodAt(t *warrenv1.Task) time.Time {
	told := t.GetMeta().GetUpdatedAt().AsTime()
	since := told
	if h := t.GetStatus().GetHealth(); h.GetState() == warrenv1.HealthState_HEALTH_STATE_HEALTHY {
		since = later(startOf(t), h.GetSince().AsTime())
	}
	if since.After(told) {
		since = told // that node's clock is ahead
	}
	return later(since, tr.leading).Add(tr.monitor)
}

func (tr *trial) good(t *warrenv1.Task, now time.Time) bool {
	return slot.Serving(t) && !tr.goodAt(t).After(now)
}

// failed tells whether what befell a task is a failure of the rollout that made it: it ended by itself, its program was restarted,
// or it became unhealthy, all before it was good as far as its reports tell.
func (tr *trial) failed(t *warrenv1.Task) bool {
	status := t.GetStatus()
	ended := lifecycle.Ended(status.GetState())
	if ended && t.GetMeta().GetUpdatedAt().AsTime().Before(tr.horizon) {
		return false
	}
	switch status.GetState() {
	case warrenv1.TaskState_TASK_STATE_REJECTED:
		return true
	case warrenv1.TaskState_TASK_STATE_LOST, warrenv1.TaskState_TASK_STATE_SHUTDOWN:
		return false
	case warrenv1.TaskState_TASK_STATE_COMPLETE:
		if tr.rests {
			return false
		}
	}
	watch := tr.watch
	if status.GetHealth() != nil {
		watch += tr.probing
	}
	older := t.GetMeta().GetCreatedAt().AsTime().Before(tr.horizon)
	before := t.GetMeta().GetCreatedAt().AsTime()
	if status.GetAttempt() <= 1 && status.GetStartedAt() != nil {
		before = status.GetStartedAt().AsTime()
	}
	for _, b := range troubles(status, ended) {
		since := before
		if !b.started.IsZero() {
			since = b.started
		}
		if counts := !older || !b.at.Before(tr.horizon); counts && (tr.endless || b.at.Sub(since) < watch) {
			return true
		}
		before = b.at
	}
	return false
}

// trouble is something that befell a task, by its node's clock.
type trouble struct {
	// started is when the program had begun that it befell, where that is known. Until then its image may have been pulled for
	// longer than it is watched.
	started, at time.Time
}

// troubles lists what befell a task, oldest first.
func troubles(status *warrenv1.TaskStatus, ended bool) []trouble {
	var found []trouble
	exits := 0
	for _, i := range status.GetIncidents() {
		switch i.GetKind() {
		case warrenv1.IncidentKind_INCIDENT_KIND_EXIT:
			exits++
		case warrenv1.IncidentKind_INCIDENT_KIND_UNHEALTHY:
		default:
			continue
		}
		b := trouble{at: i.GetAt().AsTime()}
		if i.GetStartedAt() != nil {
			b.started = i.GetStartedAt().AsTime()
		}
		found = append(found, b)
	}
	switch {
	case ended:
		return append(found, trouble{at: status.GetSince().AsTime()})
	case exits == 0 && status.GetAttempt() > 1 && status.GetExit() != nil:
		found = append(found, trouble{at: status.GetExit().GetAt().AsTime()})
	}
	if h := status.GetHealth(); h.GetState() == warrenv1.HealthState_HEALTH_STATE_UNHEALTHY {
		found = append(found, trouble{at: h.GetSince().AsTime()})
	}
	return found
}

// probing returns how long it takes at the most until a task that is never healthy is found unhealthy.
func probing(check *warrenv1.HealthCheck) time.Duration {
	interval, timeout := defaultProbing, defaultProbing
	if d := check.GetInterval(); d != nil {
		interval = d.AsDuration()
	}
	if d := check.GetTimeout(); d != nil {
		timeout = d.AsDuration()
	}
	longest := check.GetStartPeriod().AsDuration()
	for range cmp.Or(check.GetRetries(), defaultRetries) {
		longest += interval + interval/10 + timeout
	}
	return longest
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

// words says what a task is at, for people who ask why a rollout does not go on.
func words(s state.Snapshot, t *warrenv1.Task) string {
	status := t.GetStatus()
	name := lifecycle.Name(t, s.Hostname(t.GetNodeId()))
	what := cmp.Or(status.GetError(), status.GetMessage())
	if status.GetHealth().GetState() == warrenv1.HealthState_HEALTH_STATE_UNHEALTHY {
		what = strings.TrimSuffix("is unhealthy: "+firstLine(status.GetHealth().GetOutput()), ": ")
	}
	state := strings.ToLower(strings.TrimPrefix(status.GetState().String(), "TASK_STATE_"))
	switch {
	case what != "":
		return name + ": " + what
	case slot.Running(t) && !slot.Serving(t):
		return name + " runs, but does not take connections"
	}
	return name + " is " + state
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
