package conntrack

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

// cuts are what may have made connections unable to go on. The kernel decides once per connection where it
// leads, and takes UDP from one port to another for one connection as long as packets come.
type cuts struct {
	dead   map[netip.Addr]bool // tasks that are no more
	opened map[uint16]bool     // UDP ports that lead somewhere now: who knocked before goes on to be sent nowhere
	moved  bool                // something leads elsewhere
}

// cutsOf is what a change may make unable to go on; nil for nothing.
func cutsOf(d traffic.Delta) *cuts {
	c := &cuts{dead: d.Dead, opened: map[uint16]bool{}}
	for _, t := range d.VIPs {
		c.moved = c.moved || !subset(t.Before.All, t.After)
	}
	for p, t := range d.Ports {
		if p.Protocol == traffic.UDP {
			c.moved = true
			c.opened[p.Number] = len(t.Before.All) == 0
		}
	}
	if len(c.dead) == 0 && !c.moved {
		return nil
	}
	return c
}

// cutsBetween is the same for what replaces all that was known, if anything was.
func cutsBetween(before, after *traffic.Facts) *cuts {
	c := &cuts{dead: map[netip.Addr]bool{}, opened: map[uint16]bool{}, moved: true}
	for p := range after.Ports {
		if p.Protocol == traffic.UDP {
			c.opened[p.Number] = true
		}
	}
	if before != nil {
		for addr := range before.Members {
			if after.Members[addr] == nil {
				c.dead[addr] = true
			}
		}
	}
	return c
}

// stale tells which connections cannot go on, by what is known at the moment it is asked.
type stale struct {
	*cuts
	node  traffic.Node
	known Known
	hosts map[netip.Addr]bool // this host's addresses
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s stale) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return s.known(func(known *traffic.Facts) bool { return s.match(known, flow) })
}

func (s stale) match(known *traffic.Facts, flow *netlink.ConntrackFlow) bool {
	from, to := address(flow.Forward.SrcIP), address(flow.Forward.DstIP)
	answers, answered := address(flow.Reverse.SrcIP), address(flow.Reverse.DstIP)
	for _, end := range []netip.Addr{from, answers} {
		nobody := s.node.Subnet.Contains(end) && end != s.node.Addr && known.Members[end] == nil
		if s.dead[end] || nobody {
			return true
		}
	}
	if flow.Forward.Protocol != uint8(traffic.UDP) {
		return false
	}
	switch {
	case to == answers:
		return from == answered && s.opened[flow.Forward.DstPort] && s.hosts[to]
	case s.node.VIPRange.Contains(to):
		return !known.VIPs[to].Has(answers, netip.Addr.Compare)
	case s.node.NodeRange.Contains(answers):
		target := netip.AddrPortFrom(answers, flow.Reverse.SrcPort)
		return !slices.Contains(known.Ports[traffic.Port{Protocol: traffic.UDP, Number: flow.Forward.DstPort}].All, target)
	}
	return false
}

func address(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

func subset(some []netip.Addr, all traffic.Pool[netip.Addr]) bool {
	return !slices.ContainsFunc(some, func(a netip.Addr) bool { return !all.Has(a, netip.Addr.Compare) })
}
