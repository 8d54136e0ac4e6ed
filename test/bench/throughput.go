package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/cuemby/warren/internal/agent/overlay/wireguard"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	sendTime  = time.Second
	warmUp    = 300 * time.Millisecond // for TCP to find its window; not counted
	sendPort  = "5201"
	sendBytes = 128 << 10 // at a time, as iperf3 does
)

// measureThroughput sends over one TCP connection, as fast as that takes it, from container to container: across two
// nodes, and on one. It is compared with the same WireGuard between the same kind of machines and nothing else, and
// with a bare pair of links. The containers do nothing; sockets are opened in their network namespaces.
func measureThroughput(ctx context.Context, b *bench) (err error) {
	c, err := b.startCluster(ctx, 2)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	tasks, err := c.spread(ctx, "talk", b.machine.image, 4)
	if err != nil {
		return err
	}
	here, there := tasks["node-1"], tasks["node-2"]
	if len(here) != 2 || len(there) != 2 {
		return fmt.Errorf("of 4 tasks %d and %d are on the two nodes", len(here), len(there))
	}
	mtu, err := c.overlayMTU(ctx)
	if err != nil {
		return err
	}
	alone, err := b.tunnel(ctx, mtu)
	if err != nil {
		return fmt.Errorf("WireGuard alone: %w", err)
	}
	defer func() { err = errors.Join(err, alone.close()) }()
	bare, err := bareCable()
	if err != nil {
		return fmt.Errorf("bare links: %w", err)
	}
	defer func() { err = errors.Join(err, bare.close()) }()

	ways := []struct {
		name     string
		from, to netns.NsHandle
		address  string
		rates    []float64
	}{
		{name: "across nodes", from: here[0].ns, to: there[0].ns, address: there[0].address},
		{name: "WireGuard alone", from: alone.a.handle, to: alone.b.handle, address: alone.address},
		{name: "on one node", from: here[0].ns, to: here[1].ns, address: here[1].address},
		{name: "bare links", from: bare.a.handle, to: bare.b.handle, address: bare.address},
	}
	for range 2 * b.rounds {
		for i := range ways {
			w := &ways[i]
			rate, err := throughput(ctx, w.from, w.to, w.address)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			w.rates = append(w.rates, rate)
		}
	}
	if err := c.clean(ctx, "talk"); err != nil {
		return err
	}
	overlay, wg, node, veth := ways[0].rates, ways[1].rates, ways[2].rates, ways[3].rates
	b.row("overlay_ratio", ratio(overlay, wg), "", fmt.Sprintf("across nodes, over %s WireGuard alone; more is better", alone.kind))
	b.row("overlay_veth_ratio", ratio(overlay, veth), "", "across nodes, over a bare pair of links")
	b.row("overlay_node_ratio", ratio(node, veth), "", "on one node, over a bare pair of links")
	b.row("overlay_mbit_s", median(overlay), "Mbit/s", "container to container across two nodes, one connection")
	b.row("wireguard_mbit_s", median(wg), "Mbit/s", "the same WireGuard between two machines")
	b.row("overlay_node_mbit_s", median(node), "Mbit/s", "container to container on one node")
	b.row("veth_mbit_s", median(veth), "Mbit/s", "a bare pair of links")
	return nil
}

// ratio is the median of the ratios of what was measured in the same rounds.
func ratio(ours, theirs []float64) float64 {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / theirs[i]
	}
	return median(ratios)
}

// throughput sends from one network namespace to another, and returns how many Mbit/s arrive.
func throughput(ctx context.Context, from, to netns.NsHandle, address string) (rate float64, err error) {
	l, err := listen(ctx, to, net.JoinHostPort(address, sendPort))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	// A handshake of WireGuard's that was lost is tried again after 5 s.
	ctx, cancel := context.WithTimeout(ctx, warmUp+sendTime+15*time.Second)
	defer cancel()
	sender, err := dial(ctx, from, l.Addr().String())
	if err != nil {
		return 0, err
	}
	receiver, err := l.Accept()
	if err != nil {
		return 0, errors.Join(err, sender.Close())
	}
	stop := context.AfterFunc(ctx, func() { sender.Close(); receiver.Close() })
	defer stop()
	var group errgroup.Group
	group.Go(func() error {
		for buffer := make([]byte, sendBytes); ; {
			if _, err := sender.Write(buffer); err != nil {
				return nil //nolint:nilerr // the receiver has hung up, and tells if it should not have
			}
		}
	})
	group.Go(func() (err error) {
		defer sender.Close()
		defer receiver.Close()
		buffer := make([]byte, sendBytes)
		if _, err := receive(receiver, buffer, warmUp); err != nil {
			return err
		}
		begin := time.Now()
		got, err := receive(receiver, buffer, sendTime)
		rate = float64(got) * 8 / 1e6 / time.Since(begin).Seconds()
		return err
	})
	return rate, group.Wait()
}

func receive(c net.Conn, buffer []byte, d time.Duration) (got int64, err error) {
	for begin := time.Now(); time.Since(begin) < d; {
		n, err := c.Read(buffer)
		got += int64(n)
		if err != nil {
			return got, err
		}
	}
	return got, nil
}

// pair is two machines that reach each other.
type pair struct {
	a, b    *namespace
	address string // b's, where a sends
	kind    wireguard.Kind
	closers []io.Closer // the last is closed first
}

