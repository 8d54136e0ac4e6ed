package membership

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// maxManagers bounds the addresses that are kept and tried.
const maxManagers = 32

// Record keeps where the managers are.
type Record interface {
	Managers() []string
	RecordManagers(addrs []string) error
}

// Options says where a membership is kept.
type Options struct {
	// Dir is the data folder.
	Dir    string
	Record Record
	// Seeds are managers' addresses, HOST:PORT, that were configured. They are tried after those that the
	// cluster has told.
	Seeds  []string
	Logger *slog.Logger
}

// Membership is this machine's part in a cluster: none at first, and none again after Forget.
type Membership struct {
	Options
	holder *pki.Holder
	turn   chan struct{} // holds the right to change the credentials, for one at a time
	// What the cluster has told and Keep has not looked at yet; and that Keep wants a new session.
	told  chan *warrenv1.Directory
	fresh chan struct{}

	mu      sync.Mutex
	key     *ecdsa.PrivateKey // for joining: kept until it has worked, so that trying again gives the same name
	changed chan struct{}     // closed, and made anew, when the credentials change
}

// Open reads the credentials that an earlier agent has left in the data folder, if it has.
func Open(o Options) (*Membership, error) {
	m := &Membership{
		Options: o, holder: pki.NewHolder(nil), turn: make(chan struct{}, 1),
		told: make(chan *warrenv1.Directory, 1), fresh: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	mine, err := pki.LoadFile(m.path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, nil
	case err != nil:
		return nil, fmt.Errorf("%w: restore the file, or remove it and let this machine join its cluster as a new node", err)
	case mine.Identity().Role != warrenv1.Role_ROLE_AGENT:
		return nil, fmt.Errorf("%s is the certificate of %s %s, not an agent's: give the agent a --data-dir of its own",
			m.path(), pki.RoleName(mine.Identity().Role), mine.Identity().Name)
	}
	m.holder.Set(mine)
	return m, nil
}

func (m *Membership) path() string { return filepath.Join(m.Dir, "identity.pem") }

// Holder has the credentials in force; none where this machine is no member.
func (m *Membership) Holder() *pki.Holder { return m.holder }

// NodeID is this node's id in its cluster; empty where it is in none.
func (m *Membership) NodeID() string {
	if mine := m.holder.Get(); mine != nil {
		return mine.Identity().Name
	}
	return ""
}

// Await returns the credentials once there are any, or the error of ctx.
func (m *Membership) Await(ctx context.Context) (*pki.Credentials, error) {
	for {
		changed := m.watch()
		if mine := m.holder.Get(); mine != nil {
			return mine, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// watch returns what is closed when the credentials next change.
func (m *Membership) watch() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// set puts credentials, which may be nil, in force.
func (m *Membership) set(c *pki.Credentials) {
	m.holder.Set(c)
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.changed)
	m.changed = make(chan struct{})
}

// take waits for the right to change the credentials. The caller gives it back with give.
func (m *Membership) take(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Membership) give() { <-m.turn }

// Addrs are the managers' addresses, those first that the cluster has told.
func (m *Membership) Addrs() []string { return union(m.Record.Managers(), m.Seeds) }

// Heed takes what the cluster has told on the session at the manager via, and waits for nothing.
func (m *Membership) Heed(d *warrenv1.Directory, via string) {
	if len(d.GetManagers()) > 0 {
		// The address that works is kept, whatever the cluster calls it.
		if addrs := union(d.GetManagers(), []string{via}); !slices.Equal(addrs, m.Record.Managers()) {
			if err := m.Record.RecordManagers(addrs); err != nil {
				m.Logger.Error("cannot keep the managers' addresses", "error", err)
			}
		}
	}
	if len(d.GetRoots()) == 0 {
		return
	}
	for {
		select {
		case m.told <- d:
			return
		case <-m.told: // an older one is of no interest any more
		}
	}
}

// Fresh is readable when the session should be opened anew, for the manager to see the new certificate.
func (m *Membership) Fresh() <-chan struct{} { return m.fresh }

// Forget gives the membership up: the credentials and where the managers are.
func (m *Membership) Forget(ctx context.Context) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.give()
	if err := os.Remove(m.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the node's credentials: %w", err)
	}
	select {
	case <-m.told: // is of no interest any more
	default:
	}
	m.set(nil)
	return m.Record.RecordManagers(nil)
}

// union returns the addresses of both lists, each once, in this order, and at most maxManagers.
func union(a, b []string) []string {
	var all []string
	for _, addr := range slices.Concat(a, b) {
		if !slices.Contains(all, addr) && len(all) < maxManagers {
			all = append(all, addr)
		}
	}
	return all
}

// refuse is an error for whoever asked on the unix socket.
func refuse(code connect.Code, format string, args ...any) error {
	return connect.NewError(code, fmt.Errorf(format, args...))
}
