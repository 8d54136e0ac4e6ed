package relay

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/caller"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// sessions are sessions of which the test plays the agent.
type sessions struct {
	sent  chan *warrenv1.AttendResponse
	ended chan struct{}
	err   error
}

func newSessions() *sessions {
	return &sessions{sent: make(chan *warrenv1.AttendResponse, 16), ended: make(chan struct{})}
}

func (s *sessions) Await(context.Context, string) {}

func (s *sessions) Send(_ string, m *warrenv1.AttendResponse) (<-chan struct{}, error) {
	if s.err != nil {
		return nil, s.err
	}
	s.sent <- m
	return s.ended, nil
}

// handler serves Relay alone.
type handler struct {
	warrenv1connect.UnimplementedSessionServiceHandler
	x *Exchange
}

func (h handler) Relay(ctx context.Context, s *connect.BidiStream[warrenv1.RelayRequest, warrenv1.RelayResponse]) error {
	return h.x.Relay(ctx, s)
}

// nodeHeader says which node's agent makes a call; n1's unless it is set.
const nodeHeader = "Node"

// serve puts x behind a real HTTP/2 server.
func serve(t *testing.T, x *Exchange) warrenv1connect.SessionServiceClient {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewSessionServiceHandler(handler{x: x}))
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	known := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := caller.Caller{Role: warrenv1.Role_ROLE_AGENT, Name: cmp.Or(r.Header.Get(nodeHeader), "n1")}
		mux.ServeHTTP(w, r.WithContext(caller.With(r.Context(), who)))
	})
	server := &http.Server{Handler: known, Protocols: &protocols}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Protocols: &protocols}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		running.Wait()
	})
	return warrenv1connect.NewSessionServiceClient(&http.Client{Transport: transport}, "http://"+listener.Addr().String())
}

type dialled = connect.BidiStreamForClient[warrenv1.RelayRequest, warrenv1.RelayResponse]

// connected is a stream that is open at both ends.
func connected(t *testing.T) (*sessions, *Stream, *dialled, warrenv1connect.SessionServiceClient) {
	t.Helper()
	s := newSessions()
	x := New(s)
	client := serve(t, x)
	opened := make(chan *Stream)
	go func() {
		stream, err := x.Open(t.Context(), "n1", logsOf("t1"))
		if err != nil {
			t.Error(err)
		}
		opened <- stream
	}()
	asked := (<-s.sent).GetOpenStream()
	if asked.GetLogs().GetTaskId() != "t1" || len(asked.GetStreamId()) < 26 {
		t.Fatalf("the agent was asked for %v", asked)
	}
	agent := client.Relay(t.Context())
	if err := agent.Send(&warrenv1.RelayRequest{StreamId: asked.GetStreamId()}); err != nil {
		t.Fatal(err)
	}
	stream := <-opened
	t.Cleanup(stream.Close)
	return s, stream, agent, client
}

func logsOf(task string) *warrenv1.OpenStream {
	return &warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Logs{Logs: &warrenv1.LogsPurpose{TaskId: task}}}
}

func lines(texts ...string) *warrenv1.RelayRequest {
	batch := &warrenv1.LogBatch{}
	for _, text := range texts {
		batch.Lines = append(batch.Lines, &warrenv1.LogLine{Line: []byte(text)})
	}
	return &warrenv1.RelayRequest{Data: &warrenv1.RelayRequest_Logs{Logs: batch}}
}

func TestWhatTheAgentSendsReachesWhoAsked(t *testing.T) {
	_, stream, agent, _ := connected(t)
	for _, text := range []string{"one", "two"} {
		if err := agent.Send(lines(text)); err != nil {
			t.Fatal(err)
		}
		m, err := stream.Receive(t.Context())
		if err != nil || string(m.GetLogs().GetLines()[0].GetLine()) != text {
			t.Fatalf("got %v, %v", m, err)
		}
	}
	if err := agent.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("the end came as %v", err)
	}
	if _, err := agent.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("the agent's call ended with %v", err)
	}
}

func TestAnAgentsRefusalReachesWhoAsked(t *testing.T) {
	_, stream, agent, _ := connected(t)
	if err := agent.Send(&warrenv1.RelayRequest{Data: &warrenv1.RelayRequest_Error{Error: "no such task"}}); err != nil {
		t.Fatal(err)
	}
	var refusal *AgentError
	if _, err := stream.Receive(t.Context()); !errors.As(err, &refusal) || refusal.Reason != "no such task" {
		t.Errorf("got %v", err)
	}
}

