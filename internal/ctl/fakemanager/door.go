package fakemanager

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Door is a further manager of the same cluster, at a TLS address of its own. It does not ask who calls.
type Door struct {
	Addr   string
	server *http.Server
	served chan struct{}

	mu    sync.Mutex
	calls int
	block func(w http.ResponseWriter, r *http.Request) bool
}

// Open opens a door, at addr or, where that is empty, at any free port of this machine.
func (m *Manager) Open(addr string) (*Door, error) {
	mine, err := m.Credentials(warrenv1.Role_ROLE_MANAGER, "m")
	if err != nil {
		return nil, err
	}
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	d := &Door{Addr: listener.Addr().String(), served: make(chan struct{})}
	d.server = &http.Server{
		TLSConfig: pki.NewHolder(mine).ServerConfig(), Protocols: new(http.Protocols),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			d.mu.Lock()
			d.calls++
			block := d.block
			d.mu.Unlock()
			if block == nil || !block(w, r) {
				m.server.Handler.ServeHTTP(w, r)
			}
		}),
	}
	d.server.Protocols.SetHTTP2(true)
	go func() {
		defer close(d.served)
		_ = d.server.ServeTLS(listener, "", "") // ends with Close
	}()
	return d, nil
}

// Close ends that manager as kill -9 does; the cluster lives on behind the others.
func (d *Door) Close() {
	_ = d.server.Close()
	<-d.served
}

// Block has calls looked at first: they get no further where block returns true, having answered itself.
func (d *Door) Block(block func(w http.ResponseWriter, r *http.Request) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.block = block
}

// Calls is how many calls came in.
func (d *Door) Calls() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

// Credentials are what somebody of that name shows to managers behind doors.
func (m *Manager) Credentials(role warrenv1.Role, name string) (*pki.Credentials, error) {
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	cert, err := m.ca.Issue(&key.PublicKey, pki.Identity{Cluster: "fake", Role: role, Name: name}, time.Hour, time.Now())
	if err != nil {
		return nil, err
	}
	return pki.New(key, cert, [][]byte{m.ca.Certificate.Raw}, nil)
}
