package state_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestWhatIsSupposedIsSeenInItselfAlone(t *testing.T) {
	store := statetest.New(t, statetest.Replicated("web", 1), statetest.Task("t1", "web", 1, "n1"))
	before := store.Snapshot()
	transaction := state.New(statetest.Epoch)
	state.Update(transaction, before.Service("web"), func(s *warrenv1.Service) { s.Revision = 2 })
	transaction.Create(statetest.Task("t2", "web", 2, "n1"))
	transaction.Delete(before.Task("t1"))
	supposed, changes, err := before.Suppose(transaction)
	if err != nil || len(changes) != 3 {
		t.Fatalf("%v, %v", changes, err)
	}
	ids := func(s state.Snapshot) (all []string) {
		for task := range s.TasksByNode("n1") {
			all = append(all, task.GetMeta().GetId())
		}
		return all
	}
	if got := supposed.Service("web"); got.GetRevision() != 2 || got.GetMeta().GetVersion() != supposed.Index() || supposed.Index() <= before.Index() {
		t.Errorf("supposed at %d: %v", supposed.Index(), got)
	}
	if got := ids(supposed); !slices.Equal(got, []string{"t2"}) {
		t.Errorf("supposed tasks %v", got)
	}
	if now := store.Snapshot(); now.Index() != before.Index() || now.Service("web").GetRevision() != 1 || !slices.Equal(ids(now), []string{"t1"}) {
		t.Error("it was written")
	}
	if again, _, err := before.Suppose(transaction); err != nil || again.Service("web").GetRevision() != 2 {
		t.Errorf("supposed again: %v", err)
	}
}

func TestWhatWouldBeRefusedCannotBeSupposed(t *testing.T) {
	store := statetest.New(t, statetest.Replicated("web", 1))
	stale := state.New(statetest.Epoch)
	state.Update(stale, store.Snapshot().Service("web"), func(s *warrenv1.Service) { s.Revision = 2 })
	statetest.Put(t, store, statetest.Replicated("web", 2))
	if _, _, err := store.Snapshot().Suppose(stale); !errors.Is(err, state.ErrConflict) {
		t.Errorf("got %v", err)
	}
}
