package loop

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/cuemby/warren/internal/manager/state"
)

// Proposer writes transactions; the consensus node is one. The results are as of
// consensus.Node.Propose.
type Proposer interface {
	Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error)
}

// Loop is a control loop. Its methods are called from one goroutine.
type Loop interface {
	// Name is the loop's name in logs and metrics.
	Name() string
	// Reset makes the loop forget all it has observed and begin with the snapshot.
	Reset(state.Snapshot)
	// Observe tells the loop what has changed, oldest first, and the state after it.
	Observe(state.Snapshot, []state.Change)
	// Decide returns what should be written now. It is called after every Observe.
	Decide(state.Snapshot, time.Time) Decision
	// Refused tells the loop that one of its proposals was refused because the state has moved on.
	Refused(Proposal)
}

// MaxOperations is the size at which a decision about one object closes its transaction. What it leaves
// undone it decides on again when the transaction is applied, so that no single write of the raft log
// grows with the cluster.
const MaxOperations = 1000

// Decision is what a loop wants done.
type Decision struct {
	Proposals []Proposal
	// Wake is when the loop must decide again even if nothing changes; zero for never.
	Wake time.Time
}

// Proposal is one transaction of a decision.
type Proposal struct {
	// Key says what the transaction is about, in the loop's own terms.
	Key         string
	Transaction *state.Transaction
}

// Observer is told what loops do; it must be quick.
type Observer interface {
	// Round is told of each round of a loop that has ended.
	Round(loop string, r Round)
}

// Round is what a loop has done between two waits.
type Round struct {
	// Changes is how many changes of the state it had been told of before it decided.
	Changes int
	// Deciding is how long that took, Took how long the round did, with the writing of what was decided.
	Deciding, Took time.Duration
	// Applied proposals were written, Overtaken ones refused because the state had moved on, Malformed ones because they
	// cannot be.
	Applied, Overtaken, Malformed int
}

// Run drives l until ctx ends or proposals can no longer be written, which is when this manager
// stops leading. It never returns nil. Observers are told of each round.
func Run(ctx context.Context, store *state.Store, proposer Proposer, l Loop, logger *slog.Logger, observers ...Observer) error {
	logger = logger.With("loop", l.Name())
	snapshot, feed := store.Watch()
	l.Reset(snapshot)
	for changes := 0; ; {
		began := time.Now()
		decision := l.Decide(snapshot, began)
		round := Round{Changes: changes, Deciding: time.Since(began)}
		err := propose(ctx, snapshot, proposer, l, decision.Proposals, &round, logger)
		if err != nil {
			return fmt.Errorf("%s loop: %w", l.Name(), err)
		}
		round.Took = time.Since(began)
		for _, o := range observers {
			o.Round(l.Name(), round)
		}
		if round.Overtaken == 0 {
			if err := sleep(ctx, feed, decision.Wake); err != nil {
				return fmt.Errorf("%s loop: %w", l.Name(), err)
			}
		}
		batch := feed.Take()
		snapshot, changes = batch.Snapshot, len(batch.Changes)
		if batch.Reset {
			l.Reset(snapshot)
		} else {
			l.Observe(snapshot, batch.Changes)
		}
	}
}

// propose writes the proposals and counts what became of them. A refusal is no failure: the state
// moved on, and the loop looks again.
func propose(ctx context.Context, snapshot state.Snapshot, proposer Proposer, l Loop, proposals []Proposal, round *Round, logger *slog.Logger) error {
	for batch := range batches(proposals) {
		transactions := make([]*state.Transaction, len(batch))
		for i, p := range batch {
			transactions[i] = p.Transaction
		}
		results, err := proposer.Propose(ctx, transactions...)
		if err != nil {
			return err
		}
		round.Applied += len(batch)
		if results == nil { // all of them were
			for _, p := range batch {
				tell(ctx, logger, snapshot, p)
			}
		}
		for i, why := range results {
			switch {
			case why == nil:
				tell(ctx, logger, snapshot, batch[i])
				continue
			case errors.Is(why, state.ErrMalformed):
				// Looking again would decide the same: say so and leave it until something changes.
				logger.Error("decision refused", "key", batch[i].Key, "error", why)
				round.Malformed++
			default:
				logger.Debug("decision overtaken", "key", batch[i].Key, "error", why)
				l.Refused(batch[i])
				round.Overtaken++
			}
			round.Applied--
		}
	}
	return nil
}

// batches cuts proposals into what is proposed in one go: as many as have MaxOperations operations
// between them, and at least one.
func batches(proposals []Proposal) iter.Seq[[]Proposal] {
	return func(yield func([]Proposal) bool) {
		for len(proposals) > 0 {
			n, operations := 1, proposals[0].Transaction.Len()
			for n < len(proposals) && operations+proposals[n].Transaction.Len() <= MaxOperations {
				operations += proposals[n].Transaction.Len()
				n++
			}
			if !yield(proposals[:n]) {
				return
			}
			proposals = proposals[n:]
		}
	}
}

// sleep waits for a change, for the time to wake (zero: never), or for the end of ctx.
func sleep(ctx context.Context, feed *state.Feed, wake time.Time) error {
	var alarm <-chan time.Time
	if !wake.IsZero() {
		timer := time.NewTimer(time.Until(wake))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-feed.Ready():
		return nil
	case <-alarm:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
