package progress

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

var epoch = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

const (
	pending   = warrenv1.TaskState_TASK_STATE_PENDING
	preparing = warrenv1.TaskState_TASK_STATE_PREPARING
	starting  = warrenv1.TaskState_TASK_STATE_STARTING
	running   = warrenv1.TaskState_TASK_STATE_RUNNING
	complete  = warrenv1.TaskState_TASK_STATE_COMPLETE
	failed    = warrenv1.TaskState_TASK_STATE_FAILED
	rejected  = warrenv1.TaskState_TASK_STATE_REJECTED
)

var web = Target{Name: "web", ID: "webid", Version: 10}

// told is a message in which the slots 1, 2, 3 … are at states, all of the current revision.
func told(states ...warrenv1.TaskState) *warrenv1.WatchServiceResponse {
	p := &warrenv1.ServiceProgress{Desired: uint32(len(states))}
	for i, s := range states {
		if s == running {
			p.Running++
			p.Updated++
		}
		p.Slots = append(p.Slots, &warrenv1.SlotProgress{Slot: uint32(i + 1), TaskId: fmt.Sprint("t", i+1), State: s, Attempt: 1, Current: true})
	}
	p.Converged = p.GetRunning() == p.GetDesired()
	return &warrenv1.WatchServiceResponse{
		Service: &warrenv1.Service{
			Meta: &warrenv1.Meta{Version: 10},
			Spec: &warrenv1.ServiceSpec{Name: "web", Task: &warrenv1.TaskSpec{}},
		},
		Progress: p,
	}
}

// because adds a reason that is about slot 1, which is at state on node n2.
func because(m *warrenv1.WatchServiceResponse, state warrenv1.TaskState, reason, lastOutput string) (*warrenv1.WatchServiceResponse, *warrenv1.GetTaskResponse) {
	m.Progress.Reason, m.Progress.ReasonTaskId, m.Progress.ReasonAt = reason, "t1", timestamppb.New(epoch)
	return m, &warrenv1.GetTaskResponse{Entry: &warrenv1.TaskEntry{
		Task: &warrenv1.Task{
			Meta: &warrenv1.Meta{Id: "t1"}, ServiceName: "web", Slot: 1,
			Status: &warrenv1.TaskStatus{State: state, Exit: &warrenv1.TaskExit{LastOutput: lastOutput}},
		},
		NodeHostname: "n2",
	}}
}

func verdictIs(t *testing.T, tr *Tracker, at time.Duration, want Verdict) {
	t.Helper()
	if got, why := tr.Verdict(epoch.Add(at)); got != want {
		t.Errorf("after %v the verdict is %d (%s), want %d", at, got, why, want)
	}
}

func TestAServiceHasArrivedWhenItWasSteadyForTheMonitorTime(t *testing.T) {
	tr := NewTracker(web, Limits{Monitor: time.Second}, epoch)
	verdictIs(t, tr, 0, Working)
	tr.Observe(told(running, preparing), nil, epoch)
	verdictIs(t, tr, time.Hour, Working)
	tr.Observe(told(running, running), nil, epoch.Add(time.Hour))
	verdictIs(t, tr, time.Hour+999*time.Millisecond, Working)
	if next := tr.Next(); !next.Equal(epoch.Add(time.Hour + time.Second)) {
		t.Errorf("next verdict at %v", next)
	}
	verdictIs(t, tr, time.Hour+time.Second, Arrived)
}

func TestACrashWhileMonitoringBeginsTheMonitorTimeAnew(t *testing.T) {
	tr := NewTracker(web, Limits{Monitor: time.Second}, epoch)
	tr.Observe(told(running), nil, epoch)
	tr.Observe(told(starting), nil, epoch.Add(900*time.Millisecond))
	verdictIs(t, tr, 2*time.Second, Working)
	again := told(running)
	again.Progress.Slots[0].Attempt = 2
	tr.Observe(again, nil, epoch.Add(2*time.Second))
	verdictIs(t, tr, 2900*time.Millisecond, Working)
	verdictIs(t, tr, 3*time.Second, Arrived)
}

func TestARestartThatWasNotSeenBeginsTheMonitorTimeAnew(t *testing.T) {
	tr := NewTracker(web, Limits{Monitor: time.Second}, epoch)
	tr.Observe(told(running), nil, epoch)
	again := told(running)
	again.Progress.Slots[0].Attempt = 2
	tr.Observe(again, nil, epoch.Add(500*time.Millisecond))
	verdictIs(t, tr, 1200*time.Millisecond, Working)
	verdictIs(t, tr, 1500*time.Millisecond, Arrived)
}

