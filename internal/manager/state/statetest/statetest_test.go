package statetest_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestAProposalIsAppliedOrRefusedAsRaftWould(t *testing.T) {
	store := statetest.New(t, statetest.Node("n1"))
	proposer := statetest.NewProposer(store)
	var commits int
	proposer.OnCommit(func(before, after state.Snapshot) {
		commits++
		if after.Index() != before.Index()+1 {
			t.Errorf("a commit led from index %d to %d", before.Index(), after.Index())
		}
	})
	n1 := store.Snapshot().Node("n1")
	edit := func() *state.Transaction {
		transaction := state.New(statetest.Epoch)
		state.Update(transaction, n1, func(n *warrenv1.Node) { n.Facts.Kernel = "6.1" })
		return transaction
	}
	results, err := proposer.Propose(t.Context(), edit(), edit())
	if err != nil || len(results) != 2 || results[0] != nil || !errors.Is(results[1], state.ErrConflict) {
		t.Fatalf("the second edit of one version got %v, %v", results, err)
	}
	if got := store.Snapshot().Node("n1").GetFacts().GetKernel(); got != "6.1" || commits != 1 {
		t.Fatalf("kernel %q after %d commits", got, commits)
	}
}

func TestPutReplacesWhatIsThere(t *testing.T) {
	store := statetest.New(t, statetest.Node("n1"))
	changed := statetest.Node("n1", func(n *warrenv1.Node) { n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN })
	statetest.Put(t, store, changed)
	got := store.Snapshot().Node("n1")
	if got.GetStatus().GetState() != warrenv1.NodeState_NODE_STATE_DOWN || got.GetMeta().GetVersion() != 2 {
		t.Fatalf("stored %v", got)
	}
	if changed.GetMeta().GetVersion() != 0 {
		t.Fatal("the object given was changed")
	}
}

func TestWritesNamesTablesAndFields(t *testing.T) {
	store := statetest.New(t, statetest.Node("n1"), statetest.Task("t1", "web", 1, "n1"))
	s := store.Snapshot()
	transaction := state.New(statetest.Epoch)
	transaction.Check(s.Node("n1"))
	state.Update(transaction, s.Task("t1"), func(t *warrenv1.Task) {
		t.Desired = warrenv1.DesiredState_DESIRED_STATE_REMOVE
	})
	transaction.Create(statetest.Task("t2", "web", 1, ""))
	transaction.Delete(s.Node("n1"))
	want := []string{"node delete", "task create", "task.desired"}
	if got := statetest.Writes(s, transaction); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}
