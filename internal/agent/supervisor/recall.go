package supervisor

import (
	"slices"
	"time"

	"github.com/cuemby/warren/internal/agent/store"
	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// beginning is where a task is taken up when an agent process first sees it.
type beginning struct {
	// adopt is the container to go on with: it runs, or its end is known. Nil if there is none.
	adopt *Found
	// attempt is the next one to start, where there is nothing to adopt.
	attempt uint32
	// delay is how long the attempt has to wait yet.
	delay time.Duration
	// replaces is the last attempt's container where it is still there, which stays until the record of its
	// end is on disk.
	replaces string
	recorded *store.Commit
	// discard are containers that are of no more use.
	discard []string
}

// recall decides where to take up a task, from how far it had come by the record and the containers
// that are there. The record may lag behind the containers by what the last agent did before it was
// killed; never the other way round, except where the containers were lost with the machine.
func recall(progress store.Progress, policy *warrenv1.RestartPolicy, found []Found, now time.Time) beginning {
	var b beginning
	newest := -1
	for i, f := range found {
		if newest < 0 || f.Attempt > found[newest].Attempt {
			newest = i
		}
	}
	status := progress.Status
	switch {
	case lifecycle.Ended(status.GetState()):
		// Nothing shall run any more.
	case newest >= 0 && found[newest].Attempt >= status.GetAttempt():
		if f := found[newest]; f.Running || f.Exit != nil {
			b.adopt = &f
		} else {
			// Whether its program ever ran is not known, as after a reboot: the number is used up.
			b.attempt = f.Attempt + 1
		}
	case status.GetState() == warrenv1.TaskState_TASK_STATE_PREPARING:
		// It never came to a container.
		b.attempt = status.GetAttempt()
	case status.GetState() == warrenv1.TaskState_TASK_STATE_STARTING && progress.Restarts > 0:
		// The next attempt was decided on and waited for its delay.
		b.attempt = status.GetAttempt()
		delay := restartDelay(policy, progress.Restarts-1)
		b.delay = max(0, min(delay, delay-now.Sub(status.GetSince().AsTime()))) // the clock may have been set back
	default:
		b.attempt = status.GetAttempt() + 1
	}
	for _, f := range found {
		if b.adopt == nil || f.ID != b.adopt.ID {
			b.discard = append(b.discard, f.ID)
		}
	}
	slices.Sort(b.discard)
	return b
}