func (p *pair) close() error {
	var errs []error
	for _, c := range slices.Backward(p.closers) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// closer makes one of what is closed by a function.
type closer func() error

func (c closer) Close() error { return c() }

// bareCable is two machines and a pair of links between them.
func bareCable() (*pair, error) {
	p := &pair{address: "192.0.2.2"}
	err := p.machines(newNamespace)
	if err == nil {
		err = cable(p.a, uplinkName, p.b, uplinkName)
	}
	if err == nil {
		err = errors.Join(p.a.address(uplinkName, "192.0.2.1/24"), p.b.address(uplinkName, p.address+"/24"))
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *pair) machines(join func() (*namespace, error)) (err error) {
	for _, machine := range []**namespace{&p.a, &p.b} {
		if *machine, err = join(); err != nil {
			return err
		}
		p.closers = append(p.closers, closer((*machine).close))
	}
	return nil
}

// tunnel is two machines at the underlay's switch, and WireGuard between them as agents open it.
func (b *bench) tunnel(ctx context.Context, mtu int) (_ *pair, err error) {
	p := &pair{address: "192.0.2.2"}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	var addresses []string
	err = p.machines(func() (*namespace, error) {
		n, address, err := b.machine.underlay.join()
		addresses = append(addresses, address)
		return n, err
	})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "warren-bench-tunnel-")
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, closer(func() error { return os.RemoveAll(dir) }))

	var keys [2]wgtypes.Key
	for i := range keys {
		if keys[i], err = wgtypes.GeneratePrivateKey(); err != nil {
			return nil, err
		}
	}
	const port = 51820
	own := []string{"192.0.2.1", p.address}
	for i, machine := range []*namespace{p.a, p.b} {
		socket := filepath.Join(dir, fmt.Sprintf("%d.sock", i))
		program, err := machine.start(dir, filepath.Join(b.bin, "warren-agent"), "wireguard", "--socket", socket)
		if err != nil {
			return nil, err
		}
		p.closers = append(p.closers, closer(program.stop))
		if err := until(ctx, "the WireGuard process listens", func() (bool, error) {
			_, err := os.Stat(socket)
			return err == nil, nil
		}); err != nil {
			return nil, err
		}
		var device *wireguard.Device
		err = machine.do(func() (err error) {
			device, err = wireguard.Open(ctx, wireguard.Options{Name: "wg0", MTU: mtu, Socket: socket})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, program.output())
		}
		p.closers = append(p.closers, device)
		p.kind = device.Kind()
		err = device.Apply(ctx, wireguard.Config{PrivateKey: keys[i], ListenPort: port, Peers: []wireguard.Peer{{
			PublicKey:  keys[1-i].PublicKey(),
			Endpoint:   netip.AddrPortFrom(netip.MustParseAddr(addresses[1-i]), port),
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(own[1-i]), 32)},
		}}})
		if err == nil {
			err = machine.address("wg0", own[i]+"/24")
		}
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// placed is a running task and its network namespace.
type placed struct {
	*warrenv1.Task
	ns      netns.NsHandle
	address string
}

// spread runs a service of so many tasks, and returns them by the name of their node.
func (c *cluster) spread(ctx context.Context, name, image string, replicas uint32) (map[string][]placed, error) {
	if err := c.create(ctx, spec(name, image, replicas)); err != nil {
		return nil, err
	}
	if err := c.converged(ctx, name); err != nil {
		return nil, err
	}
	return c.placed(ctx, name)
}

func (c *cluster) converged(ctx context.Context, name string) error {
	return c.watch(ctx, name, func(p *warrenv1.ServiceProgress) bool { return p.GetConverged() })
}

// placed returns a service's tasks by the name of their node. Their namespaces are closed with the cluster.
func (c *cluster) placed(ctx context.Context, name string) (map[string][]placed, error) {
	nodes, err := c.nodes.ListNodes(ctx, connect.NewRequest(&warrenv1.ListNodesRequest{}))
	if err != nil {
		return nil, err
	}
	hostnames := map[string]string{}
	for _, n := range nodes.Msg.GetNodes() {
		hostnames[n.GetNode().GetMeta().GetId()] = n.GetNode().GetFacts().GetHostname()
	}
	tasks, err := c.tasks.ListTasks(ctx, connect.NewRequest(&warrenv1.ListTasksRequest{Service: name, RunningOnly: true}))
	if err != nil {
		return nil, err
	}
	found := map[string][]placed{}
	for _, entry := range tasks.Msg.GetTasks() {
		task := entry.GetTask()
		ns, err := netns.GetFromPid(int(task.GetStatus().GetPid()))
		if err != nil {
			return nil, err
		}
		c.closers = append(c.closers, &ns)
		node := hostnames[task.GetNodeId()]
		found[node] = append(found[node], placed{Task: task, ns: ns, address: task.GetStatus().GetAddress()})
	}
	return found, nil
}

func (c *cluster) overlayMTU(ctx context.Context) (int, error) {
	nodes, err := c.nodes.ListNodes(ctx, connect.NewRequest(&warrenv1.ListNodesRequest{}))
	if err != nil {
		return 0, err
	}
	return int(nodes.Msg.GetNodes()[0].GetNode().GetStatus().GetOverlay().GetMtu()), nil
}
