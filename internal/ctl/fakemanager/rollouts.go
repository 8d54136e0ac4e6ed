package fakemanager

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Rollouts end at once: well, unless the image's name contains "broken", whose tasks all fail, "slow", or the
// strategy has something to wait for. A canary's step with a time to hold lasts until Advance.

// revise gives a service the revision of its template, a kept one if there is one.
func (m *Manager) revise(s *warrenv1.Service) {
	number := max(s.GetRevision(), s.GetLastRevision())
	for _, r := range m.of(s) {
		number = max(number, r.GetNumber())
		if proto.Equal(r.GetTask(), s.GetSpec().GetTask()) {
			s.PreviousRevision, s.Revision = s.GetRevision(), r.GetNumber()
			return
		}
	}
	if m.of(s) == nil {
		number = 0
	} else {
		s.PreviousRevision = s.GetRevision()
	}
	s.Revision, s.LastRevision, s.WrittenBy = number+1, number+1, "anna"
	meta := m.meta("revision")
	meta.Id = fmt.Sprintf("%s.%d", s.GetMeta().GetId(), number+1)
	m.revisions = append(m.revisions, &warrenv1.Revision{
		Meta: meta, ServiceId: s.GetMeta().GetId(), Number: number + 1, Task: proto.CloneOf(s.GetSpec().GetTask()), WrittenBy: "anna",
	})
}

func (m *Manager) of(s *warrenv1.Service) (kept []*warrenv1.Revision) {
	for _, r := range m.revisions {
		if r.GetServiceId() == s.GetMeta().GetId() {
			kept = append(kept, r)
		}
	}
	return kept
}

// begin begins the rollout to a service's revision.
func (m *Manager) begin(s *warrenv1.Service, back bool) {
	now := timestamppb.Now()
	s.Rollout = &warrenv1.Rollout{
		From: s.GetPreviousRevision(), To: s.GetRevision(), State: warrenv1.RolloutState_ROLLOUT_STATE_RUNNING, Rollback: back,
		StartedAt: now, Since: now, AdvancedAt: now, StepSince: now,
		Promotes: s.GetOrders().GetPromotes(), Resumes: s.GetOrders().GetResumes(),
	}
	if s.GetOrders().GetPaused() {
		stop(s, warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, "paused by "+s.GetOrders().GetBy())
	}
}

func stop(s *warrenv1.Service, state warrenv1.RolloutState, message string) {
	s.Rollout.State, s.Rollout.Message, s.Rollout.Since = state, message, timestamppb.Now()
}

// roll brings a rollout as far as it comes by itself.
func (m *Manager) roll(s *warrenv1.Service) {
	r, policy := s.GetRollout(), s.GetSpec().GetUpdate()
	image := s.GetSpec().GetTask().GetContainer().GetImage()
	switch {
	case r.GetState() != warrenv1.RolloutState_ROLLOUT_STATE_RUNNING && r.GetState() != warrenv1.RolloutState_ROLLOUT_STATE_WAITING:
	case strings.Contains(image, "broken"):
		m.failRollout(s)
	case strings.Contains(image, "slow") && !m.released:
	case r.GetRollback():
		stop(s, warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE, r.GetMessage())
	case policy.GetStrategy() == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY:
		steps := policy.GetCanary()
		if len(steps) == 0 {
			steps = []*warrenv1.CanaryStep{{Weight: 10}}
		}
		if int(r.GetStep()) >= len(steps) {
			r.Weight = 100
			stop(s, warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE, "")
			break
		}
		step := steps[r.GetStep()]
		r.Weight = step.GetWeight()
		if step.GetHold().AsDuration() == 0 {
			stop(s, warrenv1.RolloutState_ROLLOUT_STATE_WAITING, "")
		}
	case policy.GetStrategy() == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN:
		if policy.GetManual() && r.GetStep() == 0 {
			stop(s, warrenv1.RolloutState_ROLLOUT_STATE_WAITING, "")
			break
		}
		keep := policy.GetKeep()
		if keep == nil {
			keep = durationpb.New(300e9)
		}
		r.Weight, r.KeepUntil = 100, timestamppb.New(timestamppb.Now().AsTime().Add(keep.AsDuration()))
		stop(s, warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE, "")
	default:
		stop(s, warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE, "")
	}
	m.touch(s.GetMeta())
}

