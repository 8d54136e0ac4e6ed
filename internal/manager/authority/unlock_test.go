package authority_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
)

func founded(t *testing.T) (*authority.Authority, *state.Store, *statetest.Proposer, authority.Key) {
	t.Helper()
	k := authority.NewKey()
	kept, err := authority.Found("c", k, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store := statetest.New(t, statetest.Cluster(), kept)
	proposer := statetest.NewProposer(store)
	a := authority.New(store, proposer)
	a.SetKey(k)
	return a, store, proposer, k
}

func TestTheUnlockKeyComesAndGoesWithAutolock(t *testing.T) {
	a, store, proposer, k := founded(t)
	if _, err := a.UnlockKey(t.Context(), false); !errors.Is(err, authority.ErrNoAutolock) {
		t.Errorf("without autolock: %v", err)
	}
	set := func(on bool) int {
		tx := state.New(time.Now())
		if err := a.Autolock(tx, store.Snapshot(), on); err != nil {
			t.Fatal(err)
		}
		if tx.Len() > 0 {
			statetest.Commit(t, proposer, tx)
		}
		return tx.Len()
	}
	if set(false) != 0 || set(true) != 1 || set(true) != 0 {
		t.Error("wrote what was so already, or did not write")
	}
	first, err := a.UnlockKey(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := a.UnlockKey(t.Context(), false); err != nil || !again.Equal(first) {
		t.Errorf("asked again: %v", err)
	}
	second, err := a.UnlockKey(t.Context(), true)
	if err != nil || second.Equal(first) {
		t.Errorf("rotated: %v", err)
	}
	if kept, err := authority.UnlockKeyOf(store.Snapshot().Authority(), k); err != nil || !kept.Equal(second) {
		t.Errorf("kept: %v", err)
	}
	if _, err := authority.UnlockKeyOf(store.Snapshot().Authority(), authority.NewKey()); err == nil {
		t.Error("another cluster's key opens it")
	}
	set(false)
	if kept, err := authority.UnlockKeyOf(store.Snapshot().Authority(), k); err != nil || kept != nil {
		t.Errorf("left: %v", err)
	}
}

func TestTheClusterKeyIsNeverPrinted(t *testing.T) {
	k := authority.NewKey()
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		said := fmt.Sprintf(format, k)
		if said != "the cluster's key" || strings.Contains(said, string(k.Secret())) {
			t.Errorf("%s prints %q", format, said)
		}
	}
	if again, err := authority.ParseKey(k.Secret()); err != nil || !again.Equal(k) {
		t.Errorf("from its secret: %v", err)
	}
}
