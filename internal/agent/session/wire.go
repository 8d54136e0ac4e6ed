package session

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// dialTimeout bounds how long a manager that does not answer keeps the others from being tried.
const dialTimeout = 3 * time.Second

// wire is one stream's connection to a manager, HTTP/2 over TLS with the node's certificate. Every stream has one of its own: a
// flood of log lines holds up no heartbeat, and cutting a wire ends what hangs on it at once. The
// stream's context alone would not: a request whose body waits to be written, or a peer that is gone
// without a word, keeps it from being heard.
type wire struct {
	client    warrenv1connect.SessionServiceClient
	transport *http.Transport

	mu    sync.Mutex
	conns []net.Conn
	isCut bool
}

func newWire(manager string, config *tls.Config) *wire {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	w := &wire{}
	w.transport = &http.Transport{
		Protocols: &protocols, DialContext: w.dial,
		TLSClientConfig: config, TLSHandshakeTimeout: dialTimeout,
	}
	// Messages are small and the way is short: compressing them would cost more than it saves.
	w.client = warrenv1connect.NewSessionServiceClient(&http.Client{Transport: w.transport}, "https://"+manager,
		connect.WithAcceptCompression("gzip", nil, nil))
	return w
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isCut {
		conn.Close()
		return nil, net.ErrClosed
	}
	w.conns = append(w.conns, conn)
	return conn, nil
}

// cut closes the connection, whatever is on it.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = true
	for _, conn := range w.conns {
		conn.Close()
	}
	w.transport.CloseIdleConnections()
}
