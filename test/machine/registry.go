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
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// registryServer is an image registry in this process, listening on the lab's bridge.
type registryServer struct {
	address   string
	server    *http.Server
	transport *http.Transport
	served    chan error
}

func startRegistry(ctx context.Context, network string, address netip.AddrPort) (*registryServer, error) {
	quiet := log.New(io.Discard, "", 0)
	r := &registryServer{
		address: address.String(),
		server: &http.Server{
			Handler:           registry.New(registry.Logger(quiet)),
			ErrorLog:          quiet,
			ReadHeaderTimeout: 10 * time.Second,
		},
		transport: &http.Transport{
			DialContext: func(ctx context.Context, protocol, address string) (net.Conn, error) {
				return dialIn(ctx, network, protocol, address)
			},
		},
		served: make(chan error, 1),
	}
	var listener net.Listener
	err := inNetwork(network, func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", r.address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start the lab's registry: %w", err)
	}
	go func() { r.served <- r.server.Serve(listener) }()
	return r, nil
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
