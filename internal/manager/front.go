package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/profiles"
	"github.com/cuemby/warren/internal/unixsocket"
)

const (
	// headerTimeout ends connections that do not come to the point; idleTimeout those that no longer say
	// anything. Open streams are not idle.
	headerTimeout = 10 * time.Second
	idleTimeout   = 3 * time.Minute
	// maxStreams is how many calls one connection may carry at once: a user's program may watch many
	// things, a proxy may carry many users.
	maxStreams = 10_000
	// pingAfter is how long a connection may be silent before it is asked whether it lives, and how long
	// the answer and every write may take.
	pingAfter = 15 * time.Second
)

// front is where calls come in: the unix socket, and one TCP address for users, agents and the other
// managers, which can be changed while it is open.
type front struct {
	handler     http.Handler
	credentials *pki.Holder
	// protocols take connections that are not HTTP over, by the name that TLS agreed on.
	protocols map[string]func(*tls.Conn)
	logger    *slog.Logger

	mu      sync.Mutex
	socket  *listener
	tcp     *listener // nil where it listens on no address
	failed  func(error)
	serving sync.WaitGroup
}

// listener is one place where calls come in.
type listener struct {
	net.Listener
	server  *http.Server
	retired atomic.Bool // takes no more connections, on purpose
}

// open takes the unix socket, and the address unless it is empty.
func (f *front) open(ctx context.Context, socket, addr string) error {
	l, err := unixsocket.Listen(ctx, socket, "warren-manager")
	if err != nil {
		return err
	}
	f.socket = f.prepare(l)
	tcp, err := f.listen(ctx, addr)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	f.tcp = tcp
	return nil
}

func (f *front) listen(ctx context.Context, addr string) (*listener, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for agents, users and managers: %w: choose another address with --listen-addr", err)
	}
	return f.prepare(l), nil
}

// prepare makes a listener's server: HTTP/1.1 for curl, HTTP/2 for everyone else; in plain text on the
// unix socket, and over TLS alone where others can reach it.
func (f *front) prepare(l net.Listener) *listener {
	server := &http.Server{
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, PingTimeout: pingAfter, WriteByteTimeout: pingAfter},
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(f.logger.Handler(), slog.LevelDebug),
		ConnContext:       caller.Connected,
	}
	server.Protocols.SetHTTP1(true)
	handler := f.handler
	if local(l) {
		server.Protocols.SetUnencryptedHTTP2(true)
		handler = profiles.With(handler)
	} else {
		server.Protocols.SetHTTP2(true)
		handler = boundStrangers(handler)
		server.TLSConfig = f.credentials.ServerConfig()
		server.TLSNextProto = make(map[string]func(*http.Server, *tls.Conn, http.Handler))
		for name, take := range f.protocols {
			server.TLSConfig.NextProtos = append(server.TLSConfig.NextProtos, name)
			server.TLSNextProto[name] = func(_ *http.Server, c *tls.Conn, _ http.Handler) { take(c) }
		}
	}
	server.Handler = caller.Identify(f.credentials, handler)
	return &listener{Listener: l, server: server}
}

// local tells whether a listener is the unix socket.
func local(l net.Listener) bool { return l.Addr().Network() == "unix" }

// start answers calls. What keeps it from going on is told to failed.
func (f *front) start(failed func(error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = failed
	f.serve(f.socket)
	f.serve(f.tcp)
}

func (f *front) serve(l *listener) {
	if l == nil {
		return
	}
	f.logger.Info("listening", "addr", l.Addr().String())
	f.serving.Go(func() {
		serve := l.server.Serve
		if !local(l) {
			serve = func(n net.Listener) error { return l.server.ServeTLS(n, "", "") }
		}
		if err := serve(l.Listener); !errors.Is(err, http.ErrServerClosed) && !l.retired.Load() {
			f.failed(fmt.Errorf("serve %s: %w", l.Addr(), err))
		}
	})
}

// move listens on another TCP address from now on. Where that fails the old one stays in force.
func (f *front) move(ctx context.Context, addr string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.tcp
	next, err := f.listen(ctx, addr)
	if err == nil {
		f.tcp = next
		f.serve(next)
		f.retire(before)
		return nil
	}
	if before == nil {
		return err
	}
	// The old address may be what stands in the way, as 0.0.0.0 does for every other of its port.
	was := before.Addr().String()
	f.retire(before)
	next, err = f.listen(ctx, addr)
	if err != nil {
		back, again := f.listen(ctx, was)
		f.tcp, err = back, errors.Join(err, again)
		f.serve(back)
		return err
	}
	f.tcp = next
	f.serve(next)
	return nil
}

// retire takes no more connections on a listener and lets what is on its way end.
func (f *front) retire(l *listener) {
	if l == nil {
		return
	}
	l.retired.Store(true)
	l.Close()
	f.serving.Go(func() { _ = f.shut(l) }) // which says by itself what is wrong
}

// shut ends a listener's server; what is on its way has a few seconds.
func (f *front) shut(l *listener) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := l.server.Shutdown(ctx); err != nil {
		f.logger.Warn("calls were cut off", "addr", l.Addr().String(), "error", err)
		return l.server.Close()
	}
	return nil
}

// close ends all, and returns when nothing is served any more.
func (f *front) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []error
	for _, l := range []*listener{f.socket, f.tcp} {
		if l != nil {
			all = append(all, f.shut(l), closed(l.Close()))
		}
	}
	f.serving.Wait()
	return errors.Join(all...)
}

// closed takes no offence at what was closed before.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// addr is the TCP address, nil where there is none.
func (f *front) addr() net.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tcp == nil {
		return nil
	}
	return f.tcp.Addr()
}
