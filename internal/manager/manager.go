package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/dataformat"
	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/audit"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/dispatch"
	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/forward"
	"github.com/cuemby/warren/internal/manager/keyring"
	"github.com/cuemby/warren/internal/manager/logstream"
	"github.com/cuemby/warren/internal/manager/metrics"
	"github.com/cuemby/warren/internal/manager/raftwire"
	"github.com/cuemby/warren/internal/manager/relay"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/traces"
	scrape "github.com/cuemby/warren/internal/metrics"
	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/tracing"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// shutdownTimeout bounds how long calls in flight may take to end when the manager stops.
const shutdownTimeout = 5 * time.Second

// handOverTimeout bounds how long a leader that stops looks for a successor.
const handOverTimeout = 2 * time.Second

// raftTimeout bounds how long a message between managers and its answer may take, on one network.
const raftTimeout = 2 * time.Second

// Options says where a manager keeps its data and listens.
type Options struct {
	// DataDir holds the manager's identity, the raft log and snapshots. It is made if missing.
	DataDir string
	// Socket is the path of the unix socket for those who administer this machine.
	Socket string
	// ListenAddr is the host:port for agents, users and the other managers; empty for none.
	ListenAddr string
	// AdvertiseAddr is the host:port under which others reach ListenAddr; empty to work it out.
	AdvertiseAddr string
	// Join are the managers, host:port, through which a new manager joins by itself, and JoinToken reads
	// the token it shows; nil where it waits to be told.
	Join      []string
	JoinToken func() (string, error)
	// RaftMultiplier stretches raft's timings, 1 to 10, for managers that are far from each other; 0 is 1.
	RaftMultiplier int
	// Status, if set, is told how the manager stands, in words, whenever that changes; the first time
	// when it takes calls.
	Status func(string)
	// MetricsAddr is the host:port where Prometheus may read metrics, by plain HTTP; empty for none. MetricsOptional
	// says that the manager does without where the address is not to be had.
	MetricsAddr     string
	MetricsOptional bool
	// Tracing says where spans are sent, if anywhere.
	Tracing tracing.Options
	// AuditLog is the path of a file for the audit log, beside Logger; empty for none.
	AuditLog string
	Logger   *slog.Logger
}

// Validate tells what is wrong with the options, before anything is touched.
func (o Options) Validate() error {
	var wrong []error
	wrong = append(wrong, checkAddr("--listen-addr", o.ListenAddr), checkReach("--advertise-addr", o.AdvertiseAddr), scrape.CheckAddr(o.MetricsAddr), o.Tracing.Validate())
	for _, addr := range o.Join {
		wrong = append(wrong, checkReach("--join", addr))
	}
	if o.JoinToken != nil && len(o.Join) == 0 {
		wrong = append(wrong, errors.New("a join token is given but no manager to join: give --join HOST:PORT too"))
	}
	if o.RaftMultiplier < 0 || o.RaftMultiplier > consensus.MaxMultiplier {
		wrong = append(wrong, fmt.Errorf("--raft-multiplier %d: it must be from 1 to %d", o.RaftMultiplier, consensus.MaxMultiplier))
	}
	return errors.Join(wrong...)
}

// Manager is a manager that has been opened. Run it, or Close it.
type Manager struct {
	options    Options
	id         atomic.Pointer[string] // another one after it has left a cluster
	logger     *slog.Logger
	store      *state.Store
	core       *core
	events     *events.Log
	feed       *state.Feed // of all changes, for events
	dispatcher *dispatch.Dispatcher
	authority  *authority.Authority
	ring       *keyring.Ring
	lock       *lock
	// credentials are what the manager shows on its listeners; it has none before it is in a cluster.
	credentials *pki.Holder
	standing    *standing
	forward     *forward.Forwarder
	front       *front
	metrics     *metrics.Metrics
	scrapes     *scrape.Server
	tracer      *tracing.Tracer // nil, as traces, where no spans are sent
	traces      *traces.Traces
	reign       atomic.Pointer[time.Time] // since when it leads and knows what was committed before; nil while it does not
	audit       *audit.File               // nil for none
	closing     context.Context           // ends when the manager begins to stop
	close       context.CancelFunc
	founding    sync.Mutex // one who makes, joins or leaves a cluster at a time

	addrMu    sync.Mutex
	addresses addresses

	problemMu sync.Mutex
	problem   string // why it does not do its part, in words
}

