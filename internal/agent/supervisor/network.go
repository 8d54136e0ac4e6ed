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
// then. Else enter, or a probe that succeeds, is to wait for.
func (t *task) entersAtOnce(c *container) bool {
	t.rotation.Lock()
	defer t.rotation.Unlock()
	c.healthy = c.check == nil
	c.placed = c.overlay
	switch {
	case !c.overlay:
		c.listens = true // nobody sends it any
	case t.wanted.Err() != nil:
		return false // every node has ceased to send to it only now
	default:
		c.listens = !t.Network.Declares(t.id)
	}
	if c.overlay && c.listens && c.healthy {
		t.Network.Serve(t.id)
	}
	return c.listens && c.healthy
}

// enter notes when an attempt's program listens where it should.
func (t *task) enter(c *container) {
	err := t.retry(c.serving, "see whether task "+t.id+" listens", func() error {
		return Transient(t.Network.Listening(c.serving, t.id, func(ports string) {
			t.learn(c, func() { c.missing = ports })
		}))
	})
	if err == nil {
		t.learn(c, func() { c.listens, c.missing = true, "" })
	}
}

// reenter takes up the place of a program that runs, which has connections sent to it again if it had them before.
func (t *task) reenter(c *container, a *warrenv1.Assignment) {
	var place Place
	err := t.retryTelling(c.serving, func() (err error) {
		place, err = t.Network.Attach(c.serving, a, func(progress string) {
			t.log().Debug("a running task is not back on the overlay yet", "attempt", c.attempt, "progress", progress)
		})
		if err != nil && !isTransient(err) {
			// Its address may be another's by now.
			t.learn(c, func() { c.listens = false })
		}
		return Transient(err) // whatever it is: the program runs
	}, func(tries int, err error) {
		if tries == 1 {
			t.log().Warn("a running task is not back on the overlay", "attempt", c.attempt, "error", err)
		}
		t.learn(c, func() { c.trouble = err.Error() })
	})
	if err != nil {
		return // it runs no more, or the agent leaves
	}
	listens := false
	t.learn(c, func() {
		c.placed, c.trouble = true, ""
		listens = c.listens
	}, func(s *warrenv1.TaskStatus) { s.Address = place.address() })
	if !listens {
		t.enter(c)
	}
}

// learn takes what is newly known of an attempt that runs, begins or ceases to have connections sent to it as
// follows from that, and reports it. It does nothing once the attempt is withdrawn.
func (t *task) learn(c *container, known func(), changes ...func(*warrenv1.TaskStatus)) {
	t.rotation.Lock()
	defer t.rotation.Unlock()
	if c.serving.Err() != nil {
		return
	}
	known()
	serves := c.listens && c.healthy
	switch {
	case !c.overlay:
	case !serves:
		t.Network.Withdraw(t.id)
	case c.placed:
		t.Network.Serve(t.id)
	}
	if serves && !c.ready {
		c.ready = true
		assignment, _ := t.now()
		t.step(c, assignment, StepServe, c.started, nil)
	}
	t.advance(func(s *warrenv1.TaskStatus) {
		if !runs(s, c) {
			return
		}
		for _, change := range changes {
			change(s)
		}
		s.Serving, s.Message = serves, c.wants(s.GetHealth())
	})
}

// wants says in words what an attempt that runs lacks; nothing if nothing.
func (c *container) wants(health *warrenv1.TaskHealth) string {
	switch {
	case c.trouble != "":
		return "runs, but is not back on the overlay; trying again: " + c.trouble
	case c.missing != "":
		return "runs, but does not listen on " + c.missing + " yet"
	}
	return ailment(health, c.check)
}

// withdraw has this node send no connections to an attempt, for good, and ends its probing. The other nodes learn
// of it by the status that follows.
func (t *task) withdraw(c *container) {
	c.cease()
	if !c.overlay {
		return
	}
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
