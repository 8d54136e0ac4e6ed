package supervisor

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/agent/store"
	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// takeUp finds what an earlier agent has left of the task: a container to go on with, or which attempt
// to start.
func (t *task) takeUp() (*container, beginning) {
	assignment, progress := t.now()
	if lifecycle.Ended(progress.Status.GetState()) {
		t.unwant() // also if the manager does not know yet
	}
	var b beginning
	w := t.claim(t, func(found []Found) *Found {
		b = recall(progress, assignment.GetSpec().GetRestart(), found, time.Now())
		return b.adopt
	})
	var counted *store.Commit
	if b.adopt == nil && len(b.discard) > 0 {
		// That these containers' attempts are used up must be known also when they are gone.
		counted = t.record(func(s *warrenv1.TaskStatus) { underWay(s, b.attempt, "") })
	}
	for _, id := range b.discard {
		t.discard(id, counted)
	}
	if b.adopt == nil {
		if onOverlay(assignment.GetSpec()) {
			t.Network.Withdraw(t.id) // the node may still send it connections, as it did before
		}
		return nil, b
	}
	return t.adopt(b.adopt, w, assignment, progress), b
}

// adopt goes on with a container that an earlier agent has left.
func (t *task) adopt(f *Found, w *watch, assignment *warrenv1.Assignment, progress store.Progress) *container {
	t.reattach(f.ID) // also if it has ended: its last output may wait to be read
	if recorded := progress.Status; f.StartedAt.IsZero() && recorded.GetAttempt() == f.Attempt && recorded.GetStartedAt() != nil {
		f.StartedAt = recorded.GetStartedAt().AsTime()
	}
	if f.StartedAt.IsZero() {
		f.StartedAt = time.Now()
	}
	c := t.newContainer(f.ID, f.Attempt, assignment)
	c.started, c.ended, c.pid, c.check = f.StartedAt, w.ended, f.Pid, t.checkOf(assignment, f)
	c.ready = true                                        // or that it will be is no part of a start
	c.speaks = progress.Status.GetExit().GetAt().AsTime() // the end of the attempt before, if there was one
	health := recalled(progress.Status, c)
	c.healthy = c.check == nil || health.State == healthHealthy
	c.listens = !c.overlay
	if _, running := t.advance(func(s *warrenv1.TaskStatus) {
		defer func() {
			if f.Running && c.check != nil {
				s.Health = health.Message()
			}
			if f.Running && !c.overlay {
				s.Serving = c.healthy
			}
			c.listens = c.listens || s.GetServing()
		}()
		if s.GetAttempt() == f.Attempt && s.GetState() >= warrenv1.TaskState_TASK_STATE_RUNNING {
			return // as recorded
		}
		s.Attempt, s.State = f.Attempt, warrenv1.TaskState_TASK_STATE_RUNNING
		s.ContainerId, s.Pid, s.Message = f.ID, f.Pid, ""
		s.StartedAt = timestamppb.New(f.StartedAt)
		if f.ImageDigest != "" {
			s.ImageDigest = f.ImageDigest
		}
	}); running || f.Running {
		t.log().Info("took up a container", "attempt", f.Attempt, "running", f.Running)
	}
	if !f.Running || t.wanted.Err() != nil {
		return c
	}
	if c.overlay {
		if !c.healthy {
			t.Network.Withdraw(t.id) // the node may still send it connections, if it was found out just then
		}
		t.entering.Go(func() { t.reenter(c, assignment) })
	}
	t.probe(c, health)
	return c
}