// New opens a manager: it listens, and has read what it knows from its data folder. Nothing is answered
// before Run. The options must be valid.
func New(ctx context.Context, o Options) (m *Manager, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := dataformat.Check(o.DataDir, "warren-manager", dataformat.Manager()); err != nil {
		return nil, err
	}
	m = &Manager{
		options: o, logger: o.Logger, store: state.NewStore(), core: newCore(), events: events.NewLog(),
		credentials: pki.NewHolder(nil), standing: newStanding(),
	}
	m.metrics = m.newMetrics()
	_, m.feed = m.store.Watch()
	m.closing, m.close = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
			m = nil
		}
	}()
	if err := m.beginTracing(ctx); err != nil {
		return m, err
	}
	m.dispatcher = m.newDispatcher()
	m.authority = authority.New(m.store, m.core)
	if m.scrapes, err = scrape.Listen(ctx, o.MetricsAddr, o.MetricsOptional, m.logger); err != nil {
		return m, err
	}
	if o.AuditLog != "" {
		if m.audit, err = audit.Open(o.AuditLog, o.Logger); err != nil {
			return m, err
		}
	}
	handler, err := m.handler()
	if err != nil {
		return m, err
	}
	m.forward = m.newForwarder(handler)
	if m.lock, err = m.newLock(); err != nil {
		return m, err
	}
	m.front = &front{
		handler: m.lock, credentials: m.credentials, logger: m.logger,
		protocols: map[string]func(*tls.Conn){raftwire.ALPN: m.core.serve},
	}
	if m.addresses, err = settledAddresses(o.DataDir, m.configured()); err != nil {
		return m, err
	}
	if err := m.front.open(ctx, o.Socket, m.addresses.Listen); err != nil {
		return m, err
	}
	if err := m.identify(); err != nil {
		return m, err
	}
	if m.ring, err = keyring.OpenFolder(o.DataDir); err != nil {
		return m, err
	}
	if m.ring.State() == keyring.Locked {
		return m, nil
	}
	return m, m.takeUp()
}

// takeUp takes up what the data folder holds of a cluster, once nothing of it is locked.
func (m *Manager) takeUp() error {
	m.loadTrust()
	err := m.openNode()
	if err == nil {
		err = m.checkMembership()
	}
	m.lock.opened(err)
	return err
}

// checkMembership refuses to go on as a member whose raft log is gone: it would vote as if it had never
// agreed to anything.
func (m *Manager) checkMembership() error {
	initialized, err := m.initialized()
	if err != nil || initialized || m.credentials.Get() == nil || m.isJoining() {
		return err
	}
	return fmt.Errorf("%s has a certificate of cluster %s but no raft log: restore raft.db from where it went, "+
		"or empty the folder, take this manager out with `warrenctl manager rm %s` on another and let it join anew",
		m.options.DataDir, m.credentials.Get().Identity().Cluster, m.self())
}

// electionWait is how long a call waits for a leader: most elections take less than a third of it.
func (m *Manager) electionWait() time.Duration {
	return electionWait * time.Duration(max(1, m.options.RaftMultiplier))
}

// configured are the addresses as the configuration names them.
func (m *Manager) configured() addresses {
	return addresses{Listen: m.options.ListenAddr, Advertise: m.options.AdvertiseAddr}
}

// openNode takes up what the data folder holds of the raft log.
func (m *Manager) openNode() error {
	wire := m.newWire()
	node, err := consensus.Open(m.raftOptions(wire), state.NewMachine(m.store))
	if err != nil {
		return errors.Join(err, wire.Close())
	}
	m.core.put(node, wire)
	return nil
}

