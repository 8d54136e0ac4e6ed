package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cuemby/warren/internal/dataformat"
	"github.com/cuemby/warren/internal/id"
	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var _ api.Membership = (*Manager)(nil)

// initialized tells whether the manager belongs to a cluster, or would if it were not locked.
func (m *Manager) initialized() (bool, error) {
	node, err := m.core.get()
	if err != nil {
		return false, err
	}
	return node.Initialized()
}

// Ready implements api.Membership.
func (m *Manager) Ready(ctx context.Context) error {
	if now, _ := m.standing.get(); now != leading {
		if initialized, err := m.initialized(); err != nil {
			return err
		} else if !initialized {
			return api.ErrUninitialized
		}
		if err := m.standing.lead(ctx, m.electionWait(), m.self()); err != nil {
			return err
		}
	}
	if m.store.Snapshot().Cluster() == nil {
		return api.ErrUninitialized
	}
	// One that was deposed a moment ago and has not heard of it must not answer with what was true then.
	node, err := m.core.get()
	if err != nil {
		return err
	}
	return node.VerifyLeader(ctx)
}

// Knows implements api.Membership.
func (m *Manager) Knows() error {
	if m.store.Snapshot().Cluster() == nil {
		return api.Unavailable("nobody leads the cluster, and this manager has learned nothing of its state since it was started: " +
			"bring other managers back, or if they are lost for good run `warrenctl cluster recover` on this machine")
	}
	return nil
}

// Initialize implements api.Membership. A manager that was killed between becoming a member of a raft
// cluster and writing down what cluster that is, is not initialized yet, and does the rest here.
func (m *Manager) Initialize(ctx context.Context, spec *warrenv1.ClusterSpec, given api.Addresses) (*warrenv1.Cluster, error) {
	m.founding.Lock()
	defer m.founding.Unlock()
	if m.credentials.Get() != nil && m.store.Snapshot().Cluster() == nil {
		return nil, fmt.Errorf("%w and is on its way into it", consensus.ErrInitialized)
	}
	if there := m.store.Snapshot().Cluster(); there != nil {
		return nil, fmt.Errorf("%w, %s", consensus.ErrInitialized, there.GetSpec().GetName())
	}
	if err := m.settle(ctx, given); err != nil {
		return nil, err
	}
	node, err := m.core.get()
	if err != nil {
		return nil, err
	}
	if err := node.Bootstrap(m.raftAddr()); err != nil && !errors.Is(err, consensus.ErrInitialized) {
		return nil, err
	}
	if err := m.standing.lead(ctx, soleWait, ""); err != nil {
		return nil, fmt.Errorf("take the lead of the new cluster: %w", err)
	}
	if there := m.store.Snapshot().Cluster(); there != nil {
		return nil, fmt.Errorf("%w, %s", consensus.ErrInitialized, there.GetSpec().GetName())
	}
	now, cluster := time.Now(), id.New()
	trust, err := m.foundTrust(cluster, spec.GetAutolock(), now)
	if err != nil {
		return nil, err
	}
	transaction := state.New(now)
	transaction.Create(&warrenv1.Cluster{Meta: &warrenv1.Meta{Id: cluster}, Spec: spec, Format: dataformat.Manager()})
	transaction.Create(api.NewDefaultNetwork())
	transaction.Create(trust)
	transaction.Create(m.announcement(nil))
	results, err := m.core.Propose(ctx, transaction)
	if err = errors.Join(append(results, err)...); err != nil {
		return nil, fmt.Errorf("write the new cluster: %w", err)
	}
	// Whoever is told the unlock key may count on what it is for.
	if err := m.ring.Follow(m.store.Snapshot()); err != nil {
		return nil, err
	}
	if err := m.renew(time.Now()); err != nil {
		return nil, err
	}
	m.logger.Info("cluster initialized", "cluster", spec.GetName())
	m.report()
	return m.store.Snapshot().Cluster(), nil
}

// settle listens where an administrator has said, and keeps it.
func (m *Manager) settle(ctx context.Context, given api.Addresses) error {
	m.addrMu.Lock()
	next := m.addresses
	m.addrMu.Unlock()
	if given.Listen == "" && given.Advertise == "" {
		return nil
	}
	next.Listen, next.Advertise = cmp.Or(given.Listen, next.Listen), cmp.Or(given.Advertise, next.Advertise)
	if given.Listen != "" && given.Advertise == "" {
		next.Advertise = "" // what was advertised before went with the old one
	}
	if err := errors.Join(checkAddr("listen-addr", next.Listen), checkReach("advertise-addr", next.Advertise)); err != nil {
		return api.Refuse("%v", err)
	}
	if err := m.front.move(ctx, next.Listen); err != nil {
		return api.Refuse("%v", err)
	}
	if err := settle(m.options.DataDir, m.configured(), next); err != nil {
		return err
	}
	m.addrMu.Lock()
	m.addresses = next
	m.addrMu.Unlock()
	m.core.move(m.raftAddr())
	return nil
}

// Managers implements api.Membership.
func (m *Manager) Managers() ([]*warrenv1.Manager, error) {
	node, err := m.core.get()
	if err != nil {
		return nil, err
	}
	servers := node.Servers()
	leader, _ := node.Leader()
	reachable := node.Reachable()
	s := m.store.Snapshot()
	var managers []*warrenv1.Manager
	for _, server := range servers {
		told := s.Member(server.ID)
		managers = append(managers, &warrenv1.Manager{
			Id: server.ID, Leader: server.ID == leader, Voter: server.Voter,
			Addr: cmp.Or(told.GetAddr(), server.Addr), Hostname: told.GetHostname(), Version: told.GetVersion(),
			Reachable: server.ID == m.self() || server.ID == leader || reachable[server.ID], CertificateExpiresAt: told.GetCertificateExpiresAt(),
		})
	}
	return managers, nil
}

// Addrs implements api.Membership: the leader's first.
func (m *Manager) Addrs() []string {
	var addrs []string
	add := func(addr string) {
		if addr != "" && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	if node, err := m.core.get(); err == nil {
		if id, addr := node.Leader(); id != "" {
			add(m.addrOf(id, addr))
		}
	}
	for told := range m.store.Snapshot().Members() {
		add(told.GetAddr())
	}
	if len(addrs) == 0 {
		add(m.AgentAddr())
	}
	return addrs
}

// addrOf returns where a manager is reached: as it says itself, or as raft knows it.
func (m *Manager) addrOf(id, addr string) string {
	if id == m.self() {
		return m.AgentAddr()
	}
	return cmp.Or(m.store.Snapshot().Member(id).GetAddr(), addr)
}

// AgentAddr implements api.Membership.
func (m *Manager) AgentAddr() string {
	m.addrMu.Lock()
	defer m.addrMu.Unlock()
	return advertised(m.addresses.Advertise, m.front.addr())
}

// raftAddr is the address that raft knows this manager by: one that listens nowhere has none, and raft
// wants something.
func (m *Manager) raftAddr() string { return cmp.Or(m.AgentAddr(), m.self()) }
