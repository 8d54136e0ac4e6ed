package supervisor

import (
	"syscall"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// stop lets the program drain, asks it to end, gives it its time, and then ends it.
func (t *task) stop(c *container) (Exit, bool) {
	_, before := t.now()
	t.withdraw(c)
	assignment, progress := t.now()
	drain := time.Duration(0)
	if c.overlay {
		drain = drainLeft(drainPeriod(assignment.GetSpec(), before.Status.GetServing()), progress.Status, c.attempt, time.Now())
	}
	t.advance(func(s *warrenv1.TaskStatus) {
		s.State, s.Message = warrenv1.TaskState_TASK_STATE_STOPPING, ""
		if period := assignment.GetSpec().GetContainer().GetDrainPeriod().AsDuration(); drain > 0 && period > 0 {
			s.Message = "drains: goes on for " + words(period) + " for the connections it has, before it is told to stop"
		}
	})
	if drain > 0 {
		timer := time.NewTimer(drain)
		defer timer.Stop()
		select {
		case exit := <-c.ended:
			return exit, true
		case <-t.ctx.Done():
			return Exit{}, false
		case <-timer.C:
			t.advance(func(s *warrenv1.TaskStatus) { s.Message = "" })
		}
	}
	return t.end(c, stopGrace(assignment.GetSpec()))
}

// end asks the program to end, gives it its time, and then ends it.
func (t *task) end(c *container, grace time.Duration) (Exit, bool) {
	if grace > 0 {
		t.signal(c, 0)
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case exit := <-c.ended:
			return exit, true
		case <-t.ctx.Done():
			return Exit{}, false
		case <-timer.C:
			t.log().Info("the program did not stop in time: killing it", "attempt", c.attempt, "grace", grace)
		}
	}
	t.signal(c, syscall.SIGKILL)
	select {
	case exit := <-c.ended:
		return exit, true
	case <-t.ctx.Done():
		return Exit{}, false
	}
}

// signal gives the program a signal; 0 stands for the one that asks it to stop.
func (t *task) signal(c *container, signal syscall.Signal) {
	err := t.retry(t.ctx, "stop container "+c.id, func() (err error) {
		send := signal
		if send == 0 {
			if send, err = t.Runtime.StopSignal(t.ctx, c.id); err != nil {
				return err
			}
		}
		return t.Runtime.Signal(t.ctx, c.id, send)
	})
	if err != nil && t.ctx.Err() == nil {
		t.log().Error("cannot signal the program", "attempt", c.attempt, "error", err)
	}
}
