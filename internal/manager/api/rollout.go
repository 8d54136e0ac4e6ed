package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/traceparent"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// revise gives a service whose template has changed from before to after the revision that holds it: a kept one
// of the same template, so that tasks that are still of it need not go, or else a new one.
func revise(s state.Snapshot, t *state.Transaction, before, after *warrenv1.Service) {
	last := max(before.GetLastRevision(), before.GetRevision())
	after.Revision = last + 1
	for _, r := range revisions(s, before) {
		if proto.Equal(r.GetTask(), after.GetSpec().GetTask()) {
			after.Revision = r.GetNumber()
			takeUp(t, r)
			break
		}
	}
	after.LastRevision = max(last, after.GetRevision())
	after.PreviousRevision = proven(before)
	if after.PreviousRevision == after.GetRevision() {
		after.PreviousRevision = before.GetRevision() // which is given up on the way
	}
	if after.GetRevision() > last {
		t.Create(revisionOf(after))
	}
}

// takeUp has a kept revision be current again. The transaction is refused where it has been removed meanwhile.
// What became of it the last time is forgotten: it gets another chance.
func takeUp(t *state.Transaction, r *warrenv1.Revision) {
	if r.GetFailure() == "" && r.GetOutcome() == nil {
		t.Check(r)
		return
	}
	state.Update(t, r, func(r *warrenv1.Revision) { r.Failure, r.Outcome = "", nil })
}

// proven returns the revision that a service was last rolled out to as a whole: the current one, or where the
// rollout to that is still under way the one it comes from.
func proven(s *warrenv1.Service) uint64 {
	if r := s.GetRollout(); underway(r) && r.GetTo() == s.GetRevision() && r.GetFrom() != 0 {
		return r.GetFrom()
	}
	return s.GetRevision()
}

// underway tells whether a rollout has not come to its end.
func underway(r *warrenv1.Rollout) bool {
	switch r.GetState() {
	case warrenv1.RolloutState_ROLLOUT_STATE_RUNNING, warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, warrenv1.RolloutState_ROLLOUT_STATE_WAITING:
		return true
	}
	return false
}

// unfinished tells whether a service's tasks are still to come to its revision, and the rollout that a user has paused
// is thus one that a rollback gives up. The order to pause that finds none holds for the next, be it one back.
func unfinished(s *warrenv1.Service) bool {
	return underway(s.GetRollout()) || s.GetRollout().GetTo() != s.GetRevision()
}

// revisions returns the kept revisions of a service, newest first.
func revisions(s state.Snapshot, service *warrenv1.Service) []*warrenv1.Revision {
	return slices.SortedFunc(s.Revisions(service.GetMeta().GetId()), func(a, b *warrenv1.Revision) int {
		return cmp.Compare(b.GetNumber(), a.GetNumber())
	})
}

// RollBackService implements warrenv1connect.ServiceServiceHandler.
func (h *serviceService) RollBackService(ctx context.Context, req *connect.Request[warrenv1.RollBackServiceRequest]) (*connect.Response[warrenv1.RollBackServiceResponse], error) {
	var edited *warrenv1.Service
	err := h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) error {
		service, err := changeable(s, req.Msg.GetRef())
		if err != nil {
			return err
		}
		to, err := returnTo(s, service, req.Msg.GetRevision())
		if err != nil {
			return err
		}
		edited, err = edit{
			ref: service.GetMeta().GetId(), by: caller.From(ctx).Name, trace: traceparent.From(ctx), resume: unfinished(service), reverts: true,
			change: func(service *warrenv1.Service) (*warrenv1.ServiceSpec, error) {
				spec := proto.CloneOf(service.GetSpec())
				spec.Task = to.GetTask()
				if err := checkService(spec); err != nil { // the policy may have changed since that revision
					return nil, fmt.Errorf("go back to revision %d: %w", to.GetNumber(), err)
				}
				return spec, nil
			},
		}.build(s, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.RollBackServiceResponse{Service: reread(h.store.Snapshot(), edited)}), nil
}

// returnTo returns the revision that a service is to go back to, or says why it cannot.
func returnTo(s state.Snapshot, service *warrenv1.Service, asked uint64) (*warrenv1.Revision, error) {
	name := service.GetSpec().GetName()
	number := cmp.Or(asked, service.GetPreviousRevision())
	switch number {
	case 0:
		return nil, Refuse("service %s has no revision before %d to go back to: %s", name, service.GetRevision(), keptWords(s, service))
	case service.GetRevision():
		return nil, Refuse("service %s is at revision %d already: %s", name, number, keptWords(s, service))
	}
	to := s.Revision(service.GetMeta().GetId(), number)
	switch {
	case to == nil:
		return nil, Refuse("revision %d of service %s is not kept: %s", number, name, keptWords(s, service))
	case asked == 0 && to.GetFailure() != "":
		return nil, Refuse("the last rollout of service %s to revision %d, the one before, failed: %s: name another, or name this one to go there all the same; %s",
			name, number, to.GetFailure(), keptWords(s, service))
	}
	return to, nil
}

// keptWords lists the revisions to go back to.
func keptWords(s state.Snapshot, service *warrenv1.Service) string {
	var numbers []string
	for _, r := range revisions(s, service) {
		if r.GetNumber() == service.GetRevision() {
			continue
		}
		text := strconv.FormatUint(r.GetNumber(), 10)
		if r.GetFailure() != "" {
			text += " (failed)"
		}
		numbers = append(numbers, text)
	}
	if len(numbers) == 0 {
		return "no other revision is kept"
	}
	return "kept are " + strings.Join(numbers, ", ")
}

