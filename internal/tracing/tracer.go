package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/cuemby/warren/internal/traceparent"
)

// closeTimeout bounds how long the last spans may take to be sent when a daemon stops; then they are given up, which takes
// less than giveUpTimeout.
const (
	closeTimeout  = 2 * time.Second
	giveUpTimeout = 2 * time.Second
)

// Tracer records spans. It is safe for concurrent use.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	giveUp   func() // ends what is being sent
}

// Start begins to send spans where the options say; they must be valid, and On. Close it.
func Start(ctx context.Context, o Options, logger *slog.Logger) (*Tracer, error) {
	p, err := newPoster(o, logger)
	if err != nil {
		return nil, fmt.Errorf("--trace-endpoint: %w", err)
	}
	exporter, err := otlptrace.New(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("begin to send spans: %w", err)
	}
	logger.Info("spans are sent", "url", p.url.Redacted(), "sample", o.Sample)
	t := New(o, sdk.NewBatchSpanProcessor(exporter))
	t.giveUp = p.giveUp
	return t, nil
}

// New returns a tracer that gives spans to a processor.
func New(o Options, processor sdk.SpanProcessor) *Tracer {
	provider := sdk.NewTracerProvider(
		sdk.WithSpanProcessor(processor),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(o.Sample))),
		sdk.WithIDGenerator(ids{}),
		// The names of https://opentelemetry.io/docs/specs/semconv/resource/.
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", o.Service),
			attribute.String("service.version", o.Version),
			attribute.String("host.name", o.Host),
		)),
	)
	return &Tracer{provider: provider, giveUp: func() {}, tracer: provider.Tracer("github.com/cuemby/warren")}
}

// Close sends what has been recorded, for a while, and ends. That a receiver is away is no error.
func (t *Tracer) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout+giveUpTimeout)
	defer cancel()
	defer t.giveUp()
	defer time.AfterFunc(closeTimeout, t.giveUp).Stop()
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

// Kind tells on which side of a call a span is.
type Kind int

// Kinds.
const (
	Internal Kind = iota
	Server
	Client
)

var kinds = map[Kind]trace.SpanKind{Internal: trace.SpanKindInternal, Server: trace.SpanKindServer, Client: trace.SpanKindClient}

// Span is something that took its time.
type Span struct {
	// Parent is the traceparent of the span that it is part of. Without one a span begins a trace.
	Parent string
	// Self, if not empty, is the traceparent that the span is to have: see traceparent.Below.
	Self         string
	Name         string
	Kind         Kind
	Began, Ended time.Time
	Attributes   []attribute.KeyValue
	// Failed says what went wrong; empty for nothing.
	Failed string
}

// Record records a span that is over, unless it is part of a trace that is not recorded.
func (t *Tracer) Record(s Span) {
	running := t.begin(context.Background(), s)
	running.End(s.Failed, s.Ended)
}

// Running is a span that is not over yet.
type Running struct{ span trace.Span }

// Begin begins a span. The context that it returns is part of it, unless it is not recorded: then the context is part of
// no trace, so that what follows costs nothing.
func (t *Tracer) Begin(ctx context.Context, s Span) (context.Context, Running) {
	running := t.begin(ctx, s)
	return traceparent.With(ctx, running.Parent()), running
}

func (t *Tracer) begin(ctx context.Context, s Span) Running {
	ctx = trace.ContextWithRemoteSpanContext(ctx, read(s.Parent))
	if self := read(s.Self); self.IsValid() {
		ctx = context.WithValue(ctx, chosen{}, self.SpanID())
	}
	_, span := t.tracer.Start(ctx, s.Name, trace.WithTimestamp(s.Began), trace.WithSpanKind(kinds[s.Kind]), trace.WithAttributes(s.Attributes...))
	return Running{span}
}

// Parent is the traceparent of what is part of the span; empty where it is not recorded.
func (r Running) Parent() string {
	if !r.span.SpanContext().IsSampled() {
		return ""
	}
	return r.Header()
}

// Header is the traceparent of what is part of the span, which says too where it is not recorded.
func (r Running) Header() string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpan(context.Background(), r.span), carrier)
	return carrier.Get("traceparent")
}

// Add adds what is known of a span by now.
func (r Running) Add(attributes ...attribute.KeyValue) { r.span.SetAttributes(attributes...) }

// End ends a span. failed says what went wrong; empty for nothing.
func (r Running) End(failed string, at time.Time) {
	if failed != "" {
		r.span.SetStatus(codes.Error, failed)
	}
	r.span.End(trace.WithTimestamp(at))
}

// read returns what a traceparent says, nothing where it is not valid.
func read(parent string) trace.SpanContext {
	if parent == "" {
		return trace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": parent})
	return trace.SpanContextFromContext(ctx)
}
