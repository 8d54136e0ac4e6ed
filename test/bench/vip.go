package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/agent/overlay"
	"github.com/cuemby/warren/internal/agent/overlay/link"
	"github.com/cuemby/warren/internal/agent/overlay/rules"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

const (
	connectTime        = 250 * time.Millisecond // how long connections are counted each time
	connectRounds      = 4                      // for one of other timings: short ones, as what else goes on here comes and goes
	endpointsOfService = 10
	ruleChanges        = 200
)

// crowds are how many services a node knows.
var crowds = []int{1, 1000, 5000}

// measureVIP counts new connections per second from a task to another of the same node: straight, and through the VIP
// of the last of 1, 1,000 and 5,000 services, of ten endpoints each. The nodes are the agent's own packages for wires
// and rules, each in a network namespace, without daemons.
func measureVIP(ctx context.Context, b *bench) (err error) {
	var nodes []*wired
	defer func() {
		for _, n := range nodes {
			err = errors.Join(err, n.close())
		}
	}()
	for _, services := range crowds {
		n, err := newWired(ctx, services)
		if err != nil {
			return fmt.Errorf("a node with %d services: %w", services, err)
		}
		nodes = append(nodes, n)
	}
	var straight []float64
	through := make([][]float64, len(nodes))
	for range connectRounds * b.rounds {
		rate, err := nodes[0].connections(nodes[0].servers[0])
		if err != nil {
			return err
		}
		straight = append(straight, rate)
		for i, n := range nodes {
			if rate, err = n.connections(n.last().VIP); err != nil {
				return fmt.Errorf("%d services: %w", crowds[i], err)
			}
			through[i] = append(through[i], rate)
		}
	}
	b.row("vip_1_ratio", ratio(through[0], straight), "", "connections through a VIP, over straight to the task; more is better")
	b.row("connections_per_s", median(straight), "/s", "straight to a task of the same node, one after the other")
	for i, services := range crowds {
		if i > 0 {
			b.row(fmt.Sprintf("vip_%d_ratio", services), ratio(through[i], through[0]), "",
				fmt.Sprintf("through the VIP of the last of %d services, over that of the only one", services))
		}
		b.row(fmt.Sprintf("vip_%d_connections_per_s", services), median(through[i]), "/s", "")
	}
	return nil
}

// measureRuleChange times how long it takes to put in force a change of one of 5,000 services of ten endpoints each, as
// the agent does it: by turns another endpoint in the place of one, which is the common case, one less, and one more.
// After a change that takes an endpoint away the kernel's connections are looked through, for some 20 ms; a change that
// comes meanwhile may have to wait for that, so changes are timed one by one, and then in a row.
func measureRuleChange(ctx context.Context, b *bench) error {
	for _, services := range crowds {
		n, err := newWired(ctx, services)
		if err != nil {
			return fmt.Errorf("a node with %d services: %w", services, err)
		}
		name := fmt.Sprintf("rule_change_%d", services)
		alone, err := n.change(ctx, ruleChanges, n.rules.Settle)
		if err == nil {
			b.row(name+"_ms", milliseconds(median(alone)), "ms",
				fmt.Sprintf("to change one of %d services of %d endpoints, median of %d: another in the place of one %v, one less or more %v",
					services, endpointsOfService, len(alone), median(every(alone, 0, 1)).Round(time.Microsecond), median(every(alone, 2, 3)).Round(time.Microsecond)))
			b.row(name+"_worst_ms", milliseconds(slices.Max(alone)), "ms", "the worst of them")
			var row []time.Duration
			if row, err = n.change(ctx, 2*ruleChanges, func(context.Context) error { return nil }); err == nil {
				b.row(name+"_row_worst_ms", milliseconds(slices.Max(row)), "ms", fmt.Sprintf("the worst of %d one upon another", len(row)))
			}
		}
		if err = errors.Join(err, n.close()); err != nil {
			return fmt.Errorf("%d services: %w", services, err)
		}
	}
	return nil
}

// change changes one service so many times, settling before each, which does not count.
func (n *wired) change(ctx context.Context, times int, settle func(context.Context) error) (took []time.Duration, err error) {
	s := n.services[len(n.services)/2]
	whole := s.Endpoints
	replaced := append([]netip.Addr{n.client}, whole[1:]...)
	steps := [4][]netip.Addr{replaced, whole, whole[:endpointsOfService-1], whole}
	for i := range times {
		if err := settle(ctx); err != nil {
			return nil, err
		}
		s.Endpoints = steps[i%len(steps)]
		begin := time.Now()
		if err := n.rules.Apply(ctx, traffic.Change{Services: []traffic.Service{s}}); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin))
	}
	return took, nil
}

// every is what was measured in these of the four steps.
func every(times []time.Duration, steps ...int) (chosen []time.Duration) {
	for i, t := range times {
		if slices.Contains(steps, i%4) {
			chosen = append(chosen, t)
		}
	}
	return chosen
}

// wired is a node of the overlay without its daemon: wires and rules, and some tasks.
type wired struct {
	machine  *namespace
	wires    *link.Wires
	rules    *rules.Rules
	services []traffic.Service
	client   netip.Addr
	clientNS netns.NsHandle
	servers  []netip.Addr
	closers  []io.Closer // the last is closed first
}

