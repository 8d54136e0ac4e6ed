package prober

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	starting  = warrenv1.HealthState_HEALTH_STATE_STARTING
	healthy   = warrenv1.HealthState_HEALTH_STATE_HEALTHY
	unhealthy = warrenv1.HealthState_HEALTH_STATE_UNHEALTHY
)

// firstRest is between the first probe and the second, where the first fails.
const firstRest = 100 * time.Millisecond

// jitter is how much an interval may be shorter or longer, so that tasks which were started together are not
// probed together for ever.
const jitter = 0.1

// quiet is how often the output of failures alone is news: a page that shows the time must not be a report for
// each probe.
const quiet = 10 * time.Second

// Health is what is known of one program.
type Health struct {
	State warrenv1.HealthState
	Since time.Time
	// Failures are probes that have failed one after another, and count; up to the check's Retries.
	Failures uint32
	// Output is what the last failed probe saw, until the state changes.
	Output string
}

// Recall makes a Health of what was recorded; nil stands for nothing.
func Recall(m *warrenv1.TaskHealth) Health {
	if m == nil {
		return Health{}
	}
	return Health{State: m.GetState(), Since: m.GetSince().AsTime(), Failures: m.GetFailures(), Output: m.GetOutput()}
}

// Message is the Health as it is recorded and reported.
func (h Health) Message() *warrenv1.TaskHealth {
	return &warrenv1.TaskHealth{State: h.State, Since: timestamppb.New(h.Since), Failures: h.Failures, Output: h.Output}
}

// outcome is what a probe says of the program.
type outcome int

const (
	succeeded outcome = iota
	failed
	// unknown says nothing of the program: it could not be asked, for a reason that lies with the node.
	unknown
)

func (o outcome) String() string {
	switch o {
	case succeeded:
		return "succeeded"
	case failed:
		return "failed"
	default:
		return "unknown"
	}
}

// Result is what one probe found.
type Result struct {
	outcome outcome
	output  string // in words, where it did not succeed
}

// Succeeded is the Result of a probe that the program passed.
func Succeeded() Result { return Result{} }

// Failed is the Result of a probe that the program did not pass.
func Failed(output string) Result { return Result{failed, clip(output)} }

// Unknown is the Result of a probe that could not be made. It counts for nothing.
func Unknown(why string) Result { return Result{unknown, clip(why)} }

// course is how far the probing of one program has come.
type course struct {
	Health
	// passed says that a probe of the program has succeeded.
	passed bool
	// successes are those one after another, of one that is unhealthy.
	successes uint32
	// rest was between the last two probes, while none has succeeded.
	rest time.Duration
	// due is when the plain schedule has its next probe, while none has succeeded: an interval after the start
	// period, and then after the one before. A failure earlier than that is of a probe that is made only in order
	// to see success soon, and does not count: nothing becomes unhealthy for being asked often.
	due time.Time
}

// begin says where to begin with a program, of which an earlier agent may have known something, and when to
// probe it first. chance is from 0 to 1.
func (c *Check) begin(before Health, started, now time.Time, chance float64) (course, time.Time) {
	k := course{Health: before}
	switch before.State {
	case healthy, unhealthy:
		// An agent that begins finds all its tasks like this at once.
		k.passed = true
		return k, now.Add(scale(c.Interval, jitter*chance))
	case starting:
	default:
		k.Health = Health{State: starting, Since: now}
	}
	k.due = now.Add(min(0, started.Sub(now)) + c.StartPeriod + c.Interval) // nor does it begin later than now, by a clock that was set back
	if k.Failures > 0 {
		k.due = now.Add(c.Interval)
	}
	return k, now
}

// take says what follows from the result of a probe, and when to make the next one. chance is from 0 to 1.
func (c *Check) take(k course, r Result, began, ended time.Time, chance float64) (course, time.Time) {
	switch r.outcome {
	case succeeded:
		k = c.success(k, ended)
	case failed:
		k = c.failure(k, r.output, began, ended)
	}
	if k.passed {
		return k, ended.Add(scale(c.Interval, 1+jitter*(2*chance-1)))
	}
	k.rest = min(max(firstRest, 2*k.rest), c.StartInterval)
	next := ended.Add(k.rest)
	if k.due.After(ended) && k.due.Before(next) {
		next = k.due
	}
	return k, next
}

func (c *Check) success(k course, at time.Time) course {
	k.passed, k.Failures = true, 0
	if k.State == unhealthy {
		if k.successes++; k.successes < c.SuccessThreshold {
			return k
		}
	}
	return k.enter(healthy, "", at)
}

func (c *Check) failure(k course, output string, began, at time.Time) course {
	k.successes, k.Output = 0, output
	if k.passed || !began.Before(k.due) {
		k.Failures = min(k.Failures+1, c.Retries)
		k.due = at.Add(c.Interval)
	}
	if k.Failures == c.Retries {
		return k.enter(unhealthy, output, at)
	}
	return k
}

// enter changes the state where it is another.
func (k course) enter(state warrenv1.HealthState, output string, at time.Time) course {
	if k.State != state {
		k.State, k.Since, k.Output, k.successes = state, at, output, 0
	}
	return k
}

// news tells whether what is known now is worth telling, after what was told last and when.
func news(told, now Health, ago time.Duration) bool {
	if told.State != now.State || told.Failures != now.Failures {
		return true
	}
	return told.Output != now.Output && (told.Output == "" || ago >= quiet)
}

func scale(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }
