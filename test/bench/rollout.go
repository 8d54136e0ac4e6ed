package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const rolled = 50

// measureRollout replaces all tasks of a service, new ones first, as many at a time as is fastest for the floor, beside
// the floor, which replaces as many containers in the same way, in alternation. The monitor time, which is a wait that
// users ask for, is none.
func measureRollout(ctx context.Context, b *bench) (err error) {
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
	s := spec("rolled", b.machine.image, rolled)
	s.Update = &warrenv1.UpdatePolicy{Parallelism: uint32(f.parallel), Monitor: durationpb.New(0)}
	if err := c.create(ctx, s); err != nil {
		return err
	}
	if err := c.converged(ctx, "rolled"); err != nil {
		return err
	}
	var ratios []float64
	var ours, floors []time.Duration
	for range max(3, b.rounds/2) {
		least, err := f.roll(ctx, rolled)
		if err != nil {
			return fmt.Errorf("floor: %w", err)
		}
		begin := time.Now()
		if err := c.forceUpdateOf(ctx, "rolled"); err != nil {
			return err
		}
		took := time.Since(begin)
		ours, floors, ratios = append(ours, took), append(floors, least), append(ratios, float64(took)/float64(least))
	}
	b.row(fmt.Sprintf("rollout_%d_ratio", rolled), median(ratios), "", fmt.Sprintf("%v, floor %v, new ones first, %d at a time",
		median(ours).Round(time.Millisecond), median(floors).Round(time.Millisecond), f.parallel))
	b.row(fmt.Sprintf("rollout_%d_ms", rolled), milliseconds(median(ours)), "ms", "")
	b.rolledAtOnce = f.parallel
	return c.clean(ctx, "rolled")
}

// roll replaces n containers, each by starting the new one and then removing the old one, and returns how long that took.
func (f *floor) roll(ctx context.Context, n int) (took time.Duration, err error) {
	ctx = namespaces.WithNamespace(ctx, floorNamespace)
	old, fresh := make([]client.Task, n), make([]client.Task, n)
	var removals errgroup.Group
	defer func() {
		removals.SetLimit(f.parallel)
		for _, task := range slices.Concat(old, fresh) {
			if task != nil {
				removals.Go(func() error { return f.remove(ctx, task) })
			}
		}
		err = errors.Join(err, removals.Wait())
	}()
	if err := f.each(n, func(i, serial int) (err error) { old[i], err = f.run(ctx, serial); return err }); err != nil {
		return 0, err
	}
	begin := time.Now()
	err = f.each(n, func(i, serial int) (err error) {
		if fresh[i], err = f.run(ctx, serial); err != nil {
			return err
		}
		before := old[i]
		old[i] = nil
		return f.remove(ctx, before)
	})
	return time.Since(begin), err
}

// each calls do n times, some at a time, with a number that is new each time.
func (f *floor) each(n int, do func(i, serial int) error) error {
	var group errgroup.Group
	group.SetLimit(f.parallel)
	for i := range n {
		f.serial++
		serial := f.serial
		group.Go(func() error { return do(i, serial) })
	}
	return group.Wait()
}

// run starts one container with a network of its own.
func (f *floor) run(ctx context.Context, serial int) (client.Task, error) {
	task, err := f.create(ctx, fmt.Sprintf("floor-%d", serial), nil)
	if err != nil {
		return nil, err
	}
	if err := f.plug(task.Pid(), serial); err != nil {
		return task, err
	}
	return task, task.Start(ctx)
}

// forceUpdateOf replaces all tasks of a service and waits until the rollout is complete.
func (c *cluster) forceUpdateOf(ctx context.Context, name string) error {
	return c.updateAndWait(ctx, name, func(s *warrenv1.ServiceSpec) { s.Task.Force++ })
}

// updateAndWait changes a service and waits until it has come to rest.
func (c *cluster) updateAndWait(ctx context.Context, name string, change func(*warrenv1.ServiceSpec)) error {
	res, err := c.services.GetService(ctx, connect.NewRequest(&warrenv1.GetServiceRequest{Ref: name}))
	if err != nil {
		return err
	}
	s := res.Msg.GetEntry().GetService().GetSpec()
	change(s)
	if _, err := c.services.UpdateService(ctx, connect.NewRequest(&warrenv1.UpdateServiceRequest{Ref: name, Spec: s})); err != nil {
		return err
	}
	return c.converged(ctx, name)
}

// measureBadRelease ships releases that do not work to a service under load, one after the other, each of which goes back by
// itself: one that ends soon, one that is never healthy, one whose image is not there.
func measureBadRelease(ctx context.Context, b *bench) (err error) {
	c, err := b.startCluster(ctx, maxNodes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	from, err := c.caller(ctx, b.machine.image)
	if err != nil {
		return err
	}
	s := served("web", b.machine.image)
	s.Update = &warrenv1.UpdatePolicy{Monitor: durationpb.New(2 * time.Second)}
	if err := c.create(ctx, s); err != nil {
		return err
	}
	if err := c.converged(ctx, "web"); err != nil {
		return err
	}
	url, err := c.url(ctx, "web")
	if err != nil {
		return err
	}
	bad := []func(*warrenv1.ServiceSpec){
		func(s *warrenv1.ServiceSpec) { s.Task.Container.Args = []string{"crash", "1s"} },
		func(s *warrenv1.ServiceSpec) {
			s.Task.Health = &warrenv1.HealthCheck{
				Probe:    &warrenv1.HealthCheck_Http{Http: &warrenv1.HttpProbe{Port: webPort, Status: "404"}},
				Interval: durationpb.New(time.Second), Retries: 2,
			}
		},
		func(s *warrenv1.ServiceSpec) { s.Task.Container.Image = b.machine.registryAddress() + "/nothing:1" },
	}
	turn := 0
	l := &load{url: url, from: from}
	changes, err := l.during(ctx, max(b.load, 30*time.Second), func(ctx context.Context) error {
		turn++
		if err := c.updateAndWait(ctx, "web", bad[turn%len(bad)]); err != nil {
			return err
		}
		return c.wentBack(ctx, "web")
	})
	if err != nil {
		return err
	}
	for _, f := range l.failures {
		fmt.Println("    ", f)
	}
	b.row("rollout_failed_requests", float64(l.failed.Load()), "", fmt.Sprintf("of %d while %d bad releases were shipped and went back by themselves", l.asked.Load(), changes))
	return c.clean(ctx, "web", "caller")
}

// wentBack fails where the last rollout was no rollback.
func (c *cluster) wentBack(ctx context.Context, name string) error {
	res, err := c.services.GetService(ctx, connect.NewRequest(&warrenv1.GetServiceRequest{Ref: name}))
	if err != nil {
		return err
	}
	if r := res.Msg.GetEntry().GetService().GetRollout(); !r.GetRollback() || r.GetState() != warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE {
		return fmt.Errorf("%s has not gone back from a bad release: %v", name, r)
	}
	return nil
}

// url is where a service is asked at its virtual address.
func (c *cluster) url(ctx context.Context, name string) (string, error) {
	res, err := c.services.GetService(ctx, connect.NewRequest(&warrenv1.GetServiceRequest{Ref: name}))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("http://%s:%d/quiet", res.Msg.GetEntry().GetService().GetEndpoint().GetVip(), webPort), nil
}