// ListRevisions implements warrenv1connect.ServiceServiceHandler.
func (h *serviceService) ListRevisions(_ context.Context, req *connect.Request[warrenv1.ListRevisionsRequest]) (*connect.Response[warrenv1.ListRevisionsResponse], error) {
	s := h.store.Snapshot()
	service, err := FindService(s, req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	running := map[uint64]uint32{}
	for t := range s.TasksByService(service.GetMeta().GetId()) {
		if lifecycle.Wanted(t) && slot.Running(t) {
			running[t.GetRevision()]++
		}
	}
	res := &warrenv1.ListRevisionsResponse{}
	for _, r := range revisions(s, service) {
		res.Revisions = append(res.Revisions, &warrenv1.RevisionEntry{
			Revision: r, Current: r.GetNumber() == service.GetRevision(), Running: running[r.GetNumber()],
		})
	}
	return connect.NewResponse(res), nil
}

// PauseRollout implements warrenv1connect.ServiceServiceHandler.
func (h *serviceService) PauseRollout(ctx context.Context, req *connect.Request[warrenv1.PauseRolloutRequest]) (*connect.Response[warrenv1.PauseRolloutResponse], error) {
	service, err := h.order(ctx, req.Msg.GetRef(), func(service *warrenv1.Service, orders *warrenv1.RolloutOrders) error {
		orders.Paused = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.PauseRolloutResponse{Service: service}), nil
}

// ResumeRollout implements warrenv1connect.ServiceServiceHandler.
func (h *serviceService) ResumeRollout(ctx context.Context, req *connect.Request[warrenv1.ResumeRolloutRequest]) (*connect.Response[warrenv1.ResumeRolloutResponse], error) {
	service, err := h.order(ctx, req.Msg.GetRef(), func(service *warrenv1.Service, orders *warrenv1.RolloutOrders) error {
		stopped := service.GetRollout().GetState() == warrenv1.RolloutState_ROLLOUT_STATE_PAUSED
		if !orders.GetPaused() && !stopped {
			return Refuse("no rollout of service %s is paused: %s", service.GetSpec().GetName(), rolloutWords(service))
		}
		orders.Paused = false
		// Where the loop has not come to follow the order to pause, it is enough to take that back.
		if stopped && orders.GetResumes() == service.GetRollout().GetResumes() {
			orders.Resumes++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.ResumeRolloutResponse{Service: service}), nil
}

// PromoteRollout implements warrenv1connect.ServiceServiceHandler.
func (h *serviceService) PromoteRollout(ctx context.Context, req *connect.Request[warrenv1.PromoteRolloutRequest]) (*connect.Response[warrenv1.PromoteRolloutResponse], error) {
	service, err := h.order(ctx, req.Msg.GetRef(), func(service *warrenv1.Service, orders *warrenv1.RolloutOrders) error {
		name, rollout := service.GetSpec().GetName(), service.GetRollout()
		switch {
		case !underway(rollout):
			return Refuse("service %s has no rollout to promote: %s", name, rolloutWords(service))
		case rollout.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, orders.GetPaused():
			return Refuse("the rollout of service %s is paused%s: `warrenctl service resume %s` has it go on", name, because(rollout.GetMessage()), name)
		case rollout.GetRollback() || !staged(service.GetSpec().GetUpdate()):
			return Refuse("the rollout of service %s is a rolling one, which goes on by itself: only canary and blue-green rollouts are promoted", name)
		case orders.GetPromotes() > rollout.GetPromotes():
			return nil // said already, and not followed yet
		}
		orders.Promotes++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.PromoteRolloutResponse{Service: service}), nil
}

// order writes what give makes of the orders for a service's rollouts. An order is no change of the spec: users who
// have read the service before may still write it.
func (h *serviceService) order(ctx context.Context, ref string, give func(*warrenv1.Service, *warrenv1.RolloutOrders) error) (*warrenv1.Service, error) {
	var ordered *warrenv1.Service
	err := h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) error {
		service, err := changeable(s, ref)
		if err != nil {
			return err
		}
		orders := &warrenv1.RolloutOrders{}
		proto.Merge(orders, service.GetOrders())
		if err := give(service, orders); err != nil {
			return err
		}
		ordered = service
		if orders.GetPaused() == service.GetOrders().GetPaused() && orders.GetResumes() == service.GetOrders().GetResumes() &&
			orders.GetPromotes() == service.GetOrders().GetPromotes() {
			return nil
		}
		orders.By = caller.From(ctx).Name
		state.Update(t, service, func(after *warrenv1.Service) {
			after.Orders = orders
			after.WrittenAt = cmp.Or(service.GetWrittenAt(), service.GetMeta().GetVersion())
			ordered = after
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return reread(h.store.Snapshot(), ordered), nil
}

// staged tells whether a policy has rollouts that wait for users.
func staged(p *warrenv1.UpdatePolicy) bool {
	return p.GetStrategy() == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY || p.GetStrategy() == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN
}

// rolloutWords tells what a service's latest rollout is at.
func rolloutWords(s *warrenv1.Service) string {
	r := s.GetRollout()
	if r == nil {
		return "there has been none yet"
	}
	said := map[warrenv1.RolloutState]string{
		warrenv1.RolloutState_ROLLOUT_STATE_RUNNING:   "is running",
		warrenv1.RolloutState_ROLLOUT_STATE_PAUSED:    "is paused",
		warrenv1.RolloutState_ROLLOUT_STATE_WAITING:   "waits to be promoted",
		warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE:  "is complete",
		warrenv1.RolloutState_ROLLOUT_STATE_ABANDONED: "was given up",
	}[r.GetState()]
	return fmt.Sprintf("the latest one, to revision %d, %s%s", r.GetTo(), cmp.Or(said, "has not begun"), because(r.GetMessage()))
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}
