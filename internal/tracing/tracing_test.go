package tracing_test

import (
	"bytes"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	sdktest "go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/cuemby/warren/internal/traceparent"
	"github.com/cuemby/warren/internal/tracing"
	"github.com/cuemby/warren/internal/tracing/tracetest"
)

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func serve(t *testing.T, h http.Handler) string {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

func TestSpansArriveAtAReceiver(t *testing.T) {
	t.Parallel()
	receiver := tracetest.NewReceiver()
	tracer, err := tracing.Start(t.Context(), tracing.Options{
		Endpoint: serve(t, receiver), Headers: "Authorization=Bearer%20secret,x=1", Sample: 1, Service: "warren-manager", Version: "1", Host: "m1",
	}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Unix(1000, 0)
	tracer.Record(tracing.Span{
		Parent: parent, Self: traceparent.Below(parent, "task"), Name: "task", Began: began, Ended: began.Add(time.Second),
		Attributes: []attribute.KeyValue{attribute.String("warren.task", "web.1")}, Failed: "no such image",
	})
	ctx, running := tracer.Begin(t.Context(), tracing.Span{Name: "call", Kind: tracing.Server, Began: began})
	tracer.Record(tracing.Span{Parent: traceparent.From(ctx), Name: "write", Began: began, Ended: began})
	running.End("", began.Add(time.Minute))
	if err := tracer.Close(); err != nil {
		t.Fatal(err)
	}
	spans := map[string]tracetest.Span{}
	for _, s := range receiver.Spans() {
		spans[s.Name] = s
	}
	task, call, write := spans["task"], spans["call"], spans["write"]
	if task.Trace != parent[3:35] || task.Parent != parent[36:52] || task.ID != traceparent.Below(parent, "task")[36:52] {
		t.Errorf("it is not where it was put: %+v", task)
	}
	if !task.Began.Equal(began) || task.Ended.Sub(task.Began) != time.Second || task.Failed != "no such image" ||
		task.Attributes["warren.task"] != "web.1" || task.Service != "warren-manager" || task.Host != "m1" {
		t.Errorf("it is not what it was: %+v", task)
	}
	if call.Parent != "" || call.Kind != "SPAN_KIND_SERVER" || write.Trace != call.Trace || write.Parent != call.ID || call.Trace == task.Trace {
		t.Errorf("call %+v, write %+v", call, write)
	}
	if h := receiver.Headers()[0]; h.Get("Authorization") != "Bearer secret" || h.Get("X") != "1" {
		t.Errorf("headers %v", h)
	}
}

func TestATraceThatIsNotRecordedCostsNothingFurther(t *testing.T) {
	t.Parallel()
	memory := sdktest.NewInMemoryExporter()
	for _, c := range []struct {
		sample float64
		parent string
		want   int
	}{
		{1, "", 1}, {0, "", 0},
		{0, parent, 1}, // whoever began it wants it recorded
		{1, strings.TrimSuffix(parent, "01") + "00", 0}, // or does not
		{1, "rubbish", 1}, {1, parent + "-of-tomorrow", 1}, // begins anew
	} {
		memory.Reset()
		tracer := tracing.New(tracing.Options{Sample: c.sample}, sdk.NewSimpleSpanProcessor(memory))
		ctx, running := tracer.Begin(t.Context(), tracing.Span{Parent: c.parent, Name: "call", Began: time.Now()})
		running.End("", time.Now())
		if got := len(memory.GetSpans()); got != c.want {
			t.Errorf("sample %v, parent %q: %d spans, want %d", c.sample, c.parent, got, c.want)
		}
		if is := traceparent.Valid(traceparent.From(ctx)); is != (c.want == 1) {
			t.Errorf("sample %v, parent %q: what follows is traced: %v", c.sample, c.parent, is)
		}
		if h := running.Header(); !traceparent.Valid(h) || strings.HasSuffix(h, "-01") != (c.want == 1) {
			t.Errorf("sample %v, parent %q: others are told %q", c.sample, c.parent, h)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		options tracing.Options
		want    string
	}{
		{tracing.Options{Endpoint: "localhost:4318"}, "--trace-endpoint"},
		{tracing.Options{Endpoint: "10.0.0.1:4318"}, "--trace-endpoint"},
		{tracing.Options{Endpoint: "grpc://localhost:4317"}, "--trace-endpoint"},
		{tracing.Options{Endpoint: "http://"}, "--trace-endpoint"},
		{tracing.Options{Endpoint: "http://host:4318/?x=1"}, "--trace-endpoint"},
		{tracing.Options{Endpoint: "http://h\x7f"}, "http://127.0.0.1:4318"},
		{tracing.Options{Sample: 1.5}, "--trace-sample"},
		{tracing.Options{Sample: math.NaN()}, "--trace-sample"},
		{tracing.Options{Endpoint: "http://host:4318", Headers: "a=1,secret"}, "item 2"},
		{tracing.Options{Endpoint: "http://host:4318", Headers: "a=%secret"}, "item 1, a"},
	} {
		err := c.options.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", c.options, err)
		}
	}
	for _, endpoint := range []string{"", "http://host:4318", "https://host/", "http://[::1]:4318/otlp/", "http://host:4318/v1/traces"} {
		if err := (tracing.Options{Endpoint: endpoint}).Validate(); err != nil {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

func TestABatchIsTriedAgainWhenTheReceiverIsBusyAndLossesAreSaidOnce(t *testing.T) {
	t.Parallel()
	receiver := tracetest.NewReceiver()
	var answers atomic.Int32
	status := func(n int32) int { // the first try is put off, then all is refused for good, then taken
		switch n {
		case 1:
			return http.StatusServiceUnavailable
		case 3, 4:
			return http.StatusForbidden
		}
		return http.StatusOK
	}
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code := status(answers.Add(1)); code != http.StatusOK {
			w.WriteHeader(code)
			return
		}
		receiver.ServeHTTP(w, r)
	}))
	var log bytes.Buffer
	post := tracing.NewPost(t, tracing.Options{Endpoint: url, Sample: 1}, slog.New(slog.NewTextHandler(&log, nil)), time.Millisecond)
	for _, name := range []string{"a", "lost", "lost", "b"} {
		post(name)
	}
	var got []string
	for _, s := range receiver.Spans() {
		got = append(got, s.Name)
	}
	if strings.Join(got, " ") != "a b" || answers.Load() != 5 {
		t.Errorf("%v arrived after %d tries", got, answers.Load())
	}
	if strings.Count(log.String(), "spans are lost") != 1 || strings.Count(log.String(), "received again") != 1 || !strings.Contains(log.String(), "403") {
		t.Errorf("it said %s", &log)
	}
}

func TestADaemonEndsSoonAndWithoutAnErrorWhenItsReceiverIsAway(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	hangs := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(func() { close(release) }) // before the server is closed
	for name, endpoint := range map[string]string{"it hangs": hangs, "nobody listens": "http://127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			tracer, err := tracing.Start(t.Context(), tracing.Options{Endpoint: endpoint, Sample: 1}, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			tracer.Record(tracing.Span{Name: "last", Began: time.Now(), Ended: time.Now()})
			if err := tracer.Close(); err != nil || !strings.Contains(log.String(), "spans are lost") {
				t.Errorf("%v; it said %s", err, &log)
			}
		})
	}
}
