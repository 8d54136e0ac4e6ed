package rules

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// cuts are what may have made connections unable to go on. The kernel decides once per connection where it
// leads, and takes UDP from one port to another for one connection as long as packets come.
type cuts struct {
	dead   map[netip.Addr]bool // tasks that are no more
	opened map[uint16]bool     // UDP ports that lead somewhere now: who knocked before goes on to be sent nowhere
	moved  bool                // something leads elsewhere
}

// cutsOf is what a change may make unable to go on; nil for nothing.
func cutsOf(d delta) *cuts {
	c := &cuts{dead: d.dead, opened: map[uint16]bool{}}
	for _, t := range d.vips {
		c.moved = c.moved || !subset(t.before.all, t.after)
	}
	for p, t := range d.ports {
		if p.protocol == UDP {
			c.moved = true
			c.opened[p.number] = len(t.before.all) == 0
		}
	}
	if len(c.dead) == 0 && !c.moved {
		return nil
	}
	return c
}

// cutsBetween is the same for what replaces all that was known, if anything was.
func cutsBetween(before, after *facts) *cuts {
	c := &cuts{dead: map[netip.Addr]bool{}, opened: map[uint16]bool{}, moved: true}
	for p := range after.ports {
		if p.protocol == UDP {
			c.opened[p.number] = true
		}
	}
	if before != nil {
		for addr := range before.members {
			if after.members[addr] == nil {
				c.dead[addr] = true
			}
		}
	}
	return c
}

// cutter removes connections that cannot go on from the kernel's table. What comes of them next is taken for
// new: UDP goes to another endpoint, and TCP is reset by whoever knows nothing of it. To look through the table
// takes 20 ms even when it is empty (measured, at its 262,144 buckets), so that while it looks, what is to be
// looked for next gathers. It holds no lock meanwhile that changes of the rules need; but the kernel, which reads
// the table with a processor to itself, has a change wait that comes in between (measured: 44 ms where it
// takes 6, of which 1 µs is for the lock).
type cutter struct {
	rules *Rules
	wake  chan struct{}
	ended chan struct{}
	stop  context.CancelFunc

	mu      sync.Mutex
	waiting *look // not begun
	running *look
}

// look is one look through the table.
type look struct {
	cuts
	done chan struct{}
	err  error // once done
}

func startCutter(r *Rules) *cutter {
	ctx, stop := context.WithCancel(context.Background())
	c := &cutter{rules: r, wake: make(chan struct{}, 1), ended: make(chan struct{}), stop: stop}
	go c.run(ctx)
	return c
}

func (c *cutter) close() {
	c.stop()
	<-c.ended
}

// cut has the cuts made soon.
func (c *cutter) cut(what *cuts) {
	if what == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == nil {
		c.waiting = &look{cuts: cuts{dead: map[netip.Addr]bool{}, opened: map[uint16]bool{}}, done: make(chan struct{})}
		c.wake <- struct{}{}
	}
	maps.Copy(c.waiting.dead, what.dead)
	maps.Copy(c.waiting.opened, what.opened)
}

func (c *cutter) run(ctx context.Context) {
	defer close(c.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		c.mu.Lock()
		now := c.waiting
		c.waiting, c.running = nil, now
		c.mu.Unlock()
		now.err = c.rules.cut(&now.cuts)
		if now.err != nil {
			c.rules.log.WarnContext(ctx, "connections that cannot go on may linger", "error", now.err)
		}
		close(now.done)
	}
}

// settle waits until all is cut that was to be when it was called.
func (c *cutter) settle(ctx context.Context) error {
	c.mu.Lock()
	last := c.waiting
	if last == nil {
		last = c.running
	}
	c.mu.Unlock()
	if last == nil {
		return nil
	}
	select {
	case <-last.done:
		return last.err
	case <-c.ended:
		return errors.New("wait for connections to be cut: the rules were closed")
	case <-ctx.Done():
		return fmt.Errorf("wait for connections to be cut: %w", ctx.Err())
	}
}

func (r *Rules) cut(what *cuts) error {
	handle, err := netlink.NewHandleAt(r.node.handle, unix.NETLINK_NETFILTER, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("connect to conntrack: %w", err)
	}
	defer handle.Close()
	s := stale{cuts: what, rules: r, hosts: map[netip.Addr]bool{}}
	if len(what.opened) > 0 {
		addrs, err := handle.AddrList(nil, netlink.FAMILY_V4)
		if err != nil {
			return fmt.Errorf("list the host's addresses: %w", err)
		}
		for _, addr := range addrs {
			s.hosts[address(addr.IP)] = true
		}
	}
	_, err = handle.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, s)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("cut connections that cannot go on: %w", err)
	}
	return nil
}

// stale tells which connections cannot go on, by what is known at the moment it is asked.
type stale struct {
	*cuts
	rules *Rules
	hosts map[netip.Addr]bool // this host's addresses
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s stale) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	s.rules.mu.Lock()
	defer s.rules.mu.Unlock()
	known := s.rules.facts
	if known == nil {
		return false // removed since
	}
	node := s.rules.node.Node
	from, to := address(flow.Forward.SrcIP), address(flow.Forward.DstIP)
	answers, answered := address(flow.Reverse.SrcIP), address(flow.Reverse.DstIP)
	for _, end := range []netip.Addr{from, answers} {
		nobody := node.Subnet.Contains(end) && end != node.Addr && known.members[end] == nil
		if s.dead[end] || nobody {
			return true
		}
	}
	if flow.Forward.Protocol != uint8(UDP) {
		return false
	}
	switch {
	case to == answers:
		return from == answered && s.opened[flow.Forward.DstPort] && s.hosts[to]
	case node.VIPRange.Contains(to):
		return !known.vips[to].has(answers, netip.Addr.Compare)
	case node.NodeRange.Contains(answers):
		target := netip.AddrPortFrom(answers, flow.Reverse.SrcPort)
		return !slices.Contains(known.ports[port{UDP, flow.Forward.DstPort}].all, target)
	}
	return false
}

func address(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

func subset(some []netip.Addr, all pool[netip.Addr]) bool {
	return !slices.ContainsFunc(some, func(a netip.Addr) bool { return !all.has(a, netip.Addr.Compare) })
}