func TestProgressOlderThanTheOrderDoesNotCount(t *testing.T) {
	tr := NewTracker(Target{Name: "web", Version: 11}, Limits{}, epoch)
	tr.Observe(told(running), nil, epoch)
	verdictIs(t, tr, time.Minute, Working)
}

func TestALostConnectionEndsTheMonitorTime(t *testing.T) {
	tr := NewTracker(web, Limits{Monitor: time.Second}, epoch)
	tr.Observe(told(running), nil, epoch)
	tr.Lose("the connection broke")
	verdictIs(t, tr, time.Minute, Working)
	tr.Observe(told(running), nil, epoch.Add(time.Minute))
	verdictIs(t, tr, time.Minute+time.Second, Arrived)
}

func TestATimeoutEndsTheWaiting(t *testing.T) {
	tr := NewTracker(web, Limits{Timeout: time.Minute}, epoch)
	tr.Observe(told(pending), nil, epoch)
	verdictIs(t, tr, 59*time.Second, Working)
	verdictIs(t, tr, time.Minute, Stuck)
}

func TestAStallEndsTheWaitingOnlyIfNothingComesNearer(t *testing.T) {
	tr := NewTracker(web, Limits{Monitor: time.Second, Stall: time.Minute}, epoch)
	tr.Observe(told(pending, pending), nil, epoch)
	tr.Observe(told(running, pending), nil, epoch.Add(50*time.Second))
	verdictIs(t, tr, 100*time.Second, Working)
	// A crash loop moves, but comes no nearer than it has been.
	tr.Observe(told(running, starting), nil, epoch.Add(60*time.Second))
	tr.Observe(told(pending, starting), nil, epoch.Add(80*time.Second))
	tr.Observe(told(running, starting), nil, epoch.Add(100*time.Second))
	verdictIs(t, tr, 109*time.Second, Working)
	verdictIs(t, tr, 110*time.Second, Stuck)
}

func TestARemovalHasArrivedWhenTheServiceIsGone(t *testing.T) {
	tr := NewTracker(Target{Name: "web", Removal: true}, Limits{}, epoch)
	m := told(running)
	m.Service.Rollout = &warrenv1.Rollout{State: warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, Message: "paused by olga"}
	m.Progress.Reason = "paused by olga"
	tr.Observe(m, nil, epoch)
	verdictIs(t, tr, time.Second, Working)
	if said := tr.Reason(); said != "" {
		t.Errorf("a removal is said to wait: %q", said)
	}
	tr.Observe(&warrenv1.WatchServiceResponse{Removed: true}, nil, epoch)
	verdictIs(t, tr, 0, Arrived)
}

func TestAServiceThatIsRemovedMeanwhileIsStuck(t *testing.T) {
	tr := NewTracker(web, Limits{}, epoch)
	tr.Gone(epoch)
	verdictIs(t, tr, 0, Stuck)
}

func TestTasksThatAreNotRestartedAreWaitedForToTheirEnd(t *testing.T) {
	once := func(states ...warrenv1.TaskState) *warrenv1.WatchServiceResponse {
		m := told(states...)
		m.Service.Spec.Task.Restart = &warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_NONE}
		return m
	}
	tr := NewTracker(web, Limits{}, epoch)
	tr.Observe(once(complete, starting), nil, epoch)
	verdictIs(t, tr, 0, Working)
	tr.Observe(once(complete, complete), nil, epoch)
	verdictIs(t, tr, 0, Arrived)

	tr = NewTracker(web, Limits{}, epoch)
	tr.Observe(once(complete, failed), nil, epoch)
	verdictIs(t, tr, 0, Stuck)
}

// step is one moment of a story: what has happened since the one before.
type step struct {
	at     time.Duration
	what   string
	happen func(tr *Tracker, now time.Time)
}

