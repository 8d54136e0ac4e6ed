package membership

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/jointoken"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const month = 30 * 24 * time.Hour

// fakeManager is a manager of one over real TLS: it lets in whoever shows its token, and renews.
type fakeManager struct {
	warrenv1connect.UnimplementedMembershipServiceHandler
	cluster     string
	credentials *pki.Holder
	addr        string

	mu      sync.Mutex
	ca      *pki.CA
	roots   [][]byte
	bridge  []byte
	life    time.Duration
	refusal error // answers every call
	joins   int
	renews  chan string // names, as they are renewed
}

func startManager(t *testing.T, cluster string) *fakeManager {
	t.Helper()
	m := &fakeManager{cluster: cluster, life: month, renews: make(chan string, 16)}
	m.ca = newCA(t, cluster)
	m.roots = [][]byte{m.ca.Certificate.Raw}
	m.credentials = pki.NewHolder(m.own(t, time.Now()))
	m.addr = m.serve(t, m.credentials)
	return m
}

func newCA(t *testing.T, cluster string) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// own makes credentials of the manager's own, issued then.
func (m *fakeManager) own(t *testing.T, at time.Time) *pki.Credentials {
	t.Helper()
	return m.issue(t, warrenv1.Role_ROLE_MANAGER, at)
}

func (m *fakeManager) issue(t *testing.T, role warrenv1.Role, at time.Time) *pki.Credentials {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	name, err := pki.NameOf(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := m.ca.Issue(&key.PublicKey, pki.Identity{Cluster: m.cluster, Role: role, Name: name}, month, at)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pki.New(key, certificate, m.roots, m.bridge)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve answers with credentials at an address of its own.
func (m *fakeManager) serve(t *testing.T, credentials *pki.Holder) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewMembershipServiceHandler(m))
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	server := &http.Server{
		Protocols: protocols, TLSConfig: credentials.ServerConfig(), ErrorLog: log.New(io.Discard, "", 0),
		ConnContext: caller.Connected, Handler: caller.Identify(credentials, mux),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.ServeTLS(l, "", "") // ends with Close
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return l.Addr().String()
}

// token is the cluster's join token of a role.
func (m *fakeManager) token(role warrenv1.Role) string {
	return jointoken.Token{Digest: pki.Digest(m.ca.Certificate), Role: role, Secret: make([]byte, jointoken.SecretBytes)}.String()
}

func (m *fakeManager) worker() string { return m.token(warrenv1.Role_ROLE_AGENT) }

// edit changes what the manager does.
func (m *fakeManager) edit(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func (m *fakeManager) grant(request *warrenv1.CertificateRequest) ([]byte, string, error) {
	key, err := pki.Check(request, time.Now())
	if err != nil {
		return nil, "", connect.NewError(connect.CodeFailedPrecondition, err)
	}
	name, err := pki.NameOf(key)
	if err != nil {
		return nil, "", err
	}
	certificate, err := m.ca.Issue(key, pki.Identity{Cluster: m.cluster, Role: warrenv1.Role_ROLE_AGENT, Name: name}, m.life, time.Now())
	return certificate, name, err
}

// Join implements warrenv1connect.MembershipServiceHandler.
func (m *fakeManager) Join(_ context.Context, req *connect.Request[warrenv1.JoinRequest]) (*connect.Response[warrenv1.JoinResponse], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joins++
	if m.refusal != nil {
		return nil, m.refusal
	}
	certificate, name, err := m.grant(req.Msg.GetCertificate())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.JoinResponse{
		Certificate: certificate, Roots: m.roots, Bridge: m.bridge, ClusterId: m.cluster, Name: name,
		Role: warrenv1.Role_ROLE_AGENT, Managers: []string{"advertised:1"},
	}), nil
}

// Renew implements warrenv1connect.MembershipServiceHandler.
func (m *fakeManager) Renew(ctx context.Context, req *connect.Request[warrenv1.RenewRequest]) (*connect.Response[warrenv1.RenewResponse], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refusal != nil {
		return nil, m.refusal
	}
	certificate, name, err := m.grant(req.Msg.GetCertificate())
	if err != nil {
		return nil, err
	}
	if who := caller.From(ctx); who.Role != warrenv1.Role_ROLE_AGENT || who.Name != name {
		return nil, connect.NewError(connect.CodePermissionDenied, who.Refused)
	}
	m.renews <- name
	return connect.NewResponse(&warrenv1.RenewResponse{Certificate: certificate, Roots: m.roots, Bridge: m.bridge}), nil
}

// record keeps addresses in memory.
type record struct {
	mu    sync.Mutex
	addrs []string
}

func (r *record) Managers() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addrs
}

func (r *record) RecordManagers(addrs []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addrs = addrs
	return nil
}

func openIn(t *testing.T, dir string, seeds ...string) *Membership {
	t.Helper()
	m, err := Open(Options{Dir: dir, Record: &record{}, Seeds: seeds, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// member is one that has joined.
func member(t *testing.T, manager *fakeManager) *Membership {
	t.Helper()
	m := openIn(t, t.TempDir())
	if _, err := m.Join(t.Context(), manager.worker(), []string{manager.addr}); err != nil {
		t.Fatal(err)
	}
	return m
}

// keeping runs Keep until the test ends.
func keeping(t *testing.T, m *Membership) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.Keep(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// next takes one from a channel.
func next[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(15 * time.Second):
		t.Fatalf("waiting for %s: it did not come", what)
		panic("unreachable")
	}
}
