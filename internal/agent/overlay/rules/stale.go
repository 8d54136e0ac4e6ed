package rules

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// stale tells which of the kernel's connections cannot go on. The kernel decides once per connection where it
// leads, and takes UDP from one port to another for one connection as long as packets come.
type stale struct {
	facts *facts
	dead  map[netip.Addr]bool // tasks that are no more
	// opened are UDP ports that lead somewhere now: who has tried before goes on to be sent nowhere.
	opened map[uint16]bool
	hosts  map[netip.Addr]bool // this host's addresses, for opened
	needed bool
}

// stale is what a change makes stale.
func (f *facts) stale(d delta) *stale {
	s := &stale{facts: f, dead: d.dead, opened: map[uint16]bool{}, needed: len(d.dead) > 0}
	for _, t := range d.vips {
		s.needed = s.needed || !subset(t.before, t.after)
	}
	for p, t := range d.ports {
		if p.protocol == UDP {
			s.needed = true
			s.opened[p.number] = len(t.before) == 0
		}
	}
	return s
}

// staleSince is what is stale after all was replaced.
func (f *facts) staleSince(before *facts) *stale {
	s := &stale{facts: f, dead: map[netip.Addr]bool{}, opened: map[uint16]bool{}, needed: true}
	for p := range f.ports {
		if p.protocol == UDP {
			s.opened[p.number] = true
		}
	}
	if before != nil {
		for addr := range before.members {
			s.dead[addr] = f.members[addr] == nil
		}
	}
	return s
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s *stale) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	from, to := address(flow.Forward.SrcIP), address(flow.Forward.DstIP)
	answers, answered := address(flow.Reverse.SrcIP), address(flow.Reverse.DstIP)
	if s.gone(from) || s.gone(answers) {
		return true
	}
	if flow.Forward.Protocol != uint8(UDP) {
		return false
	}
	node := s.facts.node
	switch {
	case to == answers:
		return from == answered && s.opened[flow.Forward.DstPort] && s.hosts[to]
	case node.VIPRange.Contains(to):
		_, leads := slices.BinarySearchFunc(s.facts.vips[to], answers, netip.Addr.Compare)
		return !leads
	case node.NodeRange.Contains(answers):
		target := netip.AddrPortFrom(answers, flow.Reverse.SrcPort)
		return !slices.Contains(s.facts.ports[port{UDP, flow.Forward.DstPort}], target)
	}
	return false
}

// gone tells whether an address is that of a task that is no more.
func (s *stale) gone(addr netip.Addr) bool {
	if s.dead[addr] {
		return true
	}
	node := s.facts.node
	return addr != node.Addr && node.Subnet.Contains(addr) && s.facts.members[addr] == nil
}

// cut removes connections from the kernel's table. What comes of them next is taken for new: UDP goes to
// another endpoint, and TCP is reset by whoever knows nothing of it.
func (r *Rules) cut(_ context.Context, s *stale) error {
	if !s.needed {
		return nil
	}
	handle, err := netlink.NewHandleAt(r.node.handle, unix.NETLINK_NETFILTER, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("connect to conntrack: %w", err)
	}
	defer handle.Close()
	if len(s.opened) > 0 {
		addrs, err := handle.AddrList(nil, netlink.FAMILY_V4)
		if err != nil {
			return fmt.Errorf("list the host's addresses: %w", err)
		}
		s.hosts = map[netip.Addr]bool{}
		for _, addr := range addrs {
			s.hosts[address(addr.IP)] = true
		}
	}
	_, err = handle.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, s)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("cut stale connections: %w", err)
	}
	return nil
}

func address(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

func subset(some, all []netip.Addr) bool {
	return !slices.ContainsFunc(some, func(a netip.Addr) bool {
		_, found := slices.BinarySearchFunc(all, a, netip.Addr.Compare)
		return !found
	})
}
