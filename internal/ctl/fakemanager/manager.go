package fakemanager

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/unlockkey"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// Manager is a manager in memory.
type Manager struct {
	server  *http.Server
	remote  *http.Server // over TLS
	serving sync.WaitGroup
	ca      *pki.CA

	mu        sync.Mutex
	pageLimit int
	index     uint64
	changed   chan struct{} // closed and replaced with every change
	cut       chan struct{} // closed and replaced to break open streams
	released  bool
	cluster   *warrenv1.Cluster
	nodes     []*warrenv1.Node
	networks  []*warrenv1.Network
	severed   map[string]bool // hostnames of nodes that the overlay does not reach
	silent    map[string]bool // and of those whose agents do not answer
	pruned    map[string]bool // and of those where nothing is unused any more
	services  []*warrenv1.Service
	tasks     []*warrenv1.Task // oldest first
	specs     map[string]*warrenv1.TaskSpec
	revisions []*warrenv1.Revision // oldest first
	stay      bool                 // tasks stay on drained nodes until Release
	lines     []*warrenv1.LogLine
	events    []*warrenv1.Event
	conflict  int
	rotations byte          // of join tokens
	unlockKey unlockkey.Key // while the cluster has autolock
	locked    bool
	passes    passes
	trust     *warrenv1.Trust
}

// discard is for what servers say of broken connections.
var discard = log.New(io.Discard, "", 0)

// Start serves a manager with two nodes, n1 and n2, on a unix socket, and to users with a certificate on a
// TCP port of this machine.
func Start(socket string) (*Manager, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "unix", socket)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		pageLimit: 1000,
		changed:   make(chan struct{}),
		cut:       make(chan struct{}),
		severed:   map[string]bool{},
		silent:    map[string]bool{},
		pruned:    map[string]bool{},
		specs:     map[string]*warrenv1.TaskSpec{},
		passes:    passes{credentials: pki.NewHolder(nil)},
	}
	if m.ca, err = pki.NewCA("fake", time.Now()); err != nil {
		return nil, err
	}
	m.networks = []*warrenv1.Network{{Meta: m.meta("network"), Spec: &warrenv1.NetworkSpec{Name: "default"}}}
	m.networks[0].Meta.Id = "default"
	m.index = 0 // ids of what follows are in the tests
	for i, host := range []string{"n1", "n2"} {
		m.nodes = append(m.nodes, &warrenv1.Node{
			Meta:   m.meta("node"),
			Spec:   &warrenv1.NodeSpec{},
			Status: &warrenv1.NodeStatus{State: warrenv1.NodeState_NODE_STATE_READY, Since: timestamppb.Now(), Addr: "127.0.0.1:9"},
			Facts: &warrenv1.NodeFacts{
				Hostname: host, Os: "linux", Arch: "amd64", Kernel: "6.1.0", AgentVersion: "1.2.3", CgroupVersion: 2,
				Resources: &warrenv1.Resources{NanoCpus: 4e9, MemoryBytes: 8 << 30},
			},
		})
		overlay(m.nodes[i], i)
	}
	options := connect.WithInterceptors(validate.NewInterceptor())
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewClusterServiceHandler(clusterService{m: m}, options))
	mux.Handle(warrenv1connect.NewManagerServiceHandler(managerService{m: m}, options))
	mux.Handle(warrenv1connect.NewTrustServiceHandler(trustService{m: m}, options))
	mux.Handle(warrenv1connect.NewServiceServiceHandler(serviceService{m}, options))
	mux.Handle(warrenv1connect.NewTaskServiceHandler(taskService{m}, options))
	mux.Handle(warrenv1connect.NewNodeServiceHandler(nodeService{m}, options))
	mux.Handle(warrenv1connect.NewNetworkServiceHandler(networkService{m}, options))
	mux.Handle(warrenv1connect.NewLogServiceHandler(logService{m}, options))
	mux.Handle(warrenv1connect.NewEventServiceHandler(eventService{m}, options))
	mux.Handle(warrenv1connect.NewExplainServiceHandler(explainService{m}, options))
	mux.Handle(warrenv1connect.NewSystemServiceHandler(systemService{m}, options))
	mux.Handle(warrenv1connect.NewUserServiceHandler(userService{m}, options))
	mux.Handle(warrenv1connect.NewMembershipServiceHandler(membershipService{m: m}, options))
	m.server = &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	m.server.Protocols.SetUnencryptedHTTP2(true)
	// Before anybody can call, as handlers look at where it listens.
	if err := m.serveTLS(mux); err != nil {
		_ = listener.Close()
		return nil, err
	}
	m.serving.Go(func() { _ = m.server.Serve(listener) }) // ends with Close
	return m, nil
}

