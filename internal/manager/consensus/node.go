package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/manager/raftlog"
	"github.com/cuemby/warren/internal/manager/state"
)

// Node is a running raft node. Close it.
type Node struct {
	id       raft.ServerID
	options  Options
	raft     *raft.Raft
	disk     *Disk
	journal  *journal
	witness  *witness
	machine  *machine
	commits  *committer
	verifier *verifier
	watch    *watch
	timings  raft.ReloadableConfig // as they are when nothing is amiss
	timing   sync.Mutex            // held while they are changed
	changing chan struct{}         // holds one who changes the membership or gives the lead away
	offers   offers                // of the lead; guarded by changing
	lead     chan bool
}

// Open starts the node with what its data folder holds; in an empty folder it waits to be bootstrapped,
// or for a leader that has let it in. Everything committed before is in the machine's store once the
// node leads and Barrier has returned. The machine's store must be new, unless the data folder holds
// a snapshot, which then replaces what is in it.
func Open(o Options, m *state.Machine) (*Node, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	disk, err := o.disk()
	if err != nil {
		return nil, err
	}
	n := &Node{
		id: raft.ServerID(o.ID), options: o, disk: disk, witness: newWitness(o.Transport), watch: newWatch(o),
		changing: make(chan struct{}, 1), lead: make(chan bool, 16),
	}
	n.journal = &journal{LogStore: disk.Log, reserve: disk.Reserve, turned: n.watch.writing}
	cached, err := raft.NewLogCache(logCacheEntries, n.journal)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log: %w", err), disk.Close())
	}
	n.machine = newMachine(m, n.watch)
	n.raft, err = raft.NewRaft(o.config(raftlog.New(o.Logger), n.lead), n.machine, cached, disk.Stable, snapshotStore{disk.Snapshots}, n.witness)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start raft: %w", err), disk.Close())
	}
	n.timings = n.raft.ReloadableConfig()
	n.watch.start(n)
	n.commits = startCommitter(n.raft, o.Wrote)
	n.verifier = newVerifier(n)
	if err := n.hurry(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// hurry has the only member that votes stand for election at once. Raft would first wait an election
// timeout for word from a leader, which nobody else can be.
func (n *Node) hurry() error {
	if voters := n.voters(); len(voters) != 1 || voters[0].ID != n.id {
		return nil
	}
	return n.nudge()
}

// Initialized tells whether the node belongs to a cluster.
func (n *Node) Initialized() (bool, error) { return len(n.servers()) > 0, nil }

// Bootstrap makes the node the one member of a new cluster, which others will reach at addr. It fails
// with ErrInitialized where the node belongs to one already.
func (n *Node) Bootstrap(addr string) error {
	err := n.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{ID: n.id, Address: n.address(addr)}}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return ErrInitialized
	}
	if err != nil {
		return fmt.Errorf("bootstrap raft: %w", err)
	}
	return n.hurry()
}

// address returns an address in raft's terms; without one, the transport's own.
func (n *Node) address(addr string) raft.ServerAddress {
	if addr == "" {
		return n.witness.LocalAddr()
	}
	return raft.ServerAddress(addr)
}

// Leadership tells each gain (true) and loss (false) of the lead, in order. It must be read: raft
// waits for its reader.
func (n *Node) Leadership() <-chan bool { return n.lead }

// Leading tells whether this node believes that it leads.
func (n *Node) Leading() bool { return n.raft.State() == raft.Leader }

// Barrier returns when everything committed before the call is applied to the state. It fails with
// ErrNotLeader.
func (n *Node) Barrier(ctx context.Context) error {
	return question(await(ctx, n.raft.Barrier(0)))
}

// VerifyLeader returns when it is certain that this node led, and knew everything that was acknowledged
// to anybody, at some moment since the call: what is read from the state after that is not stale. It
// costs a message to most members and back, which callers at the same time share; a sole member none.
// It fails with ErrNotLeader.
func (n *Node) VerifyLeader(ctx context.Context) error { return n.verifier.verify(ctx) }

// AppliedIndex is the index of the newest entry that is in this node's state.
func (n *Node) AppliedIndex() uint64 { return n.machine.applied.get() }

// AwaitApplied returns when the entry of that index is in this node's state.
func (n *Node) AwaitApplied(ctx context.Context, index uint64) error {
	return n.machine.applied.await(ctx, index)
}

// Propose writes the transactions. It returns when each is durable and applied, or refused; the
// errors stand at the transactions' places and wrap one of the state package's, and the slice is nil
// where every one was applied. The single error is about all of them. ErrNotLeader, ErrStalled and
// ErrClosed say that none took effect and none will; ErrUnknownOutcome, and the context's, that they may.
func (n *Node) Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
	return n.commits.propose(ctx, transactions)
}

// Close stops the node within a few seconds. What is not committed by then is refused with ErrClosed.
func (n *Node) Close() error {
	n.commits.stop()
	n.verifier.stop()
	n.watch.stop()
	err := n.raft.Shutdown().Error()
	return errors.Join(err, n.witness.Close(), n.disk.Close())
}

// await waits for a raft future, or for ctx.
func await(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
