package supervisor

import (
	"context"
	"errors"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// onOverlay tells whether a task has a place on the overlay. One that nothing is known of may have.
func onOverlay(spec *warrenv1.TaskSpec) bool {
	mode := spec.GetNetwork()
	return mode == warrenv1.NetworkMode_NETWORK_MODE_OVERLAY || mode == warrenv1.NetworkMode_NETWORK_MODE_UNSPECIFIED
}

// entersAtOnce tells whether an attempt takes connections as soon as its program runs, and has them sent to it
// then. Else enter is to wait until it does.
func (t *task) entersAtOnce(c *container) bool {
	switch {
	case !c.overlay:
		return true // nobody sends it any
	case t.wanted.Err() != nil:
		return false // every node has ceased to send to it only now
	case t.Network.Declares(t.id):
		return false
	}
	t.Network.Serve(t.id)
	return true
}

// enter has connections sent to an attempt once its program listens where it should.
func (t *task) enter(c *container) {
	err := t.retry(c.serving, "see whether task "+t.id+" listens", func() error {
		return Transient(t.Network.Listening(c.serving, t.id, func(ports string) {
			t.advance(func(s *warrenv1.TaskStatus) {
				if runs(s, c) && !s.GetServing() {
					s.Message = "runs, but does not listen on " + ports + " yet"
				}
			})
		}))
	})
	if err == nil {
		t.serve(c)
	}
}

// reenter takes up the place of a program that runs, and has connections sent to it again if it had them before.
func (t *task) reenter(c *container, a *warrenv1.Assignment, served bool) {
	var place Place
	err := t.retryTelling(c.serving, func() (err error) {
		place, err = t.Network.Attach(c.serving, a, func(progress string) {
			t.log().Debug("a running task is not back on the overlay yet", "attempt", c.attempt, "progress", progress)
		})
		if err != nil && !isTransient(err) && c.serving.Err() == nil {
			t.Network.Withdraw(t.id) // its address may be another's by now
			served = false
		}
		return Transient(err) // whatever it is: the program runs
	}, func(tries int, err error) {
		if tries == 1 {
			t.log().Warn("a running task is not back on the overlay", "attempt", c.attempt, "error", err)
		}
		t.advance(func(s *warrenv1.TaskStatus) {
			if runs(s, c) {
				s.Serving, s.Message = s.GetServing() && served, "runs, but is not back on the overlay; trying again: "+err.Error()
			}
		})
	})
	if err != nil {
		return // it runs no more, or the agent leaves
	}
	t.advance(func(s *warrenv1.TaskStatus) {
		if runs(s, c) {
			s.Address, s.Message = place.address(), ""
		}
	})
	if served {
		t.serve(c)
	} else {
		t.enter(c)
	}
}

// serve has connections sent to an attempt, unless it has been withdrawn.
func (t *task) serve(c *container) {
	t.rotation.Lock()
	defer t.rotation.Unlock()
	if c.serving.Err() != nil {
		return
	}
	t.Network.Serve(t.id)
	t.advance(func(s *warrenv1.TaskStatus) {
		if runs(s, c) {
			s.Serving, s.Message = true, ""
		}
	})
}

// withdraw has this node send no connections to an attempt, for good. The other nodes learn of it by the
// status that follows.
func (t *task) withdraw(c *container) {
	if !c.overlay {
		return
	}
	c.cease()
	t.rotation.Lock()
	defer t.rotation.Unlock()
	t.Network.Withdraw(t.id)
}

// runs tells whether a status is of an attempt whose program runs and shall go on.
func runs(s *warrenv1.TaskStatus, c *container) bool {
	return s.GetAttempt() == c.attempt && s.GetState() == warrenv1.TaskState_TASK_STATE_RUNNING
}

// detach takes a task off the overlay; it fails only if the agent leaves first. It takes no slot: the network
// removes many together as fast as one.
func (s *Supervisor) detach(task string) error {
	return s.retry(s.ctx, "take task "+task+" off the overlay", func() error {
		return Transient(s.Network.Detach(s.ctx, task)) // whatever it is: nothing is left behind
	})
}

// purgePlaces takes tasks off the overlay that are no longer this node's, which an agent that was killed
// may have left there. Those of which containers are left are known by now.
func (s *Supervisor) purgePlaces() {
	s.running.Go(func() {
		var attached []string
		err := s.retry(s.ctx, "list the tasks on the overlay", func() (err error) {
			attached, err = s.Network.Attached(s.ctx)
			return Transient(err)
		})
		if err != nil {
			return // the agent leaves
		}
		for _, id := range attached {
			s.mu.Lock()
			known := s.tasks[id] != nil
			s.mu.Unlock()
			if known {
				continue // tasks are never assigned twice, so it cannot become known now
			}
			s.Logger.Info("taking a task that is not this node's off the overlay", "task", id)
			s.running.Go(func() { _ = s.detach(id) }) // fails only if the agent leaves
		}
	})
}

// noOverlay is the Network of an agent that was given none.
type noOverlay struct{}

var errNoOverlay = errors.New("network: this node has no overlay; give the service network host or none")

func (noOverlay) Attach(context.Context, *warrenv1.Assignment, func(string)) (Place, error) {
	return Place{}, errNoOverlay
}
func (noOverlay) Declares(string) bool                                  { return false }
func (noOverlay) Listening(context.Context, string, func(string)) error { return errNoOverlay }
func (noOverlay) Serve(string)                                          {}
func (noOverlay) Withdraw(string)                                       {}
func (noOverlay) Detach(context.Context, string) error                  { return nil }
func (noOverlay) Attached(context.Context) ([]string, error)            { return nil, nil }
