package api

import (
	"context"
	"time"

	"connectrpc.com/connect"
)

// Observer is told of calls; it must be quick.
type Observer interface {
	// Called is told of a call with one answer that has ended, with the code told, "ok" where there was no error.
	Called(procedure, code string, took time.Duration)
	// Streaming is told of a stream that has begun. What it returns is told of its end.
	Streaming(procedure string) (ended func(code string))
}

// observed is an interceptor that tells an observer of calls, as they end for the caller.
type observed struct{ observer Observer }

var _ connect.Interceptor = observed{}

// WrapUnary implements connect.Interceptor.
func (o observed) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		began := time.Now()
		res, err := next(ctx, req)
		o.observer.Called(req.Spec().Procedure, codeOf(err), time.Since(began))
		return res, err
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (o observed) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		ended := o.observer.Streaming(conn.Spec().Procedure)
		err := next(ctx, conn)
		ended(codeOf(err))
		return err
	}
}

// WrapStreamingClient implements connect.Interceptor; this is the serving side.
func (o observed) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func codeOf(err error) string {
	if err == nil {
		return "ok"
	}
	return connect.CodeOf(err).String()
}