// Close ends the manager and its connections.
func (m *Manager) Close() {
	_ = m.server.Close()
	if m.remote != nil {
		_ = m.remote.Close()
	}
	m.serving.Wait()
}

// BreakStreams ends all open streams as a manager that restarts does.
func (m *Manager) BreakStreams() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.cut)
	m.cut = make(chan struct{})
}

// Release lets the tasks of slow images go on to running.
func (m *Manager) Release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.released, m.stay = true, false
	for _, t := range m.tasks {
		if t.GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_PREPARING {
			m.settle(t)
		}
	}
	for _, s := range m.services {
		m.reconcile(s)
		m.roll(s)
		m.touch(s.GetMeta())
	}
	m.bump()
}

// LimitPages lets a page of a list hold at most n objects.
func (m *Manager) LimitPages(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pageLimit = n
}

// Conflict makes the next n updates fail because somebody else was faster.
func (m *Manager) Conflict(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conflict = n
}

// Write adds a line to the output of a task, named by service and slot.
func (m *Manager) Write(task string, stream warrenv1.OutputStream, line string, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.tasks {
		if m.taskName(t) == task {
			m.lines = append(m.lines, &warrenv1.LogLine{
				TaskId: t.GetMeta().GetId(), TaskName: task, NodeHostname: m.hostname(t.GetNodeId()),
				Time: timestamppb.New(at), Stream: stream, Line: []byte(line),
			})
		}
	}
	m.bump()
}

// wait returns what is closed with the next change, and what is closed when streams are broken.
func (m *Manager) wait() (<-chan struct{}, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed, m.cut
}

func (m *Manager) bump() {
	m.index++
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Manager) meta(kind string) *warrenv1.Meta {
	m.index++
	now := timestamppb.Now()
	return &warrenv1.Meta{Id: fmt.Sprintf("%s%0*d", kind, 16-len(kind), m.index), Version: m.index, CreatedAt: now, UpdatedAt: now}
}

func (m *Manager) touch(meta *warrenv1.Meta) {
	m.bump()
	meta.Version, meta.UpdatedAt = m.index, timestamppb.Now()
}

func (m *Manager) tell(object warrenv1.EventObject, id, name, action, message string) {
	// As managers word it: what it is about, its name, what happened, and why.
	what := strings.ToLower(strings.TrimPrefix(object.String(), "EVENT_OBJECT_")) + " " + name + " " + action
	if message != "" {
		what += ": " + message
	}
	e := &warrenv1.Event{
		Index: m.index, Time: timestamppb.Now(), Object: object, ObjectId: id, ObjectName: name, Action: action, Message: what,
	}
	switch object {
	case warrenv1.EventObject_EVENT_OBJECT_SERVICE: // tasks and nodes do by themselves what follows
		e.ServiceId, e.By = id, "anna"
	case warrenv1.EventObject_EVENT_OBJECT_NODE:
		e.NodeId, e.NodeName, e.By = id, name, "anna"
	case warrenv1.EventObject_EVENT_OBJECT_TASK:
		for _, t := range m.tasks {
			if t.GetMeta().GetId() == id {
				e.ServiceId, e.NodeId, e.NodeName = t.GetServiceId(), t.GetNodeId(), m.hostname(t.GetNodeId())
			}
		}
	}
	m.events = append(m.events, e)
}

func (m *Manager) hostname(nodeID string) string {
	for _, n := range m.nodes {
		if n.GetMeta().GetId() == nodeID {
			return n.GetFacts().GetHostname()
		}
	}
	return ""
}

func (m *Manager) taskName(t *warrenv1.Task) string {
	if t.GetSlot() == 0 {
		return t.GetServiceName() + "." + m.hostname(t.GetNodeId())
	}
	return fmt.Sprintf("%s.%d", t.GetServiceName(), t.GetSlot())
}

// find returns the one object that ref names.
func find[T any](all []T, ref, kind string, name, id func(T) string) (T, error) {
	var found []T
	for _, o := range all {
		if name(o) == ref || id(o) == ref {
			return o, nil
		}
		if strings.HasPrefix(id(o), ref) {
			found = append(found, o)
		}
	}
	var none T
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return none, connect.NewError(connect.CodeNotFound, fmt.Errorf("%s %q does not exist", kind, ref))
	default:
		return none, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q begins the ids of %d %ss: give more of it", ref, len(found), kind))
	}
}

