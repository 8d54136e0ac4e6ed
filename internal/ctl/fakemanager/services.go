package fakemanager

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

type clusterService struct {
	warrenv1connect.UnimplementedClusterServiceHandler
	m *Manager
}

func (h clusterService) InitCluster(_ context.Context, req *connect.Request[warrenv1.InitClusterRequest]) (*connect.Response[warrenv1.InitClusterResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.m.cluster != nil {
		return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("this manager is already part of a cluster"))
	}
	h.m.cluster = &warrenv1.Cluster{Meta: h.m.meta("cluster"), Spec: proto.CloneOf(req.Msg.GetSpec())}
	if err := h.m.found(); err != nil {
		return nil, err
	}
	res := &warrenv1.InitClusterResponse{Cluster: proto.CloneOf(h.m.cluster), AgentAddr: "127.0.0.1:7401"}
	if h.m.autolock(); h.m.cluster.GetSpec().GetAutolock() {
		res.UnlockKey = h.m.unlockKey.Text()
	}
	return connect.NewResponse(res), nil
}

func (h clusterService) GetCluster(context.Context, *connect.Request[warrenv1.GetClusterRequest]) (*connect.Response[warrenv1.GetClusterResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.initialised(); err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.GetClusterResponse{
		Cluster:  proto.CloneOf(h.m.cluster),
		Managers: []*warrenv1.Manager{{Id: "m1", Addr: h.m.passes.addr, Leader: true}},
		Nodes:    uint32(len(h.m.nodes)), NodesReady: uint32(len(h.m.nodes)), Services: uint32(len(h.m.services)), Tasks: uint32(len(h.m.tasks)),
	}), nil
}

