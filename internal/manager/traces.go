package manager

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/cuemby/warren/internal/manager/dispatch"
	"github.com/cuemby/warren/internal/manager/forward"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/traces"
	"github.com/cuemby/warren/internal/tracing"
)

// beginTracing begins to send spans where the options say so. Else nothing here exists, and what follows asks nobody.
func (m *Manager) beginTracing(ctx context.Context) (err error) {
	if !m.options.Tracing.On() {
		return nil
	}
	if m.tracer, err = tracing.Start(ctx, m.options.Tracing, m.logger); err != nil {
		return err
	}
	m.traces = traces.New(m.tracer, func() (time.Time, bool) {
		if began := m.reign.Load(); began != nil {
			return *began, true
		}
		return time.Time{}, false
	})
	return nil
}

// trace follows what is traced until ctx ends.
func (m *Manager) trace(ctx context.Context, running *sync.WaitGroup) {
	if m.traces == nil {
		return
	}
	_, feed := m.store.Watch()
	running.Go(func() { m.traces.Follow(ctx, feed) })
}

// writing is the raft node for a writer of that name.
func (m *Manager) writing(who string) loop.Proposer {
	if m.traces == nil {
		return m.core
	}
	return m.traces.Writing(who, m.core)
}

func (m *Manager) newDispatcher() *dispatch.Dispatcher {
	options := []dispatch.Option{dispatch.Reachable(m.Addrs)}
	if m.traces != nil {
		options = append(options, dispatch.Observed(m.traces))
	}
	return dispatch.New(m.store, m.core, m.logger, options...)
}

func (m *Manager) newForwarder(handler http.Handler) *forward.Forwarder {
	options := forward.Options{
		Handler: handler, Leadership: leadership{m}, Credentials: m.credentials, ElectionWait: m.electionWait(), Logger: m.logger,
	}
	if m.traces != nil {
		options.Observer = m.traces
	}
	return forward.New(options)
}
