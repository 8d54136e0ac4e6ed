package api

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/id"
	"github.com/cuemby/warren/internal/manager/planning"
	"github.com/cuemby/warren/internal/manager/progress"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/traceparent"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// serviceService writes and shows services. What it does about their rollouts is in rollout.go.
type serviceService struct {
	store *state.Store
	write writer
}

var _ warrenv1connect.ServiceServiceHandler = (*serviceService)(nil)

// CreateService implements warrenv1connect.ServiceServiceHandler.
func (h *serviceService) CreateService(ctx context.Context, req *connect.Request[warrenv1.CreateServiceRequest]) (*connect.Response[warrenv1.CreateServiceResponse], error) {
	spec := req.Msg.GetSpec()
	if err := checkService(spec); err != nil {
		return nil, err
	}
	var service *warrenv1.Service
	err := h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) error {
		if there := s.ServiceByName(spec.GetName()); there != nil {
			return taken(there)
		}
		connected, err := connectService(s, t, nil, spec)
		if err != nil {
			return err
		}
		service = &warrenv1.Service{
			Meta: &warrenv1.Meta{Id: id.New()}, Spec: connected, Revision: 1, LastRevision: 1, WrittenBy: caller.From(ctx).Name,
			Trace: traceparent.From(ctx),
		}
		t.Create(service)
		t.Create(revisionOf(service))
		return nil
	})
	if err != nil {
		return nil, err
	}
	s := h.store.Snapshot()
	return connect.NewResponse(&warrenv1.CreateServiceResponse{
		Service:  reread(s, service),
		Warnings: warnings(s, spec),
	}), nil
}

// taken says why a service of that name cannot be created.
func taken(there *warrenv1.Service) error {
	name := there.GetSpec().GetName()
	if there.GetRemoving() {
		return problemf(connect.CodeFailedPrecondition, "service %s is still being removed: wait until `warrenctl service ls` no longer shows it", name)
	}
	return problemf(connect.CodeAlreadyExists, "service %s already exists: choose another name, or change it with `warrenctl service update %s`", name, name)
}

// revisionOf makes the revision that keeps a service's current template.
func revisionOf(s *warrenv1.Service) *warrenv1.Revision {
	return &warrenv1.Revision{
		Meta:      &warrenv1.Meta{Id: state.RevisionID(s.GetMeta().GetId(), s.GetRevision())},
		ServiceId: s.GetMeta().GetId(), Number: s.GetRevision(), Task: s.GetSpec().GetTask(), WrittenBy: s.GetWrittenBy(),
	}
}

// reread returns a service as it is stored after a write, which is as it was written where somebody has
// removed it since.
func reread(s state.Snapshot, written *warrenv1.Service) *warrenv1.Service {
	if stored := s.Service(written.GetMeta().GetId()); stored != nil {
		return stored
	}
	return written
}

// ListServices implements warrenv1connect.ServiceServiceHandler.
func (h *serviceService) ListServices(_ context.Context, req *connect.Request[warrenv1.ListServicesRequest]) (*connect.Response[warrenv1.ListServicesResponse], error) {
	after, err := parseToken(req.Msg.GetPageToken(), 1)
	if err != nil {
		return nil, err
	}
	s, size := h.store.Snapshot(), pageSize(req.Msg.GetPageSize())
	res := &warrenv1.ListServicesResponse{}
	last := ""
	if after != nil {
		last = after[0]
	}
	for service := range s.ServicesFrom(last) {
		if after != nil && service.GetSpec().GetName() == last {
			continue
		}
		if len(res.Services) == size {
			res.NextPageToken = cursor{res.Services[size-1].GetService().GetSpec().GetName()}.token()
			break
		}
		res.Services = append(res.Services, &warrenv1.ServiceEntry{Service: service, Progress: progress.Summary(s, service)})
	}
	return connect.NewResponse(res), nil
}

// GetService implements warrenv1connect.ServiceServiceHandler.
func (h *serviceService) GetService(_ context.Context, req *connect.Request[warrenv1.GetServiceRequest]) (*connect.Response[warrenv1.GetServiceResponse], error) {
	s := h.store.Snapshot()
	service, err := FindService(s, req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.GetServiceResponse{
		Entry: &warrenv1.ServiceEntry{Service: service, Progress: progress.Of(s, service)},
	}), nil
}

