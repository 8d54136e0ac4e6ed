package supervisor

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/agent/store"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestJudgementOfAnExit(t *testing.T) {
	onFailure := &warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_ON_FAILURE}
	never := &warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_NONE}
	twice := &warrenv1.RestartPolicy{MaxAttempts: proto.Uint32(2), Window: durationpb.New(time.Minute)}
	for name, c := range map[string]struct {
		policy   *warrenv1.RestartPolicy
		restarts uint32
		code     uint32
		ran      time.Duration
		want     warrenv1.TaskState
		counted  uint32
	}{
		"no policy restarts whatever":         {nil, 9, 0, 0, starting, 10},
		"on failure, success rests":           {onFailure, 0, 0, 0, complete, 0},
		"on failure, failure restarts":        {onFailure, 0, 1, 0, starting, 1},
		"never, success":                      {never, 0, 0, 0, complete, 0},
		"never, failure":                      {never, 0, 1, 0, failedEnd, 0},
		"restarts left":                       {twice, 1, 1, 0, starting, 2},
		"restarts spent":                      {twice, 2, 1, 0, failedEnd, 2},
		"restarts spent with exit code 0":     {twice, 2, 0, 0, failedEnd, 2},
		"a whole window makes the count anew": {twice, 2, 1, time.Minute, starting, 1},
	} {
		got := judge(c.policy, c.restarts, Exit{Code: c.code}, c.ran)
		if got.state != c.want || got.restarts != c.counted {
			t.Errorf("%s: %s with %d restarts, want %s with %d", name, got.state, got.restarts, c.want, c.counted)
		}
	}
}

func TestRestartDelaysDoubleUpToTheMost(t *testing.T) {
	seconds := func(s int64) *durationpb.Duration { return &durationpb.Duration{Seconds: s} }
	for name, c := range map[string]struct {
		policy *warrenv1.RestartPolicy
		want   []int
	}{
		"by default":           {nil, []int{0, 1, 2, 4, 8, 16, 32, 60, 60}},
		"from a user's first":  {&warrenv1.RestartPolicy{Delay: seconds(5)}, []int{5, 10, 20, 40, 60, 60}},
		"up to a user's most":  {&warrenv1.RestartPolicy{Delay: seconds(5), MaxDelay: seconds(7)}, []int{5, 7, 7}},
		"a long first is kept": {&warrenv1.RestartPolicy{Delay: seconds(90)}, []int{90, 90}},
	} {
		for restarts, want := range c.want {
			if got := restartDelay(c.policy, uint32(restarts)); got != time.Duration(want)*time.Second {
				t.Errorf("%s, after %d restarts: %s, want %d s", name, restarts, got, want)
			}
		}
	}
}

func TestAnExitInWords(t *testing.T) {
	limits := &warrenv1.Resources{MemoryBytes: 64 << 20}
	for want, exit := range map[string]Exit{
		"":                              {},
		"exit code 3":                   {Code: 3},
		"exit code 255":                 {Code: 255},
		"killed by signal 9 (SIGKILL)":  {Code: 137},
		"killed by signal 11 (SIGSEGV)": {Code: 139},
		"out of memory: used more than its limit of 64 MiB": {Code: 137, OOMKilled: true},
	} {
		if got := describe(exit, limits); got != want {
			t.Errorf("%+v: %q, want %q", exit, got, want)
		}
	}
}

func TestWhereATaskIsTakenUp(t *testing.T) {
	now := time.Now()
	at := func(attempt uint32, state warrenv1.TaskState, restarts uint32) store.Progress {
		return store.Progress{Restarts: restarts, Status: &warrenv1.TaskStatus{
			Attempt: attempt, State: state, Since: timestamppb.New(now.Add(-time.Second)),
		}}
	}
	runs := func(attempt uint32) Found {
		return Found{ID: containerID("a", attempt), Attempt: attempt, Running: true}
	}
	gone := func(attempt uint32) Found { return Found{ID: containerID("a", attempt), Attempt: attempt} }
	early := at(2, starting, 1)
	early.Status.Since = timestamppb.New(now.Add(time.Hour))
	delayed := &warrenv1.RestartPolicy{Delay: durationpb.New(10 * time.Second)}
	for name, c := range map[string]struct {
		progress store.Progress
		found    []Found
		adopt    string
		attempt  uint32
		delay    time.Duration
		discard  int
	}{
		"a new task":                     {store.Progress{}, nil, "", 1, 0, 0},
		"one that was being pulled":      {at(1, preparing, 0), nil, "", 1, 0, 0},
		"one that runs":                  {at(1, running, 0), []Found{runs(1)}, "a-1", 0, 0, 0},
		"one whose record lags":          {at(1, preparing, 0), []Found{gone(1), runs(2)}, "a-2", 0, 0, 1},
		"one after a reboot":             {at(1, running, 0), []Found{gone(1)}, "", 2, 0, 1},
		"one whose container is lost":    {at(4, running, 0), nil, "", 5, 0, 0},
		"one that waits for its restart": {at(2, starting, 1), []Found{gone(1)}, "", 2, 9 * time.Second, 1},
		"one whose clock was set back":   {early, nil, "", 2, 10 * time.Second, 0},
		"one that has ended":             {at(2, failedEnd, 1), []Found{runs(2)}, "", 0, 0, 1},
	} {
		b := recall(c.progress, delayed, c.found, now)
		adopt := ""
		if b.adopt != nil {
			adopt = b.adopt.ID
		}
		if adopt != c.adopt || b.attempt != c.attempt || b.delay != c.delay || len(b.discard) != c.discard {
			t.Errorf("%s: %+v", name, b)
		}
	}
}

func TestTheTimeToDrainGoesOnOverRestartsOfTheAgentAndEndsWithTheTask(t *testing.T) {
	now := time.Now()
	status := func(state warrenv1.TaskState, attempt uint32, ago time.Duration) *warrenv1.TaskStatus {
		return &warrenv1.TaskStatus{State: state, Attempt: attempt, Since: timestamppb.New(now.Add(-ago))}
	}
	for name, test := range map[string]struct {
		status *warrenv1.TaskStatus
		want   time.Duration
	}{
		"told to stop now":         {status(running, 2, time.Hour), 20 * time.Second},
		"begun by another agent":   {status(stopping, 2, 15*time.Second), 5 * time.Second},
		"over when it was killed":  {status(stopping, 2, time.Minute), 0},
		"the clock was set back":   {status(stopping, 2, -time.Minute), 20 * time.Second},
		"an earlier attempt's":     {status(stopping, 1, time.Minute), 20 * time.Second},
		"given up by the manager":  {status(lost, 2, time.Second), 0},
		"never heard of, no state": {nil, 20 * time.Second},
	} {
		if got := drainLeft(20*time.Second, test.status, 2, now); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestATaskThatHasTakenConnectionsWaitsForThoseOnTheirWay(t *testing.T) {
	saying := func(period time.Duration) *warrenv1.TaskSpec {
		return &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{DrainPeriod: durationpb.New(period)}}
	}
	for name, test := range map[string]struct {
		spec   *warrenv1.TaskSpec
		served bool
		want   time.Duration
	}{
		"has taken some":               {nil, true, lastConnections},
		"never took any":               {nil, false, 0},
		"its owner wants it at once":   {saying(0), true, 0},
		"its owner gives it more time": {saying(time.Minute), false, time.Minute},
	} {
		if got := drainPeriod(test.spec, test.served); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
