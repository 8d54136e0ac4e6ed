package traces

import (
	"context"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"

	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/dispatch"
	"github.com/cuemby/warren/internal/manager/forward"
	"github.com/cuemby/warren/internal/traceparent"
	"github.com/cuemby/warren/internal/tracing"
)

// Traces are a manager's. It is safe for concurrent use.
type Traces struct {
	tracer *tracing.Tracer
	// leading tells since when this manager leads, and knows all that was committed before; false while it does not. Every
	// manager sees what is committed, and sees it again when it is started again; the one that leads tells of what is new.
	leading func() (since time.Time, leads bool)
}

var (
	_ api.Tracer        = (*Traces)(nil)
	_ forward.Observer  = (*Traces)(nil)
	_ dispatch.Observer = (*Traces)(nil)
)

// New returns the traces of a manager, which leading tells the beginning of its term while it has one.
func New(tracer *tracing.Tracer, leading func() (since time.Time, leads bool)) *Traces {
	return &Traces{tracer, leading}
}

// Call implements api.Tracer: a span of a call with one answer, which goes on with the caller's trace.
func (t *Traces) Call(ctx context.Context, procedure string, header http.Header) (context.Context, func(error)) {
	ctx, span := t.tracer.Begin(ctx, tracing.Span{
		Parent: header.Get(traceparent.Header), Name: rpcOf(procedure), Kind: tracing.Server, Began: time.Now(), Attributes: rpc(procedure),
	})
	return ctx, func(err error) {
		span.Add(attribute.String("rpc.response.status_code", codeOf(err)))
		failed := ""
		if ours(err) {
			failed = err.Error()
		}
		span.End(failed, time.Now())
	}
}

// Passing implements forward.Observer: a span of a call that the leader is to answer, which the leader's is part of.
func (t *Traces) Passing(procedure, leader string, header http.Header) (ended func(error)) {
	ctx := context.Background() // the span is what the header says, and nothing else
	_, span := t.tracer.Begin(ctx, tracing.Span{
		Parent: header.Get(traceparent.Header), Name: "pass on to leader", Kind: tracing.Client, Began: time.Now(),
		Attributes: append(rpc(procedure), attribute.String("warren.manager", leader)),
	})
	header.Set(traceparent.Header, span.Header())
	return func(err error) {
		failed := ""
		if err != nil {
			failed = err.Error()
		}
		span.End(failed, time.Now())
	}
}

// rpc is what is told of a procedure: https://opentelemetry.io/docs/specs/semconv/rpc/.
func rpc(procedure string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("rpc.system.name", "connectrpc"),
		attribute.String("rpc.method", strings.TrimPrefix(procedure, "/")),
	}
}

// rpcOf makes ServiceService/CreateService of /warren.v1.ServiceService/CreateService.
func rpcOf(procedure string) string { return strings.TrimPrefix(procedure, "/warren.v1.") }

func codeOf(err error) string {
	if err == nil {
		return "ok"
	}
	return connect.CodeOf(err).String()
}

// ours tells whether a failure is the cluster's and not the caller's.
func ours(err error) bool {
	if err == nil {
		return false
	}
	switch connect.CodeOf(err) {
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeDataLoss, connect.CodeUnimplemented:
		return true
	}
	return false
}
