package api

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/access"
	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/forward"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// permission lets calls pass whose callers may make them: the RPC lets their role, and they are still
// members or users.
type permission struct {
	rules access.Rules
	store *state.Store
}

// check tells whether the RPC lets the caller's role. Who is not known either is told that instead.
func (p permission) check(ctx context.Context, procedure string) error {
	denied := p.rules.Check(caller.From(ctx), procedure)
	if denied == nil {
		return nil
	}
	if err := p.recognize(ctx, procedure); err != nil {
		return err
	}
	return denied
}

// recognize tells whether the caller is known still. It must come after readiness: the state of a manager that has
// just been started or elected lags, and neither knows who was added nor that somebody was removed.
func (p permission) recognize(ctx context.Context, procedure string) error {
	if p.rules[procedure].GetLocal() {
		return nil
	}
	return p.known(caller.From(ctx))
}

// known tells whether the state still knows a caller, and the manager that passed the call on. Accounts of a
// manager's machine it need not know.
func (p permission) known(who caller.Caller) error {
	s := p.store.Snapshot()
	if who.Via != "" && authority.IsRemoved(s.Authority(), who.Via) {
		return authority.ErrRemoved
	}
	if who.Local {
		return nil
	}
	switch who.Role {
	case warrenv1.Role_ROLE_AGENT, warrenv1.Role_ROLE_MANAGER:
		if authority.IsRemoved(s.Authority(), who.Name) {
			return authority.ErrRemoved
		}
	case warrenv1.Role_ROLE_VIEWER, warrenv1.Role_ROLE_OPERATOR, warrenv1.Role_ROLE_ADMIN:
		user := s.User(who.Name)
		if user == nil || user.GetRole() != who.Role || subtle.ConstantTimeCompare(user.GetKeyDigest(), who.Key) != 1 {
			return authority.ErrUserRemoved
		}
	}
	return nil
}

// lasting is an interceptor that has streams end when their caller is no longer a member or a user: with
// the next message, so that whoever was removed learns nothing any more.
type lasting struct{ permission }

// WrapUnary implements connect.Interceptor.
func (lasting) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingHandler implements connect.Interceptor.
func (l lasting) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, lastingStream{conn, l.permission, caller.From(ctx)})
	}
}

// WrapStreamingClient implements connect.Interceptor; this is the serving side.
func (lasting) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// lastingStream is a stream that is of use only to a caller who is known.
type lastingStream struct {
	connect.StreamingHandlerConn
	permission permission
	who        caller.Caller
}

// Receive implements connect.StreamingHandlerConn.
func (s lastingStream) Receive(message any) error {
	if err := s.StreamingHandlerConn.Receive(message); err != nil {
		return err
	}
	return s.known()
}

// Send implements connect.StreamingHandlerConn.
func (s lastingStream) Send(message any) error {
	if err := s.known(); err != nil {
		return err
	}
	return s.StreamingHandlerConn.Send(message)
}

func (s lastingStream) known() error {
	if err := s.permission.known(s.who); err != nil {
		return tell(err)
	}
	return nil
}

// ErrUninitialized says that this manager is not part of a cluster yet.
var ErrUninitialized = errors.New("this manager is not part of a cluster yet: run `warrenctl cluster init` on its machine first")

// readiness lets calls pass that the manager can answer now.
type readiness struct {
	rules      access.Rules
	membership Membership
}

func (r readiness) check(ctx context.Context, procedure string) error {
	if r.rules[procedure].GetUninitialized() {
		return nil
	}
	if forward.Stale(ctx) { // answered from what this manager has, and marked so
		return r.membership.Knows()
	}
	return r.membership.Ready(ctx)
}

// ownNode is an interceptor that keeps an agent from speaking for another node than its own: a session is
// that of the node it says hello for. Streams that agents dial back with are known by an id that only
// the node that was asked has been told.
type ownNode struct{}

// WrapUnary implements connect.Interceptor.
func (ownNode) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingHandler implements connect.Interceptor.
func (ownNode) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if conn.Spec().Procedure != warrenv1connect.SessionServiceAttendProcedure {
			return next(ctx, conn)
		}
		return next(ctx, speaker{conn, caller.From(ctx).Name})
	}
}

// WrapStreamingClient implements connect.Interceptor; this is the serving side.
func (ownNode) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// speaker is a session's stream on which only the node of that name may be spoken for.
type speaker struct {
	connect.StreamingHandlerConn
	name string
}

// Receive implements connect.StreamingHandlerConn.
func (s speaker) Receive(message any) error {
	if err := s.StreamingHandlerConn.Receive(message); err != nil {
		return err
	}
	request, ok := message.(*warrenv1.AttendRequest)
	if hello := request.GetHello(); ok && hello != nil && hello.GetNodeId() != s.name {
		return connect.NewError(connect.CodePermissionDenied, fmt.Errorf("the certificate is node %s's, which may not speak for node %s", s.name, hello.GetNodeId()))
	}
	return nil
}

// guard is an interceptor that refuses calls before they reach their handler.
type guard func(ctx context.Context, procedure string) error

// WrapUnary implements connect.Interceptor.
func (g guard) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := g(ctx, req.Spec().Procedure); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (g guard) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := g(ctx, conn.Spec().Procedure); err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

// WrapStreamingClient implements connect.Interceptor; this is the serving side.
func (g guard) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
