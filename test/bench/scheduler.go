package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cuemby/warren/internal/manager/scheduler"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	placements        = 20_000
	placementServices = 20
)

// measureScheduler counts placements per second of the scheduler alone: it decides and observes what it
// decided; writing is not counted.
func measureScheduler(ctx context.Context, b *bench) error {
	for _, nodes := range []int{1000, 10_000} {
		var rates []float64
		for range b.rounds {
			busy, err := place(ctx, nodes)
			if err != nil {
				return err
			}
			rates = append(rates, placements/busy.Seconds())
		}
		b.row(fmt.Sprintf("placements_per_s_%d", nodes), median(rates), "/s", fmt.Sprintf("%d tasks of %d services", placements, placementServices))
	}
	return nil
}

func place(ctx context.Context, nodes int) (busy time.Duration, err error) {
	store := state.NewStore()
	proposer := statetest.NewProposer(store)
	now := time.Now()
	setup := state.New(now)
	for i := range nodes {
		setup.Create(statetest.Node(fmt.Sprintf("node-%05d", i), func(n *warrenv1.Node) {
			n.Facts.Resources = &warrenv1.Resources{NanoCpus: 64e9, MemoryBytes: 256 << 30}
		}))
	}
	for i := range placementServices {
		service := statetest.Replicated(fmt.Sprintf("s%d", i), placements/placementServices, func(s *warrenv1.Service) {
			s.Spec.Task.Reservations = &warrenv1.Resources{NanoCpus: 1e8, MemoryBytes: 64 << 20}
		})
		setup.Create(service)
		setup.Create(statetest.Revision(service))
		for j := range placements / placementServices {
			setup.Create(statetest.Task(fmt.Sprintf("t%d-%d", i, j), service.GetMeta().GetId(), uint32(j+1), "",
				statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)))
		}
	}
	if err := propose(ctx, proposer, setup); err != nil {
		return 0, err
	}
	snapshot, feed := store.Watch()
	s := scheduler.New()
	s.Reset(snapshot)
	for placed := 0; placed < placements; {
		begin := time.Now()
		decision := s.Decide(snapshot, now)
		busy += time.Since(begin)
		if len(decision.Proposals) == 0 {
			return 0, fmt.Errorf("only %d of %d tasks were placed", placed, placements)
		}
		for _, p := range decision.Proposals {
			if err := propose(ctx, proposer, p.Transaction); err != nil {
				return 0, err
			}
			placed += p.Transaction.Len()
		}
		batch := feed.Take()
		snapshot = batch.Snapshot
		begin = time.Now()
		s.Observe(snapshot, batch.Changes)
		busy += time.Since(begin)
	}
	return busy, nil
}

func propose(ctx context.Context, p *statetest.Proposer, t *state.Transaction) error {
	refused, err := p.Propose(ctx, t)
	return errors.Join(append(refused, err)...)
}
