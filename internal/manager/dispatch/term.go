package dispatch

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/liveness"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const sessionBroke = "its agent's session broke"

// term is one period of leadership with the sessions held in it. A node has at most one.
type term struct {
	ctx       context.Context // ends with the term
	store     *state.Store
	proposer  loop.Proposer
	registrar *registrar
	// withdrawals are the tasks that are to stop once no node sends them connections any more.
	withdrawals *withdrawals
	directory   func(state.Snapshot) *warrenv1.Directory
	observer    Observer // nil for none
	logger      *slog.Logger
	clerks      sync.WaitGroup // the goroutines that write reports

	mu       sync.Mutex
	over     bool
	sessions map[string]*session // by node
	// The nodes that were ready when the term began and have not come yet; closed when they come or are
	// given up.
	absent map[string]chan struct{}
	// lapsed are the nodes whose sessions have ended in this term, and when: their agents may be about to come back.
	lapsed map[string]time.Time
}

func newTerm(ctx context.Context, s state.Snapshot, d *Dispatcher) *term {
	t := &term{
		ctx: ctx, store: d.store, proposer: d.proposer, directory: d.directory, observer: d.observer, logger: d.logger,
		registrar: newRegistrar(d.store, d.proposer, d.logger),
		sessions:  map[string]*session{}, absent: map[string]chan struct{}{}, lapsed: map[string]time.Time{},
	}
	t.withdrawals = &withdrawals{term: t, tasks: map[string]*withdrawal{}}
	for n := range s.Nodes() {
		if n.GetStatus().GetState() == warrenv1.NodeState_NODE_STATE_READY {
			t.absent[n.GetMeta().GetId()] = make(chan struct{})
		}
	}
	return t
}

// serve holds an agent's session from its hello to its end.
func (t *term) serve(ctx context.Context, w wire, hello *warrenv1.Hello, cluster *warrenv1.Cluster, who caller.Caller) error {
	s, entered := t.enter(hello, who)
	if s == nil {
		return notLeading()
	}
	// Whatever ends it without a better account of the node was a broken stream.
	defer func() { t.leave(s, nil, unknown(time.Now(), sessionBroke)) }()
	select {
	case <-entered.done:
		if errors.Is(entered.err, authority.ErrRemoved) {
			return outcast()
		}
		if entered.err != nil {
			return connect.NewError(connect.CodeUnavailable, entered.err)
		}
	case <-s.ended:
		return s.cause
	case <-ctx.Done():
		return ctx.Err()
	}
	interval := t.interval()
	if err := w.Send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Welcome{Welcome: &warrenv1.Welcome{
		ClusterId: cluster.GetMeta().GetId(), HeartbeatInterval: durationpb.New(interval),
	}}}); err != nil {
		return err
	}
	s.pulse.start(interval, func(last time.Time) {
		t.leave(s, connect.NewError(connect.CodeDeadlineExceeded, errors.New("nothing heard of the agent for too long")),
			unknown(last, "its agent has fallen silent"))
	})
	defer s.pulse.stop()
	go t.listen(s, w) // ends with the handler at the latest: see wire
	return s.send(w)
}

// enter makes a session the node's one, and has the node written as ready.
func (t *term) enter(hello *warrenv1.Hello, who caller.Caller) (*session, *entry) {
	node, addr := hello.GetNodeId(), who.Addr
	if host, _, err := net.SplitHostPort(addr); err == nil {
		addr = host // the port changes with every connection
	}
	s := newSession(t, node)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return nil, nil
	}
	if before := t.sessions[node]; before != nil {
		before.end(connect.NewError(connect.CodeAborted, errors.New("the node's agent has opened another session")))
	}
	t.sessions[node] = s
	delete(t.lapsed, node)
	if awaited := t.absent[node]; awaited != nil {
		close(awaited)
		delete(t.absent, node)
	}
	t.logger.Info("node connected", "node", node, "hostname", hello.GetFacts().GetHostname(), "addr", addr)
	return s, t.registrar.put(node, entry{
		state: warrenv1.NodeState_NODE_STATE_READY, addr: addr, facts: hello.GetFacts(),
		certificate: certificate{who.Issuer, who.Expires}, join: true,
	})
}

// leave ends s for that cause. Where s still was its node's session, the node is written as e says.
func (t *term) leave(s *session, cause error, e entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions[s.node] == s {
		delete(t.sessions, s.node)
		t.lapsed[s.node] = time.Now()
		t.registrar.put(s.node, e)
		t.logger.Info("node disconnected", "node", s.node, "why", e.message)
	}
	s.end(cause)
}

func (t *term) session(node string) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sessions[node]
}

// interval is the heartbeat interval as of now.
func (t *term) interval() time.Duration {
	t.mu.Lock()
	sessions := len(t.sessions)
	t.mu.Unlock()
	return heartbeatInterval(t.store.Snapshot().Cluster(), sessions)
}

