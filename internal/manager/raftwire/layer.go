package raftwire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	// waiting bounds the connections that raft has not taken up yet; it takes them up at once.
	waiting = 16
	// perPeer bounds the connections that come in from one manager. A leader has three or four, and those
	// that it gave up may linger.
	perPeer = 32
	// quiet is how long no second warning is logged of connections that are refused.
	quiet = 10 * time.Second
	// keepAlive is how long a connection may be silent before the kernel asks whether the other side lives.
	keepAlive = 5 * time.Second
)

var (
	errClosed     = errors.New("the connections between managers are closed")
	errNotManager = errors.New("only managers take part in raft")
	errRemoved    = errors.New("the manager is not, or no longer, a member of the cluster")
	errTooMany    = errors.New("the manager has too many connections")
)

// layer is the connections below raft's transport.
type layer struct {
	options  Options
	incoming chan *link
	closed   chan struct{}

	mu     sync.Mutex
	links  map[*link]struct{}
	dialed map[raft.ServerAddress]int
	warned time.Time
	done   bool
}

var _ raft.StreamLayer = (*layer)(nil)

func newLayer(o Options) *layer {
	return &layer{
		options: o, incoming: make(chan *link, waiting), closed: make(chan struct{}),
		links: map[*link]struct{}{}, dialed: map[raft.ServerAddress]int{},
	}
}

// link is one connection with a manager that has shown who it is.
type link struct {
	net.Conn
	layer   *layer
	peer    string
	chain   []*x509.Certificate
	inbound bool
	expiry  *time.Timer
	once    sync.Once
	ended   chan struct{}
}

// Close implements net.Conn.
func (l *link) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		l.layer.forget(l)
		l.expiry.Stop()
		err = l.Conn.Close()
		close(l.ended)
	})
	return err
}

// verify tells who the manager at the other end of a connection is, if it may take part.
func (y *layer) verify(chain []*x509.Certificate) (string, error) {
	credentials := y.options.Credentials.Get()
	if credentials == nil {
		return "", pki.ErrNone
	}
	who, err := credentials.Verify(chain, time.Now())
	if err != nil {
		return "", err
	}
	if who.Role != warrenv1.Role_ROLE_MANAGER {
		return "", fmt.Errorf("%w: the certificate is of %s %s", errNotManager, pki.RoleName(who.Role), who.Name)
	}
	if y.options.Admit != nil && !y.options.Admit(who.Name) {
		return "", fmt.Errorf("%w: %s", errRemoved, who.Name)
	}
	return who.Name, nil
}

// serve hands raft a connection that came in, and returns when it has ended.
func (y *layer) serve(conn *tls.Conn) {
	defer conn.Close()
	chain := conn.ConnectionState().PeerCertificates
	peer, err := y.verify(chain)
	var l *link
	if err == nil {
		l, err = y.add(conn, peer, chain, true)
	}
	if err != nil {
		y.options.Logger.Log(context.Background(), y.severity(err), "refused a connection for raft", "remote", conn.RemoteAddr().String(), "error", err)
		return
	}
	defer l.Close()
	select {
	case y.incoming <- l:
	case <-y.closed:
		return
	}
	<-l.ended
}

// severity tells how loud a refusal is. Anybody can call; who has a certificate of this cluster is worth a
// warning, and another one after a while.
func (y *layer) severity(why error) slog.Level {
	y.mu.Lock()
	defer y.mu.Unlock()
	if errors.Is(why, pki.ErrForeign) || errors.Is(why, pki.ErrNone) || errors.Is(why, errClosed) || time.Since(y.warned) < quiet {
		return slog.LevelDebug
	}
	y.warned = time.Now()
	return slog.LevelWarn
}

// add takes a connection into the account.
func (y *layer) add(conn net.Conn, peer string, chain []*x509.Certificate, inbound bool) (*link, error) {
	l := &link{Conn: conn, layer: y, peer: peer, chain: chain, inbound: inbound, ended: make(chan struct{})}
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.done {
		return nil, errClosed
	}
	if inbound && y.count(peer) >= perPeer {
		return nil, fmt.Errorf("%w: %s", errTooMany, peer)
	}
	l.expiry = time.AfterFunc(time.Until(chain[0].NotAfter), func() { l.Close() })
	y.links[l] = struct{}{}
	return l, nil
}

func (y *layer) count(peer string) int {
	n := 0
	for l := range y.links {
		if l.inbound && l.peer == peer {
			n++
		}
	}
	return n
}

func (y *layer) forget(l *link) {
	y.mu.Lock()
	defer y.mu.Unlock()
	delete(y.links, l)
}

func (y *layer) all() []*link {
	y.mu.Lock()
	defer y.mu.Unlock()
	var all []*link
	for l := range y.links {
		all = append(all, l)
	}
	return all
}

func (y *layer) recheck() {
	for _, l := range y.all() {
		if _, err := y.verify(l.chain); err != nil {
			y.options.Logger.Info("cut off a manager from raft", "manager", l.peer, "error", err)
			l.Close()
		}
	}
}

// Accept implements net.Listener.
func (y *layer) Accept() (net.Conn, error) {
	select {
	case l := <-y.incoming:
		return l, nil
	case <-y.closed:
		return nil, errClosed
	}
}

// Dial implements raft.StreamLayer. The address is a target.
func (y *layer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, addr, err := parseTarget(to)
	if err != nil {
		return nil, err
	}
	y.mu.Lock()
	y.dialed[to]++
	y.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, chain, err := y.dial(ctx, id, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to manager %s at %s: %w", id, addr, err)
	}
	l, err := y.add(conn, id, chain, false)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return l, nil
}

// dials counts how often a target was dialed.
func (y *layer) dials(to raft.ServerAddress) int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.dialed[to]
}

func (y *layer) dial(ctx context.Context, id, addr string) (net.Conn, []*x509.Certificate, error) {
	var chain []*x509.Certificate
	config := y.options.Credentials.ClientConfig()
	config.NextProtos = []string{ALPN}
	config.VerifyConnection = func(s tls.ConnectionState) error {
		chain = s.PeerCertificates
		who, err := y.verify(chain)
		if err != nil {
			return err
		}
		if who != id {
			return fmt.Errorf("manager %s answers there", who)
		}
		if s.NegotiatedProtocol != ALPN {
			return errors.New("it does not speak raft")
		}
		return nil
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{KeepAlive: keepAlive}, Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	return conn, chain, err
}

// Close implements net.Listener. It ends all connections.
func (y *layer) Close() error {
	y.mu.Lock()
	already := y.done
	y.done = true
	y.mu.Unlock()
	if already {
		return nil
	}
	close(y.closed)
	for _, l := range y.all() {
		l.Close()
	}
	return nil
}

// Addr implements net.Listener. Raft asks its Wire instead.
func (y *layer) Addr() net.Addr { return place{} }

type place struct{}

// Network implements net.Addr.
func (place) Network() string { return "tcp" }

// String implements net.Addr.
func (place) String() string { return "" }
