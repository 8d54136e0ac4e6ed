package logstream_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/dispatch"
	"github.com/cuemby/warren/internal/manager/logstream"
	"github.com/cuemby/warren/internal/manager/relay"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// sessions is the whole SessionService, as the manager puts it together.
type sessions struct {
	*dispatch.Dispatcher
	*relay.Exchange
}

var _ warrenv1connect.SessionServiceHandler = sessions{}

// serve runs a manager's part in logs behind a real HTTP/2 server.
func serve(t *testing.T, objects ...state.Object) (*http.Client, string) {
	t.Helper()
	store := statetest.New(t, objects...)
	d := dispatch.New(store, statetest.NewProposer(store), slog.New(slog.DiscardHandler))
	x := relay.New(d)
	logs := logstream.New(store, x, logstream.Refs{
		Service: func(s state.Snapshot, ref string) (*warrenv1.Service, error) { return s.ServiceByName(ref), nil },
		Task:    func(s state.Snapshot, ref string) (*warrenv1.Task, error) { return s.Task(ref), nil },
	})
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewSessionServiceHandler(sessions{d, x}))
	mux.Handle(warrenv1connect.NewLogServiceHandler(logs))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := caller.Caller{Role: warrenv1.Role_ROLE_AGENT, Name: "n1"}
		mux.ServeHTTP(w, r.WithContext(caller.With(r.Context(), who)))
	}))
	server.Config.Protocols = protocols
	server.Start()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		server.CloseClientConnections()
		server.Close()
	})
	return &http.Client{Transport: &http.Transport{Protocols: protocols}}, server.URL
}

// attend is an agent that serves what its session asks for, and tells the ids of streams it is to close.
func attend(t *testing.T, client warrenv1connect.SessionServiceClient, node string, serve func(*warrenv1.OpenStream)) <-chan string {
	t.Helper()
	session := client.Attend(t.Context())
	if err := session.Send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Hello{
		Hello: &warrenv1.Hello{NodeId: node, Facts: statetest.Node(node).GetFacts()},
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Receive(); err != nil {
		t.Fatal(err)
	}
	closed := make(chan string, 16)
	var agent sync.WaitGroup
	agent.Go(func() {
		for {
			m, err := session.Receive()
			if err != nil {
				return
			}
			if ask := m.GetOpenStream(); ask != nil {
				agent.Go(func() { serve(ask) })
			}
			if m.GetCloseStream() != nil {
				closed <- m.GetCloseStream().GetStreamId()
			}
		}
	})
	t.Cleanup(agent.Wait)
	return closed
}

func TestOutputTravelsFromAgentToUser(t *testing.T) {
	http, url := serve(t, statetest.Cluster(), statetest.Node("n1"), statetest.Replicated("web", 2),
		statetest.Task("t1", "web", 1, "n1"), statetest.Task("t2", "web", 2, "n1"))
	client := warrenv1connect.NewSessionServiceClient(http, url)
	closed := attend(t, client, "n1", func(ask *warrenv1.OpenStream) {
		out := client.Relay(t.Context())
		batch := &warrenv1.LogBatch{CaughtUp: true}
		first := int64(ask.GetLogs().GetTaskId()[1] - '0')
		for i := range int64(3) {
			batch.Lines = append(batch.Lines, &warrenv1.LogLine{
				Time: &timestamppb.Timestamp{Seconds: first + 2*i}, Line: fmt.Append(nil, first+2*i),
			})
		}
		err := out.Send(&warrenv1.RelayRequest{StreamId: ask.GetStreamId(), Data: &warrenv1.RelayRequest_Logs{Logs: batch}})
		if err != nil {
			t.Error(err)
		}
		_, _ = out.Receive() // until the manager has enough
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	logs, err := warrenv1connect.NewLogServiceClient(http, url).StreamLogs(ctx, connect.NewRequest(&warrenv1.StreamLogsRequest{
		Target:    &warrenv1.StreamLogsRequest_Service{Service: "web"},
		Selection: &warrenv1.LogSelection{Follow: true},
	}))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < 6 && logs.Receive() {
		for _, l := range logs.Msg().GetLines() {
			got = append(got, l.GetTaskName()+" "+string(l.GetLine()))
		}
	}
	if want := "[web.1 1 web.2 2 web.1 3 web.2 4 web.1 5 web.2 6]"; fmt.Sprint(got) != want {
		t.Errorf("got %v (%v), want %v", got, logs.Err(), want)
	}
	cancel()
	if a, b := <-closed, <-closed; a == b {
		t.Errorf("told twice to close %s", a)
	}
}
