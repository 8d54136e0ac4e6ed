// Package caller tells who makes a call: a program on this machine, through the unix socket, or whoever a
// certificate of the cluster is for. What callers may do is for packages access and api to say.
//
// Start with Identify, which finds out, and From, which tells a handler.
package caller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// SocketGroup may use the unix sockets, beside root, where the group exists.
const SocketGroup = "warren"

// Caller is who makes a call.
type Caller struct {
	Role warrenv1.Role
	// Name is a member's id or a user's name; on the unix socket the account there, such as root.
	Name string
	// Local callers are on the same machine, at the other end of a unix socket.
	Local bool
	// Addr is where the caller is, host:port; empty on the unix socket.
	Addr string
	// Key is the digest of the certificate's public key, Issuer that of the CA that issued it (pki.Digest),
	// Expires when it ends. All are unset for local callers.
	Key     []byte
	Issuer  string
	Expires time.Time
	// Via is the id of the manager that passed the call on, empty where the caller came itself.
	Via string
	// Refused says why a certificate that was shown is worth nothing. The role is anonymous then.
	Refused error
}

// String names the caller for people, such as "agent abc" or "root on the unix socket".
func (c Caller) String() string {
	switch {
	case c.Local:
		return c.Name + " on the unix socket"
	case c.Role == warrenv1.Role_ROLE_ANONYMOUS:
		return "somebody without a certificate"
	}
	return pki.RoleName(c.Role) + " " + c.Name
}

type (
	callerKey     struct{}
	connectionKey struct{}
)

// From returns who makes the call that ctx belongs to: nobody in particular where Identify has not seen it.
func From(ctx context.Context) Caller {
	if c, ok := ctx.Value(callerKey{}).(Caller); ok {
		return c
	}
	return Caller{Role: warrenv1.Role_ROLE_ANONYMOUS}
}

// With returns a context of a call that c makes.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// connection is what is known of one connection. It is found out at its first call, and again when it may
// have changed: a connection must not outlive the trust in the certificate that it began with.
type connection struct {
	conn net.Conn

	mu      sync.Mutex
	known   bool
	against *pki.Credentials // what the certificate was checked against
	who     Caller
}

// Connected has a server remember the connection a call came on; it is a http.Server's ConnContext.
func Connected(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, &connection{conn: c})
}

// Identify finds out who makes each call, for handlers to ask From. The server must use Connected.
// Certificates are checked against the credentials in force, once for each connection and again when these
// have changed.
func Identify(credentials *pki.Holder, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(With(r.Context(), identify(credentials, r))))
	})
}

func identify(credentials *pki.Holder, r *http.Request) Caller {
	c, ok := r.Context().Value(connectionKey{}).(*connection)
	if !ok {
		return Caller{Role: warrenv1.Role_ROLE_ANONYMOUS}
	}
	who := c.identify(credentials.Get(), r.TLS, time.Now())
	if who.Role == warrenv1.Role_ROLE_MANAGER && !who.Local {
		if passed, ok := passedOn(r.Header, who.Name); ok {
			return passed
		}
	}
	return who
}

func (c *connection) identify(mine *pki.Credentials, state *tls.ConnectionState, now time.Time) Caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	// One that was too early may be good by now.
	if !c.known || c.against != mine || errors.Is(c.who.Refused, pki.ErrNotYetValid) {
		c.known, c.against, c.who = true, mine, c.find(mine, state, now)
		if !c.who.Local {
			c.who.Addr = c.conn.RemoteAddr().String()
		}
	}
	if !c.who.Expires.IsZero() && now.After(c.who.Expires) {
		gone := stranger(fmt.Errorf("%w: on %s, and it is %s here", pki.ErrExpired, c.who.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339)))
		gone.Addr = c.who.Addr
		return gone
	}
	return c.who
}

// find finds out who is at the other end.
func (c *connection) find(mine *pki.Credentials, state *tls.ConnectionState, now time.Time) Caller {
	if local, ok := c.conn.(*net.UnixConn); ok {
		if c.known {
			return c.who // who has connected does not change
		}
		return account(local)
	}
	if state == nil || len(state.PeerCertificates) == 0 {
		return stranger(nil)
	}
	if mine == nil {
		return stranger(pki.ErrNone)
	}
	who, err := mine.Verify(state.PeerCertificates, now)
	if err != nil {
		return stranger(err)
	}
	leaf := state.PeerCertificates[0]
	return Caller{
		Role: who.Role, Name: who.Name,
		Key: pki.KeyDigest(leaf), Issuer: mine.Issuer(leaf, state.PeerCertificates[1:]...), Expires: leaf.NotAfter,
	}
}

func stranger(why error) Caller {
	return Caller{Role: warrenv1.Role_ROLE_ANONYMOUS, Refused: why}
}

// account returns who is at the other end of a unix socket. The socket's mode has let them in; this makes
// sure of it by the credentials that the kernel vouches for.
func account(c *net.UnixConn) Caller {
	peer, err := peerOf(c)
	if err != nil {
		return stranger(fmt.Errorf("find out who uses the unix socket: %w", err))
	}
	name := strconv.Itoa(int(peer.Uid))
	found, err := user.LookupId(name)
	if err == nil {
		name = found.Username
	}
	if peer.Uid == 0 || int(peer.Uid) == os.Geteuid() || inGroup(found, peer.Gid) {
		return Caller{Role: warrenv1.Role_ROLE_ADMIN, Name: name, Local: true}
	}
	return stranger(fmt.Errorf("user %s is neither root nor in the group %s", name, SocketGroup))
}

func peerOf(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return peer, errors.Join(err, failed)
}

func inGroup(u *user.User, primary uint32) bool {
	group, err := user.LookupGroup(SocketGroup)
	if err != nil {
		return false
	}
	if group.Gid == strconv.Itoa(int(primary)) {
		return true
	}
	if u == nil {
		return false
	}
	groups, err := u.GroupIds()
	return err == nil && slices.Contains(groups, group.Gid)
}
