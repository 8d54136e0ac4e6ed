package metrics

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	shared "github.com/cuemby/warren/internal/metrics"
)

// Sources are what is asked at a scrape.
type Sources struct {
	// Snapshot is the state as of now.
	Snapshot func() state.Snapshot
	// Raft tells how the raft node stands; false where there is none, as while the manager is locked.
	Raft func() (consensus.Figures, bool)
	// Sessions counts the agents that are connected to this manager.
	Sessions func() int
	// CertificateExpires tells until when this manager's certificate is good; zero where it has none.
	CertificateExpires func() time.Time
}

// Metrics are a manager's. It is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry

	calls       *prometheus.CounterVec
	callSeconds *prometheus.HistogramVec
	streams     *prometheus.GaugeVec

	loopDeciding, loopRound, loopChanges *prometheus.HistogramVec
	loopProposals                        *prometheus.CounterVec
	loops                                sync.Map // of *ofLoop, by the loop's name

	commitSeconds prometheus.Histogram
	transactions  *prometheus.CounterVec

	tasks course
}

var (
	_ api.Observer  = (*Metrics)(nil)
	_ loop.Observer = (*Metrics)(nil)
)

// New returns the metrics of a manager.
func New(s Sources) *Metrics {
	m := &Metrics{
		registry: shared.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "warren_api_calls_total", Help: "Calls of the API that have ended, streams too, by how.",
		}, []string{"rpc", "code"}),
		callSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "warren_api_call_seconds", Help: "How long calls of the API with one answer took.", Buckets: shared.Fast(),
		}, []string{"rpc"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "warren_api_streams", Help: "Streams of the API that are open.",
		}, []string{"rpc"}),
		loopDeciding: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "warren_loop_deciding_seconds", Help: "How long control loops took to decide what to write.", Buckets: shared.Fast(),
		}, []string{"loop"}),
		loopRound: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "warren_loop_round_seconds", Help: "How long rounds of control loops took: deciding, and writing what was decided.", Buckets: shared.Fast(),
		}, []string{"loop"}),
		loopChanges: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "warren_loop_changes", Help: "How many changes of the state had gathered for a round of a control loop.", Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}, []string{"loop"}),
		loopProposals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "warren_loop_proposals_total", Help: "Transactions that control loops proposed, by what became of them.",
		}, []string{"loop", "outcome"}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "warren_raft_commit_seconds", Help: "How long entries that this manager wrote as the leader took to be committed and applied.", Buckets: shared.Fast(),
		}),
		transactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "warren_raft_transactions_total", Help: "Transactions that this manager wrote as the leader, by what became of them.",
		}, []string{"outcome"}),
		tasks: newCourse(),
	}
	m.registry.MustRegister(m.calls, m.callSeconds, m.streams, m.loopDeciding, m.loopRound, m.loopChanges, m.loopProposals,
		m.commitSeconds, m.transactions, &standing{s}, &contents{s})
	m.registry.MustRegister(m.tasks.all()...)
	return m
}

// Gatherer is what is served.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Called implements api.Observer.
func (m *Metrics) Called(procedure, code string, took time.Duration) {
	rpc := rpcOf(procedure)
	m.calls.WithLabelValues(rpc, code).Inc()
	m.callSeconds.WithLabelValues(rpc).Observe(took.Seconds())
}

// Streaming implements api.Observer.
func (m *Metrics) Streaming(procedure string) (ended func(code string)) {
	rpc := rpcOf(procedure)
	open := m.streams.WithLabelValues(rpc)
	open.Inc()
	return func(code string) {
		open.Dec()
		m.calls.WithLabelValues(rpc, code).Inc()
	}
}

// rpcOf makes ServiceService/CreateService of /warren.v1.ServiceService/CreateService.
func rpcOf(procedure string) string { return strings.TrimPrefix(procedure, "/warren.v1.") }

// Round implements loop.Observer.
func (m *Metrics) Round(name string, r loop.Round) {
	of := m.ofLoop(name)
	of.deciding.Observe(r.Deciding.Seconds())
	of.round.Observe(r.Took.Seconds())
	of.changes.Observe(float64(r.Changes))
	of.applied.Add(float64(r.Applied))
	of.overtaken.Add(float64(r.Overtaken))
	of.malformed.Add(float64(r.Malformed))
}

// ofLoop is what is measured of one loop. Every change in the cluster wakes all loops, and looking their metrics up by
// labels each time would cost ten times as much as counting.
type ofLoop struct {
	deciding, round, changes      prometheus.Observer
	applied, overtaken, malformed prometheus.Counter
}

func (m *Metrics) ofLoop(name string) *ofLoop {
	if of, known := m.loops.Load(name); known {
		return of.(*ofLoop)
	}
	of, _ := m.loops.LoadOrStore(name, &ofLoop{
		deciding: m.loopDeciding.WithLabelValues(name), round: m.loopRound.WithLabelValues(name), changes: m.loopChanges.WithLabelValues(name),
		applied: m.loopProposals.WithLabelValues(name, "applied"), overtaken: m.loopProposals.WithLabelValues(name, "overtaken"),
		malformed: m.loopProposals.WithLabelValues(name, "malformed"),
	})
	return of.(*ofLoop)
}

// Wrote is told of entries of the raft log: consensus.Options has it.
func (m *Metrics) Wrote(transactions, refused int, took time.Duration, err error) {
	if err != nil {
		m.transactions.WithLabelValues("failed").Add(float64(transactions))
		return
	}
	m.commitSeconds.Observe(took.Seconds())
	m.transactions.WithLabelValues("applied").Add(float64(transactions - refused))
	m.transactions.WithLabelValues("refused").Add(float64(refused))
}

// Follow follows the feed until ctx ends. What was written before is read from the log again when a manager is started, and
// has been counted then.
func (m *Metrics) Follow(ctx context.Context, feed *state.Feed) {
	for since := time.Now(); ; {
		batch, err := feed.Next(ctx)
		if err != nil {
			return
		}
		m.See(batch.Changes, since)
	}
}

// See takes changes of the state into account that were written since that time.
func (m *Metrics) See(changes []state.Change, since time.Time) {
	now := time.Now()
	for _, c := range changes {
		if c.After != nil && !c.After.GetMeta().GetUpdatedAt().AsTime().Before(since) {
			m.tasks.see(c, now)
		}
	}
}
