package api

import (
	"context"
	"net/http"
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

// Tracer is told of calls with one answer that are about to be answered; it must be quick. Streams last, and are not told.
type Tracer interface {
	// Call is told of a call by its procedure and header. The context that it returns is the call's own: what is written
	// with it is part of the same trace. ended is told of the call's end.
	Call(ctx context.Context, procedure string, header http.Header) (traced context.Context, ended func(error))
}

// tracedBy is an interceptor that tells a tracer of calls.
func tracedBy(tracer Tracer) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			ctx, ended := tracer.Call(ctx, req.Spec().Procedure, req.Header())
			res, err := next(ctx, req)
			ended(err)
			return res, err
		}
	}
}

func codeOf(err error) string {
	if err == nil {
		return "ok"
	}
	return connect.CodeOf(err).String()
}
