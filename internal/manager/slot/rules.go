package slot

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

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
// starts. Unless the user says, that is so where the two would meet on a port: side by side they would fit
// on no node that has the old one.
func StopFirst(service *warrenv1.Service) bool {
	switch service.GetSpec().GetUpdate().GetOrder() {
	case warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST:
		return false
	case warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST:
		return true
	}
	return service.GetSpec().GetTask().GetNetwork() == warrenv1.NetworkMode_NETWORK_MODE_HOST || takesPorts(service.GetSpec().GetTask())
}

// takesPorts tells whether a task of that template and its successor would meet on a port of their node.
// Where whichever port is free is taken they do not.
func takesPorts(t *warrenv1.TaskSpec) bool {
	return slices.ContainsFunc(t.GetHostPorts(), func(p *warrenv1.PortSpec) bool { return p.GetPublished() != 0 })
}

// Done tells whether a slot needs no further task: the last one ended by itself, is of the current
// revision, and the restart policy lets it rest.
func (s *Slot) Done(service *warrenv1.Service) bool {
	if len(s.Ended) == 0 || s.Ended[0].GetRevision() != service.GetRevision() {
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

// NotBefore returns the time before which a slot must not get another task of the current revision;
// zero where it may at once.
//
// It is read out of the last two tasks that ended: the wait before the last one is doubled. So the
// wait keeps growing however short a history is kept, and nothing needs to be counted. The
// managers' times are used, since nodes' clocks may be wrong.
func (s *Slot) NotBefore(service *warrenv1.Service) time.Time {
	if len(s.Ended) < 2 || !gaveUp(s.Ended[0], service) || !gaveUp(s.Ended[1], service) {
		return time.Time{}
	}
	last, before := s.Ended[0].GetMeta(), s.Ended[1].GetMeta()
	waited := last.GetCreatedAt().AsTime().Sub(before.GetUpdatedAt().AsTime())
	wait := min(max(2*waited.Round(ShortestBackOff), ShortestBackOff), LongestBackOff)
	return last.GetUpdatedAt().AsTime().Add(wait)
}

// gaveUp tells whether a task's end speaks against starting another one like it: it ended by
// itself, soon, and is of the current revision.
func gaveUp(t *warrenv1.Task, service *warrenv1.Service) bool {
	if t.GetRevision() != service.GetRevision() {
		return false
	}
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
	return &warrenv1.Task{
		Meta:        &warrenv1.Meta{Id: id},
		ServiceId:   service.GetMeta().GetId(),
		ServiceName: service.GetSpec().GetName(),
		Slot:        key.Number,
		NodeId:      key.NodeID,
		Revision:    service.GetRevision(),
		Desired:     warrenv1.DesiredState_DESIRED_STATE_RUNNING,
		Status: &warrenv1.TaskStatus{
			State: warrenv1.TaskState_TASK_STATE_PENDING,
			Since: timestamppb.New(now),
		},
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
