package forward

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/cuemby/warren/internal/pki"
)

const (
	// dialTimeout bounds the wait for a leader whose machine swallows packets, and for its handshake.
	dialTimeout = 2 * time.Second
	// pingAfter is how long the leader may be silent before it is asked whether it lives, and pingTimeout
	// how long the answer may take. Streams need not wait for that where another leader is elected; and a
	// leader at its limits, which was seen to take more than a second to answer, must not lose them all.
	pingAfter   = time.Second
	pingTimeout = 3 * time.Second
	// maxDials is how many connections a link may try to have at once. All calls share the first that comes
	// about: a thousand that arrive together must not make a thousand handshakes.
	maxDials = 4
	// idleTimeout closes what an earlier address or certificate has left open.
	idleTimeout = time.Minute
)

// link is the pooled connection to a leader at its address, made with one certificate.
type link struct {
	id, addr    string
	credentials *pki.Credentials
	transport   *http.Transport
}

func newLink(to Leader, holder *pki.Holder, mine *pki.Credentials, pingTimeout time.Duration) *link {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:     managerConfig(holder, to.ID),
		TLSHandshakeTimeout: dialTimeout,
		Protocols:           new(http.Protocols),
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		IdleConnTimeout:     idleTimeout,
		MaxConnsPerHost:     maxDials,
		DisableCompression:  true, // what the caller and the leader agree on is theirs
	}
	t.Protocols.SetHTTP2(true)
	return &link{to.ID, to.Addr, mine, t}
}

// managerConfig lets nobody answer but the manager of that id.
func managerConfig(holder *pki.Holder, id string) *tls.Config {
	config := holder.ClientConfig()
	isManager := config.VerifyConnection
	config.VerifyConnection = func(s tls.ConnectionState) error {
		if err := isManager(s); err != nil {
			return err
		}
		who, err := pki.IdentityOf(s.PeerCertificates[0])
		if err != nil {
			return err
		}
		if who.Name != id {
			return fmt.Errorf("manager %s answers, where manager %s was expected", who.Name, id)
		}
		return nil
	}
	return config
}

// serves tells whether the link is still the one to use.
func (l *link) serves(to Leader, mine *pki.Credentials) bool {
	return l.id == to.ID && l.addr == to.Addr && l.credentials == mine
}

// retire closes the link when what runs over it has ended.
func (l *link) retire() { l.transport.CloseIdleConnections() }
