package daemonflags_test

import (
	"testing"

	"github.com/cuemby/warren/internal/daemonflags"
)

func TestWhatTheFlagsLeaveOpenTheVariablesOfOpenTelemetrySay(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "a=1")
	if o := (daemonflags.Tracing{TraceSample: 0.5}).Options("warren-agent", "n1"); o.Endpoint != "http://all:4318" || o.Headers != "a=1" || o.Sample != 0.5 {
		t.Errorf("got %+v", o)
	}
	if o := (daemonflags.Tracing{TraceEndpoint: "http://mine:4318"}).Options("warren-agent", "n1"); o.Endpoint != "http://mine:4318" || o.Service != "warren-agent" || o.Host != "n1" {
		t.Errorf("got %+v", o)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	if o := (daemonflags.Tracing{}).Options("warren-agent", "n1"); o.On() {
		t.Errorf("it is on by itself: %+v", o)
	}
}
