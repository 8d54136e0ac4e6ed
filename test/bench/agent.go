package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// agent is an agent under test, on a machine that is a network namespace.
type agent struct {
	name      string
	machine   *namespace
	host      *host
	number    int // of its namespace in containerd
	runDir    string
	process   *process
	wireguard *process // of the device, where the kernel has no WireGuard
}

// startCluster makes a cluster of so many nodes, the manager on the machine of the first. It returns when their
// overlay is up.
func (b *bench) startCluster(ctx context.Context, nodes int) (*cluster, error) {
	h, err := b.host(ctx)
	if err != nil {
		return nil, err
	}
	first, address, err := h.underlay.join()
	if err != nil {
		return nil, err
	}
	c, err := b.startManagerOn(ctx, first, address+":7420")
	if err != nil {
		return nil, errors.Join(err, first.close())
	}
	c.machines = []*namespace{first}
	token, err := c.joinToken(ctx)
	for len(c.machines) < nodes && err == nil {
		var machine *namespace
		if machine, _, err = h.underlay.join(); err == nil {
			c.machines = append(c.machines, machine)
		}
	}
	for i := 0; i < nodes && err == nil; i++ {
		err = b.startAgent(c, c.machines[i], token, i+1)
	}
	if err == nil {
		err = until(ctx, "the nodes are ready and their overlay up", func() (bool, error) { return c.ready(ctx) })
	}
	if err != nil {
		said := []string{c.manager.output()}
		for _, a := range c.agents {
			said = append(said, a.output())
		}
		return nil, fmt.Errorf("start agents: %w\n%s", errors.Join(err, c.close()), strings.Join(said, ""))
	}
	return c, nil
}

// startAgent starts the agent of a machine.
func (b *bench) startAgent(c *cluster, machine *namespace, token string, number int) (err error) {
	a := &agent{name: fmt.Sprintf("node-%d", number), machine: machine, host: b.machine, number: number}
	c.agents = append(c.agents, a)
	// What lives as long as the boot is in memory, as it is where systemd runs the agent.
	if a.runDir, err = os.MkdirTemp("/run", "warren-bench-"); err != nil {
		return err
	}
	program, socket := filepath.Join(b.bin, "warren-agent"), filepath.Join(a.runDir, "wg.sock")
	if a.wireguard, err = machine.start(c.dir, program, "wireguard", "--socket", socket); err != nil {
		return err
	}
	dir := filepath.Join(c.dir, a.name)
	a.process, err = machine.start(c.dir, program, "--hostname", a.name,
		"--data-dir", dir, "--run-dir", a.runDir, "--socket", dir+".sock", "--wireguard-socket", socket,
		"--manager", c.addr, "--join-token-file", token, "--insecure-registry", b.machine.registryAddress(),
		"--containerd-address", b.machine.address(), "--containerd-namespace", warrenNamespace(number),
		"--cgroup-parent", a.groups())
	return err
}

// ready tells whether all nodes are, and what is wrong with the overlay of one that has none.
func (c *cluster) ready(ctx context.Context) (bool, error) {
	res, err := c.nodes.ListNodes(ctx, connect.NewRequest(&warrenv1.ListNodesRequest{}))
	if err != nil || len(res.Msg.GetNodes()) != len(c.agents) {
		return false, nil //nolint:nilerr // not yet
	}
	for _, n := range res.Msg.GetNodes() {
		status := n.GetNode().GetStatus()
		if status.GetOverlay().GetState() == warrenv1.OverlayState_OVERLAY_STATE_FAILED {
			return false, fmt.Errorf("%s: %s", n.GetNode().GetFacts().GetHostname(), status.GetOverlay().GetError())
		}
		if status.GetState() != warrenv1.NodeState_NODE_STATE_READY || status.GetOverlay().GetState() != warrenv1.OverlayState_OVERLAY_STATE_UP {
			return false, nil
		}
	}
	return true, nil
}

// clean removes services and waits until their containers are gone.
func (c *cluster) clean(ctx context.Context, services ...string) error {
	var errs []error
	for _, name := range services {
		errs = append(errs, c.remove(ctx, name))
	}
	for _, a := range c.agents {
		errs = append(errs, a.host.quiet(ctx, warrenNamespace(a.number)))
	}
	return errors.Join(errs...)
}

// groups is the control group above those of the agent's containers.
func (a *agent) groups() string { return "/" + filepath.Base(a.runDir) }

func (a *agent) output() string {
	if a.process == nil {
		return ""
	}
	return fmt.Sprintf("\n%s:\n%s", a.name, a.process.output())
}

// close ends the agent and removes what it has left. Links, routes and rules go with the machine's network
// namespace; containers, mounts and control groups do not.
func (a *agent) close() error {
	var errs []error
	for _, p := range []*process{a.process, a.wireguard} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	errs = append(errs, a.host.clear(ctx, warrenNamespace(a.number)))
	if a.runDir != "" {
		errs = append(errs, unmountBelow(a.runDir), os.RemoveAll(a.runDir), removeGroups(a.groups()))
	}
	return errors.Join(errs...)
}

// unmountBelow unmounts what is mounted below a folder: network namespaces of tasks, where a measurement has
// failed.
func unmountBelow(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			errs = append(errs, unix.Unmount(fields[4], unix.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// removeGroups removes the control group of that path, which is empty, wherever it is: at version 1 there is
// one for every controller.
func removeGroups(path string) error {
	found, err := filepath.Glob("/sys/fs/cgroup/*" + path)
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range append(found, "/sys/fs/cgroup"+path) {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}
