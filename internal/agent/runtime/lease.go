package runtime

import (
	"context"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
)

// A lease is ended by who took it, or by the next run of the agent. The expiry is for an agent that
// never runs again.
const (
	leaseExpiry    = 24 * time.Hour
	endLeaseAtMost = 10 * time.Second
)

func (r *Runtime) leaseOptions() []leases.Opt {
	return []leases.Opt{leases.WithRandomID(), leases.WithExpiration(leaseExpiry), leases.WithLabel(labelRun, r.run)}
}

// withLease keeps containerd's garbage collector away from what is made with the context it returns,
// until done is called.
func (r *Runtime) withLease(ctx context.Context) (leased context.Context, done func(), err error) {
	leased, end, err := r.client.WithLease(ctx, r.leaseOptions()...)
	if err != nil {
		return nil, nil, err
	}
	return leased, func() {
		// Also where the work was given up: otherwise a cancelled pull would hold its content for a day.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLeaseAtMost)
		defer cancel()
		if err := end(ctx); err != nil {
			r.logger.Debug("a lease was left to expire", "error", err)
		}
	}, nil
}

// endStaleLeases ends the leases of runs of the agent that were killed before they could.
func (r *Runtime) endStaleLeases(ctx context.Context) error {
	manager := r.client.LeasesService()
	all, err := manager.List(ctx)
	if err != nil {
		return err
	}
	for _, lease := range all {
		if run := lease.Labels[labelRun]; run == "" || run == r.run {
			continue // somebody else's, or in use
		}
		if err := manager.Delete(ctx, lease); err != nil {
			return err
		}
	}
	return nil
}
