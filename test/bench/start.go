package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/contrib/seccomp"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// measureStart times from the call that creates a service to all its replicas running, beside the
// floor in alternation, and from scaling to zero until every container is gone.
func measureStart(ctx context.Context, b *bench) (err error) {
	c, err := b.startCluster(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	f, err := newFloor(ctx, b.machine)
	if err != nil {
		return err
	}
	if err := f.tune(ctx); err != nil {
		return err
	}
	for _, n := range []int{1, 20, 50, 100} {
		var ratios, filtered []float64
		var ours, floors, stops []time.Duration
		for round := range b.rounds {
			least, err := f.round(ctx, n)
			if err != nil {
				return fmt.Errorf("floor: %w", err)
			}
			same, err := f.round(ctx, n, seccomp.WithDefaultProfile())
			if err != nil {
				return fmt.Errorf("floor with seccomp: %w", err)
			}
			started, stopped, err := c.round(ctx, b.machine, fmt.Sprintf("start-%d-%d", n, round), n)
			if err != nil {
				return fmt.Errorf("%d replicas: %w", n, err)
			}
			ours, floors, stops = append(ours, started), append(floors, least), append(stops, stopped)
			ratios = append(ratios, float64(started)/float64(least))
			filtered = append(filtered, float64(started)/float64(same))
		}
		b.row(fmt.Sprintf("start_%d_ratio", n), median(ratios), "", fmt.Sprintf("%v, floor %v at %d at a time",
			median(ours).Round(time.Millisecond/10), median(floors).Round(time.Millisecond/10), f.parallel))
		b.row(fmt.Sprintf("start_%d_seccomp_ratio", n), median(filtered), "", "over a floor with containerd's default seccomp profile, as Warren's containers have one")
		b.row(fmt.Sprintf("start_%d_ms", n), milliseconds(median(ours)), "ms", "")
		b.row(fmt.Sprintf("stop_%d_ms", n), milliseconds(median(stops)), "ms", "scaled to 0, containers gone")
	}
	return nil
}

// round creates a service of n replicas, scales it to zero and removes it.
func (c *cluster) round(ctx context.Context, h *host, name string, n int) (started, stopped time.Duration, err error) {
	begin := time.Now()
	if err := c.create(ctx, spec(name, h.image, uint32(n))); err != nil {
		return 0, 0, err
	}
	if err := c.watch(ctx, name, func(p *warrenv1.ServiceProgress) bool { return int(p.GetRunning()) == n }); err != nil {
		return 0, 0, err
	}
	started = time.Since(begin)
	begin = time.Now()
	if err := c.scale(ctx, name, 0); err != nil {
		return 0, 0, err
	}
	err = c.watch(ctx, name, func(p *warrenv1.ServiceProgress) bool { return p.GetDesired() == 0 && p.GetConverged() })
	if err != nil {
		return 0, 0, err
	}
	stopped = time.Since(begin)
	return started, stopped, errors.Join(c.remove(ctx, name), h.quiet(ctx, warrenNamespace))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
