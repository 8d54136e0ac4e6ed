package supervisor

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/cuemby/warren/internal/agent/prober"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	healthStarting  = warrenv1.HealthState_HEALTH_STATE_STARTING
	healthHealthy   = warrenv1.HealthState_HEALTH_STATE_HEALTHY
	healthUnhealthy = warrenv1.HealthState_HEALTH_STATE_UNHEALTHY
)

// compile makes sense of how a task is to be probed: nil if it is not.
func compile(template, image *warrenv1.HealthCheck) (*prober.Check, error) {
	check := prober.Merge(template, image)
	if check == nil {
		return nil, nil
	}
	return prober.Compile(check)
}

// checkOf is compile for a program that runs already.
func (t *task) checkOf(a *warrenv1.Assignment, f *Found) *prober.Check {
	check, err := compile(a.GetSpec().GetHealth(), f.Health)
	if err != nil {
		t.log().Error("a running task is not probed", "attempt", f.Attempt, "error", err)
	}
	return check
}

// recalled is what is known of the health of a program that an earlier agent has left running. One that took
// connections is healthy until it is known not to be.
func recalled(s *warrenv1.TaskStatus, c *container) prober.Health {
	switch {
	case s.GetAttempt() == c.attempt && s.GetHealth() != nil:
		return prober.Recall(s.GetHealth())
	case s.GetAttempt() == c.attempt && s.GetServing():
		return prober.Health{State: healthHealthy, Since: time.Now()}
	}
	return prober.Health{State: healthStarting, Since: c.started}
}

// probe has an attempt's program probed, where it is to be, until it is withdrawn.
func (t *task) probe(c *container, before prober.Health) {
	if c.check == nil {
		return
	}
	if before.State == healthUnhealthy && c.check.Restarts {
		c.ail()
		return
	}
	t.probing.Add(1)
	t.Prober.Watch(c.serving, prober.Subject{
		Check:   c.check,
		Target:  func() prober.Target { return t.target(c) },
		Started: c.started,
		Before:  before,
		Tell:    func(h prober.Health) { t.examined(c, h) },
		Unknown: func(why string) { t.log().Debug("could not be probed", "attempt", c.attempt, "error", why) },
		Ended:   t.probing.Done,
	})
}

// loopback is where programs listen that have no address of their own.
var loopback = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// target is where a program is probed. One on the overlay is asked at its address, as other tasks reach it: that
// it answers on loopback would not say that it can do its work.
func (t *task) target(c *container) prober.Target {
	at := prober.Target{Container: c.id, Addresses: loopback}
	if c.network != warrenv1.NetworkMode_NETWORK_MODE_HOST {
		at.Namespace = "/proc/" + strconv.FormatUint(uint64(c.pid), 10) + "/ns/net"
	}
	if c.overlay {
		_, progress := t.now()
		at.Addresses = nil
		if address, err := netip.ParseAddr(progress.Status.GetAddress()); err == nil {
			at.Addresses = []netip.Addr{address}
		}
	}
	return at
}

// examined takes what is newly known of a program's health.
func (t *task) examined(c *container, now prober.Health) {
	t.learn(c, func() { c.healthy = now.State == healthHealthy }, func(s *warrenv1.TaskStatus) {
		before := s.GetHealth()
		s.Health = now.Message()
		switch {
		case now.State == before.GetState():
		case now.State == healthUnhealthy:
			befell(s, warrenv1.IncidentKind_INCIDENT_KIND_UNHEALTHY, c.started, now.Since, diagnosis(s.GetHealth()))
		case before.GetState() == healthUnhealthy:
			befell(s, warrenv1.IncidentKind_INCIDENT_KIND_HEALTHY, c.started, now.Since,
				"healthy again after "+words(now.Since.Sub(before.GetSince().AsTime()).Round(time.Second)))
		}
	})
	if now.State == healthUnhealthy {
		t.log().Warn("unhealthy", "attempt", c.attempt, "failures", now.Failures, "output", now.Output, "restart", c.check.Restarts)
		if c.check.Restarts {
			c.ail()
		}
	}
}

// ail has an attempt's program ended because it is unhealthy.
func (c *container) ail() {
	select {
	case c.ailing <- struct{}{}:
	default: // it is known
	}
}

// cure ends a program that is unhealthy, for the next attempt to do better; false if the agent leaves.
func (t *task) cure(c *container) (Exit, bool) {
	t.withdraw(c)
	assignment, _ := t.now()
	return t.end(c, stopGrace(assignment.GetSpec()))
}

// ailed says why a program that has ended was ended for being unhealthy; nothing if it was not. By the record alone, so
// that an agent which finds it ended knows as well.
func ailed(s *warrenv1.TaskStatus, c *container) string {
	if c.check != nil && c.check.Restarts && s.GetAttempt() == c.attempt && s.GetHealth().GetState() == healthUnhealthy {
		return diagnosis(s.GetHealth())
	}
	return ""
}

// diagnosis says in words why a program is unhealthy.
func diagnosis(h *warrenv1.TaskHealth) string {
	if h.GetFailures() == 1 {
		return "unhealthy: " + h.GetOutput()
	}
	return fmt.Sprintf("unhealthy: %d probes in a row failed, the last: %s", h.GetFailures(), h.GetOutput())
}

// ailment says in words what a program's health lacks; nothing if it is healthy, or nothing is known yet.
func ailment(h *warrenv1.TaskHealth, check *prober.Check) string {
	switch {
	case h.GetState() == healthUnhealthy && check.Restarts:
		return "is unhealthy: it is being stopped, and its restart policy says what follows"
	case h.GetState() == healthUnhealthy:
		return "runs, but is unhealthy: " + h.GetOutput()
	case h.GetState() == healthStarting && h.GetOutput() != "":
		return "runs, but is not healthy yet: " + h.GetOutput()
	}
	return ""
}
