package manager

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cuemby/warren/internal/id"
	"github.com/cuemby/warren/internal/manager/liveness"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/replicas"
	"github.com/cuemby/warren/internal/manager/retention"
	"github.com/cuemby/warren/internal/manager/rollout"
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
		rollout.New(id.New),
		scheduler.New(),
		liveness.New(leading),
		retention.New(),
	}
}

// lead follows the lead until ctx ends. A term has ended, with all that ran in it, before the next one
// begins.
func (m *Manager) lead(ctx context.Context) {
	end := func() {}
	for {
		select {
		case gained := <-m.node.Leadership():
			end()
			end = func() {}
			if gained {
				end = m.begin(ctx)
			}
		case <-ctx.Done():
			end()
			return
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
		m.logger.Error("what runs while leading has failed and is started again", "err", err, "wait", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// govern waits until everything committed before is known, and then runs the loops, the dispatcher and
// the log of events until one of them ends, which it does with an error.
func (m *Manager) govern(ctx context.Context) error {
	if err := m.node.Barrier(ctx); err != nil {
		return fmt.Errorf("learn what was committed before: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	_, feed := m.store.Watch()
	group.Go(func() error { return m.events.Run(ctx, feed) })
	group.Go(func() error { return m.dispatcher.Run(ctx) })
	for _, l := range loops(time.Now()) {
		group.Go(func() error { return loop.Run(ctx, m.store, m.node, l, m.logger) })
	}
	m.standing.set(leading)
	m.report()
	m.logger.Info("leading", "manager", m.id)
	err := group.Wait()
	if err == nil {
		err = errors.New("ended without being told to")
	}
	return err
}
