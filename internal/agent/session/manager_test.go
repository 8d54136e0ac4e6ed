package session

import (
	"context"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// fakeManager is a manager that a test speaks for: it hands over each session and each stream.
type fakeManager struct {
	warrenv1connect.UnimplementedSessionServiceHandler
	cluster  string
	interval time.Duration
	refusal  error // answers hello
	mute     bool  // answers no heartbeat

	mu     sync.Mutex
	before context.CancelFunc // ends the session before

	authority *testCA // that issues its certificate; the agent's, where unset
	addr      string
	sessions  chan *managerSession
	relays    chan *managerRelay
}

// testCA is a cluster's certificate authority.
type testCA struct{ *pki.CA }

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	ca, err := pki.NewCA("cluster", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{ca}
}

// member issues credentials.
func (ca *testCA) member(t *testing.T, role warrenv1.Role) *pki.Credentials {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	name, err := pki.NameOf(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ca.Issue(&key.PublicKey, pki.Identity{Cluster: "cluster", Role: role, Name: name}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	mine, err := pki.New(key, certificate, [][]byte{ca.Certificate.Raw}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return mine
}

// managerSession is a welcomed session as the manager sees it.
type managerSession struct {
	serial *big.Int // of the certificate that the agent has shown
	hello  *warrenv1.Hello
	heard  chan *warrenv1.AttendRequest // all but heartbeats; closed at the end
	beats  chan struct{}
	hangUp context.CancelFunc

	sending sync.Mutex // of the test, of who answers heartbeats, and of the end
	over    bool
	stream  *connect.BidiStream[warrenv1.AttendRequest, warrenv1.AttendResponse]
}

type managerRelay struct {
	heard  chan *warrenv1.RelayRequest // closed at the end
	hangUp context.CancelFunc
}

func (a *fakeAgent) manager(t *testing.T, m *fakeManager) *fakeManager {
	t.Helper()
	if m.authority == nil {
		m.authority = a.ca
	}
	if m.cluster == "" {
		m.cluster = "cluster"
	}
	m.sessions, m.relays = make(chan *managerSession, 16), make(chan *managerRelay, 256)
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewSessionServiceHandler(m, connect.WithReadMaxBytes(4<<20))) // as managers do
	credentials := pki.NewHolder(m.authority.member(t, warrenv1.Role_ROLE_MANAGER))
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	server := &http.Server{
		Protocols: protocols, TLSConfig: credentials.ServerConfig(), ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), shownKey{}, r.TLS.PeerCertificates[0])))
		}),
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.ServeTLS(listener, "", "") // ends with Close
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	m.addr = listener.Addr().String()
	return m
}

// shownKey is a context's key to the certificate that a caller has shown.
type shownKey struct{}

func (m *fakeManager) Attend(ctx context.Context, stream *connect.BidiStream[warrenv1.AttendRequest, warrenv1.AttendResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	if m.refusal != nil {
		return m.refusal
	}
	err = stream.Send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Welcome{Welcome: &warrenv1.Welcome{
		ClusterId: m.cluster, HeartbeatInterval: durationpb.New(m.interval),
	}}})
	if err != nil {
		return err
	}
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	m.supersede(hangUp)
	s := &managerSession{serial: ctx.Value(shownKey{}).(*x509.Certificate).SerialNumber, hello: first.GetHello(), heard: make(chan *warrenv1.AttendRequest, 256),
		beats: make(chan struct{}, 1024), stream: stream, hangUp: hangUp}
	m.sessions <- s
	go func() {
		defer close(s.heard)
		defer hangUp()
		for {
			message, err := stream.Receive()
			if err != nil {
				return
			}
			if message.GetHeartbeat() == nil {
				s.heard <- message
				continue
			}
			s.beats <- struct{}{}
			if !m.mute {
				_ = s.send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Heartbeat{
					Heartbeat: &warrenv1.Heartbeat{Interval: durationpb.New(m.interval)},
				}})
			}
		}
	}()
	<-ctx.Done()
	s.sending.Lock()
	defer s.sending.Unlock()
	s.over = true
	return nil
}

func (s *managerSession) send(message *warrenv1.AttendResponse) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	if s.over {
		return io.EOF
	}
	return s.stream.Send(message)
}

// supersede ends the session before, as a second one of the same node does.
func (m *fakeManager) supersede(hangUp context.CancelFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.before != nil {
		m.before()
	}
	m.before = hangUp
}

func (m *fakeManager) Relay(ctx context.Context, stream *connect.BidiStream[warrenv1.RelayRequest, warrenv1.RelayResponse]) error {
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	r := &managerRelay{heard: make(chan *warrenv1.RelayRequest, 256), hangUp: hangUp}
	m.relays <- r
	go func() {
		defer close(r.heard)
		defer hangUp()
		for {
			message, err := stream.Receive()
			if err != nil {
				return
			}
			r.heard <- message
		}
	}()
	<-ctx.Done()
	return nil
}
