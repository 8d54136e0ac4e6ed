package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/cuemby/warren/internal/manager/state"
)

var (
	// ErrNotLeader: this manager does not lead, or lost the lead while the proposal was on its way. In
	// the second case the transaction may yet take effect.
	ErrNotLeader = errors.New("this manager is not the leader")
	// ErrClosed: the node was closed.
	ErrClosed = errors.New("the manager is shutting down")
	// ErrInitialized: the node already belongs to a cluster.
	ErrInitialized = errors.New("this manager already belongs to a cluster")
)

const (
	logCacheEntries   = 64        // entries just written that members read from memory; each may have maxEntryBytes
	snapshotsRetained = 2         // the newest, and one before it should the newest be damaged
	snapshotThreshold = 1 << 16   // entries between snapshots; bounds what a restart replays
	snapshotTrailing  = 1 << 14   // entries kept behind a snapshot, for members that lag
	maxEntryBytes     = 512 << 10 // a group commit is closed at this size; raft copies entries whole
)

// boltOptions: a second manager on the same folder is told so instead of waiting; the free list is
// rebuilt at start rather than written with every commit.
var boltOptions = &bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}

// Timings for members on one network: a leader that fell silent is replaced in well under two
// seconds, and a member alone takes the lead at once.
const (
	electionTimeout = 400 * time.Millisecond
	leaderLease     = 250 * time.Millisecond
)

// Options says where and as whom a node takes part.
type Options struct {
	// ID is this manager's identifier in the cluster.
	ID string
	// DataDir holds the raft log and its snapshots; it is made if missing.
	DataDir string
	// Transport reaches the other members. A sole member needs none that leaves the process.
	Transport raft.Transport
	// Logger takes raft's own messages.
	Logger *slog.Logger
	// Tune, if set, adjusts raft's timings before the start.
	Tune func(*raft.Config)
}

// Node is a running raft node. Close it.
type Node struct {
	raft      *raft.Raft
	log       *raftboltdb.BoltStore
	transport raft.Transport
	id        raft.ServerID
	commits   *committer
	lead      chan bool
}

// Open starts the node with what its data folder holds; in an empty folder it waits to be
// bootstrapped. Everything committed before is in the machine's store once the node leads and
// Barrier has returned.
func Open(o Options, machine *state.Machine) (*Node, error) {
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	logger := raftLogger(o.Logger)
	path := filepath.Join(o.DataDir, "raft.db")
	log, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions})
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w (is another warren-manager using this data folder?)", path, err)
	}
	node := &Node{log: log, transport: o.Transport, id: raft.ServerID(o.ID), lead: make(chan bool, 16)}
	cached, err := raft.NewLogCache(logCacheEntries, log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log: %w", err), log.Close())
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(o.DataDir, snapshotsRetained, logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft snapshots: %w", err), log.Close())
	}
	node.raft, err = raft.NewRaft(config(o, logger, node.lead), machine, cached, log, snapshots, o.Transport)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start raft: %w", err), log.Close())
	}
	node.commits = startCommitter(node.raft)
	if err := node.hurry(); err != nil {
		return nil, errors.Join(err, node.Close())
	}
	return node, nil
}

// hurry has a sole member stand for election at once. Raft would first wait an election timeout for
// word from a leader, which nobody else can be; it stops waiting when that time is made shorter.
func (n *Node) hurry() error {
	future := n.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return fmt.Errorf("read raft membership: %w", err)
	}
	if servers := future.Configuration().Servers; len(servers) != 1 || servers[0].ID != n.id {
		return nil
	}
	timings := n.raft.ReloadableConfig()
	timings.HeartbeatTimeout -= time.Millisecond
	if err := n.raft.ReloadConfig(timings); err != nil {
		return fmt.Errorf("adjust raft's timings: %w", err)
	}
	return nil
}

func config(o Options, logger hclog.Logger, lead chan<- bool) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(o.ID)
	c.Logger = logger
	c.LogLevel = ""
	c.NotifyCh = lead
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = electionTimeout, electionTimeout, leaderLease
	c.SnapshotThreshold = snapshotThreshold
	c.TrailingLogs = snapshotTrailing
	c.NoLegacyTelemetry = true
	if o.Tune != nil {
		o.Tune(c)
	}
	return c
}

// Initialized tells whether the node belongs to a cluster.
func (n *Node) Initialized() (bool, error) {
	future := n.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return false, fmt.Errorf("read raft membership: %w", err)
	}
	return len(future.Configuration().Servers) > 0, nil
}

// Bootstrap makes the node the one member of a new cluster. It fails with ErrInitialized where
// the node belongs to one already.
func (n *Node) Bootstrap() error {
	err := n.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		ID: n.id, Address: n.transport.LocalAddr(),
	}}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return ErrInitialized
	}
	if err != nil {
		return fmt.Errorf("bootstrap raft: %w", err)
	}
	return n.hurry()
}

// Leadership tells each gain (true) and loss (false) of the lead, in order. It must be read: raft
// waits for its reader.
func (n *Node) Leadership() <-chan bool { return n.lead }

// Leading tells whether this node believes that it leads.
func (n *Node) Leading() bool { return n.raft.State() == raft.Leader }

// Members returns the voters' ids, and the leader's, empty where there is none known.
func (n *Node) Members() (ids []string, leader string, err error) {
	future := n.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, "", fmt.Errorf("read raft membership: %w", err)
	}
	for _, s := range future.Configuration().Servers {
		ids = append(ids, string(s.ID))
	}
	_, id := n.raft.LeaderWithID()
	return ids, string(id), nil
}

// Barrier returns when everything committed before the call is applied to the state.
func (n *Node) Barrier(ctx context.Context) error {
	return await(ctx, n.raft.Barrier(0))
}

// Propose writes the transactions. It returns when each is durable and applied, or refused; the
// errors stand at the transactions' places and wrap one of the state package's, and the slice is nil
// where every one was applied. The single error says that nothing is known of any of them:
// ErrNotLeader, ErrClosed, or the context's.
func (n *Node) Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
	return n.commits.propose(ctx, transactions)
}

// Close stops the node within a few seconds. What is not committed by then is refused with ErrClosed.
func (n *Node) Close() error {
	n.commits.stop()
	err := n.raft.Shutdown().Error()
	if c, ok := n.transport.(raft.WithClose); ok {
		err = errors.Join(err, c.Close())
	}
	return errors.Join(err, n.log.Close())
}

// await waits for a raft future, or for ctx.
func await(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		return translate(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrClosed
	}
	return fmt.Errorf("write to the raft log: %w", err)
}

// proposalTimeout bounds how long raft may keep an entry in its queue before it has taken it up.
const proposalTimeout = 10 * time.Second
