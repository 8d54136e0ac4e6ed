package manager

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/dataformat"
	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/consensus"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// leaveTimeout bounds how long the other managers are asked to let this one go.
const leaveTimeout = 15 * time.Second

// Leave implements api.Local.
func (m *Manager) Leave(ctx context.Context, force bool) error {
	m.founding.Lock()
	defer m.founding.Unlock()
	if initialized, err := m.initialized(); err != nil {
		return err
	} else if !initialized && m.credentials.Get() == nil {
		return api.ErrUninitialized
	}
	if err := m.takeLeave(ctx, force); err != nil {
		if !force {
			return err
		}
		m.logger.Warn("the other managers do not know yet that this one leaves: `warrenctl manager rm` tells them", "error", err)
	}
	if err := m.core.operate(ctx, m.forget); err != nil {
		return err
	}
	m.logger.Info("left the cluster, and forgot it")
	return nil
}

// takeLeave has the rest of the cluster go on without this manager.
func (m *Manager) takeLeave(ctx context.Context, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	node, err := m.core.get()
	if err != nil {
		return err
	}
	servers := node.Servers()
	if len(servers) <= 1 {
		if !force && m.isJoining() {
			return api.Refuse("this manager is on its way into a cluster, where it may be listed already: use --force to have it give up, and run `warrenctl manager rm` on a manager there if `warrenctl manager ls` lists it")
		}
		if !force {
			return api.Refuse("this is the last manager: the cluster ends with it, and all that is known of its services; if that is meant, use --force")
		}
		return nil
	}
	if node.Leading() {
		if err := m.mayGo(node, servers, m.self(), force); err != nil {
			return err
		}
		if err := node.TransferLeadership(ctx); err != nil {
			return fmt.Errorf("hand the lead to another manager: %w", err)
		}
	}
	addr, err := m.otherLeader(ctx, node)
	if err != nil {
		return err
	}
	client, end := dialManager(addr, m.credentials.ClientConfig())
	defer end()
	_, err = client.DeleteManager(ctx, connect.NewRequest(&warrenv1.DeleteManagerRequest{Ref: m.self(), Force: force}))
	return api.FromElsewhere(err)
}

// otherLeader waits until another manager leads.
func (m *Manager) otherLeader(ctx context.Context, node *consensus.Node) (addr string, err error) {
	for {
		changed := node.Changed()
		if id, addr := node.Leader(); id != "" && id != m.self() && addr != "" {
			return m.addrOf(id, addr), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", api.Refuse("no other manager leads: too few of them are reachable to agree on anything, or they have gone on without this one: " +
				"bring them back, or use --force, and where this one is still listed tell them with `warrenctl manager rm`")
		}
	}
}

// forget removes all that the manager knows of its cluster. It runs while there is no raft node.
func (m *Manager) forget() error {
	// First what makes it a member: a kill half-way must not leave one without a key.
	if err := m.ring.Forget(); err != nil {
		return err
	}
	if err := errors.Join(m.forgetIdentity(), consensus.Forget(m.options.DataDir)); err != nil {
		return err
	}
	m.addrMu.Lock()
	m.addresses.Advertise = m.configured().Advertise
	m.addrMu.Unlock()
	m.credentials.Set(nil)
	m.authority.Forget()
	return m.identify()
}

// forgetIdentity removes who the manager is and where it was to be.
func (m *Manager) forgetIdentity() error {
	for _, name := range []string{"joining.json", "manager-id", "manager.key", "addresses.json", dataformat.File} {
		if err := os.Remove(m.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget the cluster: %w", err)
		}
	}
	return nil
}

// Recover implements api.Local.
func (m *Manager) Recover(ctx context.Context, force bool) error {
	m.founding.Lock()
	defer m.founding.Unlock()
	node, err := m.core.get()
	if err != nil {
		return err
	}
	if initialized, err := node.Initialized(); err != nil {
		return err
	} else if !initialized {
		return api.ErrUninitialized
	}
	if id, _ := node.Leader(); id != "" && !force {
		return api.Refuse("the cluster has a leader, %s, so nothing needs to be recovered: a lost manager is taken out with `warrenctl manager rm`", id)
	}
	err = m.core.operate(ctx, func() (err error) {
		wire := m.newWire()
		defer func() { err = errors.Join(err, wire.Close()) }()
		return consensus.Recover(m.raftOptions(wire), m.raftAddr())
	})
	if err != nil {
		return err
	}
	if err := m.standing.lead(ctx, soleWait, ""); err != nil {
		return fmt.Errorf("take the lead: %w", err)
	}
	m.logger.Warn("recovered: this manager is now the only one of its cluster")
	return m.forgetOthers(ctx)
}
