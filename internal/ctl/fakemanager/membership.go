package fakemanager

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/validate"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/jointoken"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// tokenEnd is when the join tokens expire, unless somebody asks for another time.
var tokenEnd = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// GetJoinToken gives out a join token: always the same, and another once one was rotated.
func (h membershipService) GetJoinToken(_ context.Context, req *connect.Request[warrenv1.GetJoinTokenRequest]) (*connect.Response[warrenv1.GetJoinTokenResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if req.Msg.GetRotate() {
		h.m.rotations++
	}
	secret := make([]byte, jointoken.SecretBytes)
	secret[0] = h.m.rotations << 3
	end := tokenEnd
	if ttl := req.Msg.GetTtl(); ttl != nil {
		end = time.Now().Add(ttl.AsDuration())
	}
	token := jointoken.Token{Digest: strings.Repeat("a", 52), Role: req.Msg.GetRole(), Secret: secret}
	return connect.NewResponse(&warrenv1.GetJoinTokenResponse{
		Token: token.String(), ExpiresAt: timestamppb.New(end), Managers: []string{"10.0.0.5:7420", "10.0.0.6:7420"},
	}), nil
}

// JoinManager implements warrenv1connect.ManagerServiceHandler.
func (h managerService) JoinManager(_ context.Context, req *connect.Request[warrenv1.JoinManagerRequest]) (*connect.Response[warrenv1.JoinManagerResponse], error) {
	return connect.NewResponse(&warrenv1.JoinManagerResponse{ClusterId: "cluster", ManagerId: "manager" + req.Msg.GetAdvertiseAddr()}), nil
}

// LeaveManager implements warrenv1connect.ManagerServiceHandler.
func (h managerService) LeaveManager(_ context.Context, req *connect.Request[warrenv1.LeaveManagerRequest]) (*connect.Response[warrenv1.LeaveManagerResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if !req.Msg.GetForce() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("this is the last manager of the cluster: use --force to end the cluster with it"))
	}
	h.m.cluster = nil
	return connect.NewResponse(&warrenv1.LeaveManagerResponse{}), nil
}

// Agent is an agent in memory.
type Agent struct {
	warrenv1connect.UnimplementedAgentServiceHandler
	server *http.Server
	served chan struct{}

	mu    sync.Mutex
	node  string
	tasks uint32
}

// StartAgent serves an agent that waits to join a cluster. Once it has, it runs one task.
func StartAgent(socket string) (*Agent, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "unix", socket)
	if err != nil {
		return nil, err
	}
	a := &Agent{served: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewAgentServiceHandler(a, connect.WithInterceptors(validate.NewInterceptor())))
	a.server = &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	a.server.Protocols.SetUnencryptedHTTP2(true)
	go func() {
		defer close(a.served)
		_ = a.server.Serve(listener) // ends with Close
	}()
	return a, nil
}

// Close ends the agent.
func (a *Agent) Close() {
	_ = a.server.Close()
	<-a.served
}

// JoinCluster implements warrenv1connect.AgentServiceHandler.
func (a *Agent) JoinCluster(_ context.Context, req *connect.Request[warrenv1.JoinClusterRequest]) (*connect.Response[warrenv1.JoinClusterResponse], error) {
	if req.Msg.GetManagers()[0] == "10.0.0.9:7420" {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("join the cluster: 10.0.0.9:7420: connection refused: is warren-manager running there, and on this port?"))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.node, a.tasks = "node", 1
	return connect.NewResponse(&warrenv1.JoinClusterResponse{ClusterId: "cluster", NodeId: a.node}), nil
}

// LeaveCluster implements warrenv1connect.AgentServiceHandler.
func (a *Agent) LeaveCluster(_ context.Context, req *connect.Request[warrenv1.LeaveClusterRequest]) (*connect.Response[warrenv1.LeaveClusterResponse], error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tasks > 0 && !req.Msg.GetForce() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("1 task runs on this node: use --force to stop what runs here"))
	}
	a.node, a.tasks = "", 0
	return connect.NewResponse(&warrenv1.LeaveClusterResponse{}), nil
}

// GetAgent implements warrenv1connect.AgentServiceHandler.
func (a *Agent) GetAgent(context.Context, *connect.Request[warrenv1.GetAgentRequest]) (*connect.Response[warrenv1.GetAgentResponse], error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	res := &warrenv1.GetAgentResponse{NodeId: a.node, Tasks: a.tasks}
	if a.node != "" {
		res.ClusterId, res.Manager = "cluster", "10.0.0.5:7420"
	}
	return connect.NewResponse(res), nil
}
