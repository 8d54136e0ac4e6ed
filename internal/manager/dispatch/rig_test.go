package dispatch

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// certificateEnd is when the agents' certificates expire.
var certificateEnd = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// rig is a dispatcher over a store without raft, in a bubble of virtual time.
type rig struct {
	t        *testing.T
	store    *state.Store
	proposer *statetest.Proposer
	d        *Dispatcher
	stop     func() error // ends leadership and returns what Run returned
}

func newRig(t *testing.T, objects ...state.Object) *rig {
	return newRigWith(t, nil, objects...)
}

// newRigWith lets the dispatcher propose through a proposer of its own making.
func newRigWith(t *testing.T, wrap func(loop.Proposer) loop.Proposer, objects ...state.Object) *rig {
	t.Helper()
	store := statetest.New(t, withNodes(append([]state.Object{statetest.Cluster()}, objects...))...)
	r := &rig{t: t, store: store, proposer: statetest.NewProposer(store)}
	var proposer loop.Proposer = r.proposer
	if wrap != nil {
		proposer = wrap(proposer)
	}
	r.d = New(store, proposer, slog.New(slog.DiscardHandler))
	r.lead()
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// withNodes adds the nodes that tasks are on and that are not there, silent so far.
func withNodes(objects []state.Object) []state.Object {
	known := map[string]bool{"": true}
	for _, o := range objects {
		if n, ok := o.(*warrenv1.Node); ok {
			known[n.GetMeta().GetId()] = true
		}
	}
	for _, o := range slices.Clone(objects) {
		if t, ok := o.(*warrenv1.Task); ok && !known[t.GetNodeId()] {
			known[t.GetNodeId()] = true
			objects = append(objects, statetest.Node(t.GetNodeId(), func(n *warrenv1.Node) {
				n.Status.State = warrenv1.NodeState_NODE_STATE_UNKNOWN
			}))
		}
	}
	return objects
}

// lead makes the dispatcher serve until stop.
func (r *rig) lead() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.d.Run(ctx) }()
	synctest.Wait()
	r.stop = func() error {
		cancel()
		err := <-ended
		ended <- err // for whoever stops it again
		return err
	}
}

// node returns what the state says of a node.
func (r *rig) node(id string) *warrenv1.Node { return r.store.Snapshot().Node(id) }

// edit changes a task as a control loop would.
func (r *rig) edit(task string, f func(*warrenv1.Task)) {
	r.t.Helper()
	transaction := state.New(time.Now())
	state.Update(transaction, r.store.Snapshot().Task(task), f)
	statetest.Commit(r.t, r.proposer, transaction)
}

// agent is the other end of a session.
type agent struct {
	t    *testing.T
	node string
	out  chan *warrenv1.AttendRequest
	in   chan *warrenv1.AttendResponse
	// network is what it is sent of the network, apart from all else.
	network chan *warrenv1.AttendResponse
	ctx     context.Context
	hangUp  context.CancelFunc
	done    chan struct{} // the handler has returned, for the reason in err
	err     error
}

// Receive implements wire.
func (a *agent) Receive() (*warrenv1.AttendRequest, error) {
	select {
	case m := <-a.out:
		return m, nil
	case <-a.ctx.Done():
		return nil, io.ErrUnexpectedEOF
	case <-a.done:
		return nil, io.ErrClosedPipe
	}
}

// Send implements wire.
func (a *agent) Send(m *warrenv1.AttendResponse) error {
	in := a.in
	if m.GetNetwork() != nil || m.GetPeers() != nil || m.GetEndpoints() != nil {
		in = a.network
	}
	select {
	case in <- m:
		return nil
	case <-a.ctx.Done():
		return io.ErrUnexpectedEOF
	}
}

// dial opens a session and says hello.
func (r *rig) dial(node string, edits ...func(*warrenv1.Hello)) *agent {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a := &agent{
		t: r.t, node: node, ctx: ctx, hangUp: cancel, done: make(chan struct{}),
		out: make(chan *warrenv1.AttendRequest), in: make(chan *warrenv1.AttendResponse, 64),
		network: make(chan *warrenv1.AttendResponse, 256),
	}
	go func() {
		a.err = r.d.attend(ctx, a, caller.Caller{Addr: "192.0.2.1:5", Issuer: "ca", Expires: certificateEnd})
		close(a.done)
	}()
	r.t.Cleanup(func() {
		a.hangUp()
		<-a.done
	})
	hello := &warrenv1.Hello{NodeId: node, Facts: statetest.Node(node).GetFacts()}
	for _, edit := range edits {
		edit(hello)
	}
	a.say(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Hello{Hello: hello}})
	return a
}

// join is dial that also reads the welcome and an empty full set.
func (r *rig) join(node string) *agent {
	r.t.Helper()
	a := r.dial(node)
	a.welcome()
	a.assignments()
	return a
}

func (a *agent) say(m *warrenv1.AttendRequest) {
	a.t.Helper()
	select {
	case a.out <- m:
	case <-a.done:
		a.t.Fatalf("the session has ended: %v", a.err)
	}
	synctest.Wait()
}

func (a *agent) heartbeat() {
	a.t.Helper()
	a.say(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Heartbeat{Heartbeat: &warrenv1.Heartbeat{}}})
}

func (a *agent) goodbye() {
	a.t.Helper()
	a.say(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Goodbye{Goodbye: &warrenv1.Goodbye{}}})
}

func (a *agent) report(reports ...*warrenv1.TaskReport) {
	a.t.Helper()
	a.say(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Report{Report: &warrenv1.StatusReport{Tasks: reports}}})
}

// hear returns the next message to the agent.
func (a *agent) hear() *warrenv1.AttendResponse {
	a.t.Helper()
	select {
	case m := <-a.in:
		return m
	case <-a.done:
		a.t.Fatalf("the session has ended: %v", a.err)
		return nil
	}
}

func (a *agent) welcome() *warrenv1.Welcome {
	a.t.Helper()
	m := a.hear()
	if m.GetWelcome() == nil {
		a.t.Fatalf("got %v instead of a welcome", m)
	}
	return m.GetWelcome()
}

func (a *agent) assignments() *warrenv1.Assignments {
	a.t.Helper()
	m := a.hear()
	if m.GetAssignments() == nil {
		a.t.Fatalf("got %v instead of assignments", m)
	}
	return m.GetAssignments()
}

// hearsNothing fails the test where something is on its way to the agent.
func (a *agent) hearsNothing() {
	a.t.Helper()
	synctest.Wait()
	select {
	case m := <-a.in:
		a.t.Fatalf("the agent was sent %v", m)
	default:
	}
}

func observed(task string, attempt uint32, s warrenv1.TaskState, since time.Time, message string) *warrenv1.TaskReport {
	return &warrenv1.TaskReport{TaskId: task, Status: &warrenv1.TaskStatus{
		Attempt: attempt, State: s, Since: timestamppb.New(since), Message: message,
	}}
}