// listen takes in what the agent says.
func (t *term) listen(s *session, w wire) {
	for {
		m, err := w.Receive()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = connect.NewError(connect.CodeUnavailable, errors.New("the agent left without a goodbye"))
			}
			t.leave(s, err, unknown(time.Now(), sessionBroke))
			return
		}
		s.pulse.beat()
		switch m := m.GetMessage().(type) {
		case *warrenv1.AttendRequest_Heartbeat:
			if !s.answerHeartbeat() {
				t.leave(s, connect.NewError(connect.CodeUnavailable, errBusy), unknown(time.Now(), errBusy.Error()))
				return
			}
		case *warrenv1.AttendRequest_Report:
			t.note(s, m.Report)
		case *warrenv1.AttendRequest_Facts:
			t.update(s, m.Facts)
		case *warrenv1.AttendRequest_Overlay:
			t.updateOverlay(s, m.Overlay)
		case *warrenv1.AttendRequest_InForce:
			t.withdrawals.acknowledge(s, m.InForce.GetVersion())
		case *warrenv1.AttendRequest_Goodbye:
			t.leave(s, nil, entry{state: warrenv1.NodeState_NODE_STATE_DISCONNECTED, since: time.Now(), message: "its agent said goodbye"})
			return
		default:
			t.leave(s, connect.NewError(connect.CodeInvalidArgument, errors.New("a session has one hello, its first message")),
				unknown(time.Now(), sessionBroke))
			return
		}
	}
}

// update has new facts of the node written.
func (t *term) update(s *session, facts *warrenv1.NodeFacts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions[s.node] == s {
		t.registrar.put(s.node, entry{state: warrenv1.NodeState_NODE_STATE_READY, facts: facts})
	}
}

// renewed has a new certificate of the node's agent written.
func (t *term) renewed(node string, c certificate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions[node] != nil {
		t.registrar.renew(node, c)
	}
}

// follow marks in each session what its node must hear of. It never waits for a session.
func (t *term) follow(feed *state.Feed) error {
	for {
		batch, err := feed.Next(t.ctx)
		if err != nil {
			return err
		}
		if batch.Reset {
			t.each(func(s *session) {
				s.markAll()
				s.markDirectory()
				s.markNews(allNews())
			})
		}
		for _, c := range batch.Changes {
			t.observe(batch.Snapshot, c)
		}
	}
}

func (t *term) observe(now state.Snapshot, c state.Change) {
	t.observeNetwork(c)
	object := c.After
	if object == nil {
		object = c.Before
	}
	switch key := state.KeyOf(object); key.Table {
	case statev1.Table_TABLE_TASK:
		// A task keeps its node once it has one, so the later of the two knows it.
		if node := object.(*warrenv1.Task).GetNodeId(); node != "" && newsToAgent(c) {
			if s := t.session(node); s != nil {
				s.mark(key.ID)
			}
		}
	case statev1.Table_TABLE_REVISION:
		t.observeRevision(now, c)
	case statev1.Table_TABLE_NODE:
		// Its agent may be back already, as a new node.
		if s := t.session(key.ID); s != nil && c.After == nil && now.Node(key.ID) == nil {
			t.expel(s)
		}
	case statev1.Table_TABLE_MEMBER:
		t.each(func(s *session) { s.markDirectory() })
	case statev1.Table_TABLE_AUTHORITY:
		var removed []*session
		t.each(func(s *session) {
			s.markDirectory()
			if authority.IsRemoved(now.Authority(), s.node) {
				removed = append(removed, s)
			}
		})
		for _, s := range removed {
			t.expel(s)
		}
	}
}

// observeRevision marks the tasks that do not run yet of a revision whose image has come to be known: they are to run that.
func (t *term) observeRevision(now state.Snapshot, c state.Change) {
	before, _ := c.Before.(*warrenv1.Revision)
	after, _ := c.After.(*warrenv1.Revision)
	if after == nil || before.GetImageDigest() == after.GetImageDigest() {
		return
	}
	for task := range now.TasksByService(after.GetServiceId()) {
		if task.GetRevision() != after.GetNumber() || !assigned(task) || task.GetStatus().GetState() >= warrenv1.TaskState_TASK_STATE_RUNNING {
			continue
		}
		if s := t.session(task.GetNodeId()); s != nil {
			s.mark(task.GetMeta().GetId())
		}
	}
}

// expel ends the session of a node that was removed.
func (t *term) expel(s *session) {
	t.leave(s, outcast(), unknown(time.Now(), "it was removed from the cluster"))
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.lapsed, s.node)
	t.withdrawals.forget(s.node)
}

func outcast() error { return connect.NewError(connect.CodeUnauthenticated, authority.ErrRemoved) }

func (t *term) each(f func(*session)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sessions {
		f(s)
	}
}

// await waits until a node that is expected back has come or is given up.
func (t *term) await(ctx context.Context, node string) {
	t.mu.Lock()
	awaited := t.absent[node]
	t.mu.Unlock()
	if awaited == nil {
		return
	}
	select {
	case <-awaited:
	case <-ctx.Done():
	case <-t.ctx.Done():
	}
}

// giveUpOnAbsent gives the nodes that were ready when the term began time to come to this manager.
// Those that have not come by then are unknown, since the beginning of the term.
func (t *term) giveUpOnAbsent(c *warrenv1.Cluster) error {
	began := time.Now()
	t.mu.Lock()
	nodes := len(t.absent)
	t.mu.Unlock()
	timer := time.NewTimer(max(liveness.NodeGrace(c.GetSpec()), silenceLimit(heartbeatInterval(c, nodes))))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.ctx.Done():
		return t.ctx.Err()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for node, awaited := range t.absent {
		t.registrar.put(node, unknown(began, "its agent has not come to the new leader"))
		close(awaited)
		t.withdrawals.forget(node)
	}
	clear(t.absent)
	return nil
}

// close ends every session and waits for what is being written.
func (t *term) close() {
	t.mu.Lock()
	t.over = true
	for _, s := range t.sessions {
		s.end(notLeading())
	}
	clear(t.sessions)
	t.withdrawals.end()
	t.mu.Unlock()
	t.clerks.Wait()
}
