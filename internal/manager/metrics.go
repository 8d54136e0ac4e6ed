package manager

import (
	"context"
	"sync"
	"time"

	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/metrics"
)

// newMetrics returns what the manager measures: the rest of it is asked at a scrape.
func (m *Manager) newMetrics() *metrics.Metrics {
	return metrics.New(metrics.Sources{
		Snapshot: m.store.Snapshot,
		Raft: func() (consensus.Figures, bool) {
			node, err := m.core.get()
			if err != nil {
				return consensus.Figures{}, false
			}
			return node.Figures(), true
		},
		Sessions: func() int { return m.dispatcher.Sessions() },
		CertificateExpires: func() time.Time {
			if mine := m.credentials.Get(); mine != nil {
				return mine.NotAfter()
			}
			return time.Time{}
		},
	})
}

// measure follows what is measured, and answers who asks for it, until ctx ends. Where nobody can ask,
// nothing is followed.
func (m *Manager) measure(ctx context.Context, running *sync.WaitGroup) {
	if m.scrapes.Addr() == nil {
		return
	}
	_, feed := m.store.Watch()
	running.Go(func() { m.metrics.Follow(ctx, feed) })
	running.Go(func() { m.scrapes.Serve(ctx, m.metrics.Gatherer()) })
}