// newWired makes a node that knows so many services of ten endpoints each. Those of the last are on the node; those
// of the others are nowhere.
func newWired(ctx context.Context, services int) (n *wired, err error) {
	n = &wired{client: netip.MustParseAddr("10.208.0.2")}
	for server := n.client.Next(); len(n.servers) < endpointsOfService; server = server.Next() {
		n.servers = append(n.servers, server)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if n.machine, err = newNamespace(); err != nil {
		return n, err
	}
	n.closers = append(n.closers, closer(n.machine.close))
	dir, err := os.MkdirTemp("/run", "warren-bench-")
	if err != nil {
		return n, err
	}
	n.closers = append(n.closers, closer(func() error { return os.RemoveAll(dir) }))
	quiet := slog.New(slog.DiscardHandler)
	subnet, nodes, vips := netip.MustParsePrefix("10.208.0.0/24"), netip.MustParsePrefix("10.208.0.0/12"), netip.MustParsePrefix("10.224.0.0/16")
	self := netip.MustParseAddr("10.208.0.1")
	err = n.machine.do(func() (err error) {
		n.wires, err = link.Open(link.Options{
			Bridge: overlay.Bridge, Device: overlay.Device, NamespaceDir: filepath.Join(dir, "netns"), Logger: quiet,
		})
		if err != nil {
			return err
		}
		n.closers = append(n.closers, closer(n.wires.Close))
		n.rules, err = rules.Open(ctx, traffic.Node{
			Bridge: overlay.Bridge, Device: overlay.Device, Addr: self, Subnet: subnet, NodeRange: nodes, VIPRange: vips,
		}, rules.Options{Logger: quiet})
		return err
	})
	if err != nil {
		return n, err
	}
	n.closers = append(n.closers, closer(n.rules.Close))
	// Whatever has become of ctx, what is mounted is unmounted.
	n.closers = append(n.closers, closer(func() error { return n.wires.Down(context.WithoutCancel(ctx)) }))
	if err := n.wires.Up(ctx, link.Node{Addr: self, Subnet: subnet, NodeRange: nodes, VIPRange: vips, MTU: 1440}); err != nil {
		return n, err
	}
	set := n.crowd(services, vips.Addr())
	n.services = set.Services
	if err := n.rules.Replace(ctx, set); err != nil {
		return n, err
	}
	return n, n.addTasks(ctx)
}

// crowd is all that the node is to know.
func (n *wired) crowd(services int, vip netip.Addr) traffic.Set {
	networks := []string{"default"}
	var set traffic.Set
	for _, addr := range append(n.servers, n.client) {
		set.Tasks = append(set.Tasks, traffic.Task{Addr: addr, Local: true, Networks: networks})
	}
	elsewhere := netip.MustParseAddr("10.209.0.0")
	for i := range services {
		vip = vip.Next()
		s := traffic.Service{ID: fmt.Sprintf("service-%d", i), VIP: vip, Endpoints: n.servers}
		if i < services-1 {
			s.Endpoints = nil
			for range endpointsOfService {
				elsewhere = elsewhere.Next()
				s.Endpoints = append(s.Endpoints, elsewhere)
				set.Tasks = append(set.Tasks, traffic.Task{Addr: elsewhere, Networks: networks})
			}
		}
		set.Services = append(set.Services, s)
	}
	return set
}

// addTasks makes the client's place, and the servers' with what answers there.
func (n *wired) addTasks(ctx context.Context) (err error) {
	if n.clientNS, err = n.place(ctx, n.client); err != nil {
		return err
	}
	for _, addr := range n.servers {
		ns, err := n.place(ctx, addr)
		if err != nil {
			return err
		}
		l, err := listen(ctx, ns, netip.AddrPortFrom(addr, connectPort).String())
		if err != nil {
			return err
		}
		served := make(chan error, 1)
		go func() { served <- greet(l) }()
		n.closers = append(n.closers, closer(func() error { return errors.Join(l.Close(), <-served) }))
	}
	return nil
}

// place makes a task's place and returns its network namespace.
func (n *wired) place(ctx context.Context, addr netip.Addr) (netns.NsHandle, error) {
	path, err := n.wires.Attach(ctx, fmt.Sprintf("task-%d", addr.As4()[3]), addr)
	if err != nil {
		return -1, err
	}
	ns, err := netns.GetFromPath(path)
	if err == nil {
		n.closers = append(n.closers, &ns)
	}
	return ns, err
}

const connectPort = 80

// greet takes connections and hangs up, until l is closed.
func greet(l net.Listener) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		c.Close()
	}
}

// last is the service that answers.
func (n *wired) last() traffic.Service { return n.services[len(n.services)-1] }

// connections opens connections from the client, one after the other, and returns how many a second there are.
func (n *wired) connections(to netip.Addr) (rate float64, err error) {
	err = within(n.clientNS, func() error {
		count, begin := 0, time.Now()
		for time.Since(begin) < connectTime {
			if err := connectOnce(to); err != nil {
				return fmt.Errorf("connection %d to %s: %w", count+1, to, err)
			}
			count++
		}
		rate = float64(count) / time.Since(begin).Seconds()
		return nil
	})
	return rate, err
}

// connectOnce connects from the calling thread's namespace, and closes with a reset, or ports would run out.
func connectOnce(to netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.Connect(fd, &unix.SockaddrInet4{Port: connectPort, Addr: to.As4()}),
		unix.Close(fd))
}

func (n *wired) close() error {
	var errs []error
	for _, c := range slices.Backward(n.closers) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
