package manager

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/pki"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// loadTrust takes up the cluster's key and this manager's certificate, where there are any.
func (m *Manager) loadTrust() {
	if key, ok := m.ring.ClusterKey(); ok {
		m.authority.SetKey(key)
	}
	if mine := m.ring.Credentials(); mine != nil {
		m.credentials.Set(mine)
	}
}

// foundTrust makes the certificate authority of a new cluster. A key that an interrupted attempt has left
// is used: nothing was ever sealed with it that counts.
func (m *Manager) foundTrust(cluster string, autolock bool, now time.Time) (*statev1.Authority, error) {
	key, ok := m.ring.ClusterKey()
	if !ok {
		key = authority.NewKey()
		if err := m.ring.SaveClusterKey(key); err != nil {
			return nil, err
		}
	}
	m.authority.SetKey(key)
	kept, err := authority.Found(cluster, key, now)
	if err == nil && autolock {
		_, err = authority.Lock(kept, key)
	}
	return kept, err
}

// renew gives this manager a certificate of its own.
func (m *Manager) renew(now time.Time) error {
	key, err := m.privateKey()
	if err != nil {
		return err
	}
	grant, err := m.authority.Issue(&key.PublicKey, warrenv1.Role_ROLE_MANAGER, m.self(), now, m.names()...)
	if err != nil {
		return fmt.Errorf("renew the manager's certificate: %w", err)
	}
	mine, err := pki.New(key, grant.Certificate, grant.Roots, grant.Bridge)
	if err != nil {
		return fmt.Errorf("renew the manager's certificate: %w", err)
	}
	if err := m.adopt(mine); err != nil {
		return err
	}
	m.logger.Info("certificate renewed", "expires", mine.NotAfter())
	return nil
}

// adopt keeps credentials and puts them in force, in this order. Managers that they do not trust any more
// are cut off.
func (m *Manager) adopt(mine *pki.Credentials) error {
	if err := m.ring.SaveCredentials(mine); err != nil {
		return err
	}
	m.credentials.Set(mine)
	m.core.recheck()
	return nil
}

// names are what others may call this manager by, for programs that compare it with the address they
// dialled, such as curl.
func (m *Manager) names() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	for _, addr := range m.Addrs() {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			names = append(names, host)
		}
	}
	return names
}
