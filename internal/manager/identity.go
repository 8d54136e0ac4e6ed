package manager

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cuemby/warren/internal/id"
	"github.com/cuemby/warren/internal/pki"
)

// A manager's identifier follows from its private key (pki.NameOf), which it draws when it first starts.
// The key waits in a file of its own until there is a certificate to keep it with.

func (m *Manager) idPath() string      { return filepath.Join(m.options.DataDir, "manager-id") }
func (m *Manager) privatePath() string { return filepath.Join(m.options.DataDir, "manager.key") }

// self is the manager's identifier, empty before identify.
func (m *Manager) self() string {
	if id := m.id.Load(); id != nil {
		return *id
	}
	return ""
}

func (m *Manager) name(id string) { m.id.Store(&id) }

// identify takes up the manager's identifier, or draws one.
func (m *Manager) identify() error {
	kept, err := os.ReadFile(m.idPath())
	switch {
	case err == nil:
		mine := strings.TrimSpace(string(kept))
		if len(mine) != id.Length || !id.IsPrefix(mine) {
			return fmt.Errorf("read the manager's identity: %s holds %q, which is none: restore it from a backup of the data folder", m.idPath(), mine)
		}
		m.name(mine)
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read the manager's identity: %w", err)
	}
	key, err := pki.NewKey()
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("keep the manager's key: %w", err)
	}
	name, err := pki.NameOf(&key.PublicKey)
	if err != nil {
		return err
	}
	// The key goes first: an identifier whose key is gone could never be shown to be ours.
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := pki.WriteSecret(m.privatePath(), text); err != nil {
		return fmt.Errorf("keep the manager's key: %w", err)
	}
	if err := pki.WriteSecret(m.idPath(), []byte(name+"\n")); err != nil {
		return fmt.Errorf("keep the manager's identity: %w", err)
	}
	m.name(name)
	return nil
}

// privateKey returns the key that the manager's certificates are for.
func (m *Manager) privateKey() (*ecdsa.PrivateKey, error) {
	if mine := m.credentials.Get(); mine != nil {
		return mine.Key(), nil
	}
	text, err := os.ReadFile(m.privatePath())
	if err != nil {
		return nil, fmt.Errorf("read the manager's key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read the manager's key: %s holds none: restore it from a backup of the data folder", m.privatePath())
	}
	return pki.ParseKey(block.Bytes)
}