func (m *Manager) newWire() *raftwire.Wire {
	return raftwire.New(raftwire.Options{
		ID: m.self(), Addr: m.raftAddr(), Credentials: m.credentials, Logger: m.logger,
		Timeout: raftTimeout * time.Duration(max(1, m.options.RaftMultiplier)),
		Admit:   func(id string) bool { return !authority.IsRemoved(m.store.Snapshot().Authority(), id) },
	})
}

func (m *Manager) raftOptions(transport raft.Transport) consensus.Options {
	return consensus.Options{
		ID: m.self(), DataDir: m.options.DataDir, Transport: transport, Multiplier: m.options.RaftMultiplier, Wrote: m.metrics.Wrote, Logger: m.logger,
	}
}

// handler returns the API.
func (m *Manager) handler() (http.Handler, error) {
	exchange := relay.New(m.dispatcher)
	options := api.Options{
		Store:      m.store,
		Proposer:   m.writing("api"),
		Membership: m,
		Local:      m,
		Authority:  m.authority,
		Events:     m.events,
		Sessions:   agents{m.dispatcher, exchange},
		Renewed:    m.dispatcher.Renewed,
		Logs:       logstream.New(m.store, exchange, logstream.Refs{Service: api.FindService, Task: api.FindTask}),
		Exchange:   exchange,
		Observer:   m.metrics,
		Closing:    m.closing,
		Logger:     m.logger,
	}
	if m.traces != nil {
		options.Tracer = m.traces
	}
	if m.audit != nil {
		options.AuditFile = m.audit
	}
	return api.New(options)
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
	m.front.start(cancel)
	m.report()
	var running sync.WaitGroup
	running.Go(func() { _ = m.events.Run(ctx, m.feed) }) // until ctx ends
	m.measure(ctx, &running)
	m.trace(ctx, &running)
	if !m.lock.through.Load() {
		if err := m.awaitKey(ctx); err != nil {
			cancel(err)
		}
	}
	running.Go(func() { _ = m.ring.Keep(ctx, m.store, m.logger) }) // which ends with ctx alone
	running.Go(func() { m.keepJoining(ctx) })
	running.Go(func() { m.keepCertificate(ctx) })
	running.Go(func() { m.keepAnnounced(ctx) })
	running.Go(func() {
		if err := m.keepFormat(ctx); err != nil {
			cancel(err)
		}
	})
	running.Go(func() { m.forward.Run(ctx) })
	if err := m.lead(ctx); err != nil { // until ctx ends; the agents' sessions end here, and nothing is written about it
		cancel(err)
	}
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
	var all []error
	m.handOver()
	if node := m.core.take(); node != nil { // whose connections are the front's too, which would wait for them
		all = append(all, node.Close())
	}
	if m.forward != nil {
		m.forward.Close()
	}
	if m.front != nil {
		all = append(all, m.front.close())
	}
	if m.scrapes != nil {
		all = append(all, m.scrapes.Close())
	}
	if m.tracer != nil {
		all = append(all, m.tracer.Close())
	}
	if m.audit != nil {
		all = append(all, m.audit.Close())
	}
	return errors.Join(all...)
}

// handOver gives the lead to another manager before this one stops, so that nobody waits for an election.
func (m *Manager) handOver() {
	node, err := m.core.get()
	if err != nil || !node.Leading() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handOverTimeout)
	defer cancel()
	if err := node.TransferLeadership(ctx); err != nil && !errors.Is(err, consensus.ErrAlone) {
		m.logger.Warn("the lead could not be handed over: the others elect a leader when they miss this one", "error", err)
	}
}

// Addr is the address that the manager listens on for others, nil where it does not.
func (m *Manager) Addr() net.Addr { return m.front.addr() }

func (m *Manager) path(name string) string { return filepath.Join(m.options.DataDir, name) }
