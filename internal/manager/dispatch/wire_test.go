package dispatch

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// served is a dispatcher behind a real HTTP/2 server.
type served struct {
	store    *state.Store
	proposer *statetest.Proposer
	d        *Dispatcher
	client   warrenv1connect.SessionServiceClient
}

// attendOnly serves Attend alone.
type attendOnly struct {
	warrenv1connect.UnimplementedSessionServiceHandler
	d *Dispatcher
}

func (h attendOnly) Attend(ctx context.Context, s *connect.BidiStream[warrenv1.AttendRequest, warrenv1.AttendResponse]) error {
	return h.d.Attend(ctx, s)
}

func serve(t testing.TB, objects ...state.Object) *served {
	t.Helper()
	// These agents do not heartbeat.
	patient := statetest.Cluster(func(c *warrenv1.Cluster) { c.Spec.HeartbeatInterval = durationpb.New(time.Minute) })
	store := statetest.New(t, withNodes(append([]state.Object{patient}, objects...))...)
	proposer := statetest.NewProposer(store)
	d := New(store, proposer, slog.New(slog.DiscardHandler))
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewSessionServiceHandler(attendOnly{d: d}))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := httptest.NewUnstartedServer(mux)
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
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	return &served{store, proposer, d, warrenv1connect.NewSessionServiceClient(client, server.URL)}
}

type clientStream = connect.BidiStreamForClient[warrenv1.AttendRequest, warrenv1.AttendResponse]

// attend opens a session, says hello and reads the welcome.
func (s *served) attend(t testing.TB, node string) *clientStream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream := s.client.Attend(ctx)
	if err := stream.Send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Hello{
		Hello: &warrenv1.Hello{NodeId: node, Facts: statetest.Node(node).GetFacts()},
	}}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, stream); m.GetWelcome() == nil {
		t.Fatalf("got %v instead of a welcome", m)
	}
	return stream
}

// receive returns the next message that is not about the network.
func receive(t testing.TB, s *clientStream) *warrenv1.AttendResponse {
	t.Helper()
	for {
		m, err := s.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetNetwork() == nil && m.GetPeers() == nil && m.GetEndpoints() == nil {
			return m
		}
	}
}

// nodeID makes the id of the i-th node.
func nodeID(i int) string {
	var bits [10]byte
	binary.BigEndian.PutUint64(bits[:], uint64(i))
	return strings.ToLower(base32.StdEncoding.EncodeToString(bits[:]))
}

// change sets a task's desired state, so that its node must hear of it.
func (s *served) change(t testing.TB, task string, round int) {
	transaction := state.New(time.Now())
	state.Update(transaction, s.store.Snapshot().Task(task), func(t *warrenv1.Task) {
		t.Desired = warrenv1.DesiredState(1 + round%2)
	})
	statetest.Commit(t, s.proposer, transaction)
}

func TestASessionOverHTTP2(t *testing.T) {
	s := serve(t, append(web(), statetest.Task("t1", "web", 1, nodeID(1), statetest.In(placed)))...)
	stream := s.attend(t, nodeID(1))
	if got := receive(t, stream).GetAssignments(); !got.GetFull() || len(got.GetTasks()) != 1 {
		t.Fatalf("got %v", got)
	}
	_, feed := s.store.Watch()
	if err := stream.Send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Report{Report: &warrenv1.StatusReport{
		Tasks: []*warrenv1.TaskReport{observed("t1", 1, running, time.Now(), "up")},
	}}}); err != nil {
		t.Fatal(err)
	}
	batch, err := feed.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := batch.Snapshot.Task("t1").GetStatus(); got.GetState() != running || got.GetMessage() != "up" {
		t.Errorf("status %v", got)
	}
	if err := stream.Send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Heartbeat{Heartbeat: &warrenv1.Heartbeat{}}}); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, stream).GetHeartbeat(); got.GetInterval().AsDuration() != time.Minute {
		t.Errorf("answer %v", got)
	}
	second := s.attend(t, nodeID(1))
	if _, err := stream.Receive(); connect.CodeOf(err) != connect.CodeAborted {
		t.Errorf("the first session ended with %v", err)
	}
	if err := second.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = second.Receive()
	}
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("a session without a goodbye ended with %v", err)
	}
}

func TestFiveHundredSessions(t *testing.T) {
	const nodes = 500
	objects := web()
	for i := range nodes {
		objects = append(objects, statetest.Task(fmt.Sprint("t", i), "web", uint32(i), nodeID(i)))
	}
	s := serve(t, objects...)
	streams := make([]*clientStream, nodes)
	for i := range streams {
		streams[i] = s.attend(t, nodeID(i))
		if got := receive(t, streams[i]).GetAssignments().GetTasks(); len(got) != 1 {
			t.Fatalf("node %d got %v", i, got)
		}
	}
	var transactions []*state.Transaction
	for i := range nodes {
		transaction := state.New(time.Now())
		state.Update(transaction, s.store.Snapshot().Task(fmt.Sprint("t", i)), func(t *warrenv1.Task) {
			t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN
		})
		transactions = append(transactions, transaction)
	}
	began := time.Now()
	statetest.Commit(t, s.proposer, transactions...)
	for i := range streams {
		if got := receive(t, streams[i]).GetAssignments().GetTasks(); len(got) != 1 {
			t.Errorf("node %d got %v", i, got)
		}
	}
	t.Logf("%d nodes heard of a change each within %v", nodes, time.Since(began))
}

// From the commit of a change to the agent's having read it, on loopback.
func BenchmarkCommitToAgent(b *testing.B) {
	for _, nodes := range []int{1, 500} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) {
			s := serve(b, append(web(), statetest.Task("t1", "web", 1, nodeID(0)))...)
			streams := make([]*clientStream, nodes)
			for i := range streams {
				streams[i] = s.attend(b, nodeID(i))
				receive(b, streams[i])
			}
			took := make([]time.Duration, 0, b.N)
			arrived := make(chan time.Time)
			go func() {
				for range b.N {
					if _, err := streams[0].Receive(); err != nil {
						b.Error(err)
					}
					arrived <- time.Now()
				}
			}()
			b.ResetTimer()
			for i := range b.N {
				s.change(b, "t1", i+1)
				committed := time.Now()
				took = append(took, (<-arrived).Sub(committed))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}
