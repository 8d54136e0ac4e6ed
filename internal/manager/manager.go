package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/dispatch"
	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/logstream"
	"github.com/cuemby/warren/internal/manager/relay"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// shutdownTimeout bounds how long calls in flight may take to end when the manager stops.
const shutdownTimeout = 5 * time.Second

// Options says where a manager keeps its data and listens.
type Options struct {
	// DataDir holds the manager's identity, the raft log and snapshots. It is made if missing.
	DataDir string
	// Socket is the path of the unix socket for those who administer this machine.
	Socket string
	// ListenAddr is the host:port for agents and remote users; empty for none.
	ListenAddr string
	// AdvertiseAddr is the host:port under which others reach ListenAddr; empty to work it out.
	AdvertiseAddr string
	// Insecure allows a ListenAddr that is not on this machine alone, although nothing is encrypted.
	Insecure bool
	// Transport reaches the other managers. A sole member has none: leave it nil.
	Transport raft.Transport
	// Status, if set, is told how the manager stands, in words, whenever that changes; the first time
	// when it takes calls.
	Status func(string)
	Logger *slog.Logger
}

// Validate tells what is wrong with the options, before anything is touched.
func (o Options) Validate() error { return mayListen(o.ListenAddr, o.Insecure) }

// Manager is a manager that has been opened. Run it, or Close it.
type Manager struct {
	options    Options
	id         string
	logger     *slog.Logger
	store      *state.Store
	node       *consensus.Node
	events     *events.Log
	dispatcher *dispatch.Dispatcher
	standing   *standing
	listeners  []*listener
	closing    context.Context // ends when the manager begins to stop
	close      context.CancelFunc
	founding   sync.Mutex // one Initialize at a time
}

// New opens a manager: it listens, and has read what it knows from its data folder. Nothing is answered
// before Run. The options must be valid.
func New(ctx context.Context, o Options) (m *Manager, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	m = &Manager{options: o, logger: o.Logger, store: state.NewStore(), events: events.NewLog(), standing: newStanding()}
	m.closing, m.close = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
			m = nil
		}
	}()
	if m.listeners, err = listen(ctx, o); err != nil {
		return m, err
	}
	if m.id, err = identity(o.DataDir); err != nil {
		return m, err
	}
	transport := o.Transport
	if transport == nil {
		_, transport = raft.NewInmemTransport(raft.ServerAddress(m.id))
	}
	m.node, err = consensus.Open(consensus.Options{
		ID: m.id, DataDir: o.DataDir, Transport: transport, Logger: o.Logger,
	}, state.NewMachine(m.store))
	if err != nil {
		return m, err
	}
	m.dispatcher = dispatch.New(m.store, m.node, m.logger)
	handler, err := m.handler()
	if err != nil {
		return m, err
	}
	for _, l := range m.listeners {
		l.serve(handler, m.logger)
	}
	return m, nil
}

// handler returns the API.
func (m *Manager) handler() (http.Handler, error) {
	exchange := relay.New(m.dispatcher)
	return api.New(api.Options{
		Store:      m.store,
		Proposer:   m.node,
		Membership: m,
		Events:     m.events,
		Sessions:   agents{m.dispatcher, exchange},
		Logs:       logstream.New(m.store, exchange, logstream.Refs{Service: api.FindService, Task: api.FindTask}),
		Closing:    m.closing,
		Logger:     m.logger,
	})
}

// agents is what agents call: their sessions, and the streams they dial back with.
type agents struct {
	*dispatch.Dispatcher
	*relay.Exchange
}

var _ warrenv1connect.SessionServiceHandler = agents{}

// Run answers calls and leads when it is this manager's turn, until ctx ends or it cannot go on. Then
// it closes the manager; what is in flight has a few seconds to end.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, l := range m.listeners {
		running.Go(func() {
			if err := l.server.Serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("serve %s: %w", l.Addr(), err))
			}
		})
		m.logger.Info("listening", "addr", l.Addr().String())
	}
	m.report()
	m.lead(ctx) // until ctx ends; the agents' sessions end here, and nothing is written about it
	err := m.Close()
	running.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// Close stops what New has started.
func (m *Manager) Close() error {
	m.standing.set(stopping)
	m.close()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	var all []error
	for _, l := range m.listeners {
		if l.server == nil {
			all = append(all, l.Close())
			continue
		}
		if err := l.server.Shutdown(ctx); err != nil {
			m.logger.Warn("calls were cut off", "addr", l.Addr().String(), "err", err)
			all = append(all, l.server.Close())
		}
	}
	if m.node != nil {
		all = append(all, m.node.Close())
	}
	return errors.Join(all...)
}

// Addr is the address that the manager listens on for agents, nil where it does not.
func (m *Manager) Addr() net.Addr {
	for _, l := range m.listeners {
		if l.Addr().Network() == "tcp" {
			return l.Addr()
		}
	}
	return nil
}
