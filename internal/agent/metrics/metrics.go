package metrics

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cuemby/warren/internal/agent/overlay"
	"github.com/cuemby/warren/internal/agent/runtime"
	"github.com/cuemby/warren/internal/agent/supervisor"
	"github.com/cuemby/warren/internal/agent/traffic"
	shared "github.com/cuemby/warren/internal/metrics"
)

// Sources are what is asked at a scrape.
type Sources struct {
	// Tasks tells how the node's tasks stand.
	Tasks func() []supervisor.Look
	// Usage tells what a running container uses.
	Usage func(container string) (runtime.Usage, error)
	// Overlay tells how the node's overlay stands.
	Overlay func(ctx context.Context) (overlay.Figures, error)
	// Links tells what the node's links have carried, by name; nil for the kernel's own account.
	Links func() (map[string]traffic.Traffic, error)
	// Connected tells whether the agent has a session with a manager.
	Connected func() bool
	// CertificateExpires tells until when the node's certificate is good; zero where it has none.
	CertificateExpires func() time.Time
}

// Metrics are an agent's. It is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry

	starts   prometheus.Histogram
	rejected prometheus.Counter
	ended    *prometheus.CounterVec

	probes       *prometheus.CounterVec
	probeSeconds *prometheus.HistogramVec
}

var _ supervisor.Observer = (*Metrics)(nil)

// New returns the metrics of an agent, for observers. What is asked at a scrape comes with Ask.
func New() *Metrics {
	m := &Metrics{
		registry: shared.NewRegistry(),
		starts: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "warren_agent_start_seconds", Help: "How long programs took to start, restarts too, with the pull of an image that was not there.", Buckets: shared.Slow(),
		}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "warren_agent_rejected_total", Help: "Tasks that this node could not start: image, mount, settings.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "warren_agent_programs_ended_total", Help: "Programs that ended without being told to, by why, and by whether they are started again.",
		}, []string{"why", "restarted"}),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "warren_agent_probes_total", Help: "Probes of programs' health, by kind and by what came of them; unknown where the node could not ask.",
		}, []string{"kind", "outcome"}),
		probeSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "warren_agent_probe_seconds", Help: "How long probes of programs' health took.", Buckets: shared.Fast(),
		}, []string{"kind"}),
	}
	m.registry.MustRegister(m.starts, m.rejected, m.ended, m.probes, m.probeSeconds)
	return m
}

// Ask has what is not observed be asked of the sources at each scrape. It is called once.
func (m *Metrics) Ask(s Sources) {
	if s.Links == nil {
		s.Links = traffic.Here
	}
	m.registry.MustRegister(&standing{s}, &containers{s})
}

// Gatherer is what is served.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Started implements supervisor.Observer.
func (m *Metrics) Started(took time.Duration) { m.starts.Observe(took.Seconds()) }

// Ended implements supervisor.Observer.
func (m *Metrics) Ended(why string, restarts bool) {
	m.ended.WithLabelValues(why, strconv.FormatBool(restarts)).Inc()
}

// Rejected implements supervisor.Observer.
func (m *Metrics) Rejected() { m.rejected.Inc() }

// Probed is told of each probe: prober.Options has it.
func (m *Metrics) Probed(kind, outcome string, took time.Duration) {
	m.probes.WithLabelValues(kind, outcome).Inc()
	m.probeSeconds.WithLabelValues(kind).Observe(took.Seconds())
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}