// UpdateService implements warrenv1connect.ServiceServiceHandler.
func (h *serviceService) UpdateService(ctx context.Context, req *connect.Request[warrenv1.UpdateServiceRequest]) (*connect.Response[warrenv1.UpdateServiceResponse], error) {
	spec := req.Msg.GetSpec()
	if err := checkService(spec); err != nil {
		return nil, err
	}
	to := edit{
		ref: req.Msg.GetRef(), read: req.Msg.GetVersion(), by: caller.From(ctx).Name, trace: traceparent.From(ctx),
		change: func(*warrenv1.Service) (*warrenv1.ServiceSpec, error) { return spec, nil },
	}
	if req.Msg.GetDryRun() {
		return h.plan(to)
	}
	service, err := h.edit(ctx, to)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.UpdateServiceResponse{Service: service, Warnings: warnings(h.store.Snapshot(), spec)}), nil
}

// plan tells what would come of an edit, on the state as it is, and writes nothing.
func (h *serviceService) plan(to edit) (*connect.Response[warrenv1.UpdateServiceResponse], error) {
	s, now := h.store.Snapshot(), time.Now()
	t := state.New(now)
	edited, err := to.build(s, t)
	if err != nil {
		return nil, err
	}
	supposed, _, err := s.Suppose(t)
	if err != nil {
		return nil, fmt.Errorf("plan an update of service %s: %w", edited.GetSpec().GetName(), err)
	}
	plan := planning.Of(supposed, edited.GetMeta().GetId(), now)
	plan.Version = s.Service(edited.GetMeta().GetId()).GetMeta().GetVersion()
	return connect.NewResponse(&warrenv1.UpdateServiceResponse{
		Service: supposed.Service(edited.GetMeta().GetId()), Warnings: warnings(s, edited.GetSpec()), Plan: plan,
	}), nil
}

