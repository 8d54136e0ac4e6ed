package link

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Clash is one of the cluster's ranges and a network that this host knows elsewhere.
type Clash struct {
	Range netip.Prefix
	Route netip.Prefix
	Link  string // by which the host reaches it; empty if it is refused there
}

// String says what is wrong and what to do about it.
func (c Clash) String() string {
	by := "by the link " + c.Link
	if c.Link == "" {
		by = "which leads nowhere"
	}
	return fmt.Sprintf("the cluster's range %s overlaps with %s, to which this host has a route %s: "+
		"remove that route, or make the cluster with other ranges (warrenctl cluster init)", c.Range, c.Route, by)
}

// Clashes finds the host's routes and addresses that overlap with the given ranges, in order. Default
// routes do not count, nor what is Warren's own.
func (w *Wires) Clashes(ranges ...netip.Prefix) ([]Clash, error) {
	links, err := all(w.kernel.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the host's links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	addrs, err := all(func() ([]netlink.Addr, error) { return w.kernel.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	// Those of other tables, where VPNs keep theirs, count as well.
	routes, err := all(func() ([]netlink.Route, error) {
		return w.kernel.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}

	found := map[Clash]bool{}
	note := func(to netip.Prefix, index int, nowhere bool) {
		name := names[index]
		// Two halves of all there is are a default route too, as VPNs lay it.
		if !to.IsValid() || to.Bits() <= 1 || name == w.Bridge || name == w.Device {
			return
		}
		for _, r := range ranges {
			// A wide network that is refused as a whole takes nothing away from a part of it.
			if r.Overlaps(to) && (!nowhere || to.Bits() >= r.Bits()) {
				found[Clash{r, to.Masked(), name}] = true
			}
		}
	}
	for _, a := range addrs {
		note(prefix(a.IPNet), a.LinkIndex, false)
	}
	for _, r := range routes {
		switch r.Type {
		case unix.RTN_UNICAST:
		case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT:
		default:
			continue // the kernel's own, for the addresses
		}
		if r.Protocol == routeProtocol {
			continue
		}
		if nowhere := r.Type != unix.RTN_UNICAST; nowhere || r.LinkIndex != 0 {
			note(prefix(r.Dst), r.LinkIndex, nowhere)
		}
		for _, hop := range r.MultiPath {
			note(prefix(r.Dst), hop.LinkIndex, false)
		}
	}
	clashes := make([]Clash, 0, len(found))
	for c := range found {
		clashes = append(clashes, c)
	}
	slices.SortFunc(clashes, func(a, b Clash) int {
		if order := a.Range.Compare(b.Range); order != 0 {
			return order
		}
		if order := a.Route.Compare(b.Route); order != 0 {
			return order
		}
		return slices.Compare([]byte(a.Link), []byte(b.Link))
	})
	return clashes, nil
}
