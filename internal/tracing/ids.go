package tracing

import (
	"context"
	"encoding/binary"
	"math/rand/v2"

	"go.opentelemetry.io/otel/trace"
)

// chosen is the key of the id that a span is to have.
type chosen struct{}

// ids draws the ids of traces and spans, but for those that are chosen. It implements the SDK's IDGenerator.
type ids struct{}

// NewIDs implements sdk.IDGenerator.
func (ids) NewIDs(ctx context.Context) (of trace.TraceID, span trace.SpanID) {
	for !of.IsValid() {
		binary.NativeEndian.PutUint64(of[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(of[8:], rand.Uint64())
	}
	return of, ids{}.NewSpanID(ctx, of)
}

// NewSpanID implements sdk.IDGenerator.
func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) (span trace.SpanID) {
	if given, is := ctx.Value(chosen{}).(trace.SpanID); is {
		return given
	}
	for !span.IsValid() {
		binary.NativeEndian.PutUint64(span[:], rand.Uint64())
	}
	return span
}
