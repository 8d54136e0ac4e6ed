package daemonflags

import (
	"cmp"
	"os"

	"github.com/cuemby/warren/internal/tracing"
	"github.com/cuemby/warren/internal/version"
)

// Tracing is where a daemon sends spans; embed it in a daemon's struct.
type Tracing struct {
	TraceEndpoint string  `placeholder:"URL" help:"Where an OTLP receiver takes spans by HTTP, such as http://127.0.0.1:4318: see docs/tracing.md. Default: OTEL_EXPORTER_OTLP_ENDPOINT in the environment; without that, nowhere."`
	TraceSample   float64 `default:"1" placeholder:"RATIO" help:"The share of traces that are recorded, 0 to 1. One that is begun elsewhere is recorded when it is recorded there."`
}

// Options are what a daemon of that name traces with, on the machine of that name. What the flags leave open the variables say that OpenTelemetry
// has for it: https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
func (f Tracing) Options(daemon, host string) tracing.Options {
	return tracing.Options{
		Endpoint: cmp.Or(f.TraceEndpoint, os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")),
		Headers:  cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS"), os.Getenv("OTEL_EXPORTER_OTLP_HEADERS")),
		Sample:   f.TraceSample,
		Service:  daemon, Version: version.Version, Host: host,
	}
}