func (h clusterService) UpdateCluster(_ context.Context, req *connect.Request[warrenv1.UpdateClusterRequest]) (*connect.Response[warrenv1.UpdateClusterResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.mayUpdate(req.Msg.GetVersion(), h.m.cluster.GetMeta()); err != nil {
		return nil, err
	}
	h.m.cluster.Spec = proto.CloneOf(req.Msg.GetSpec())
	h.m.autolock()
	h.m.touch(h.m.cluster.GetMeta())
	return connect.NewResponse(&warrenv1.UpdateClusterResponse{Cluster: proto.CloneOf(h.m.cluster)}), nil
}

func (h clusterService) GetVersion(context.Context, *connect.Request[warrenv1.GetVersionRequest]) (*connect.Response[warrenv1.GetVersionResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	return connect.NewResponse(&warrenv1.GetVersionResponse{
		Version: "1.2.3", Commit: "abc1234", GoVersion: "go1.26.8", Platform: "linux/amd64", Initialized: h.m.cluster != nil,
	}), nil
}

// mayUpdate checks the version an update was made from.
func (m *Manager) mayUpdate(version uint64, meta *warrenv1.Meta) error {
	if m.conflict > 0 {
		m.conflict--
		m.touch(meta)
	}
	if version != 0 && version != meta.GetVersion() {
		return connect.NewError(connect.CodeAborted, fmt.Errorf("it has changed since version %d", version))
	}
	return nil
}

type serviceService struct{ m *Manager }

// label is what DNS takes as one part of a name. Managers check it as this does, without a rule in the proto.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

func checkName(name string) error {
	if label.MatchString(name) {
		return nil
	}
	broken := connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("spec.name: must be a DNS label"))
	detail, err := connect.NewErrorDetail(&validate.Violations{Violations: []*validate.Violation{{
		Field:   &validate.FieldPath{Elements: []*validate.FieldPathElement{{FieldName: new("spec")}, {FieldName: new("name")}}},
		Message: new("must be a DNS label"),
	}}})
	if err != nil {
		return err
	}
	broken.AddDetail(detail)
	return broken
}

func (h serviceService) CreateService(_ context.Context, req *connect.Request[warrenv1.CreateServiceRequest]) (*connect.Response[warrenv1.CreateServiceResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.initialised(); err != nil {
		return nil, err
	}
	spec := proto.CloneOf(req.Msg.GetSpec())
	if err := checkName(spec.GetName()); err != nil {
		return nil, err
	}
	if _, err := h.m.service(spec.GetName()); err == nil {
		return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("service %q exists already", spec.GetName()))
	}
	s := &warrenv1.Service{Meta: h.m.meta("service"), Spec: spec, Revision: 1}
	if err := h.m.attach(s); err != nil {
		return nil, err
	}
	h.m.services = append(h.m.services, s)
	h.m.revise(s)
	h.m.tell(warrenv1.EventObject_EVENT_OBJECT_SERVICE, s.GetMeta().GetId(), spec.GetName(), "created", "")
	h.m.reconcile(s)
	h.m.touch(s.GetMeta())
	var warnings []string
	if len(spec.GetPlacement().GetConstraints()) > 0 {
		warnings = append(warnings, "no node meets the constraint "+spec.GetPlacement().GetConstraints()[0])
	}
	return connect.NewResponse(&warrenv1.CreateServiceResponse{Service: proto.CloneOf(s), Warnings: warnings}), nil
}

func (h serviceService) ListServices(_ context.Context, req *connect.Request[warrenv1.ListServicesRequest]) (*connect.Response[warrenv1.ListServicesResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.initialised(); err != nil {
		return nil, err
	}
	sorted := slices.SortedFunc(slices.Values(h.m.services), func(a, b *warrenv1.Service) int {
		return cmp.Compare(a.GetSpec().GetName(), b.GetSpec().GetName())
	})
	some, next := page(h.m, sorted, req.Msg.GetPageSize(), req.Msg.GetPageToken())
	res := &warrenv1.ListServicesResponse{NextPageToken: next}
	for _, s := range some {
		e := h.m.entry(s)
		e.Progress.Slots = nil
		res.Services = append(res.Services, e)
	}
	return connect.NewResponse(res), nil
}

func (h serviceService) GetService(_ context.Context, req *connect.Request[warrenv1.GetServiceRequest]) (*connect.Response[warrenv1.GetServiceResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	s, err := h.m.service(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.GetServiceResponse{Entry: h.m.entry(s)}), nil
}

func (h serviceService) UpdateService(_ context.Context, req *connect.Request[warrenv1.UpdateServiceRequest]) (*connect.Response[warrenv1.UpdateServiceResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	s, err := h.m.service(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	if err := h.m.mayUpdate(req.Msg.GetVersion(), s.GetMeta()); err != nil {
		return nil, err
	}
	changed := proto.CloneOf(s)
	changed.Spec = proto.CloneOf(req.Msg.GetSpec())
	if req.Msg.GetDryRun() {
		plan, err := h.m.plan(s, changed)
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(&warrenv1.UpdateServiceResponse{Service: changed, Plan: plan}), nil
	}
	if err := h.m.attach(changed); err != nil {
		return nil, err
	}
	was := s.GetSpec().GetTask()
	s.Spec, s.Endpoint = changed.Spec, changed.Endpoint
	rolls := !proto.Equal(was, s.GetSpec().GetTask())
	if rolls {
		h.m.revise(s)
		h.m.begin(s, false)
	}
	h.m.reconcile(s)
	h.m.touch(s.GetMeta())
	h.m.tell(warrenv1.EventObject_EVENT_OBJECT_SERVICE, s.GetMeta().GetId(), s.GetSpec().GetName(), "updated", "")
	answer := proto.CloneOf(s)
	if rolls {
		h.m.roll(s)
	}
	return connect.NewResponse(&warrenv1.UpdateServiceResponse{Service: answer}), nil
}

func (h serviceService) ScaleService(_ context.Context, req *connect.Request[warrenv1.ScaleServiceRequest]) (*connect.Response[warrenv1.ScaleServiceResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	s, err := h.m.service(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	if s.GetSpec().GetReplicated() == nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("service %q is global: its tasks follow its nodes", s.GetSpec().GetName()))
	}
	s.Spec.GetReplicated().Replicas = req.Msg.GetReplicas()
	h.m.reconcile(s)
	h.m.touch(s.GetMeta())
	return connect.NewResponse(&warrenv1.ScaleServiceResponse{Service: proto.CloneOf(s)}), nil
}

func (h serviceService) DeleteService(_ context.Context, req *connect.Request[warrenv1.DeleteServiceRequest]) (*connect.Response[warrenv1.DeleteServiceResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	s, err := h.m.service(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	s.Removing = true
	h.m.touch(s.GetMeta())
	of := func(t *warrenv1.Task) bool { return t.GetServiceId() == s.GetMeta().GetId() }
	h.m.tasks = slices.DeleteFunc(h.m.tasks, of)
	h.m.services = slices.DeleteFunc(h.m.services, func(o *warrenv1.Service) bool { return o == s })
	h.m.bump()
	return connect.NewResponse(&warrenv1.DeleteServiceResponse{Service: proto.CloneOf(s)}), nil
}

func (h serviceService) WatchService(ctx context.Context, req *connect.Request[warrenv1.WatchServiceRequest], stream *connect.ServerStream[warrenv1.WatchServiceResponse]) error {
	for first := true; ; first = false {
		changed, cut := h.m.wait()
		h.m.mu.Lock()
		s, err := h.m.service(req.Msg.GetRef())
		var e *warrenv1.ServiceEntry
		if err == nil {
			e = h.m.entry(s)
		}
		h.m.mu.Unlock()
		switch {
		case err != nil && first:
			return err
		case err != nil:
			return stream.Send(&warrenv1.WatchServiceResponse{Removed: true})
		}
		if err := stream.Send(&warrenv1.WatchServiceResponse{Service: e.GetService(), Progress: e.GetProgress()}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-cut:
			return streamEnd(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

type taskService struct{ m *Manager }

func (m *Manager) taskEntry(t *warrenv1.Task) *warrenv1.TaskEntry {
	return proto.CloneOf(&warrenv1.TaskEntry{
		Task: t, NodeHostname: m.hostname(t.GetNodeId()), Image: m.specs[t.GetMeta().GetId()].GetContainer().GetImage(),
	})
}

func (h taskService) ListTasks(_ context.Context, req *connect.Request[warrenv1.ListTasksRequest]) (*connect.Response[warrenv1.ListTasksResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	service, node := "", ""
	if ref := req.Msg.GetService(); ref != "" {
		s, err := h.m.service(ref)
		if err != nil {
			return nil, err
		}
		service = s.GetMeta().GetId()
	}
	if ref := req.Msg.GetNode(); ref != "" {
		n, err := h.m.node(ref)
		if err != nil {
			return nil, err
		}
		node = n.GetMeta().GetId()
	}
	all := slices.Clone(h.m.tasks)
	slices.Reverse(all)
	all = slices.DeleteFunc(all, func(t *warrenv1.Task) bool {
		return service != "" && t.GetServiceId() != service || node != "" && t.GetNodeId() != node ||
			req.Msg.GetRunningOnly() && t.GetDesired() != warrenv1.DesiredState_DESIRED_STATE_RUNNING
	})
	some, next := page(h.m, all, req.Msg.GetPageSize(), req.Msg.GetPageToken())
	res := &warrenv1.ListTasksResponse{NextPageToken: next}
	for _, t := range some {
		res.Tasks = append(res.Tasks, h.m.taskEntry(t))
	}
	return connect.NewResponse(res), nil
}

func (h taskService) GetTask(_ context.Context, req *connect.Request[warrenv1.GetTaskRequest]) (*connect.Response[warrenv1.GetTaskResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	t, err := h.m.task(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.GetTaskResponse{Entry: h.m.taskEntry(t), Spec: proto.CloneOf(h.m.specs[t.GetMeta().GetId()])}), nil
}

type nodeService struct{ m *Manager }

func (m *Manager) nodeEntry(n *warrenv1.Node) *warrenv1.NodeEntry {
	e := &warrenv1.NodeEntry{Node: n, Reserved: &warrenv1.Resources{}}
	for _, t := range m.tasks {
		if t.GetNodeId() != n.GetMeta().GetId() || t.GetStatus().GetState() >= warrenv1.TaskState_TASK_STATE_COMPLETE {
			continue
		}
		e.Tasks++
		e.Reserved.NanoCpus += m.specs[t.GetMeta().GetId()].GetReservations().GetNanoCpus()
		e.Reserved.MemoryBytes += m.specs[t.GetMeta().GetId()].GetReservations().GetMemoryBytes()
	}
	return proto.CloneOf(e)
}

func (h nodeService) ListNodes(_ context.Context, req *connect.Request[warrenv1.ListNodesRequest]) (*connect.Response[warrenv1.ListNodesResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	some, next := page(h.m, h.m.nodes, req.Msg.GetPageSize(), req.Msg.GetPageToken())
	res := &warrenv1.ListNodesResponse{NextPageToken: next}
	for _, n := range some {
		res.Nodes = append(res.Nodes, h.m.nodeEntry(n))
	}
	return connect.NewResponse(res), nil
}

func (h nodeService) GetNode(_ context.Context, req *connect.Request[warrenv1.GetNodeRequest]) (*connect.Response[warrenv1.GetNodeResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	n, err := h.m.node(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.GetNodeResponse{Entry: h.m.nodeEntry(n)}), nil
}

func (h nodeService) UpdateNode(_ context.Context, req *connect.Request[warrenv1.UpdateNodeRequest]) (*connect.Response[warrenv1.UpdateNodeResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	n, err := h.m.node(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	if err := h.m.mayUpdate(req.Msg.GetVersion(), n.GetMeta()); err != nil {
		return nil, err
	}
	n.Spec = proto.CloneOf(req.Msg.GetSpec())
	if within := req.Msg.GetDrainWithin(); within != nil {
		n.Spec.DrainDeadline = timestamppb.New(time.Now().Add(within.AsDuration()))
	}
	for _, s := range h.m.services {
		h.m.reconcile(s)
	}
	h.m.touch(n.GetMeta())
	h.m.tell(warrenv1.EventObject_EVENT_OBJECT_NODE, n.GetMeta().GetId(), n.GetFacts().GetHostname(), "updated", "")
	return connect.NewResponse(&warrenv1.UpdateNodeResponse{Node: proto.CloneOf(n)}), nil
}

func (h nodeService) DeleteNode(_ context.Context, req *connect.Request[warrenv1.DeleteNodeRequest]) (*connect.Response[warrenv1.DeleteNodeResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	n, err := h.m.node(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	if n.GetStatus().GetState() != warrenv1.NodeState_NODE_STATE_DOWN && !req.Msg.GetForce() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("node %s is ready: stop its agent first, or remove it with --force", n.GetFacts().GetHostname()))
	}
	h.m.nodes = slices.DeleteFunc(h.m.nodes, func(o *warrenv1.Node) bool { return o == n })
	h.m.tell(warrenv1.EventObject_EVENT_OBJECT_NODE, n.GetMeta().GetId(), n.GetFacts().GetHostname(), "removed", "")
	h.m.bump()
	return connect.NewResponse(&warrenv1.DeleteNodeResponse{Node: proto.CloneOf(n)}), nil
}

type logService struct{ m *Manager }

func (h logService) StreamLogs(ctx context.Context, req *connect.Request[warrenv1.StreamLogsRequest], stream *connect.ServerStream[warrenv1.StreamLogsResponse]) error {
	tasks, err := h.tasks(req.Msg)
	if err != nil {
		return err
	}
	sel := req.Msg.GetSelection()
	for sent, first := 0, true; ; first = false {
		changed, cut := h.m.wait()
		h.m.mu.Lock()
		fresh := slices.Clone(h.m.lines[sent:])
		sent = len(h.m.lines)
		h.m.mu.Unlock()
		fresh = slices.DeleteFunc(fresh, func(l *warrenv1.LogLine) bool {
			at := l.GetTime().AsTime()
			return !tasks[l.GetTaskId()] || sel.GetSince() != nil && at.Before(sel.GetSince().AsTime()) ||
				sel.GetUntil() != nil && !at.Before(sel.GetUntil().AsTime())
		})
		if first && sel != nil && sel.Tail != nil {
			fresh = tail(fresh, int(sel.GetTail()))
		}
		if len(fresh) > 0 {
			if err := stream.Send(&warrenv1.StreamLogsResponse{Lines: fresh}); err != nil {
				return err
			}
		}
		if !sel.GetFollow() {
			return nil
		}
		select {
		case <-changed:
		case <-cut:
			return streamEnd(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (h logService) tasks(req *warrenv1.StreamLogsRequest) (map[string]bool, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if ref := req.GetTask(); ref != "" {
		t, err := h.m.task(ref)
		return map[string]bool{t.GetMeta().GetId(): true}, err
	}
	s, err := h.m.service(req.GetService())
	if err != nil {
		return nil, err
	}
	of := map[string]bool{}
	for _, t := range h.m.tasks {
		if t.GetServiceId() == s.GetMeta().GetId() {
			of[t.GetMeta().GetId()] = true
		}
	}
	return of, nil
}

// tail keeps the last n lines of each task.
func tail(lines []*warrenv1.LogLine, n int) []*warrenv1.LogLine {
	left := map[string]int{}
	for _, l := range lines {
		left[l.GetTaskId()]++
	}
	return slices.DeleteFunc(lines, func(l *warrenv1.LogLine) bool {
		left[l.GetTaskId()]--
		return left[l.GetTaskId()] >= n
	})
}

type eventService struct{ m *Manager }

func (h eventService) WatchEvents(ctx context.Context, req *connect.Request[warrenv1.WatchEventsRequest], stream *connect.ServerStream[warrenv1.WatchEventsResponse]) error {
	// The headers go now, as a manager's do.
	if err := stream.Send(nil); err != nil {
		return err
	}
	var over <-chan time.Time // never, unless there is an end
	if until := req.Msg.GetUntil(); until != nil {
		timer := time.NewTimer(time.Until(until.AsTime()))
		defer timer.Stop()
		over = timer.C
	}
	for sent := 0; ; {
		changed, cut := h.m.wait()
		h.m.mu.Lock()
		fresh := slices.Clone(h.m.events[sent:])
		sent = len(h.m.events)
		h.m.mu.Unlock()
		fresh = slices.DeleteFunc(fresh, func(e *warrenv1.Event) bool {
			return e.GetTime().AsTime().Before(req.Msg.GetSince().AsTime()) || !wanted(e, req.Msg)
		})
		if len(fresh) > 0 {
			if err := stream.Send(&warrenv1.WatchEventsResponse{Events: fresh}); err != nil {
				return err
			}
		}
		if req.Msg.GetNoFollow() {
			return nil
		}
		select {
		case <-changed:
		case <-over:
			return nil
		case <-cut:
			return streamEnd(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// wanted tells whether an event is one that is asked for. Services, nodes and tasks are asked for by name alone.
func wanted(e *warrenv1.Event, req *warrenv1.WatchEventsRequest) bool {
	service := ""
	if e.GetServiceId() != "" {
		service, _, _ = strings.Cut(e.GetObjectName(), ".")
	}
	task := ""
	if e.GetObject() == warrenv1.EventObject_EVENT_OBJECT_TASK {
		task = e.GetObjectName()
	}
	for _, c := range []struct {
		asked []string
		is    string
	}{{req.GetServices(), service}, {req.GetNodes(), e.GetNodeName()}, {req.GetTasks(), task}, {req.GetBy(), e.GetBy()}, {req.GetActions(), e.GetAction()}} {
		if len(c.asked) > 0 && !slices.Contains(c.asked, c.is) {
			return false
		}
	}
	return (len(req.GetObjects()) == 0 || slices.Contains(req.GetObjects(), e.GetObject())) &&
		(req.GetUntil() == nil || e.GetTime().AsTime().Before(req.GetUntil().AsTime()))
}
