package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/raftwire"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// core is the manager's raft node. To leave a cluster, or to become its only manager, the node is taken
// out, what it keeps is worked on, and another is put in; listeners and handlers never notice.
type core struct {
	mu      sync.Mutex
	node    *consensus.Node // nil while there is none: the manager is locked, or in surgery
	wire    *raftwire.Wire
	surgery chan *surgery
}

// surgery is work on what a node keeps, to be done while no node uses it.
type surgery struct {
	work func() error
	done chan error
}

func newCore() *core { return &core{surgery: make(chan *surgery)} }

// get returns the node. It fails where there is none.
func (c *core) get() (*consensus.Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.node == nil {
		return nil, errNoNode
	}
	return c.node, nil
}

// put puts a node in.
func (c *core) put(n *consensus.Node, w *raftwire.Wire) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node, c.wire = n, w
}

// take takes the node out, nil where there is none.
func (c *core) take() *consensus.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.node
	c.node, c.wire = nil, nil
	return n
}

func (c *core) line() *raftwire.Wire {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wire
}

// serve carries raft's messages over a connection that another manager has opened, until it ends.
func (c *core) serve(conn *tls.Conn) {
	if w := c.line(); w != nil {
		w.Serve(nil, conn, nil)
	}
}

// recheck cuts off managers that may no longer take part.
func (c *core) recheck() {
	if w := c.line(); w != nil {
		w.Recheck()
	}
}

// move tells the node that others reach it elsewhere now.
func (c *core) move(addr string) {
	if w := c.line(); w != nil {
		w.SetAddr(addr)
	}
}

// errNoNode: the manager has no raft node at the moment, as it starts, stops or has surgery.
var errNoNode = api.Unavailable("this manager takes no part in its cluster at the moment: try again, or see `warrenctl cluster info`")

// Propose implements loop.Proposer with the node there is. What a user's call writes bears the user's name.
func (c *core) Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
	n, err := c.get()
	if err != nil {
		return nil, err
	}
	if who := caller.From(ctx); who.Role == warrenv1.Role_ROLE_VIEWER || who.Role == warrenv1.Role_ROLE_OPERATOR || who.Role == warrenv1.Role_ROLE_ADMIN {
		for _, t := range transactions {
			t.By(who.Name)
		}
	}
	return n.Propose(ctx, transactions...)
}

// operate has work done while there is no node, and returns when there is one again. It must not be
// called while leading's own goroutines are waited for. It fails with what work fails with; the node is
// then back as it was.
func (c *core) operate(ctx context.Context, work func() error) error {
	s := &surgery{work: work, done: make(chan error, 1)}
	select {
	case c.surgery <- s:
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-s.done
}

// perform is operate's other side, for the one goroutine that owns the node.
func (m *Manager) perform(s *surgery) error {
	if n := m.core.take(); n != nil {
		if err := n.Close(); err != nil {
			m.logger.Warn("the raft node did not close in good order", "error", err)
		}
	}
	failed := s.work()
	m.store.Clear()
	err := m.openNode()
	m.standing.anew() // whoever led, led another node
	s.done <- errors.Join(failed, err)
	if err != nil {
		return fmt.Errorf("take up raft again: %w", err)
	}
	m.report()
	return nil
}
