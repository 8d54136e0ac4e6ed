package simulation

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager/addressing"
	"github.com/cuemby/warren/internal/manager/dispatch"
	"github.com/cuemby/warren/internal/manager/liveness"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/replicas"
	"github.com/cuemby/warren/internal/manager/retention"
	"github.com/cuemby/warren/internal/manager/rollout"
	"github.com/cuemby/warren/internal/manager/scheduler"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// manager is the leading manager: now one process, now, after a fault, the next one, over the same state.
type manager struct {
	store      *state.Store
	proposer   loop.Proposer
	dispatcher *dispatch.Dispatcher
	newID      func() string
	resign     func() // ends leadership and waits; nil while nobody leads
}

func newManager(store *state.Store, proposer loop.Proposer, newID func() string) *manager {
	return &manager{
		store: store, proposer: proposer, newID: newID,
		dispatcher: dispatch.New(store, proposer, slog.New(slog.DiscardHandler)),
	}
}

// lead starts all that runs while a manager leads.
func (m *manager) lead() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	leading := time.Now()
	for _, l := range []loop.Loop{
		replicas.New(m.newID), rollout.New(m.newID, leading), scheduler.New(), liveness.New(leading), retention.New(), addressing.New(),
	} {
		running.Go(func() { _ = loop.Run(ctx, m.store, m.proposer, l, slog.New(slog.DiscardHandler)) })
	}
	running.Go(func() { _ = m.dispatcher.Run(ctx) })
	m.resign = func() {
		cancel()
		running.Wait()
		m.resign = nil
	}
}

// handler serves the agents' sessions.
func (m *manager) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewSessionServiceHandler(attendOnly{dispatcher: m.dispatcher}))
	return mux
}

// attendOnly serves Attend alone.
type attendOnly struct {
	warrenv1connect.UnimplementedSessionServiceHandler
	dispatcher *dispatch.Dispatcher
}

func (h attendOnly) Attend(ctx context.Context, s *connect.BidiStream[warrenv1.AttendRequest, warrenv1.AttendResponse]) error {
	return h.dispatcher.Attend(ctx, s)
}

// slow is a proposer whose writes take a while, as raft's do.
type slow struct {
	loop.Proposer
	mu     sync.Mutex
	random *rand.Rand
}

func (p *slow) Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
	p.mu.Lock()
	wait := time.Duration(p.random.Int64N(int64(5 * time.Millisecond)))
	p.mu.Unlock()
	time.Sleep(wait)
	return p.Proposer.Propose(ctx, transactions...)
}
