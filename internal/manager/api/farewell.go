package api

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager/consensus"
)

// farewell is an interceptor that ends streams when the manager begins to stop, and has those say why that are
// ended for another reason than their caller's.
type farewell struct{ closing context.Context }

// WrapUnary implements connect.Interceptor.
func (farewell) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingHandler implements connect.Interceptor.
func (f farewell) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(f.closing, func() { cancel(consensus.ErrClosed) })()
		err := next(ctx, conn)
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, ctx.Err()) {
			return cause
		}
		return err
	}
}

// WrapStreamingClient implements connect.Interceptor; this is the serving side.
func (farewell) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
