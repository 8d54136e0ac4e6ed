package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// ErrNoSession says that a node's agent has no session with this manager.
var ErrNoSession = errors.New("its agent is not connected")

const (
	// helloTimeout bounds how long a stream may stay open without a hello.
	helloTimeout = 10 * time.Second
	// termTimeout bounds how long an agent waits for the term of a manager that has just been elected.
	termTimeout = time.Second
)

// Dispatcher serves the agents' sessions while this manager leads.
type Dispatcher struct {
	store    *state.Store
	proposer loop.Proposer
	logger   *slog.Logger
	// reachable are the addresses of managers where none has announced itself; nil for none.
	reachable func() []string
	observer  Observer // nil for none

	mu      sync.Mutex
	term    *term         // nil while Run is not running
	changed chan struct{} // closed at the next change of term
}

// Option changes what a dispatcher does.
type Option func(*Dispatcher)

// Reachable has agents told of managers at these addresses, host:port, as long as none has announced itself.
func Reachable(addrs func() []string) Option {
	return func(d *Dispatcher) { d.reachable = addrs }
}

// Observer is told what agents are sent; it must be quick.
type Observer interface {
	// Sent is told of assignments that have been sent, and the state that they are of.
	Sent(state.Snapshot, *warrenv1.Assignments)
}

// Observed has an observer told.
func Observed(by Observer) Option {
	return func(d *Dispatcher) { d.observer = by }
}

// New returns a dispatcher. It serves nobody until Run runs; agents that come before wait a little.
func New(store *state.Store, proposer loop.Proposer, logger *slog.Logger, options ...Option) *Dispatcher {
	d := &Dispatcher{store: store, proposer: proposer, logger: logger, changed: make(chan struct{})}
	for _, option := range options {
		option(d)
	}
	return d
}

// Run serves sessions until ctx ends or nothing can be written any more, which is when this manager
// stops leading. Then it ends every session, so that the agents look for the new leader. It must run
// at most once at a time, and never returns nil.
func (d *Dispatcher) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	snapshot, feed := d.store.Watch()
	t := newTerm(ctx, snapshot, d)
	group.Go(func() error { return t.follow(feed) })
	group.Go(func() error { return t.registrar.run(ctx) })
	group.Go(func() error { return t.giveUpOnAbsent(snapshot.Cluster()) })
	d.swap(t)
	err := group.Wait()
	d.swap(nil)
	t.close()
	return fmt.Errorf("dispatch: %w", err)
}

func (d *Dispatcher) swap(t *term) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.term = t
	close(d.changed)
	d.changed = make(chan struct{})
}

// current returns the term, nil where there is none, and what is closed when that changes.
func (d *Dispatcher) current() (*term, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.term, d.changed
}

// awaitTerm returns the term. Where there is none it waits a little for one: agents are at a new leader
// as soon as it is elected, and would else be sent away by the one they have been looking for.
func (d *Dispatcher) awaitTerm(ctx context.Context) *term {
	ctx, cancel := context.WithTimeout(ctx, termTimeout)
	defer cancel()
	for {
		t, changed := d.current()
		if t != nil {
			return t
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// Sessions counts the agents that have a session now.
func (d *Dispatcher) Sessions() int {
	t, _ := d.current()
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.sessions)
}

// Send queues m for the agent of a node and does not wait. The channel is closed when the session
// that took m has ended. It fails with ErrNoSession, or where the agent has not read what was queued
// before.
func (d *Dispatcher) Send(node string, m *warrenv1.AttendResponse) (ended <-chan struct{}, err error) {
	t, _ := d.current()
	if t == nil {
		return nil, ErrNoSession
	}
	s := t.session(node)
	if s == nil {
		return nil, ErrNoSession
	}
	if err := s.post(m); err != nil {
		return nil, err
	}
	return s.ended, nil
}

// Await waits while the agent of a node is expected back: the node was ready when this manager became
// leader, and its agent has not found its way here yet.
func (d *Dispatcher) Await(ctx context.Context, node string) {
	if t, _ := d.current(); t != nil {
		t.await(ctx, node)
	}
}

// Renewed has it written until when a node's agent was given a new certificate while its session goes on.
// Where it is of another CA than the old one, that counts only once the agent has shown it, in a session.
func (d *Dispatcher) Renewed(node string, expires time.Time) {
	t, _ := d.current()
	if t != nil {
		t.renewed(node, certificate{expires: expires})
	}
}

// Attend implements the procedure of warrenv1connect.SessionServiceHandler.
func (d *Dispatcher) Attend(ctx context.Context, stream *connect.BidiStream[warrenv1.AttendRequest, warrenv1.AttendResponse]) error {
	return d.attend(ctx, stream, caller.From(ctx))
}

// wire is the stream under a session. A blocked Receive returns once the handler has returned.
type wire interface {
	Receive() (*warrenv1.AttendRequest, error)
	Send(*warrenv1.AttendResponse) error
}

func (d *Dispatcher) attend(ctx context.Context, w wire, who caller.Caller) error {
	t := d.awaitTerm(ctx)
	if t == nil {
		return notLeading()
	}
	hello, err := receiveHello(ctx, w)
	if err != nil {
		return err
	}
	cluster := d.store.Snapshot().Cluster()
	if cluster == nil {
		return notLeading()
	}
	if claimed := hello.GetClusterId(); claimed != "" && claimed != cluster.GetMeta().GetId() {
		return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf(
			"node %s belongs to cluster %s, this manager to %s: give the agent the address of its own managers, or let it leave its cluster and join this one",
			hello.GetNodeId(), claimed, cluster.GetMeta().GetId()))
	}
	return t.serve(ctx, w, hello, cluster, who)
}

// receiveHello waits for a stream's first message.
func receiveHello(ctx context.Context, w wire) (*warrenv1.Hello, error) {
	type received struct {
		message *warrenv1.AttendRequest
		err     error
	}
	first := make(chan received, 1)
	go func() { // ends with the handler at the latest: see wire
		m, err := w.Receive()
		first <- received{m, err}
	}()
	timer := time.NewTimer(helloTimeout)
	defer timer.Stop()
	select {
	case r := <-first:
		if r.err != nil {
			return nil, r.err
		}
		hello := r.message.GetHello()
		if hello == nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a session's first message must be hello"))
		}
		return hello, nil
	case <-timer.C:
		return nil, connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("no hello within %v", helloTimeout))
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func notLeading() error {
	return connect.NewError(connect.CodeUnavailable, errors.New("this manager does not lead the cluster: try another, or again in a moment"))
}
