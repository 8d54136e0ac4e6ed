package slot

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/rollout/policy"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// The wait before a slot's next task after failures: none before the first replacement, then the
// shortest, doubling up to the longest.
const (
	ShortestBackOff = time.Second
	LongestBackOff  = time.Minute
)

// defaultWindow is how long a task must have run for its failure to count as a first one, where the
// restart policy does not say.
const defaultWindow = 5 * time.Minute

// StopFirst tells whether a service's tasks are replaced by stopping the old one before the new one
// starts: see policy.StopFirst.
func StopFirst(service *warrenv1.Service) bool { return policy.StopFirst(service) }

// Next returns the revision that the next task of a slot without a live one is to be of. That is the current one, but while
// a rollout has not come to the slot, what was there comes back: a lost task's revision at any time, and any task's
// while the rollout rests or keeps both revisions.
func (s *Slot) Next(service *warrenv1.Service) uint64 {
	current, r := service.GetRevision(), service.GetRollout()
	begun := cmp.Or(r.GetTo(), 1) == current
	if begun && !policy.Underway(r) {
		return current
	}
	rests := begun && r.GetFrom() != 0 && (r.GetState() != warrenv1.RolloutState_ROLLOUT_STATE_RUNNING || policy.SideBySide(service))
	last := s.last()
	switch {
	case last == nil && rests:
		return r.GetFrom()
	case last == nil:
		return current
	case last.GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_LOST, rests:
		return last.GetRevision()
	}
	return current
}

// last returns the task that was in the slot last, of those that are not wanted any more.
func (s *Slot) last() *warrenv1.Task {
	switch {
	case len(s.Ending) > 0:
		return s.Ending[0]
	case len(s.Ended) > 0:
		return s.Ended[0]
	}
	return nil
}

// Done tells whether a slot needs no further task of a revision: the last one ended by itself, is of that
// revision, and the restart policy lets it rest.
func (s *Slot) Done(service *warrenv1.Service, revision uint64) bool {
	if len(s.Ended) == 0 || s.Ended[0].GetRevision() != revision {
		return false
	}
	completed := s.Ended[0].GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_COMPLETE
	failed := s.Ended[0].GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_FAILED
	switch service.GetSpec().GetTask().GetRestart().GetCondition() {
	case warrenv1.RestartCondition_RESTART_CONDITION_NONE:
		return completed || failed
	case warrenv1.RestartCondition_RESTART_CONDITION_ON_FAILURE:
		return completed
	}
	return false
}

// NotBefore returns the time before which a slot must not get another task of a revision; zero where it may at
// once, as also where a clock that was ahead has told the ends, for which nobody can wait.
//
// It is read out of the last two tasks that ended: the wait before the last one is doubled. So the
// wait keeps growing however short a history is kept, and nothing needs to be counted. The
// managers' times are used, since nodes' clocks may be wrong.
func (s *Slot) NotBefore(service *warrenv1.Service, revision uint64, now time.Time) time.Time {
	// Where tasks of two revisions live in the slot, ends of the other one stand between.
	var ends [2]*warrenv1.Task
	n := 0
	for _, t := range s.Ended {
		if t.GetRevision() != revision {
			continue
		}
		if !gaveUp(t, service) {
			return time.Time{}
		}
		if ends[n] = t; n == 1 {
			break
		}
		n++
	}
	if ends[1] == nil {
		return time.Time{}
	}
	last, before := ends[0].GetMeta(), ends[1].GetMeta()
	waited := last.GetCreatedAt().AsTime().Sub(before.GetUpdatedAt().AsTime())
	wait := min(max(2*waited.Round(ShortestBackOff), ShortestBackOff), LongestBackOff)
	if at := last.GetUpdatedAt().AsTime().Add(wait); !at.After(now.Add(LongestBackOff)) {
		return at
	}
	return time.Time{}
}

// gaveUp tells whether a task's end speaks against starting another one like it: it ended by
// itself, and soon.
func gaveUp(t *warrenv1.Task, service *warrenv1.Service) bool {
	status := t.GetStatus()
	switch status.GetState() {
	case warrenv1.TaskState_TASK_STATE_REJECTED:
		return true
	case warrenv1.TaskState_TASK_STATE_COMPLETE, warrenv1.TaskState_TASK_STATE_FAILED:
		window := defaultWindow
		if w := service.GetSpec().GetTask().GetRestart().GetWindow(); w != nil {
			window = w.AsDuration()
		}
		ran := status.GetSince().AsTime().Sub(status.GetStartedAt().AsTime())
		return status.GetStartedAt() == nil || ran < window
	}
	return false
}

// NewTask returns a task of the service's current revision for a slot, wanted running and waiting
// for a node; in a global service for the slot's own node to be found fit.
func NewTask(id string, service *warrenv1.Service, key Key, now time.Time) *warrenv1.Task {
	return NewTaskOf(id, service, service.GetRevision(), key, now)
}

// traced is for how long what follows from a write of a service is part of its trace. A node that fails later has to do
// with something else.
const traced = 10 * time.Minute

// NewTaskOf is NewTask for any revision.
func NewTaskOf(id string, service *warrenv1.Service, revision uint64, key Key, now time.Time) *warrenv1.Task {
	trace := service.GetTrace()
	if trace != "" && now.Sub(service.GetMeta().GetUpdatedAt().AsTime()) > traced {
		trace = ""
	}
	return &warrenv1.Task{
		Meta:        &warrenv1.Meta{Id: id},
		ServiceId:   service.GetMeta().GetId(),
		ServiceName: service.GetSpec().GetName(),
		Slot:        key.Number,
		NodeId:      key.NodeID,
		Revision:    revision,
		Desired:     warrenv1.DesiredState_DESIRED_STATE_RUNNING,
		Status: &warrenv1.TaskStatus{
			State: warrenv1.TaskState_TASK_STATE_PENDING,
			Since: timestamppb.New(now),
		},
		Trace: trace,
	}
}

// Retire adds that t is to be stopped and kept as history. A task that was never given to a node
// has nothing to tell and is removed.
func Retire(transaction *state.Transaction, t *warrenv1.Task) {
	if Unassigned(t) {
		Remove(transaction, t)
		return
	}
	lower(transaction, t, warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN)
}

// Remove adds that t is to be stopped, if it has not ended, and forgotten.
func Remove(transaction *state.Transaction, t *warrenv1.Task) {
	lower(transaction, t, warrenv1.DesiredState_DESIRED_STATE_REMOVE)
}

// lower moves t's desired state down to d, never up.
func lower(transaction *state.Transaction, t *warrenv1.Task, d warrenv1.DesiredState) {
	if t.GetDesired() < d {
		state.Update(transaction, t, func(t *warrenv1.Task) { t.Desired = d })
	}
}
