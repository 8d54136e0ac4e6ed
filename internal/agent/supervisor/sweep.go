package supervisor

import (
	"github.com/cuemby/warren/internal/agent/store"
)

// discard removes a container in the background, once the record of its end is on disk: until then
// the container is that record.
func (t *task) discard(id string, after *store.Commit) {
	before, swept := t.swept, make(chan struct{})
	t.swept = swept
	t.running.Go(func() {
		if before != nil {
			select {
			case <-before:
			case <-t.ctx.Done():
				return
			}
		}
		if after != nil && after.Wait(t.ctx) != nil {
			return
		}
		err := t.retry(t.ctx, "remove container "+id, func() error {
			// For one try: what cannot be removed for hours, as where a file server is away, is in nobody's way meanwhile.
			if err := t.removals.Acquire(t.ctx, 1); err != nil {
				return err
			}
			defer t.removals.Release(1)
			return Transient(t.Runtime.Remove(t.ctx, id)) // whatever it is: nothing is left behind
		})
		if err == nil {
			close(swept)
		}
	})
}

// waitForSweep returns when the discarded containers are gone; false if the agent leaves first.
func (t *task) waitForSweep() bool {
	if t.swept == nil {
		return true
	}
	select {
	case <-t.swept:
		return true
	case <-t.ctx.Done():
		return false
	}
}

// clean tells whether the discarded containers are gone.
func (t *task) clean() bool {
	if t.swept == nil {
		return true
	}
	select {
	case <-t.swept:
		return true
	default:
		return false
	}
}

// leaveOverlay gives up the place of a task that has ended, of which nothing is there any more; false if the agent
// leaves first. That the task had left may be known of an earlier agent: it leaves again.
func (t *task) leaveOverlay() bool {
	if assignment, _ := t.now(); !onOverlay(assignment.GetSpec()) {
		return true
	}
	t.entering.Wait() // what gives it its place again
	t.probing.Wait()  // what is in its network namespace
	return t.detach(t.id) == nil
}

// erase removes what is left of a task that has ended and whose containers and place are gone.
func (t *task) erase() {
	if err := t.Output.Remove(t.id); err != nil {
		t.log().Error("cannot remove the task's output", "error", err)
	}
	t.mu.Lock()
	t.erased = true
	t.mu.Unlock()
	t.Journal.Forget(t.id)
	t.forget(t)
	t.log().Debug("removed")
}