// failRollout does what the policy says of a rollout that has failed.
func (m *Manager) failRollout(s *warrenv1.Service) {
	why := s.GetSpec().GetName() + ".1: exit code 1: no database"
	s.Rollout.Failed = 1
	switch s.GetSpec().GetUpdate().GetFailureAction() {
	case warrenv1.FailureAction_FAILURE_ACTION_CONTINUE:
		stop(s, warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE, "")
	case warrenv1.FailureAction_FAILURE_ACTION_PAUSE:
		stop(s, warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, why)
	default:
		for _, r := range m.of(s) {
			if r.GetNumber() == s.GetRevision() {
				r.Failure = why
			}
		}
		m.back(s, s.GetPreviousRevision(), why)
	}
}

// back makes an earlier revision current.
func (m *Manager) back(s *warrenv1.Service, number uint64, why string) {
	for _, r := range m.of(s) {
		if r.GetNumber() == number {
			s.Spec.Task = proto.CloneOf(r.GetTask())
		}
	}
	s.PreviousRevision, s.Revision = s.GetRevision(), number
	m.begin(s, true)
	s.Rollout.Message = why
	m.reconcile(s)
	m.touch(s.GetMeta())
	if !s.GetOrders().GetPaused() {
		m.roll(s)
	}
}

// Advance ends the time that canaries hold their step.
func (m *Manager) Advance() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.services {
		if s.GetRollout().GetState() == warrenv1.RolloutState_ROLLOUT_STATE_RUNNING {
			s.Rollout.Step++
			s.Rollout.StepSince = timestamppb.Now()
			m.roll(s)
		}
	}
}

// plan is what would come of an update: all tasks are replaced where they are, if their template changes.
func (m *Manager) plan(is, would *warrenv1.Service) (*warrenv1.ServicePlan, error) {
	if err := checkName(would.GetSpec().GetName()); err != nil {
		return nil, err
	}
	p := &warrenv1.ServicePlan{Version: is.GetMeta().GetVersion(), Revision: is.GetRevision()}
	action := warrenv1.PlannedAction_PLANNED_ACTION_KEEP
	if !proto.Equal(is.GetSpec().GetTask(), would.GetSpec().GetTask()) {
		p.Revision++
		would.Revision = p.Revision
		action = warrenv1.PlannedAction_PLANNED_ACTION_REPLACE
	}
	replicas := would.GetSpec().GetReplicated().GetReplicas()
	for _, t := range m.tasks {
		if t.GetServiceId() != is.GetMeta().GetId() || t.GetDesired() != warrenv1.DesiredState_DESIRED_STATE_RUNNING {
			continue
		}
		one := &warrenv1.PlannedTask{Slot: t.GetSlot(), TaskId: t.GetMeta().GetId(), NodeId: t.GetNodeId(), NodeHostname: m.hostname(t.GetNodeId()), Action: action}
		switch {
		case t.GetSlot() > replicas:
			one.Action = warrenv1.PlannedAction_PLANNED_ACTION_STOP
		case action == warrenv1.PlannedAction_PLANNED_ACTION_REPLACE:
			one.NewNodeId, one.NewNodeHostname = one.GetNodeId(), one.GetNodeHostname()
		}
		p.Tasks = append(p.Tasks, one)
	}
	for slot := uint32(len(p.GetTasks())) + 1; slot <= replicas; slot++ {
		p.Tasks = append(p.Tasks, &warrenv1.PlannedTask{
			Slot: slot, Action: warrenv1.PlannedAction_PLANNED_ACTION_CREATE, Problem: "2 nodes: 2 lack 1 GiB of memory",
		})
	}
	return p, nil
}

func (h serviceService) RollBackService(_ context.Context, req *connect.Request[warrenv1.RollBackServiceRequest]) (*connect.Response[warrenv1.RollBackServiceResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	s, err := h.m.service(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	to := req.Msg.GetRevision()
	if to == 0 {
		if to = s.GetPreviousRevision(); to == 0 {
			return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("service %s has no earlier revision", s.GetSpec().GetName()))
		}
	}
	if !slices.ContainsFunc(h.m.of(s), func(r *warrenv1.Revision) bool { return r.GetNumber() == to }) {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("revision %d of service %s is not kept", to, s.GetSpec().GetName()))
	}
	h.m.back(s, to, "ordered by anna")
	return connect.NewResponse(&warrenv1.RollBackServiceResponse{Service: proto.CloneOf(s)}), nil
}

