package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
)

// floor is the least that starting containers costs: containerd's client, nothing kept, nothing
// watched, output thrown away.
type floor struct {
	host  *host
	image client.Image
	// net is where containers that have a network are joined to each other by a bridge.
	net *namespace
	// parallel is how many are started at a time.
	parallel int
	serial   int
}

func newFloor(ctx context.Context, h *host) (*floor, error) {
	image, err := h.client.GetImage(namespaces.WithNamespace(ctx, floorNamespace), h.image)
	if err != nil {
		return nil, err
	}
	f := &floor{host: h, image: image, parallel: 8}
	if f.net, err = newNamespace(); err != nil {
		return nil, err
	}
	if err := f.net.addSwitch("10.0.0.1/16"); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *floor) close() error { return f.net.close() }

// tune picks the number of starts at a time that is fastest here.
func (f *floor) tune(ctx context.Context) error {
	best, fastest := 0, time.Duration(0)
	for _, parallel := range []int{4, 6, 8} {
		f.parallel = parallel
		took, err := f.round(ctx, 40, false)
		if err != nil {
			return err
		}
		if best == 0 || took < fastest {
			best, fastest = parallel, took
		}
	}
	f.parallel = best
	return nil
}

// round starts n containers, with extra in their specs, returns how long that took, and removes them. They are on
// the host's network, or networked: each has a namespace with an address and a default route.
func (f *floor) round(ctx context.Context, n int, networked bool, extra ...oci.SpecOpts) (time.Duration, error) {
	ctx = namespaces.WithNamespace(ctx, floorNamespace)
	tasks := make([]client.Task, n)
	var group errgroup.Group
	group.SetLimit(f.parallel)
	if !networked {
		extra = append(extra, oci.WithHostNamespace("network"))
	}
	begin := time.Now()
	for i := range n {
		f.serial++
		serial := f.serial
		group.Go(func() (err error) {
			if tasks[i], err = f.create(ctx, fmt.Sprintf("floor-%d", serial), extra); err != nil {
				return err
			}
			if networked {
				if err := f.plug(tasks[i].Pid(), serial); err != nil {
					return err
				}
			}
			return tasks[i].Start(ctx)
		})
	}
	err := group.Wait()
	took := time.Since(begin)
	var removal errgroup.Group
	removal.SetLimit(f.parallel)
	for _, task := range tasks {
		if task != nil {
			removal.Go(func() error { return f.remove(ctx, task) })
		}
	}
	return took, errors.Join(err, removal.Wait())
}

// create makes a container that waits for its start.
func (f *floor) create(ctx context.Context, id string, extra []oci.SpecOpts) (client.Task, error) {
	spec := append([]oci.SpecOpts{oci.WithImageConfigArgs(f.image, []string{"sleep"})}, extra...)
	container, err := f.host.client.NewContainer(ctx, id,
		client.WithImage(f.image),
		client.WithNewSnapshot(id, f.image),
		client.WithNewSpec(spec...))
	if err != nil {
		return nil, err
	}
	task, err := container.NewTask(ctx, cio.NullIO)
	if err != nil {
		return nil, errors.Join(err, container.Delete(ctx, client.WithSnapshotCleanup))
	}
	return task, nil
}

// plug joins the network namespace that runc has made for a container to the bridge. It goes with the
// container, and the links with it.
func (f *floor) plug(pid uint32, serial int) (err error) {
	ns, err := netns.GetFromPid(int(pid))
	if err != nil {
		return err
	}
	inside := &namespace{handle: ns}
	defer func() { err = errors.Join(err, ns.Close()) }()
	if inside.links, err = netlink.NewHandleAt(ns); err != nil {
		return err
	}
	defer inside.links.Close()
	port := fmt.Sprintf("port%d", serial)
	if err := cable(f.net, port, inside, uplinkName); err != nil {
		return err
	}
	address := fmt.Sprintf("10.0.%d.%d/16", 1+serial/250%250, 1+serial%250)
	return errors.Join(f.net.plug(port), inside.up("lo"), inside.address(uplinkName, address), inside.route("10.0.0.1"))
}

func (f *floor) remove(ctx context.Context, task client.Task) error {
	ended, err := task.Wait(ctx)
	if err != nil {
		return err
	}
	if err := task.Kill(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	<-ended
	if _, err := task.Delete(ctx); err != nil {
		return err
	}
	container, err := f.host.client.LoadContainer(ctx, task.ID())
	if err != nil {
		return err
	}
	return container.Delete(ctx, client.WithSnapshotCleanup)
}
