package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/unixsocket"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// fakeNode remembers what it was asked.
type fakeNode struct {
	token    string
	managers []string
	err      error
}

func (n *fakeNode) Join(_ context.Context, token string, managers []string) (string, string, error) {
	n.token, n.managers = token, managers
	return "cluster", "node", n.err
}

func (n *fakeNode) Leave(context.Context, bool) error { return n.err }

func (n *fakeNode) Describe() *warrenv1.GetAgentResponse {
	return &warrenv1.GetAgentResponse{NodeId: "node"}
}

func serve(t *testing.T, node Node) warrenv1connect.AgentServiceClient {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.sock")
	l, err := unixsocket.Listen(t.Context(), path, "warren-agent")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, node, slog.New(slog.DiscardHandler)) }()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return warrenv1connect.NewAgentServiceClient(&http.Client{Transport: transport}, "http://agent")
}

func TestWhoRunsTheAgentMayCallIt(t *testing.T) {
	node := &fakeNode{}
	client := serve(t, node)
	res, err := client.JoinCluster(t.Context(), connect.NewRequest(&warrenv1.JoinClusterRequest{Token: "t", Managers: []string{"a:1", "b:1"}}))
	if err != nil || res.Msg.GetNodeId() != "node" || node.token != "t" || !slices.Equal(node.managers, []string{"a:1", "b:1"}) {
		t.Errorf("got %v, %v; asked %+v", res, err, node)
	}
	if res, err := client.GetAgent(t.Context(), connect.NewRequest(&warrenv1.GetAgentRequest{})); err != nil || res.Msg.GetNodeId() != "node" {
		t.Errorf("got %v, %v", res, err)
	}
}

func TestErrorsKeepTheirCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want connect.Code
	}{
		{connect.NewError(connect.CodeFailedPrecondition, errors.New("tasks run")), connect.CodeFailedPrecondition},
		{errors.New("disk full"), connect.CodeInternal},
		{context.Canceled, connect.CodeCanceled},
	} {
		_, err := serve(t, &fakeNode{err: c.err}).LeaveCluster(t.Context(), connect.NewRequest(&warrenv1.LeaveClusterRequest{}))
		if connect.CodeOf(err) != c.want || !strings.Contains(err.Error(), c.err.Error()) && c.want != connect.CodeFailedPrecondition {
			t.Errorf("%v: got %v", c.err, err)
		}
	}
}

// Not on the unix socket nobody is known, and so nobody may call.
func TestNobodyElseMayCallIt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: NewHandler(&fakeNode{}, slog.New(slog.DiscardHandler))}
	go server.Serve(l)
	defer server.Close()
	_, err = warrenv1connect.NewAgentServiceClient(http.DefaultClient, "http://"+l.Addr().String()).
		GetAgent(t.Context(), connect.NewRequest(&warrenv1.GetAgentRequest{}))
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("got %v", err)
	}
}

func TestRequestsAreCheckedAsProtovalidateWould(t *testing.T) {
	validator, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	managers := func(n, length int) []string { return slices.Repeat([]string{strings.Repeat("ä", length)}, n) }
	for _, request := range []proto.Message{
		&warrenv1.GetAgentRequest{},
		&warrenv1.LeaveClusterRequest{Force: true},
		&warrenv1.JoinClusterRequest{},
		&warrenv1.JoinClusterRequest{Token: "t", Managers: managers(1, 1)},
		&warrenv1.JoinClusterRequest{Token: "t"},
		&warrenv1.JoinClusterRequest{Managers: managers(1, 1)},
		&warrenv1.JoinClusterRequest{Token: strings.Repeat("x", 256), Managers: managers(16, 256)},
		&warrenv1.JoinClusterRequest{Token: strings.Repeat("x", 257), Managers: managers(1, 1)},
		&warrenv1.JoinClusterRequest{Token: "t", Managers: managers(17, 1)},
		&warrenv1.JoinClusterRequest{Token: "t", Managers: managers(1, 257)},
		&warrenv1.JoinClusterRequest{Token: "t", Managers: managers(1, 0)},
	} {
		theirs, ours := validator.Validate(request), check(request.ProtoReflect())
		if (theirs == nil) != (ours == nil) {
			t.Errorf("%v: protovalidate says %v, this %v", request, theirs, ours)
		}
	}
	_, err = serve(t, &fakeNode{}).JoinCluster(t.Context(), connect.NewRequest(&warrenv1.JoinClusterRequest{Token: "t"}))
	if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "managers: must have at least 1 items") {
		t.Errorf("got %v", err)
	}
}
