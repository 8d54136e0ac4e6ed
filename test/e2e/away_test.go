//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/test/cluster"
)

const (
	writers    = 16
	manyWrites = 10_000
	// caughtUpWithin is far above what it takes.
	caughtUpWithin = 20 * time.Second
)

func TestAManagerThatWasAwayForTenThousandWritesHasThemAllSoonAfter(t *testing.T) {
	t.Parallel()
	r := newTrio(t)
	m1, m2, m3 := r.all[0], r.all[1], r.all[2]
	if !m1.leads(r.ctx) {
		t.Fatal("m1 does not lead")
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	check(m3.KillUnit(r.ctx, cluster.ManagerUnit))
	began := time.Now()
	want, err := writeMany(r.ctx, m1)
	check(err)
	t.Logf("%d writes by %d callers while m3 was away: %v", manyWrites, writers, time.Since(began).Round(time.Millisecond))

	// Without m2 nothing is written but what m3 has as well, with all that was written before.
	check(m2.KillUnit(r.ctx, cluster.ManagerUnit))
	check(m3.startManager(r.ctx))
	began = time.Now()
	check(cluster.AwaitWithin(r.ctx, caughtUpWithin, "a write that m3 agrees to", func(ctx context.Context) error {
		return m1.create(ctx, "after")
	}))
	t.Logf("m3 has them all and the next one %v after it was started", time.Since(began).Round(time.Millisecond))
	slices.Sort(want)

	// What it says when it is alone it cannot have from anybody. Whether the last write counts it may not have
	// been told.
	check(m1.KillUnit(r.ctx, cluster.ManagerUnit))
	check(cluster.Await(r.ctx, "what m3 says alone", func(ctx context.Context) error {
		got, stale, err := m3.names(ctx)
		if err == nil && !stale {
			err = errors.New("it speaks for the cluster")
		}
		return differ(want, slices.DeleteFunc(got, func(name string) bool { return name == "after" }), err)
	}))
	want = append(want, "after")
	slices.Sort(want)

	// Only m3 can lead m2, which knows less.
	check(m2.startManager(r.ctx))
	check(cluster.Await(r.ctx, "m3 to lead with all that was written", func(ctx context.Context) error {
		got, stale, err := m2.names(ctx)
		if err == nil && (stale || !m3.leads(ctx)) {
			err = errors.New("m3 does not lead")
		}
		return differ(want, got, err)
	}))
	check(m2.create(r.ctx, "last"))
	check(m1.startManager(r.ctx))
	check(r.whole())
}

// writeMany has many callers create services, and returns the names of those that were acknowledged.
func writeMany(ctx context.Context, m *seat) ([]string, error) {
	names := make([]string, manyWrites)
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range writers {
		group.Go(func() error {
			for i := next.Add(1) - 1; i < manyWrites; i = next.Add(1) - 1 {
				names[i] = fmt.Sprintf("s-%d", i)
				if err := m.create(ctx, names[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return names, group.Wait()
}

// create makes a service that runs nothing. One that is there already has been made by a try whose answer
// was lost.
func (s *seat) create(ctx context.Context, name string) error {
	spec := &warrenv1.ServiceSpec{
		Name: name, Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{}},
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "image"}},
	}
	_, err := s.local.CreateService(ctx, connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: spec}))
	if connect.CodeOf(err) == connect.CodeAlreadyExists {
		return nil
	}
	return err
}

// differ tells how the names of services are not those that are wanted.
func differ(want, got []string, err error) error {
	if err == nil && !slices.Equal(want, got) {
		err = fmt.Errorf("%d services are there, not the %d that were written", len(got), len(want))
	}
	return err
}
