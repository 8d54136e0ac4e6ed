package manager

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/keyring"
	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/unlockkey"
	"github.com/cuemby/warren/internal/version"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// lock stands before all handlers: while the manager is locked, calls come to those that unlock it alone.
type lock struct {
	locked, open http.Handler
	through      atomic.Bool
	done         chan struct{} // closed when the manager has taken up its cluster, or failed to
	failed       error
}

func (m *Manager) newLock() (*lock, error) {
	l := &lock{open: m.forward, done: make(chan struct{})}
	var err error
	l.locked, err = api.NewLocked(api.LockedOptions{
		Lock: m, Describe: m.describeLocked, Forget: m.forgetLocked, Logger: m.logger,
		Opened: func(ctx context.Context) error {
			select {
			case <-l.done:
				return l.failed
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	})
	return l, err
}

// ServeHTTP implements http.Handler.
func (l *lock) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.TLS != nil { // it has a certificate to show, so it has been given the key, and is about to open
		select {
		case <-l.done:
		case <-r.Context().Done():
			return
		}
	}
	if l.through.Load() {
		l.open.ServeHTTP(w, r)
		return
	}
	l.locked.ServeHTTP(w, r)
}

// opened lets calls through, unless the manager has failed.
func (l *lock) opened(err error) {
	l.failed = err
	l.through.Store(err == nil)
	close(l.done)
}

// awaitKey waits until the manager is unlocked and takes up its cluster then. On TCP nobody is answered
// before, as there is no certificate to show.
func (m *Manager) awaitKey(ctx context.Context) error {
	m.logger.Warn("locked: waits for the unlock key, which `warrenctl cluster unlock` asks for")
	select {
	case <-m.ring.Unlocked():
	case <-ctx.Done():
		return nil // it is told to stop, which is no failure
	}
	if err := m.takeUp(); err != nil {
		return err
	}
	m.report()
	return nil
}

// Unlock implements api.Locker.
func (m *Manager) Unlock(k unlockkey.Key) error { return m.ring.Unlock(k) }

// forgetLocked removes all that a locked manager holds, which it then takes up as one of no cluster. What was
// sealed goes last: as long as it is there, the manager stays locked.
func (m *Manager) forgetLocked() error {
	m.founding.Lock()
	defer m.founding.Unlock()
	if m.lock.through.Load() {
		return keyring.ErrNotLocked
	}
	if err := errors.Join(m.forgetIdentity(), consensus.Forget(m.options.DataDir)); err != nil {
		return err
	}
	if err := m.identify(); err != nil {
		return err
	}
	m.logger.Warn("locked, and forgets the cluster it was a manager of")
	return m.ring.Forget()
}

// describeLocked tells what is known of a manager while it is locked.
func (m *Manager) describeLocked() *warrenv1.GetManagerResponse {
	now := &warrenv1.GetManagerResponse{Id: m.self(), Version: version.Version}
	if cert := m.ring.Certificate(); cert != nil {
		now.CertificateExpiresAt = timestamppb.New(cert.NotAfter)
		if who, err := pki.IdentityOf(cert); err == nil {
			now.ClusterId = who.Cluster
		}
	}
	return now
}
