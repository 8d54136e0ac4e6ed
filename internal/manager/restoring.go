package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/backup"
	"github.com/cuemby/warren/internal/manager/consensus"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Admit implements api.Restorer.
func (m *Manager) Admit(_ context.Context, o *warrenv1.RestoreOptions) (self, folder string, err error) {
	if !m.settled() {
		return m.self(), m.options.DataDir, nil
	}
	if !o.GetForce() {
		return "", "", fmt.Errorf("%w: restore the backup on a new manager, or give --force to replace the cluster", consensus.ErrInitialized)
	}
	return "", m.options.DataDir, nil // it will be another manager by then
}

// settled tells whether the manager is in a cluster or on its way into one. What an interrupted restore has
// left is none.
func (m *Manager) settled() bool {
	return m.credentials.Get() != nil || m.store.Snapshot().Cluster() != nil
}

// Restore implements api.Restorer.
func (m *Manager) Restore(ctx context.Context, o *warrenv1.RestoreOptions, r *backup.Restoration) error {
	if err := m.restore(ctx, o, r); err != nil {
		return err
	}
	// What runs while leading begins anew with what was restored. Only here: it may be waiting for restore.
	if err := m.core.operate(ctx, func() error { return nil }); err != nil {
		return err
	}
	if err := m.standing.lead(ctx, soleWait, ""); err != nil {
		return fmt.Errorf("take the lead of the restored cluster: %w", err)
	}
	m.logger.Warn("restored: this manager is now the only one of its cluster", "cluster", r.Header.GetClusterName(), "index", r.Header.GetIndex())
	m.report()
	return nil
}

func (m *Manager) restore(ctx context.Context, o *warrenv1.RestoreOptions, r *backup.Restoration) error {
	m.founding.Lock()
	defer m.founding.Unlock()
	if m.settled() {
		if !o.GetForce() {
			return consensus.ErrInitialized
		}
		if err := m.core.operate(ctx, m.forget); err != nil {
			return err
		}
	}
	if err := m.settle(ctx, api.Addresses{Listen: o.GetListenAddr(), Advertise: o.GetAdvertiseAddr()}); err != nil {
		return err
	}
	if err := errors.Join(m.ring.Forget(), m.ring.SaveClusterKey(r.Key)); err != nil {
		return err
	}
	node, err := m.core.get()
	if err != nil {
		return err
	}
	if err := node.Bootstrap(m.raftAddr()); err != nil && !errors.Is(err, consensus.ErrInitialized) {
		return err
	}
	if err := m.standing.lead(ctx, soleWait, ""); err != nil {
		return fmt.Errorf("take the lead of the restored cluster: %w", err)
	}
	from, err := r.State()
	if err != nil {
		return err
	}
	if err := node.RestoreState(ctx, from); err != nil {
		return err
	}
	m.authority.SetKey(r.Key)
	if err := m.ring.Follow(m.store.Snapshot()); err != nil {
		return err
	}
	return m.renew(time.Now())
}
