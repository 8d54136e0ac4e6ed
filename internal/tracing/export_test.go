package tracing

import (
	"log/slog"
	"testing"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// NewPost returns what sends a span of a name at once. pause is that between two tries.
func NewPost(t *testing.T, o Options, logger *slog.Logger, pause time.Duration) func(name string) {
	p, err := newPoster(o, logger)
	if err != nil {
		t.Fatal(err)
	}
	p.pause = pause
	exporter, err := otlptrace.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	tracer := New(o, sdk.NewSimpleSpanProcessor(exporter))
	return func(name string) { tracer.Record(Span{Name: name, Began: time.Now(), Ended: time.Now()}) }
}