// ScaleService implements warrenv1connect.ServiceServiceHandler.
func (h *serviceService) ScaleService(ctx context.Context, req *connect.Request[warrenv1.ScaleServiceRequest]) (*connect.Response[warrenv1.ScaleServiceResponse], error) {
	service, err := h.edit(ctx, edit{ref: req.Msg.GetRef(), by: caller.From(ctx).Name, trace: traceparent.From(ctx), change: func(service *warrenv1.Service) (*warrenv1.ServiceSpec, error) {
		if service.GetSpec().GetReplicated() == nil {
			return nil, problemf(connect.CodeFailedPrecondition, "service %s is global, which means one task on every node that its placement allows: it cannot be scaled", service.GetSpec().GetName())
		}
		spec := proto.CloneOf(service.GetSpec())
		spec.GetReplicated().Replicas = req.Msg.GetReplicas()
		return spec, nil
	}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.ScaleServiceResponse{Service: service}), nil
}

// edit is a user's change of a service's spec.
type edit struct {
	ref    string
	read   uint64 // the version it was made from; 0 stands for any
	by     string
	trace  string // that it is part of; empty for none
	change func(*warrenv1.Service) (*warrenv1.ServiceSpec, error)
	resume bool // what was paused is given up with the change, and what follows is not to wait
	// reverts: it goes back to a revision, by the policy for that.
	reverts bool
}

// edit makes the change and returns the service as it is then.
func (h *serviceService) edit(ctx context.Context, to edit) (*warrenv1.Service, error) {
	var edited *warrenv1.Service
	err := h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) (err error) {
		edited, err = to.build(s, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return reread(h.store.Snapshot(), edited), nil
}

// build adds to t what makes the change, and returns the service as it is to be. A change that comes to nothing
// adds nothing.
func (e edit) build(s state.Snapshot, t *state.Transaction) (*warrenv1.Service, error) {
	service, err := changeable(s, e.ref)
	if err != nil {
		return nil, err
	}
	if err := unwritten(service, e.read); err != nil {
		return nil, err
	}
	spec, err := e.change(service)
	if err != nil {
		return nil, err
	}
	if err := mayBecome(service.GetSpec(), spec); err != nil {
		return nil, err
	}
	if spec, err = connectService(s, t, service, spec); err != nil {
		return nil, err
	}
	if proto.Equal(service.GetSpec(), spec) {
		return service, nil
	}
	edited := service
	state.Update(t, service, func(after *warrenv1.Service) {
		after.Spec, after.WrittenAt, after.WrittenBy = spec, 0, e.by
		after.Trace = e.trace
		if !proto.Equal(service.GetSpec().GetTask(), spec.GetTask()) {
			revise(s, t, service, after)
			after.Reverted = e.reverts
		}
		if e.resume && after.GetOrders().GetPaused() {
			after.Orders = proto.CloneOf(after.GetOrders())
			after.Orders.Paused, after.Orders.By = false, e.by
		}
		edited = after
	})
	return edited, nil
}

// changeable returns the service that ref names, unless it is being removed.
func changeable(s state.Snapshot, ref string) (*warrenv1.Service, error) {
	service, err := FindService(s, ref)
	if err == nil && service.GetRemoving() {
		err = problemf(connect.CodeFailedPrecondition, "service %s is being removed and cannot be changed any more", service.GetSpec().GetName())
	}
	if err != nil {
		return nil, err
	}
	return service, nil
}

// mayBecome checks what of a service cannot be changed.
func mayBecome(before, after *warrenv1.ServiceSpec) error {
	if before.GetName() != after.GetName() {
		return invalid(violation("name", "the name cannot be changed: create a service "+after.GetName()+" and remove "+before.GetName(), field("spec"), field("name")))
	}
	if (before.GetGlobal() == nil) != (after.GetGlobal() == nil) {
		return invalid(violation("mode", "a service cannot be changed between replicated and global: remove it and create it anew", field("spec"), field("mode")))
	}
	return nil
}

// DeleteService implements warrenv1connect.ServiceServiceHandler.
func (h *serviceService) DeleteService(ctx context.Context, req *connect.Request[warrenv1.DeleteServiceRequest]) (*connect.Response[warrenv1.DeleteServiceResponse], error) {
	var removing *warrenv1.Service
	err := h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) error {
		service, err := FindService(s, req.Msg.GetRef())
		if err != nil {
			return err
		}
		if removing = service; service.GetRemoving() {
			return nil
		}
		state.Update(t, service, func(after *warrenv1.Service) {
			after.Removing, after.WrittenAt = true, 0
			removing = after
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.DeleteServiceResponse{Service: reread(h.store.Snapshot(), removing)}), nil
}

// WatchService implements warrenv1connect.ServiceServiceHandler.
func (h *serviceService) WatchService(ctx context.Context, req *connect.Request[warrenv1.WatchServiceRequest], stream *connect.ServerStream[warrenv1.WatchServiceResponse]) error {
	service, err := FindService(h.store.Snapshot(), req.Msg.GetRef())
	if err != nil {
		return err
	}
	var sent *warrenv1.WatchServiceResponse
	for {
		// A feed is held only while waiting: one held while a slow caller reads would keep every commit
		// since in memory.
		s, feed := h.store.Watch()
		now := observe(s, service)
		for proto.Equal(now, sent) {
			batch, err := feed.Next(ctx)
			if err != nil {
				return err
			}
			if batch.Reset || concerns(batch.Changes, service) {
				now = observe(batch.Snapshot, service)
			}
		}
		if err := stream.Send(now); err != nil {
			return err
		}
		if now.GetRemoved() {
			return nil
		}
		service, sent = now.GetService(), now
	}
}

// observe tells what is to be told of a service in s; last is what it was before.
func observe(s state.Snapshot, last *warrenv1.Service) *warrenv1.WatchServiceResponse {
	service := s.Service(last.GetMeta().GetId())
	if service == nil {
		return &warrenv1.WatchServiceResponse{Service: last, Progress: &warrenv1.ServiceProgress{Converged: true}, Removed: true}
	}
	return &warrenv1.WatchServiceResponse{Service: service, Progress: progress.Of(s, service)}
}

// concerns tells whether changes have bearing on the progress of a service: nodes count, as its tasks may have to leave them.
func concerns(changes []state.Change, service *warrenv1.Service) bool {
	of := func(o state.Object) bool {
		switch o := o.(type) {
		case *warrenv1.Service:
			return o.GetMeta().GetId() == service.GetMeta().GetId()
		case *warrenv1.Task:
			return o.GetServiceId() == service.GetMeta().GetId()
		case *warrenv1.Node:
			return true
		}
		return false
	}
	for _, c := range changes {
		if of(c.Before) || of(c.After) {
			return true
		}
	}
	return false
}
