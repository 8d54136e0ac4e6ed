// Package control answers those who administer the machine, root and the group warren alone, on the agent's
// unix socket: AgentService, and Go's profiles of the agent.
//
// Start with Serve. It decides nothing: a Node does what is asked. What every call is checked for is here:
// who calls, whether the rules in the proto let them, and whether the request holds what they demand of it.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/access"
	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/profiles"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const (
	// maxRequestBytes is more than any request of this service has.
	maxRequestBytes = 64 << 10
	headerTimeout   = 10 * time.Second
	idleTimeout     = 3 * time.Minute
	// shutdownTimeout bounds how long calls in flight may take to end when the agent leaves.
	shutdownTimeout = time.Second
)

// Node is what the service is about. Errors that say what to do about them are *connect.Error.
type Node interface {
	// Join makes the machine a member of a cluster.
	Join(ctx context.Context, token string, managers []string) (cluster, node string, err error)
	// Leave stops the node's tasks and forgets the cluster.
	Leave(ctx context.Context, force bool) error
	// Describe tells how the agent stands.
	Describe() *warrenv1.GetAgentResponse
}

// Serve answers on a unix socket until ctx ends. It closes the listener.
func Serve(ctx context.Context, l net.Listener, node Node, logger *slog.Logger) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // for curl
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: NewHandler(node, logger), Protocols: protocols,
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		ErrorLog:    slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		ConnContext: caller.Connected,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if server.Shutdown(bounded) != nil {
		server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// NewHandler returns the service, for a server with caller.Connected.
func NewHandler(node Node, logger *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewAgentServiceHandler(service{node},
		connect.WithReadMaxBytes(maxRequestBytes),
		connect.WithInterceptors(guard(access.NewRules(), logger), held),
	))
	return caller.Identify(pki.NewHolder(nil), profiles.With(mux))
}

// guard refuses whoever may not call, gives errors that have none a code, and logs what was asked for that
// changes something.
func guard(rules access.Rules, logger *slog.Logger) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			procedure := req.Spec().Procedure
			who := caller.From(ctx)
			err := rules.Check(who, procedure)
			var res connect.AnyResponse
			if err == nil {
				res, err = next(ctx, req)
			}
			if already := new(connect.Error); err != nil && !errors.As(err, &already) {
				err = connect.NewError(code(err), err)
			}
			switch {
			case err != nil:
				logger.Info("call refused", "rpc", procedure, "by", who.String(), "code", connect.CodeOf(err).String(), "error", err)
			case rules[procedure].GetWrite():
				logger.Info("called", "rpc", procedure, "by", who.String())
			}
			return res, err
		}
	}
}

func code(err error) connect.Code {
	switch {
	case errors.Is(err, context.Canceled):
		return connect.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return connect.CodeDeadlineExceeded
	}
	return connect.CodeInternal
}

// service is AgentService.
type service struct{ node Node }

var _ warrenv1connect.AgentServiceHandler = service{}

// JoinCluster implements warrenv1connect.AgentServiceHandler.
func (s service) JoinCluster(ctx context.Context, req *connect.Request[warrenv1.JoinClusterRequest]) (*connect.Response[warrenv1.JoinClusterResponse], error) {
	cluster, node, err := s.node.Join(ctx, req.Msg.GetToken(), req.Msg.GetManagers())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.JoinClusterResponse{ClusterId: cluster, NodeId: node}), nil
}

// LeaveCluster implements warrenv1connect.AgentServiceHandler.
func (s service) LeaveCluster(ctx context.Context, req *connect.Request[warrenv1.LeaveClusterRequest]) (*connect.Response[warrenv1.LeaveClusterResponse], error) {
	if err := s.node.Leave(ctx, req.Msg.GetForce()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.LeaveClusterResponse{}), nil
}

// GetAgent implements warrenv1connect.AgentServiceHandler.
func (s service) GetAgent(context.Context, *connect.Request[warrenv1.GetAgentRequest]) (*connect.Response[warrenv1.GetAgentResponse], error) {
	return connect.NewResponse(s.node.Describe()), nil
}
