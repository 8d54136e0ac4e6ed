package keyring

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/state"
)

// The wait before sealing is tried again after it failed, as on a full disk: the first, doubling up to the
// longest.
const (
	firstRetry   = time.Second
	longestRetry = time.Minute
)

// Follow has the files be sealed as a state wants it: with its unlock key, or not at all.
func (r *Ring) Follow(s state.Snapshot) error {
	kept := s.Authority()
	k, ok := r.ClusterKey()
	if kept == nil || !ok {
		return nil
	}
	unlock, err := authority.UnlockKeyOf(kept, k)
	if err != nil {
		return fmt.Errorf("read the unlock key: %w", err)
	}
	return r.Reseal(kept.GetMeta().GetVersion(), unlock)
}

// Keep follows the state until ctx ends: managers run it as long as they run, leading or not.
func (r *Ring) Keep(ctx context.Context, store *state.Store, logger *slog.Logger) error {
	snapshot, feed := store.Watch()
	for wait := firstRetry; ; {
		var again <-chan time.Time
		if err := r.Follow(snapshot); err != nil {
			logger.Error("the manager's keys could not be sealed as the cluster wants it", "error", err, "wait", wait)
			again, wait = time.After(wait), min(2*wait, longestRetry)
		} else {
			wait = firstRetry
		}
		for before := snapshot.Authority(); again == nil && snapshot.Authority() == before; {
			batch, err := feed.Next(ctx)
			if err != nil {
				return err
			}
			snapshot = batch.Snapshot
		}
		if again == nil {
			continue
		}
		select {
		case <-again:
			snapshot = feed.Take().Snapshot
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
