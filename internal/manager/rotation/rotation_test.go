package rotation

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// begun is a store in which the CA is being replaced, and the digests of the new CA and the old one.
func begun(t testing.TB, objects ...state.Object) (store *state.Store, next, old string) {
	t.Helper()
	key := authority.NewKey()
	kept, err := authority.Found(statetest.ClusterID, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store = statetest.New(t, append(objects, statetest.Cluster(), kept)...)
	a := authority.New(store, statetest.NewProposer(store))
	a.SetKey(key)
	old = authority.IssuerDigest(kept)
	if err := a.Rotate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return store, authority.IssuerDigest(store.Snapshot().Authority()), old
}

func manager(id, issuer string) *statev1.Member {
	return &statev1.Member{Meta: &warrenv1.Meta{Id: id}, Issuer: issuer}
}

func node(id, issuer string, edits ...func(*warrenv1.Node)) *warrenv1.Node {
	return statetest.Node(id, append(edits, func(n *warrenv1.Node) { n.Status.Issuer = issuer })...)
}

func down(n *warrenv1.Node) { n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN }

func TestAReplacementEndsWhenEveryMemberHasRenewed(t *testing.T) {
	for _, c := range []struct {
		name    string
		members func(next, old string) []state.Object
		ends    bool
	}{
		{"a manager alone", func(next, _ string) []state.Object { return []state.Object{manager("m1", next)} }, true},
		{"everybody", func(next, _ string) []state.Object {
			return []state.Object{manager("m1", next), manager("m2", next), node("n1", next), node("n2", next)}
		}, true},
		{"all but a manager", func(next, old string) []state.Object {
			return []state.Object{manager("m1", next), manager("m2", old), node("n1", next)}
		}, false},
		{"all but a node", func(next, old string) []state.Object { return []state.Object{manager("m1", next), node("n1", old)} }, false},
		{"all but a node that was never heard of", func(next, _ string) []state.Object { return []state.Object{manager("m1", next), node("n1", "")} }, false},
		// It could not come back: it trusts the old CA alone.
		{"all but a node that is down", func(next, old string) []state.Object {
			return []state.Object{manager("m1", next), node("n1", old, down)}
		}, false},
		{"also a node that is down", func(next, _ string) []state.Object {
			return []state.Object{manager("m1", next), node("n1", next, down)}
		}, true},
		{"no manager has told of itself", func(next, _ string) []state.Object { return []state.Object{node("n1", next)} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			store, next, old := begun(t)
			statetest.Put(t, store, c.members(next, old)...)
			s := store.Snapshot()
			transaction := decide(s, time.Now())
			if (transaction != nil) != c.ends {
				t.Fatalf("ends: %v", transaction != nil)
			}
			if transaction == nil {
				return
			}
			for _, w := range statetest.Writes(s, transaction) {
				if !slices.Contains(Outputs, w) {
					t.Errorf("writes %s", w)
				}
			}
			statetest.Commit(t, statetest.NewProposer(store), transaction)
			kept := store.Snapshot().Authority()
			if authority.Rotating(kept) || authority.IssuerDigest(kept) != next || len(kept.GetBridge()) != 0 || kept.GetRotationStartedAt() != nil || len(kept.GetSealedKey()) == 0 {
				t.Errorf("left %v", kept)
			}
			if decide(store.Snapshot(), time.Now()) != nil {
				t.Error("it ends twice")
			}
		})
	}
}

func TestWhereNoCAIsReplacedNothingIsDecided(t *testing.T) {
	if decide(statetest.New(t).Snapshot(), time.Now()) != nil {
		t.Error("without a cluster")
	}
	kept, err := authority.Found(statetest.ClusterID, authority.NewKey(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := statetest.New(t, kept, manager("m1", "")).Snapshot()
	if decide(s, time.Now()) != nil || matters(s, state.Change{After: manager("m1", "x")}) {
		t.Error("with one CA")
	}
}

// TestAReplacementEndsHoweverOftenTheLeadChanges: members renew in any order, some go, and the loop is started
// again and again in between.
func TestAReplacementEndsHoweverOftenTheLeadChanges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			store, next, old := begun(t)
			members := []state.Object{manager("m1", old), manager("m2", old), node("n1", old), node("n2", old, down), node("n3", old)}
			statetest.Put(t, store, members...)
			end := lead(t, store)
			for _, i := range rapid.Permutation([]int{0, 1, 2, 3, 4}).Draw(rt, "order") {
				if !authority.Rotating(store.Snapshot().Authority()) {
					rt.Fatalf("it ended before member %d had renewed", i)
				}
				if rapid.Bool().Draw(rt, "lead changes") {
					end()
					end = lead(t, store)
				}
				if rapid.Bool().Draw(rt, "removed") && i != 0 {
					statetest.Remove(t, store, state.KeyOf(members[i]))
				} else if o, ok := members[i].(*statev1.Member); ok {
					statetest.Put(t, store, manager(o.GetMeta().GetId(), next))
				} else {
					statetest.Put(t, store, node(members[i].GetMeta().GetId(), next))
				}
				synctest.Wait()
			}
			if authority.Rotating(store.Snapshot().Authority()) {
				rt.Fatal("it does not end")
			}
			end()
		})
	})
}

// lead runs the loop as a leader does. The function it returns ends the lead.
func lead(t *testing.T, store *state.Store) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = loop.Run(ctx, store, statetest.NewProposer(store), New(), slog.New(slog.DiscardHandler))
	}()
	synctest.Wait()
	return func() { cancel(); <-ended }
}

func TestOnlyWhatBearsOnItWakesTheLoop(t *testing.T) {
	store, next, old := begun(t, node("n1", ""), manager("m1", ""))
	s := store.Snapshot()
	for _, c := range []struct {
		name          string
		before, after state.Object
		want          bool
	}{
		{"a node renews", node("n1", old), node("n1", next), true},
		{"a node goes down", node("n1", old), node("n1", old, down), false},
		{"a node is removed", node("n1", old), nil, true},
		{"a node joins", nil, node("n1", next), true},
		{"a manager renews", manager("m1", old), manager("m1", next), true},
		{"a manager is removed", manager("m1", old), nil, true},
		{"a manager tells the same", manager("m1", old), manager("m1", old), false},
		{"a task changes", statetest.Task("t", "web", 1, "n1"), statetest.Task("t", "web", 1, "n1"), false},
		{"a task is made", nil, statetest.Task("t", "web", 1, "n1"), false},
	} {
		if got := matters(s, state.Change{Before: c.before, After: c.after}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
