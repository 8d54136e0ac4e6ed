package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Why a certificate is refused.
var (
	// ErrForeign: no CA of the cluster has issued it.
	ErrForeign = errors.New("the certificate was not issued by this cluster's CA")
	// ErrExpired: its time is over.
	ErrExpired = errors.New("the certificate has expired")
	// ErrPinned: whoever answers a machine that is about to join is not of the CA that its token names.
	ErrPinned = fmt.Errorf("%w: the join token is of another cluster, or from before the cluster's CA was replaced, or somebody else answers at this address: "+
		"check the address, and get a new token with `warrenctl cluster join-token worker` (or manager) on a manager's machine", ErrForeign)
	// ErrNotYetValid: its time has not come, so one of the clocks is wrong.
	ErrNotYetValid = errors.New("the certificate is not valid yet")
)

// Holder keeps the credentials in force. Connections made from its configurations use the current ones;
// open connections are not touched when they change.
type Holder struct {
	mu      sync.Mutex
	current *Credentials
	changed chan struct{} // closed at the next change
}

// NewHolder returns a holder of c, which may be nil until there are any.
func NewHolder(c *Credentials) *Holder {
	return &Holder{current: c, changed: make(chan struct{})}
}

// Get returns the credentials in force, nil where there are none yet.
func (h *Holder) Get() *Credentials {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current
}

// Set puts credentials in force.
func (h *Holder) Set(c *Credentials) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.current = c
	close(h.changed)
	h.changed = make(chan struct{})
}

// Changed returns what is closed when credentials are put in force next.
func (h *Holder) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// ErrNone says that there are no credentials yet.
var ErrNone = errors.New("this machine is not a member of a cluster yet")

// ServerConfig returns the configuration of a server that shows the current certificate. Callers may show
// one of theirs; whether it is any good is for Verify to say, which can explain itself where a
// handshake cannot. Every connection begins anew: a resumed one would go on with the certificate it
// began with, after its holder has renewed it, without proving to hold the key.
func (h *Holder) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true,
		NextProtos:             []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c := h.Get()
			if c == nil {
				return nil, ErrNone
			}
			return &c.tls, nil
		},
	}
}

// ClientConfig returns the configuration of a member that calls managers of its cluster: whoever answers
// must show a manager's certificate of it, whatever the address was.
func (h *Holder) ClientConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c := h.Get()
			if c == nil {
				return nil, ErrNone
			}
			return &c.tls, nil
		},
		// Managers are known by role, not by name: they change addresses and are reached through
		// forwarded ports. VerifyConnection checks the chain and the role instead, on resumption as well.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			c := h.Get()
			if c == nil {
				return ErrNone
			}
			return c.verifyManager(s.PeerCertificates, time.Now())
		},
	}
}

func (c *Credentials) verifyManager(chain []*x509.Certificate, now time.Time) error {
	who, err := c.Verify(chain, now)
	if err != nil {
		return fmt.Errorf("whoever answers is not a manager of this cluster: %w%s", err, answered(err))
	}
	if who.Role != warrenv1.Role_ROLE_MANAGER {
		return fmt.Errorf("whoever answers is not a manager but %s %s: check the address", RoleName(who.Role), who.Name)
	}
	return nil
}

// answered says what to do where a certificate that somebody answers with is refused.
func answered(why error) string {
	switch {
	case errors.Is(why, ErrForeign):
		return ": check the address; a machine that was away while the cluster's CA was replaced must leave (`warrenctl cluster leave --force`) and join anew, a user needs a new context"
	case errors.Is(why, ErrExpired):
		return ": set this machine's clock if it is wrong; else see the manager's log for why it did not renew its certificate"
	}
	return ""
}

// Verify returns who shows a chain of certificates, the holder's first, if it is a member of the
// cluster. It fails with ErrForeign, ErrExpired or ErrNotYetValid.
func (c *Credentials) Verify(chain []*x509.Certificate, now time.Time) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, fmt.Errorf("%w: none was shown", ErrForeign)
	}
	leaf := chain[0]
	// Who issued it is checked as of a time when it was good, to tell the two cases from each other.
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: c.pool, Intermediates: between(chain), CurrentTime: later(leaf.NotBefore, earlier(now, leaf.NotAfter)),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrForeign, err)
	}
	if now.After(leaf.NotAfter) {
		return Identity{}, fmt.Errorf("%w: on %s, and it is %s here", ErrExpired, leaf.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if now.Before(leaf.NotBefore) {
		return Identity{}, fmt.Errorf("%w: from %s on, and it is %s here: set the clocks (NTP)", ErrNotYetValid, leaf.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	who, err := IdentityOf(leaf)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrForeign, err)
	}
	if who.Cluster != c.identity.Cluster {
		return Identity{}, fmt.Errorf("%w: it is of cluster %s", ErrForeign, who.Cluster)
	}
	return who, nil
}

// maxBetween bounds how many certificates beside its own a caller may show: its CA and, while that is
// replaced, a bridge and the other CA.
const maxBetween = 3

// between returns what may stand between a certificate and a trusted CA: a bridge.
func between(chain []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range along(chain) {
		pool.AddCert(c)
	}
	return pool
}

// along returns what of a chain counts beside the holder's certificate.
func along(chain []*x509.Certificate) []*x509.Certificate {
	return chain[1:min(len(chain), 1+maxBetween)]
}

// PinnedConfig returns the configuration of a machine that is about to join and knows the cluster's CA by
// digest alone: whoever answers must show a manager's certificate issued by that CA.
func PinnedConfig(digest string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
		// As in ClientConfig: VerifyConnection does it.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return verifyPinned(s.PeerCertificates, digest, time.Now())
		},
	}
}

func verifyPinned(chain []*x509.Certificate, digest string, now time.Time) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: none was shown", ErrForeign)
	}
	for _, ca := range along(chain) {
		if Digest(ca) != digest || !ca.IsCA {
			continue
		}
		who, err := IdentityOf(chain[0])
		if err != nil {
			return fmt.Errorf("%w: %w", ErrForeign, err)
		}
		c := &Credentials{identity: Identity{Cluster: who.Cluster}, pool: x509.NewCertPool()}
		c.pool.AddCert(ca)
		return c.verifyManager(chain, now)
	}
	return ErrPinned
}