func (m *Manager) service(ref string) (*warrenv1.Service, error) {
	return find(m.services, ref, "service",
		func(s *warrenv1.Service) string { return s.GetSpec().GetName() },
		func(s *warrenv1.Service) string { return s.GetMeta().GetId() })
}

func (m *Manager) node(ref string) (*warrenv1.Node, error) {
	return find(m.nodes, ref, "node",
		func(n *warrenv1.Node) string { return n.GetFacts().GetHostname() },
		func(n *warrenv1.Node) string { return n.GetMeta().GetId() })
}

// task finds a task; of a slot's the newest.
func (m *Manager) task(ref string) (*warrenv1.Task, error) {
	newest := slices.Clone(m.tasks)
	slices.Reverse(newest)
	return find(newest, ref, "task", m.taskName, func(t *warrenv1.Task) string { return t.GetMeta().GetId() })
}

// page cuts one page out of a list.
func page[T any](m *Manager, all []T, size uint32, token string) ([]T, string) {
	var from int
	_, _ = fmt.Sscan(token, &from) // an empty token is the first page
	limit := m.pageLimit
	if size > 0 {
		limit = min(limit, int(size))
	}
	to := min(len(all), from+limit)
	next := ""
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	return all[from:to], next
}

// reconcile makes the tasks of a service be what its spec says.
func (m *Manager) reconcile(s *warrenv1.Service) {
	wanted := map[string]bool{}
	if s.GetSpec().GetGlobal() != nil {
		for _, n := range m.usable() {
			wanted[m.ensure(s, 0, n)] = true
		}
	}
	usable := m.usable()
	for slot := uint32(1); slot <= s.GetSpec().GetReplicated().GetReplicas() && len(usable) > 0; slot++ {
		wanted[m.ensure(s, slot, usable[int(slot-1)%len(usable)])] = true
	}
	for _, t := range m.tasks {
		if t.GetServiceId() == s.GetMeta().GetId() && t.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING && !wanted[t.GetMeta().GetId()] {
			m.stop(t)
		}
	}
}

// usable are the nodes that take tasks.
func (m *Manager) usable() []*warrenv1.Node {
	return slices.DeleteFunc(slices.Clone(m.nodes), func(n *warrenv1.Node) bool {
		return n.GetSpec().GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN && !m.stay
	})
}

// ensure returns the id of a slot's task of the current revision, having made it if there was none.
func (m *Manager) ensure(s *warrenv1.Service, slot uint32, n *warrenv1.Node) string {
	for _, t := range m.tasks {
		if t.GetServiceId() == s.GetMeta().GetId() && t.GetSlot() == slot && t.GetNodeId() == n.GetMeta().GetId() &&
			t.GetRevision() == s.GetRevision() && t.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING {
			return t.GetMeta().GetId()
		}
	}
	t := &warrenv1.Task{
		Meta: m.meta("task"), ServiceId: s.GetMeta().GetId(), ServiceName: s.GetSpec().GetName(), Slot: slot,
		Revision: s.GetRevision(), NodeId: n.GetMeta().GetId(), Desired: warrenv1.DesiredState_DESIRED_STATE_RUNNING,
		Status: &warrenv1.TaskStatus{Attempt: 1},
	}
	m.specs[t.GetMeta().GetId()] = s.GetSpec().GetTask()
	m.tasks = append(m.tasks, t)
	m.settle(t)
	return t.GetMeta().GetId()
}

