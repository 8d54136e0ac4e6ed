package supervisor

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// What a restart policy and a container's spec mean where they say nothing.
const (
	firstDelay       = time.Second // of the second restart; the first comes at once
	defaultMaxDelay  = time.Minute
	defaultWindow    = 5 * time.Minute
	defaultStopGrace = 10 * time.Second
)

// verdict is what follows when a task's program has ended by itself.
type verdict struct {
	// state is starting for a restart, else complete or failed.
	state warrenv1.TaskState
	// restarts counts those within the window, this one with them.
	restarts uint32
	// delay is how long to wait before the restart.
	delay time.Duration
	// message says in words what follows.
	message string
}

// judge decides what follows on an exit, after so many restarts and when the program had run for ran.
func judge(policy *warrenv1.RestartPolicy, restarts uint32, exit Exit, ran time.Duration) verdict {
	window := orDefault(policy.GetWindow(), defaultWindow)
	if ran >= window {
		restarts = 0
	}
	ended := verdict{state: warrenv1.TaskState_TASK_STATE_FAILED, restarts: restarts}
	if !failed(exit) {
		ended.state = warrenv1.TaskState_TASK_STATE_COMPLETE
	}
	switch policy.GetCondition() {
	case warrenv1.RestartCondition_RESTART_CONDITION_NONE:
		return ended
	case warrenv1.RestartCondition_RESTART_CONDITION_ON_FAILURE:
		if !failed(exit) {
			return ended
		}
	}
	if policy.GetMaxAttempts() <= restarts && policy != nil && policy.MaxAttempts != nil {
		// Its policy does not let it rest, so it has failed even with exit code 0, and is replaced.
		ended.state = warrenv1.TaskState_TASK_STATE_FAILED
		if restarts > 0 {
			ended.message = fmt.Sprintf("restarted %d times within %s, as often as its restart policy allows", restarts, words(window))
		}
		return ended
	}
	again := verdict{
		state:    warrenv1.TaskState_TASK_STATE_STARTING,
		restarts: restarts + 1,
		delay:    restartDelay(policy, restarts),
	}
	if again.delay > 0 {
		again.message = "restarts in " + words(again.delay)
	}
	return again
}

// restartDelay is the wait before the restart that follows on so many others.
func restartDelay(policy *warrenv1.RestartPolicy, restarts uint32) time.Duration {
	delay, doublings := policy.GetDelay().AsDuration(), restarts
	if delay <= 0 {
		if restarts == 0 {
			return 0
		}
		delay, doublings = firstDelay, restarts-1
	}
	// A first delay beyond the most a policy names is what the user asked for, and is kept.
	most := max(delay, orDefault(policy.GetMaxDelay(), defaultMaxDelay))
	for range doublings {
		if delay >= most {
			break
		}
		delay *= 2
	}
	return min(delay, most)
}

// failed tells whether an exit is a failure.
func failed(exit Exit) bool {
	return exit.Code != 0 || exit.OOMKilled || exit.Unseen || exit.Ailed != ""
}

// describe says in words what was wrong with an exit; nothing if nothing was.
func describe(exit Exit, limits *warrenv1.Resources) string {
	switch {
	case exit.Ailed != "":
		return exit.Ailed
	case exit.Unseen:
		return "the program ended unseen: its container was gone when the runtime could be asked again"
	case exit.OOMKilled && limits.GetMemoryBytes() > 0:
		return fmt.Sprintf("out of memory: used more than its limit of %s", units.CustomSize("%.4g %s", float64(limits.GetMemoryBytes()), 1024, binaryUnits))
	case exit.OOMKilled:
		return "out of memory: the node had none left"
	case exit.Code > 128 && unix.SignalName(unix.Signal(exit.Code-128)) != "":
		return fmt.Sprintf("killed by signal %d (%s)", exit.Code-128, unix.SignalName(unix.Signal(exit.Code-128)))
	case exit.Code != 0:
		return fmt.Sprintf("exit code %d", exit.Code)
	}
	return ""
}

var binaryUnits = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}

// words writes a duration as people do: 5m, not 5m0s.
func words(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// stopGrace is the time a program has between the stop signal and SIGKILL.
func stopGrace(spec *warrenv1.TaskSpec) time.Duration {
	if grace := spec.GetContainer().GetStopGracePeriod(); grace != nil {
		return grace.AsDuration()
	}
	return defaultStopGrace
}

// lastConnections is how long a program that has taken connections goes on where nobody has said so: when no node sends it
// new ones, some are on their way still, or wait for it to accept them, and would be reset if it closed its door at once.
// One of 1,829 was, seen on two processors; with these 100 ms none.
const lastConnections = 100 * time.Millisecond

// drainPeriod is how long a program goes on for the connections it has before it is told to stop.
func drainPeriod(spec *warrenv1.TaskSpec, served bool) time.Duration {
	if period := spec.GetContainer().GetDrainPeriod(); period != nil {
		return period.AsDuration()
	}
	if served {
		return lastConnections
	}
	return 0
}

// drainLeft is how much of that is left to an attempt that is told to stop. Where an earlier agent began to stop it, that
// time counts. What the manager has given up has no time: another may run in its place.
func drainLeft(drain time.Duration, status *warrenv1.TaskStatus, attempt uint32, now time.Time) time.Duration {
	switch {
	case lifecycle.Ended(status.GetState()):
		return 0
	case status.GetState() == warrenv1.TaskState_TASK_STATE_STOPPING && status.GetAttempt() == attempt:
		return max(0, min(drain, drain-now.Sub(status.GetSince().AsTime())))
	}
	return drain
}

// retryDelay is the wait after so many failed tries of what may succeed later.
func retryDelay(tries int) time.Duration {
	const first, most = 200 * time.Millisecond, 10 * time.Second
	return min(first<<min(tries-1, 10), most)
}

// orDefault is d, or the given duration where d is unset or zero.
func orDefault(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	return cmp.Or(d.AsDuration(), otherwise)
}
