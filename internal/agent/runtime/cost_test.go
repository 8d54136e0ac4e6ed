package runtime

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
)

// BenchmarkCreateAndStart measures from the order for containers to their running programs, beside the
// floor: the plainest use of containerd's client, with no output kept and no seccomp. The two take turns,
// so that what else the machine does falls on both; the figures are medians. Removal is not in them.
func BenchmarkCreateAndStart(b *testing.B) {
	for _, parallel := range []int{1, 8} {
		b.Run(fmt.Sprintf("%d-at-once", parallel), func(b *testing.B) {
			bench := newBench(b)
			image, err := bench.client.GetImage(bench.context(b.Context()), bench.image.Name)
			if err != nil {
				b.Fatal(err)
			}
			floor := func(ctx context.Context, id string) error { return bench.floor(ctx, id, image) }
			var floors, ours []time.Duration
			for round := range b.N {
				floors = append(floors, bench.round(fmt.Sprint("floor", round), parallel, floor))
				ours = append(ours, bench.round(fmt.Sprint("ours", round), parallel, bench.ours))
			}
			slices.Sort(floors)
			slices.Sort(ours)
			median := func(d []time.Duration) float64 { return float64(d[len(d)/2].Microseconds()) / 1000 / float64(parallel) }
			least := func(d []time.Duration) float64 { return float64(d[0].Microseconds()) / 1000 / float64(parallel) }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(floors), "floor-ms")
			b.ReportMetric(median(ours), "warren-ms")
			b.ReportMetric(median(ours)/median(floors), "ratio")
			b.ReportMetric(least(floors), "least-floor-ms")
			b.ReportMetric(least(ours), "least-warren-ms")
		})
	}
}

// round starts so many containers at once and returns how long it took; then it removes them.
func (b *bench) round(name string, parallel int, start func(context.Context, string) error) time.Duration {
	ctx := b.t.Context()
	at := time.Now()
	b.each(name, parallel, func(id string) error { return start(ctx, id) })
	took := time.Since(at)
	b.each(name, parallel, func(id string) error { return b.Remove(ctx, id) })
	return took
}

func (b *bench) each(name string, parallel int, work func(id string) error) {
	var all sync.WaitGroup
	for n := range parallel {
		all.Go(func() {
			if err := work(fmt.Sprintf("%s-%d", name, n)); err != nil {
				b.t.Error(err)
			}
		})
	}
	all.Wait()
}

func (b *bench) ours(ctx context.Context, id string) error {
	c := b.container(id, "sleep")
	c.ID = id
	if _, err := b.Create(ctx, c); err != nil {
		return err
	}
	_, err := b.Start(ctx, id)
	return err
}

func (b *bench) floor(ctx context.Context, id string, image client.Image) error {
	ctx = b.context(ctx)
	container, err := b.client.NewContainer(ctx, id, client.WithNewSnapshot(id, image), client.WithNewSpec(oci.WithImageConfig(image)))
	if err != nil {
		return err
	}
	task, err := container.NewTask(ctx, cio.NullIO)
	if err != nil {
		return err
	}
	return task.Start(ctx)
}