// settle brings a task to where its image lets it come.
func (m *Manager) settle(t *warrenv1.Task) {
	image, status := m.specs[t.GetMeta().GetId()].GetContainer().GetImage(), t.GetStatus()
	status.Since = timestamppb.Now()
	status.Message = ""
	switch {
	case strings.Contains(image, "missing"):
		status.State = warrenv1.TaskState_TASK_STATE_REJECTED
		status.Error = "pull " + image + ": not found"
	case strings.Contains(image, "crash"):
		status.State, status.Attempt = warrenv1.TaskState_TASK_STATE_STARTING, 3
		status.Error = "exit code 1"
		status.Exit = &warrenv1.TaskExit{Code: 1, At: timestamppb.Now(), LastOutput: "loading\nno database\n"}
	case strings.Contains(image, "slow") && !m.released:
		status.State = warrenv1.TaskState_TASK_STATE_PREPARING
		status.Message = "pull " + image + ": 34 %"
	case strings.Contains(image, "sick"):
		status.State = warrenv1.TaskState_TASK_STATE_RUNNING
		status.StartedAt = timestamppb.Now()
		status.Health = &warrenv1.TaskHealth{State: warrenv1.HealthState_HEALTH_STATE_UNHEALTHY, Since: timestamppb.Now(), Failures: 3, Output: "503 Service Unavailable"}
		status.Incidents = []*warrenv1.Incident{{At: timestamppb.Now(), Attempt: 1, Kind: warrenv1.IncidentKind_INCIDENT_KIND_UNHEALTHY, Message: "3 probes failed: 503 Service Unavailable"}}
	case strings.Contains(image, "once"):
		status.State = warrenv1.TaskState_TASK_STATE_COMPLETE
		status.Exit = &warrenv1.TaskExit{At: timestamppb.Now()}
	default:
		status.State = warrenv1.TaskState_TASK_STATE_RUNNING
		status.StartedAt = timestamppb.Now()
	}
	m.tellOf(t, cmp.Or(status.GetError(), "on "+m.hostname(t.GetNodeId())))
}

// tellOf tells what a task has come to, which makes another version of it unless it is new.
func (m *Manager) tellOf(t *warrenv1.Task, message string) {
	if t.GetMeta().GetVersion() != m.index {
		m.index++
		t.Meta.Version = m.index
	}
	m.tell(warrenv1.EventObject_EVENT_OBJECT_TASK, t.GetMeta().GetId(), m.taskName(t),
		strings.ToLower(strings.TrimPrefix(t.GetStatus().GetState().String(), "TASK_STATE_")), message)
}

func (m *Manager) stop(t *warrenv1.Task) {
	t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN
	if t.GetStatus().GetState() < warrenv1.TaskState_TASK_STATE_COMPLETE {
		t.Status.State, t.Status.Since = warrenv1.TaskState_TASK_STATE_SHUTDOWN, timestamppb.Now()
		m.tellOf(t, "was shut down")
	}
}

// progress counts a service's tasks.
func (m *Manager) progress(s *warrenv1.Service) *warrenv1.ServiceProgress {
	p := &warrenv1.ServiceProgress{Desired: s.GetSpec().GetReplicated().GetReplicas()}
	if s.GetSpec().GetGlobal() != nil {
		p.Desired = uint32(len(m.nodes))
	}
	for _, t := range m.tasks {
		if t.GetServiceId() != s.GetMeta().GetId() || t.GetDesired() != warrenv1.DesiredState_DESIRED_STATE_RUNNING {
			continue
		}
		if t.GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_RUNNING {
			p.Running++
			if t.GetRevision() == s.GetRevision() {
				p.Updated++
			}
			if t.GetStatus().GetHealth().GetState() == warrenv1.HealthState_HEALTH_STATE_UNHEALTHY {
				p.Unhealthy++
			} else {
				p.Serving++
			}
		} else if t.GetStatus().GetError() != "" {
			p.Reason, p.ReasonTaskId, p.ReasonAt = t.GetStatus().GetError(), t.GetMeta().GetId(), t.GetStatus().GetSince()
		}
		p.Slots = append(p.Slots, &warrenv1.SlotProgress{
			Slot: t.GetSlot(), NodeId: t.GetNodeId(), TaskId: t.GetMeta().GetId(), State: t.GetStatus().GetState(),
			Attempt: t.GetStatus().GetAttempt(), Current: t.GetRevision() == s.GetRevision(), Message: t.GetStatus().GetMessage(),
		})
	}
	p.Converged = p.GetRunning() == p.GetDesired() && p.GetUpdated() == p.GetDesired()
	return p
}

func (m *Manager) entry(s *warrenv1.Service) *warrenv1.ServiceEntry {
	return proto.CloneOf(&warrenv1.ServiceEntry{Service: s, Progress: m.progress(s)})
}

// initialised refuses what needs a cluster while there is none.
func (m *Manager) initialised() error {
	if m.locked {
		return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("this manager is locked: run `warrenctl cluster unlock` on its machine"))
	}
	if m.cluster == nil {
		return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("this manager is not part of a cluster: make one with `warrenctl cluster init`"))
	}
	return nil
}

// streamEnd is the error of a stream that was broken, or nil if its caller ended it.
func streamEnd(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the caller's own ending is no failure of the stream
	}
	return connect.NewError(connect.CodeUnavailable, fmt.Errorf("the manager is going down"))
}
