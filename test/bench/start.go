package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/contrib/seccomp"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// measureStart times from the call that creates a service to all its replicas running, beside the floor in
// alternation, and from scaling to zero until every container is gone.
//
// Every task has an address on the overlay, which is what a user gets who says nothing else, so the budget is
// held against that: start_N_ratio, over a floor whose containers have no network of their own. What of it is
// owed to the kernel for a namespace and a pair of links each, start_N_like_ratio leaves out.
func measureStart(ctx context.Context, b *bench) error {
	return b.starts(ctx, "start", spec)
}

// measureStartHost is the same on the host's network, which is the network of the floor's containers too.
func measureStartHost(ctx context.Context, b *bench) error {
	return b.starts(ctx, "start_host", hostSpec)
}

type makeSpec func(name, image string, replicas uint32) *warrenv1.ServiceSpec

func (b *bench) starts(ctx context.Context, name string, of makeSpec) (err error) {
	c, err := b.startCluster(ctx, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	f, err := newFloor(ctx, b.machine)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.tune(ctx); err != nil {
		return err
	}
	overlay := of(name, "", 0).GetTask().GetNetwork() != warrenv1.NetworkMode_NETWORK_MODE_HOST
	for _, n := range []int{1, 20, 50, 100} {
		var ratios, alike []float64
		var ours, floors, stops []time.Duration
		for round := range roundsOf(n, b.rounds) {
			least, err := f.round(ctx, n, false)
			if err != nil {
				return fmt.Errorf("floor: %w", err)
			}
			same, err := f.round(ctx, n, overlay, seccomp.WithDefaultProfile())
			if err != nil {
				return fmt.Errorf("floor alike: %w", err)
			}
			started, stopped, err := c.round(ctx, b.machine, of(fmt.Sprintf("start-%d-%d", n, round), b.machine.image, uint32(n)))
			if err != nil {
				return fmt.Errorf("%d replicas: %w", n, err)
			}
			ours, floors, stops = append(ours, started), append(floors, least), append(stops, stopped)
			ratios = append(ratios, float64(started)/float64(least))
			alike = append(alike, float64(started)/float64(same))
		}
		b.row(fmt.Sprintf("%s_%d_ratio", name, n), median(ratios), "", fmt.Sprintf("%v, floor %v at %d at a time",
			median(ours).Round(time.Millisecond/10), median(floors).Round(time.Millisecond/10), f.parallel))
		remark := "over a floor with containerd's default seccomp profile, as Warren's containers have one"
		if overlay {
			remark += ", and a network namespace with a veth"
		}
		b.row(fmt.Sprintf("%s_%d_like_ratio", name, n), median(alike), "", remark)
		b.row(fmt.Sprintf("%s_%d_ms", name, n), milliseconds(median(ours)), "ms", "")
		b.row(fmt.Sprintf("%s_%d_ms", stopName(name), n), milliseconds(median(stops)), "ms", "scaled to 0, containers gone")
	}
	return nil
}

// roundsOf is how many rounds there are of n replicas: few take no time and scatter more, many take long and
// are a mean in themselves.
func roundsOf(n, rounds int) int {
	switch {
	case n == 1:
		return 3 * rounds
	case n >= 50:
		return (rounds + 1) / 2
	}
	return rounds
}

// stopName is what the figures of stopping are called beside those of starting.
func stopName(start string) string { return "stop" + start[len("start"):] }

// round creates a service, scales it to zero and removes it.
func (c *cluster) round(ctx context.Context, h *host, s *warrenv1.ServiceSpec) (started, stopped time.Duration, err error) {
	name, n := s.GetName(), s.GetReplicated().GetReplicas()
	begin := time.Now()
	if err := c.create(ctx, s); err != nil {
		return 0, 0, err
	}
	if err := c.watch(ctx, name, func(p *warrenv1.ServiceProgress) bool { return p.GetRunning() == n }); err != nil {
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
	return started, stopped, errors.Join(c.remove(ctx, name), h.quiet(ctx, warrenNamespace(1)))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
