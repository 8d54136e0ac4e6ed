package simulation

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/consensus/consensustest"
	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// reads is what a manager does before it answers.
type reads string

const (
	// verified: it makes sure that it still leads.
	verified reads = "verified"
	// leased: it is content to believe so.
	leased reads = "leased"
)

// peer is one of several managers: its process, that can be killed and started again, and its disk.
type peer struct {
	t        *testing.T
	id       string
	network  *consensustest.Network
	disk     *consensustest.Disk
	reads    reads
	store    *state.Store
	services warrenv1connect.ServiceServiceClient
	wire     *wire
	leading  atomic.Bool // and knows all that was written before

	mu    sync.Mutex
	node  *consensus.Node // nil while the process is not running
	alive context.Context // ends when the process is killed
	kill  func()
}

func newPeer(t *testing.T, id string, network *consensustest.Network, how reads) *peer {
	p := &peer{t: t, id: id, network: network, disk: consensustest.NewDisk(), reads: how, store: state.NewStore()}
	handler, err := api.New(api.Options{
		Store: p.store, Proposer: p, Membership: part{peer: p}, Events: events.NewLog(), Authority: authority.New(p.store, p),
		Sessions: warrenv1connect.UnimplementedSessionServiceHandler{}, Logs: warrenv1connect.UnimplementedLogServiceHandler{},
		Closing: context.Background(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	admin := caller.Caller{Role: warrenv1.Role_ROLE_ADMIN, Name: "root", Local: true}
	p.wire = &wire{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(caller.With(r.Context(), admin)))
	})}
	p.services = warrenv1connect.NewServiceServiceClient(&http.Client{Transport: p.wire}, "http://"+id)
	return p
}

// start starts the process with what the disk holds.
func (p *peer) start() {
	p.forget()
	node, err := consensus.Open(consensus.Options{
		ID: p.id, Transport: p.network.Transport(p.id), Disk: p.disk.Open(), Logger: slog.New(slog.DiscardHandler), DataDir: p.t.TempDir(),
		Tune: func(c *raft.Config) {
			// Few enough for some to miss, and more than one that has no room can refuse: each refusal has the
			// leader go back an entry.
			c.SnapshotThreshold, c.SnapshotInterval, c.TrailingLogs = 60, time.Second, 100
		},
	}, state.NewMachine(p.store))
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.lead(ctx, node) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.node, p.alive = node, ctx
	p.kill = func() {
		cancel() // callers notice now, and hear nothing more
		p.mu.Lock()
		p.node = nil
		p.mu.Unlock()
		if err := node.Close(); err != nil {
			p.t.Error(err)
		}
		running.Wait()
	}
}

// forget empties the store, as a new process does. The API keeps it, as making an API takes long.
func (p *peer) forget() {
	var empty bytes.Buffer
	if err := state.NewStore().Snapshot().Save(&empty); err != nil {
		p.t.Fatal(err)
	}
	if err := p.store.Load(&empty); err != nil {
		p.t.Fatal(err)
	}
}

// running returns the process's node, and what ends when it is killed; nil while there is none.
func (p *peer) running() (*consensus.Node, context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.node, p.alive
}

// lead follows the lead, as a manager does: a term has ended before the next one begins.
func (p *peer) lead(ctx context.Context, node *consensus.Node) {
	end := func() {}
	for {
		select {
		case gained := <-node.Leadership():
			end()
			end = func() {}
			if gained {
				end = p.begin(ctx, node)
			}
		case <-ctx.Done():
			end()
			for { // raft waits for its reader while it is closed
				select {
				case <-node.Leadership():
				case <-time.After(time.Second):
					return
				}
			}
		}
	}
}

// begin starts a term.
func (p *peer) begin(ctx context.Context, node *consensus.Node) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			if node.Barrier(ctx) == nil {
				p.leading.Store(true)
				_ = loop.Run(ctx, p.store, node, &gravedigger{}, slog.New(slog.DiscardHandler))
			}
			p.leading.Store(false)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// Propose implements loop.Proposer for the API.
func (p *peer) Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
	node, _ := p.running()
	if node == nil {
		return nil, consensus.ErrClosed
	}
	return node.Propose(ctx, transactions...)
}

// part is the peer's part in the cluster.
type part struct {
	api.Membership
	peer *peer
}

// Ready implements api.Membership.
func (m part) Ready(ctx context.Context) error {
	node, _ := m.peer.running()
	if node == nil {
		return consensus.ErrClosed
	}
	if !m.peer.leading.Load() {
		return consensus.ErrNotLeader
	}
	if m.peer.reads == leased {
		return nil
	}
	return node.VerifyLeader(ctx)
}

// gravedigger is a loop that deletes services that were removed, as the one of replicas does.
type gravedigger struct{ removed map[string]bool }

// Name implements loop.Loop.
func (g *gravedigger) Name() string { return "gravedigger" }

// Reset implements loop.Loop.
func (g *gravedigger) Reset(s state.Snapshot) {
	g.removed = map[string]bool{}
	for service := range s.Services() {
		if service.GetRemoving() {
			g.removed[service.GetMeta().GetId()] = true
		}
	}
}

// Observe implements loop.Loop.
func (g *gravedigger) Observe(_ state.Snapshot, changes []state.Change) {
	for _, c := range changes {
		if service, ok := c.After.(*warrenv1.Service); ok && service.GetRemoving() {
			g.removed[service.GetMeta().GetId()] = true
		}
	}
}

// Decide implements loop.Loop.
func (g *gravedigger) Decide(s state.Snapshot, now time.Time) loop.Decision {
	var d loop.Decision
	for id := range g.removed {
		delete(g.removed, id)
		service := s.Service(id)
		if service == nil {
			continue
		}
		tx := state.New(now)
		tx.Delete(service)
		for r := range s.Revisions(id) {
			tx.Delete(r)
		}
		d.Proposals = append(d.Proposals, loop.Proposal{Key: id, Transaction: tx})
	}
	return d
}

// Refused implements loop.Loop.
func (g *gravedigger) Refused(p loop.Proposal) { g.removed[p.Key] = true }

// differ tells how the states of two managers differ.
func differ(a, b state.Snapshot) error {
	var both [2]bytes.Buffer
	if err := a.Save(&both[0]); err != nil {
		return err
	}
	if err := b.Save(&both[1]); err != nil {
		return err
	}
	if !bytes.Equal(both[0].Bytes(), both[1].Bytes()) {
		return fmt.Errorf("one has %d services at %d, the other %d at %d, or they differ", a.ServiceCount(), a.Index(), b.ServiceCount(), b.Index())
	}
	return nil
}
