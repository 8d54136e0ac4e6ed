package manager

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cuemby/warren/internal/dataformat"
	"github.com/cuemby/warren/internal/id"
	"github.com/cuemby/warren/internal/manager/addressing"
	"github.com/cuemby/warren/internal/manager/format"
	"github.com/cuemby/warren/internal/manager/liveness"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/replicas"
	"github.com/cuemby/warren/internal/manager/retention"
	"github.com/cuemby/warren/internal/manager/rollout"
	"github.com/cuemby/warren/internal/manager/rotation"
	"github.com/cuemby/warren/internal/manager/scheduler"
)

// The wait before what runs while leading is started again after it failed: the shortest, doubling up
// to the longest.
const (
	shortestRestart = 100 * time.Millisecond
	longestRestart  = 5 * time.Second
)

// loops returns the control loops of a term.
func loops(leading time.Time) []loop.Loop {
	return []loop.Loop{
		replicas.New(id.New),
		rollout.New(id.New, leading),
		scheduler.New(),
		liveness.New(leading),
		retention.New(),
		rotation.New(),
		addressing.New(),
		format.New(dataformat.Manager()),
	}
}

// lead follows the lead until ctx ends, or raft cannot go on. It owns the raft node: surgery happens here,
// between terms. A term has ended, with all that ran in it, before the next one begins.
func (m *Manager) lead(ctx context.Context) error {
	end := func() {}
	defer func() { end() }()
	m.standing.anew()
	for {
		var leadership <-chan bool
		var changed <-chan struct{}
		if node, err := m.core.get(); err == nil {
			leadership, changed = node.Leadership(), node.Changed()
			m.standing.follow(node.Leader())
		}
		select {
		case gained := <-leadership:
			end()
			end = func() {}
			if gained {
				end = m.begin(ctx)
			}
		case <-changed:
			m.report()
		case s := <-m.core.surgery:
			end()
			end = func() {}
			if err := m.perform(s); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// begin starts a term. The function it returns ends the term.
func (m *Manager) begin(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		m.term(ctx)
		m.standing.set(following)
		m.report()
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// term runs what runs while leading until ctx ends. What fails in between is started again, after a
// wait that grows.
func (m *Manager) term(ctx context.Context) {
	for wait := shortestRestart; ; wait = min(2*wait, longestRestart) {
		began := time.Now()
		err := m.govern(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > longestRestart {
			wait = shortestRestart
		}
		m.logger.Error("what runs while leading has failed and is started again", "error", err, "wait", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// barrier returns when everything committed before is known.
func (m *Manager) barrier(ctx context.Context) error {
	node, err := m.core.get()
	if err != nil {
		return err
	}
	return node.Barrier(ctx)
}

// govern waits until everything committed before is known, and then runs the loops and the dispatcher
// until one of them ends, which it does with an error.
func (m *Manager) govern(ctx context.Context) error {
	if err := m.barrier(ctx); err != nil {
		return fmt.Errorf("learn what was committed before: %w", err)
	}
	began := time.Now()
	m.reign.Store(&began)
	defer m.reign.Store(nil)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.dispatcher.Run(ctx) })
	for _, l := range loops(began) {
		group.Go(func() error { return loop.Run(ctx, m.store, m.writing(l.Name()), l, m.logger, m.metrics) })
	}
	m.standing.set(leading)
	m.report()
	m.logger.Info("leading", "manager", m.self())
	err := group.Wait()
	if err == nil {
		err = errors.New("ended without being told to")
	}
	return err
}
