package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/forward"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/pki"
)

// problem is an error that already says to the user what is wrong and what to do.
type problem struct {
	code       connect.Code
	text       string
	violations []*validate.Violation
	unexecuted bool // nothing was done, and another manager may be asked
}

// Error implements error.
func (p *problem) Error() string { return p.text }

// Refuse makes an error that says to the user why what was asked cannot be done as things stand, and what
// to do.
func Refuse(format string, args ...any) error {
	return problemf(connect.CodeFailedPrecondition, format, args...)
}

// Unavailable makes an error that says to the user what must be back before this manager can answer. Nothing
// was done, and the caller may ask another.
func Unavailable(text string) error {
	return &problem{code: connect.CodeUnavailable, text: text, unexecuted: true}
}

// NotFound makes an error that says to the user what there is none of.
func NotFound(format string, args ...any) error {
	return problemf(connect.CodeNotFound, format, args...)
}

// Invalid makes an error that says to the user what is wrong with a field of the request.
func Invalid(name, message string) error { return invalid(violation(name, message, field(name))) }

// FromElsewhere passes on what another manager has answered, or that it has not: the caller is told in its
// words, with its code.
func FromElsewhere(err error) error {
	answered := new(connect.Error)
	if !errors.As(err, &answered) {
		return err
	}
	// What wraps the answer says whose it is; the answer's own code would be said twice.
	return problemf(answered.Code(), "%s", strings.ReplaceAll(err.Error(), answered.Error(), answered.Message()))
}

func problemf(code connect.Code, format string, args ...any) *problem {
	return &problem{code: code, text: fmt.Sprintf(format, args...)}
}

// invalid says that fields of a request break rules that their proto cannot express.
func invalid(violations ...*validate.Violation) *problem {
	return &problem{code: connect.CodeInvalidArgument, text: sentence(violations), violations: violations}
}

// violation is one field's breach of a rule. The path is written as spec.mounts[2].source.
func violation(rule, message string, path ...*validate.FieldPathElement) *validate.Violation {
	return &validate.Violation{
		Field:  &validate.FieldPath{Elements: path},
		RuleId: new(rule), Message: new(message),
	}
}

func field(name string) *validate.FieldPathElement {
	return &validate.FieldPathElement{FieldName: new(name)}
}

func item(name string, index int) *validate.FieldPathElement {
	return &validate.FieldPathElement{
		FieldName: new(name),
		Subscript: &validate.FieldPathElement_Index{Index: uint64(index)},
	}
}

// sentence words violations for people.
func sentence(violations []*validate.Violation) string {
	said := make([]string, 0, len(violations))
	for _, v := range violations {
		what := v.GetMessage()
		if what == "" {
			what = "breaks the rule " + v.GetRuleId()
		}
		if path := protovalidate.FieldPathString(v.GetField()); path != "" {
			what = path + ": " + what
		}
		said = append(said, what)
	}
	return strings.Join(said, "; ")
}

// tell makes of any error what the caller is told: the one place where errors get their code.
func tell(err error) *connect.Error {
	var told *problem
	var broken *protovalidate.ValidationError
	var already *connect.Error
	switch {
	case errors.As(err, &told) && told.unexecuted:
		return unexecuted(told)
	case errors.As(err, &told):
		return withViolations(connect.NewError(told.code, told), told.violations)
	case errors.As(err, &broken):
		violations := broken.ToProto().GetViolations()
		reword(violations)
		return withViolations(connect.NewError(connect.CodeInvalidArgument, errors.New(sentence(violations))), violations)
	case errors.As(err, &already):
		return already
	case errors.Is(err, ErrUninitialized):
		return connect.NewError(connect.CodeFailedPrecondition, ErrUninitialized)
	case errors.Is(err, authority.ErrToken), errors.Is(err, authority.ErrTokenExpired), errors.Is(err, authority.ErrRemoved),
		errors.Is(err, authority.ErrUserRemoved):
		return connect.NewError(connect.CodeUnauthenticated, err)
	case errors.Is(err, pki.ErrRequest):
		return connect.NewError(connect.CodeInvalidArgument, err)
	case errors.Is(err, pki.ErrClock):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, consensus.ErrUnknownOutcome): // before what may have led to it
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("%w: look before you try again", err))
	case errors.Is(err, consensus.ErrStalled):
		return unexecuted(fmt.Errorf("%w: nothing was changed; try again when they do", consensus.ErrStalled))
	case errors.Is(err, consensus.ErrTooMany), errors.Is(err, consensus.ErrAlone):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, consensus.ErrNotLeader):
		return unexecuted(fmt.Errorf("%w: try again, or ask another manager", consensus.ErrNotLeader))
	case errors.Is(err, consensus.ErrClosed):
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("%w: try again", consensus.ErrClosed))
	case errors.Is(err, consensus.ErrInitialized), errors.Is(err, state.ErrExists):
		return connect.NewError(connect.CodeAlreadyExists, err)
	case errors.Is(err, state.ErrNotFound):
		return connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, state.ErrConflict):
		return connect.NewError(connect.CodeAborted, err)
	case errors.Is(err, events.ErrOverrun):
		return connect.NewError(connect.CodeDataLoss, err)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	}
	return connect.NewError(connect.CodeInternal, fmt.Errorf("%w (a fault of the manager; its log says more)", err))
}

// unexecuted tells that a call certainly was not carried out, so that whoever passed it on may repeat it.
func unexecuted(err error) *connect.Error {
	e := connect.NewError(connect.CodeUnavailable, err)
	e.Meta().Set(forward.UnexecutedHeader, "true")
	return e
}

func withViolations(e *connect.Error, violations []*validate.Violation) *connect.Error {
	if len(violations) == 0 {
		return e
	}
	if detail, err := connect.NewErrorDetail(&validate.Violations{Violations: violations}); err == nil {
		e.AddDetail(detail)
	}
	return e
}

// outcome is the outermost interceptor: it tells callers how their call ended, and the log where the
// fault is the manager's.
type outcome struct{ logger *slog.Logger }

// WrapUnary implements connect.Interceptor.
func (o outcome) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
		defer func() { err = o.settle(ctx, req.Spec().Procedure, err, recover()) }()
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (o outcome) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) (err error) {
		defer func() { err = o.settle(ctx, conn.Spec().Procedure, err, recover()) }()
		return next(ctx, conn)
	}
}

// WrapStreamingClient implements connect.Interceptor; this is the serving side.
func (o outcome) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// settle turns how a handler ended, by an error or a panic, into what the caller is told.
func (o outcome) settle(ctx context.Context, procedure string, err error, panicked any) error {
	if panicked != nil {
		o.logger.ErrorContext(ctx, "call panicked", "rpc", procedure, "panic", panicked, "stack", string(debug.Stack()))
		return connect.NewError(connect.CodeInternal, errors.New("a fault of the manager; its log says more"))
	}
	if err == nil {
		return nil
	}
	told := tell(err)
	// What comes as a connect error already was worded where it arose, or is a caller's breach of protocol.
	if already := new(connect.Error); told.Code() == connect.CodeInternal && !errors.As(err, &already) {
		o.logger.ErrorContext(ctx, "call failed", "rpc", procedure, "error", err)
	} else {
		o.logger.DebugContext(ctx, "call refused", "rpc", procedure, "code", told.Code().String(), "error", err)
	}
	return told
}