func TestClosingAStreamEndsTheAgentsCallAndTellsIt(t *testing.T) {
	s, stream, agent, _ := connected(t)
	stream.Close()
	stream.Close()
	if got := (<-s.sent).GetCloseStream().GetStreamId(); got != stream.id {
		t.Errorf("told to close %q", got)
	}
	if _, err := agent.Receive(); connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("the agent's call ended with %v", err)
	}
	<-stream.ended // the goroutine that read from the agent is gone
	if len(s.sent) != 0 {
		t.Error("told twice")
	}
}

func TestAStreamsIDIsGoodOnce(t *testing.T) {
	_, stream, _, client := connected(t)
	for _, id := range []string{stream.id, "guess", ""} {
		again := client.Relay(t.Context())
		if err := again.Send(&warrenv1.RelayRequest{StreamId: id}); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err) // EOF where the answer was faster than the rest of the message: Receive tells it
		}
		if _, err := again.Receive(); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("stream id %q: %v", id, err)
		}
	}
}

func TestAStreamIsForTheNodeThatWasAskedAlone(t *testing.T) {
	s := newSessions()
	x := New(s)
	client := serve(t, x)
	opened := make(chan error)
	go func() {
		stream, err := x.Open(t.Context(), "n1", logsOf("t1"))
		if err == nil {
			stream.Close()
		}
		opened <- err
	}()
	id := (<-s.sent).GetOpenStream().GetStreamId()
	other := client.Relay(t.Context())
	other.RequestHeader().Set(nodeHeader, "n2")
	if err := other.Send(&warrenv1.RelayRequest{StreamId: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Receive(); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("n2 was told %v", err)
	}
	if err := client.Relay(t.Context()).Send(&warrenv1.RelayRequest{StreamId: id}); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("n1, which was asked, came too late: %v", err)
	}
}

func TestAReaderThatDoesNotReadStopsTheAgent(t *testing.T) {
	_, stream, agent, _ := connected(t)
	big := lines(string(make([]byte, 16<<10)))
	sent := make(chan int)
	const total = 1024 // 16 MiB
	go func() {
		for range total {
			if agent.Send(big) != nil {
				break
			}
			sent <- 1
		}
		close(sent)
	}()
	// The agent is stopped when it sends nothing although nothing keeps it but the reader.
	var before int
	for stopped := false; !stopped; {
		select {
		case <-sent:
			before++
		case <-time.After(300 * time.Millisecond):
			stopped = true
		}
	}
	if before >= total/4 {
		t.Fatalf("%d KiB were taken in with nobody reading", before*16)
	}
	go func() {
		for range sent {
		}
	}()
	for range total {
		if _, err := stream.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnAgentThatDoesNotDialInTimeIsTurnedAwayLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions()
		x := New(s)
		began := time.Now()
		if _, err := x.Open(t.Context(), "n1", logsOf("t1")); !errors.Is(err, ErrNoAnswer) || time.Since(began) != dialTimeout {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		id := (<-s.sent).GetOpenStream().GetStreamId()
		if (<-s.sent).GetCloseStream().GetStreamId() != id {
			t.Error("the agent was not told that it need not dial any more")
		}
		if x.claim(id, "n1") != nil {
			t.Error("the stream is still awaited")
		}
	})
}

func TestAnAgentThatGoesAwayIsNotWaitedFor(t *testing.T) {
	s := newSessions()
	close(s.ended)
	x := New(s)
	if _, err := x.Open(t.Context(), "n1", logsOf("t1")); !errors.Is(err, ErrLeft) {
		t.Errorf("got %v", err)
	}
	s.err = errors.New("no session")
	if _, err := x.Open(t.Context(), "n1", logsOf("t1")); !errors.Is(err, s.err) {
		t.Errorf("got %v", err)
	}
	if len(x.awaited) != 0 {
		t.Errorf("%d streams are awaited", len(x.awaited))
	}
}

func TestAReaderCanGiveUpWaiting(t *testing.T) {
	s, stream, _, _ := connected(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := stream.Receive(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	x := New(s)
	if _, err := x.Open(ctx, "n1", logsOf("t1")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
