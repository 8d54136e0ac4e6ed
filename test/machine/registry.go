//go:build linux

package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// registryServer is an image registry in this process, listening on the lab's bridge.
type registryServer struct {
	server    *http.Server
	transport *http.Transport
	served    chan error
	lock      atomic.Pointer[url.Userinfo] // who may come in; everyone where it is nil
}

// registryAddress is where machines with IPv4 find it, registryName what it is called on all.
const (
	registryAddress = "10.77.0.1:" + registryPort
	registryName    = "registry"
)

func startRegistry(ctx context.Context, network string) (*registryServer, error) {
	quiet := log.New(io.Discard, "", 0)
	r := &registryServer{
		server: &http.Server{ErrorLog: quiet, ReadHeaderTimeout: 10 * time.Second},
		transport: &http.Transport{
			DialContext: func(ctx context.Context, protocol, address string) (net.Conn, error) {
				return dialIn(ctx, network, protocol, address)
			},
		},
		served: make(chan error, 1),
	}
	r.server.Handler = r.guard(registry.New(registry.Logger(quiet)))
	var listener net.Listener
	err := inNetwork(network, func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", ":"+registryPort)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start the lab's registry: %w", err)
	}
	go func() { r.served <- r.server.Serve(listener) }()
	return r, nil
}

// guard turns away whoever does not know the name and the password, where there are such.
func (r *registryServer) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if lock := r.lock.Load(); lock != nil {
			user, password, _ := request.BasicAuth()
			if url.UserPassword(user, password).String() != lock.String() {
				w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
		}
		next.ServeHTTP(w, request)
	})
}

func (r *registryServer) stop() error {
	r.transport.CloseIdleConnections()
	err := r.server.Close()
	if served := <-r.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// dialIn connects from inside a network namespace. The address must be numeric: a name would be
// looked up on threads that are elsewhere.
func dialIn(ctx context.Context, network, protocol, address string) (net.Conn, error) {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial in the lab: %w", err)
	}
	var conn net.Conn
	err = inNetwork(network, func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, protocol, target.String())
		return err
	})
	return conn, err
}
