package manager

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cuemby/warren/internal/id"
	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// electionWait is how long a call waits for an election before it is refused. Most take less than one
// second, and a caller who is refused can only try again.
const electionWait = 3 * time.Second

// stand is what a manager is at the moment.
type stand int

const (
	following stand = iota
	leading         // and knows everything that was committed before
	stopping        // for good
)

// standing is how a manager stands, for those who wait for it to change.
type standing struct {
	mu      sync.Mutex
	now     stand
	changed chan struct{} // closed at the next change
}

func newStanding() *standing { return &standing{changed: make(chan struct{})} }

func (s *standing) set(to stand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == to || s.now == stopping {
		return
	}
	s.now = to
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *standing) get() (stand, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.changed
}

// lead waits until the manager leads. It fails with consensus.ErrClosed, with consensus.ErrNotLeader
// when that takes longer than an election should, or with the error of ctx.
func (s *standing) lead(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, electionWait, consensus.ErrNotLeader)
	defer cancel()
	for {
		now, changed := s.get()
		switch now {
		case leading:
			return nil
		case stopping:
			return consensus.ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

var _ api.Membership = (*Manager)(nil)

// Ready implements api.Membership.
func (m *Manager) Ready(ctx context.Context) error {
	if now, _ := m.standing.get(); now != leading {
		if initialized, err := m.node.Initialized(); err != nil {
			return err
		} else if !initialized {
			return api.ErrUninitialized
		}
		if err := m.standing.lead(ctx); err != nil {
			return err
		}
	}
	if m.store.Snapshot().Cluster() == nil {
		return api.ErrUninitialized
	}
	return nil
}

// Initialize implements api.Membership. A manager that was killed between becoming a member of a raft
// cluster and writing down what cluster that is, is not initialized yet, and does the rest here.
func (m *Manager) Initialize(ctx context.Context, spec *warrenv1.ClusterSpec) (*warrenv1.Cluster, error) {
	m.founding.Lock()
	defer m.founding.Unlock()
	if err := m.node.Bootstrap(); err != nil && !errors.Is(err, consensus.ErrInitialized) {
		return nil, err
	}
	if err := m.standing.lead(ctx); err != nil {
		return nil, fmt.Errorf("take the lead of the new cluster: %w", err)
	}
	if there := m.store.Snapshot().Cluster(); there != nil {
		return nil, fmt.Errorf("%w, %s", consensus.ErrInitialized, there.GetSpec().GetName())
	}
	transaction := state.New(time.Now())
	transaction.Create(&warrenv1.Cluster{Meta: &warrenv1.Meta{Id: id.New()}, Spec: spec})
	results, err := m.node.Propose(ctx, transaction)
	if err = errors.Join(append(results, err)...); err != nil {
		return nil, fmt.Errorf("write the new cluster: %w", err)
	}
	m.logger.Info("cluster initialized", "cluster", spec.GetName())
	m.report()
	return m.store.Snapshot().Cluster(), nil
}

// Managers implements api.Membership.
func (m *Manager) Managers() ([]*warrenv1.Manager, error) {
	ids, leader, err := m.node.Members()
	if err != nil {
		return nil, err
	}
	var managers []*warrenv1.Manager
	for _, id := range ids {
		manager := &warrenv1.Manager{Id: id, Leader: id == leader}
		if id == m.id {
			manager.Addr = m.AgentAddr()
		}
		managers = append(managers, manager)
	}
	return managers, nil
}

// AgentAddr implements api.Membership.
func (m *Manager) AgentAddr() string { return advertised(m.options.AdvertiseAddr, m.Addr()) }

// report tells in words how the manager stands, for its service's status.
func (m *Manager) report() {
	if m.options.Status == nil {
		return
	}
	now, _ := m.standing.get()
	cluster := m.store.Snapshot().Cluster()
	switch initialized, err := m.node.Initialized(); {
	case err != nil || now == stopping:
		m.options.Status("stopping")
	case now != leading && initialized:
		m.options.Status("waiting for an election")
	case cluster == nil:
		m.options.Status("not part of a cluster yet: run `warrenctl cluster init`")
	default:
		m.options.Status("leading cluster " + cluster.GetSpec().GetName())
	}
}
