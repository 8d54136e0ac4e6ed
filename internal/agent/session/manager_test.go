package session

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

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

	addr     string
	sessions chan *managerSession
	relays   chan *managerRelay
}

// managerSession is a welcomed session as the manager sees it.
type managerSession struct {
	hello  *warrenv1.Hello
	heard  chan *warrenv1.AttendRequest // all but heartbeats; closed at the end
	beats  chan struct{}
	stream *connect.BidiStream[warrenv1.AttendRequest, warrenv1.AttendResponse]
	hangUp context.CancelFunc
}

type managerRelay struct {
	heard  chan *warrenv1.RelayRequest // closed at the end
	hangUp context.CancelFunc
}

func startManager(t *testing.T, m *fakeManager) *fakeManager {
	t.Helper()
	if m.cluster == "" {
		m.cluster = "cluster"
	}
	m.sessions, m.relays = make(chan *managerSession, 16), make(chan *managerRelay, 256)
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewSessionServiceHandler(m, connect.WithReadMaxBytes(4<<20))) // as managers do
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	m.addr = server.Listener.Addr().String()
	return m
}

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
	s := &managerSession{hello: first.GetHello(), heard: make(chan *warrenv1.AttendRequest, 256),
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
				_ = stream.Send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Heartbeat{
					Heartbeat: &warrenv1.Heartbeat{Interval: durationpb.New(m.interval)},
				}})
			}
		}
	}()
	<-ctx.Done()
	return nil
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
