package runtime

import (
	"context"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
)

// quiet is how long nothing must have been removed before the disk is tidied: containerd holds its
// database while it looks for what nobody needs, which would slow down creating containers.
const quiet = 2 * time.Second

// collector frees the disk space of removed containers. containerd by itself would do so only after
// a hundred changes, which on a quiet node may be days.
type collector struct {
	pokes  chan struct{}
	cancel context.CancelFunc
	ended  chan struct{}
}

func startCollector(ctx context.Context, collect func(context.Context)) *collector {
	ctx, cancel := context.WithCancel(ctx)
	c := &collector{pokes: make(chan struct{}, 1), cancel: cancel, ended: make(chan struct{})}
	go c.run(ctx, collect)
	return c
}

// poke says that something was removed. It never waits.
func (c *collector) poke() {
	select {
	case c.pokes <- struct{}{}:
	default:
	}
}

func (c *collector) stop() {
	c.cancel()
	<-c.ended
}

func (c *collector) run(ctx context.Context, collect func(context.Context)) {
	defer close(c.ended)
	timer := time.NewTimer(quiet)
	timer.Stop()
	for {
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-c.pokes:
			timer.Reset(quiet)
		case <-timer.C:
			collect(ctx)
		}
	}
}

// collectGarbage has containerd delete what nothing refers to, nor a lease of an agent that is no more.
// Only the end of a lease can ask for that.
func (r *Runtime) collectGarbage(ctx context.Context) {
	ctx = r.context(ctx)
	manager := r.client.LeasesService()
	err := r.endStaleLeases(ctx)
	if err == nil {
		var lease leases.Lease
		if lease, err = manager.Create(ctx, r.leaseOptions()...); err == nil {
			err = manager.Delete(ctx, lease, leases.SynchronousDelete)
		}
	}
	if err != nil && ctx.Err() == nil {
		r.logger.Debug("containerd did not tidy its disk", "error", err)
	}
}