// tellStory tells one story to both pictures; testdata shows what a reader of each sees.
func tellStory(t *testing.T, name string, target Target, story []step) {
	t.Helper()
	for form, terminal := range map[string]bool{"terminal": true, "pipe": false} {
		t.Run(form, func(t *testing.T) {
			var seen, transcript bytes.Buffer
			pic := newPicture(output.Stream{Writer: &seen, Terminal: terminal})
			tr := NewTracker(target, Limits{Monitor: time.Second}, epoch)
			for _, s := range story {
				now := epoch.Add(s.at)
				if s.happen != nil {
					s.happen(tr, now)
				}
				seen.Reset()
				pic.draw([]*Tracker{tr}, now)
				fmt.Fprintf(&transcript, "# %s\n%s", s.what, strings.ReplaceAll(seen.String(), "\x1b", "^"))
			}
			if verdict, why := tr.Verdict(epoch.Add(story[len(story)-1].at)); verdict == Stuck {
				fmt.Fprintf(&transcript, "\n# error: %v\n", tr.stuck(why))
			} else if tr.hint != "" {
				fmt.Fprintf(&transcript, "\n# %s\n", tr.hint)
			}
			golden(t, name+form, transcript.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s shows otherwise (run with -update and look):\n%s", path, got)
	}
}

func TestPictures(t *testing.T) {
	tellStory(t, "", web, []step{
		{0, "nothing is known", nil},
		{0, "the first picture", func(tr *Tracker, now time.Time) { tr.Observe(told(pending, pending, pending), nil, now) }},
		{100 * time.Millisecond, "a pull", func(tr *Tracker, now time.Time) {
			m := told(preparing, preparing, pending)
			m.Progress.Slots[0].Message = "pull nginx: 34 %"
			tr.Observe(m, nil, now)
		}},
		{2 * time.Second, "rejected", func(tr *Tracker, now time.Time) {
			m, culprit := because(told(rejected, running, running), rejected, "pull nginx: not found", "")
			tr.Observe(m, culprit, now)
		}},
		{3 * time.Second, "an age passes", nil},
		{5 * time.Second, "the same reason again", func(tr *Tracker, now time.Time) {
			m, culprit := because(told(rejected, running, running), rejected, "pull nginx: not found", "")
			tr.Observe(m, culprit, now)
		}},
		{6 * time.Second, "a crash", func(tr *Tracker, now time.Time) {
			m, culprit := because(told(starting, running, running), starting, "web.1: exit code 1", "loading\n\x1b[2Jno database\n")
			tr.Observe(m, culprit, now)
		}},
		{7 * time.Second, "the connection breaks", func(tr *Tracker, _ time.Time) { tr.Lose("the connection to the manager broke; trying again") }},
		{8 * time.Second, "all run", func(tr *Tracker, now time.Time) { tr.Observe(told(running, running, running), nil, now) }},
		{9 * time.Second, "steady", nil},
		{10 * time.Second, "over", nil},
	})
}

func TestLinesThatOnlyCountComeFurtherAndFurtherApart(t *testing.T) {
	var seen bytes.Buffer
	pic := newPicture(output.Stream{Writer: &seen})
	tr := NewTracker(web, Limits{}, epoch)
	for ms := range 60_000 {
		now := epoch.Add(time.Duration(ms) * time.Millisecond)
		if ms%2 == 0 {
			tr.Observe(told(running, starting), nil, now)
		} else {
			tr.Observe(told(starting, starting), nil, now)
		}
		pic.draw([]*Tracker{tr}, now)
	}
	if lines := strings.Count(seen.String(), "\n"); lines < 4 || lines > 8 {
		t.Errorf("%d lines in a minute of a crash loop, want about 6", lines)
	}
}

func TestTheLoopWakesToDecideWhenNothingHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen bytes.Buffer
		s := &output.Streams{Err: output.Stream{Writer: &seen}, Now: time.Now}
		inbox := make(chan news)
		trackers := []*Tracker{NewTracker(web, Limits{Monitor: time.Second}, time.Now()), NewTracker(web, Limits{Timeout: time.Minute}, time.Now())}
		go func() {
			inbox <- news{target: 0, message: told(running)}
			inbox <- news{target: 1, message: told(pending)}
		}()
		began := time.Now()
		err := look(t.Context(), s, trackers, inbox)
		if err == nil || !strings.Contains(err.Error(), "web: not there within 1m0s: 0/1 running") {
			t.Errorf("error is %v", err)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it took %v", took)
		}
		if !strings.Contains(seen.String(), "web: 1/1 running, done\n") {
			t.Errorf("it showed %q", seen.String())
		}
	})
}
