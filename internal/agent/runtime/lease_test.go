package runtime

import (
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
)

func TestALeaseOfAKilledAgentIsEndedByTheNextAndNoOther(t *testing.T) {
	b := newBench(t)
	ctx := b.context(t.Context())
	manager := b.client.LeasesService()
	take := func(labels map[string]string) leases.Lease {
		t.Helper()
		lease, err := manager.Create(ctx, leases.WithRandomID(), leases.WithLabels(labels))
		if err != nil {
			t.Fatal(err)
		}
		return lease
	}
	stale := take(map[string]string{labelRun: "of another run"})
	foreign := take(nil)
	leased, done, err := b.withLease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	own, _ := leases.FromContext(leased)

	b.collectGarbage(ctx)
	if left := leaseIDs(t, b); left[stale.ID] || !left[foreign.ID] || !left[own] {
		t.Errorf("left are %v, want the foreign %s and the own %s without the stale %s", left, foreign.ID, own, stale.ID)
	}
	done()
	if err := manager.Delete(ctx, foreign); err != nil {
		t.Error(err)
	}
	if left := leaseIDs(t, b); left[own] || left[foreign.ID] {
		t.Errorf("left are %v, want neither %s nor %s", left, own, foreign.ID)
	}
}

func leaseIDs(t *testing.T, b *bench) map[string]bool {
	t.Helper()
	all, err := b.client.LeasesService().List(b.context(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, lease := range all {
		ids[lease.ID] = true
	}
	return ids
}