func (h serviceService) ListRevisions(_ context.Context, req *connect.Request[warrenv1.ListRevisionsRequest]) (*connect.Response[warrenv1.ListRevisionsResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	s, err := h.m.service(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	res := &warrenv1.ListRevisionsResponse{}
	for _, r := range slices.Backward(h.m.of(s)) {
		e := &warrenv1.RevisionEntry{Revision: proto.CloneOf(r), Current: r.GetNumber() == s.GetRevision()}
		for _, t := range h.m.tasks {
			if t.GetServiceId() == s.GetMeta().GetId() && t.GetRevision() == r.GetNumber() && t.GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_RUNNING {
				e.Running++
			}
		}
		res.Revisions = append(res.Revisions, e)
	}
	return connect.NewResponse(res), nil
}

// order notes what a user orders of rollouts, and follows it.
func (h serviceService) order(ref string, change func(s *warrenv1.Service, o *warrenv1.RolloutOrders) error) (*warrenv1.Service, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	s, err := h.m.service(ref)
	if err != nil {
		return nil, err
	}
	if s.Orders == nil {
		s.Orders = &warrenv1.RolloutOrders{}
	}
	s.Orders.By = "anna"
	if err := change(s, s.GetOrders()); err != nil {
		return nil, err
	}
	h.m.touch(s.GetMeta())
	answer := proto.CloneOf(s)
	if r := s.GetRollout(); r != nil && s.GetOrders().GetResumes() > r.GetResumes() {
		r.Resumes = s.GetOrders().GetResumes()
		stop(s, warrenv1.RolloutState_ROLLOUT_STATE_RUNNING, "")
		h.m.roll(s)
	}
	if r := s.GetRollout(); r != nil && s.GetOrders().GetPromotes() > r.GetPromotes() {
		r.Promotes = s.GetOrders().GetPromotes()
		r.Step++
		r.StepSince = timestamppb.Now()
		stop(s, warrenv1.RolloutState_ROLLOUT_STATE_RUNNING, "")
		h.m.roll(s)
	}
	return answer, nil
}

func (h serviceService) PauseRollout(_ context.Context, req *connect.Request[warrenv1.PauseRolloutRequest]) (*connect.Response[warrenv1.PauseRolloutResponse], error) {
	s, err := h.order(req.Msg.GetRef(), func(s *warrenv1.Service, o *warrenv1.RolloutOrders) error {
		o.Paused = true
		if s.GetRollout().GetState() == warrenv1.RolloutState_ROLLOUT_STATE_RUNNING {
			stop(s, warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, "paused by anna")
		}
		return nil
	})
	return connect.NewResponse(&warrenv1.PauseRolloutResponse{Service: s}), err
}

func (h serviceService) ResumeRollout(_ context.Context, req *connect.Request[warrenv1.ResumeRolloutRequest]) (*connect.Response[warrenv1.ResumeRolloutResponse], error) {
	s, err := h.order(req.Msg.GetRef(), func(s *warrenv1.Service, o *warrenv1.RolloutOrders) error {
		if !o.GetPaused() && s.GetRollout().GetState() != warrenv1.RolloutState_ROLLOUT_STATE_PAUSED {
			return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("no rollout of service %s is paused", s.GetSpec().GetName()))
		}
		o.Paused = false
		if s.GetRollout() != nil {
			o.Resumes++
		}
		return nil
	})
	return connect.NewResponse(&warrenv1.ResumeRolloutResponse{Service: s}), err
}

func (h serviceService) PromoteRollout(_ context.Context, req *connect.Request[warrenv1.PromoteRolloutRequest]) (*connect.Response[warrenv1.PromoteRolloutResponse], error) {
	s, err := h.order(req.Msg.GetRef(), func(s *warrenv1.Service, o *warrenv1.RolloutOrders) error {
		if s.GetRollout().GetState() != warrenv1.RolloutState_ROLLOUT_STATE_WAITING {
			return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("no rollout of service %s waits to be promoted", s.GetSpec().GetName()))
		}
		o.Promotes++
		return nil
	})
	return connect.NewResponse(&warrenv1.PromoteRolloutResponse{Service: s}), err
}

func (h serviceService) RebalanceService(_ context.Context, req *connect.Request[warrenv1.RebalanceServiceRequest]) (*connect.Response[warrenv1.RebalanceServiceResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	s, err := h.m.service(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	moving := uint32(0)
	if s.GetSpec().GetReplicated().GetReplicas() > 2 {
		moving = 1
	}
	h.m.touch(s.GetMeta())
	return connect.NewResponse(&warrenv1.RebalanceServiceResponse{Service: proto.CloneOf(s), Moving: moving}), nil
}

// Stay has tasks stay on nodes that are drained, until Release.
func (m *Manager) Stay() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stay = true
}
