package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Up lays what the node has one of, and puts back what tasks have lost with a bridge that is gone. When all
// is well it changes nothing. A WireGuard device that is not there is no error: until it comes, what is
// meant for other nodes is refused at once.
func (w *Wires) Up(ctx context.Context, n Node) error {
	if err := n.check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.up(n); err != nil {
		return err
	}
	w.node = &n
	return nil
}

func (w *Wires) up(n Node) error {
	if err := os.MkdirAll(w.NamespaceDir, 0o755); err != nil {
		return fmt.Errorf("make the folder of network namespaces: %w", err)
	}
	if err := w.within(w.host, w.forward); err != nil {
		return err
	}
	bridge, err := w.bridge(n)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", w.Bridge, err)
	}
	if err := w.dress(bridge, n.Addr); err != nil {
		return fmt.Errorf("bridge %s: %w", w.Bridge, err)
	}
	if err := w.replug(bridge, n.MTU); err != nil {
		return err
	}
	device, err := w.kernel.LinkByName(w.Device)
	switch {
	case notFound(err):
		device = nil
	case err != nil:
		return fmt.Errorf("device %s: %w", w.Device, err)
	default:
		err := w.dress(device, n.Addr)
		if notFound(err) { // it went as suddenly as it may
			device, err = nil, nil
		}
		if err != nil {
			return fmt.Errorf("device %s: %w", w.Device, err)
		}
	}
	return w.route(n, bridge, device)
}

// bridge makes the bridge, unless it is there.
func (w *Wires) bridge(n Node) (netlink.Link, error) {
	found, err := w.kernel.LinkByName(w.Bridge)
	if notFound(err) {
		snooping := false // there is no multicast to keep track of
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = w.Bridge, bridgeMAC
		if err := w.kernel.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
			return nil, fmt.Errorf("make it: %w", err)
		}
		found, err = w.kernel.LinkByName(w.Bridge)
	}
	if err != nil {
		return nil, err
	}
	bridge, ok := found.(*netlink.Bridge)
	if !ok {
		return nil, fmt.Errorf("a link of this name is there and is a %s: rename or remove it", found.Type())
	}
	if bridge.HardwareAddr.String() != bridgeMAC.String() {
		if err := w.kernel.LinkSetHardwareAddr(bridge, bridgeMAC); err != nil {
			return nil, fmt.Errorf("set its hardware address: %w", err)
		}
	}
	if bridge.MTU != n.MTU { // as it is when new: a bridge keeps only an MTU it was given later
		if err := w.kernel.LinkSetMTU(bridge, n.MTU); err != nil {
			return nil, fmt.Errorf("set its MTU to %d: %w", n.MTU, err)
		}
	}
	if bridge.MulticastSnooping == nil || *bridge.MulticastSnooping {
		if err := w.kernel.BridgeSetMcastSnoop(bridge, false); err != nil {
			return nil, fmt.Errorf("switch multicast snooping off: %w", err)
		}
	}
	return bridge, nil
}

// dress gives the bridge or the device what both need: settings, the node's address alone, and to be up.
func (w *Wires) dress(l netlink.Link, addr netip.Addr) error {
	name := l.Attrs().Name
	err := w.within(w.host, func() error {
		return apply(
			withoutIPv6(name),
			v4(name, "forwarding", "1"),
			v4(name, "route_localnet", "1"), // published ports of 127.0.0.1 lead to tasks
			v4(name, "rp_filter", "2"),      // loose: a host with several uplinks may answer by another
			v4(name, "send_redirects", "0"), // tasks on one bridge do talk through their gateway
			v4(name, "accept_redirects", "0"),
		)
	})
	if err != nil {
		return err
	}
	there, err := all(func() ([]netlink.Addr, error) { return w.kernel.AddrList(l, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list its addresses: %w", err)
	}
	wanted := alone(addr)
	has := false
	for _, a := range there {
		if prefix(a.IPNet) == wanted {
			has = true
			continue
		}
		if err := w.kernel.AddrDel(l, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove its address %s: %w", a.IPNet, err)
		}
	}
	if !has {
		if err := w.kernel.AddrReplace(l, &netlink.Addr{IPNet: ipNet(wanted)}); err != nil {
			return fmt.Errorf("give it the address %s: %w", wanted, err)
		}
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		if err := w.kernel.LinkSetUp(l); err != nil {
			return fmt.Errorf("bring it up: %w", err)
		}
	}
	return nil
}

// way is a route as far as Warren's differ from each other.
type way struct {
	to     netip.Prefix
	link   int // 0 leads nowhere
	src    netip.Addr
	metric int
	kind   int
}

// route makes the host's routes those that n needs, and leaves all that are not Warren's alone.
func (w *Wires) route(n Node, bridge, device netlink.Link) error {
	wanted := map[way]bool{
		{n.Subnet, bridge.Attrs().Index, n.Addr, 0, unix.RTN_UNICAST}:    true,
		{n.VIPRange, bridge.Attrs().Index, n.Addr, 0, unix.RTN_UNICAST}:  true,
		{n.NodeRange, 0, netip.Addr{}, lastResort, unix.RTN_UNREACHABLE}: true,
		{n.VIPRange, 0, netip.Addr{}, lastResort, unix.RTN_UNREACHABLE}:  true,
	}
	if device != nil && n.NodeRange != n.Subnet {
		wanted[way{n.NodeRange, device.Attrs().Index, n.Addr, 0, unix.RTN_UNICAST}] = true
	}
	there, err := w.ownRoutes()
	if err != nil {
		return err
	}
	for _, r := range there {
		src, _ := netip.AddrFromSlice(r.Src.To4())
		this := way{prefix(r.Dst), r.LinkIndex, src, r.Priority, r.Type}
		if wanted[this] {
			delete(wanted, this)
			continue
		}
		if err := w.kernel.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove the route to %s: %w", this.to, err)
		}
	}
	for r := range wanted {
		scope := netlink.SCOPE_LINK
		if r.link == 0 {
			scope = netlink.SCOPE_UNIVERSE
		}
		err := w.kernel.RouteAdd(&netlink.Route{
			Dst: ipNet(r.to), LinkIndex: r.link, Src: r.src.AsSlice(), Priority: r.metric, Type: r.kind,
			Scope: scope, Protocol: routeProtocol,
		})
		switch {
		case err == nil:
		case errors.Is(err, unix.EEXIST):
			return fmt.Errorf("route %s: this host has another route to the same network: remove it, or choose other ranges for the cluster", r.to)
		case device != nil && r.link == device.Attrs().Index && (notFound(err) || errors.Is(err, unix.ENETDOWN)):
			// It went meanwhile, and Watch tells when it is back.
		default:
			return fmt.Errorf("route %s: %w", r.to, err)
		}
	}
	return nil
}

func (w *Wires) ownRoutes() ([]netlink.Route, error) {
	routes, err := all(func() ([]netlink.Route, error) {
		return w.kernel.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return nil, fmt.Errorf("list the routes: %w", err)
	}
	return routes, nil
}

// Down removes everything that Up and Attach made, by this agent or an earlier one. Of the WireGuard device
// it takes the address only: who made it removes it.
func (w *Wires) Down(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.node = nil
	tasks, err := w.attached()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var detaching errgroup.Group
	for task := range tasks {
		detaching.Go(func() error {
			if err := w.detach(task); err != nil {
				return fmt.Errorf("detach task %s: %w", task, err)
			}
			return nil
		})
	}
	if err := detaching.Wait(); err != nil {
		return err
	}
	routes, err := w.ownRoutes()
	if err != nil {
		return err
	}
	for _, r := range routes {
		if err := w.kernel.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove the route to %s: %w", r.Dst, err)
		}
	}
	if err := w.removeBridge(); err != nil {
		return fmt.Errorf("bridge %s: %w", w.Bridge, err)
	}
	if err := w.within(w.host, w.unforward); err != nil {
		return err
	}
	if err := os.Remove(w.NamespaceDir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the folder of network namespaces: %w", err)
	}
	return nil
}

// removeBridge removes the bridge, and its address from the device.
func (w *Wires) removeBridge() error {
	found, err := w.kernel.LinkByName(w.Bridge)
	if notFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	bridge, ok := found.(*netlink.Bridge)
	if !ok {
		return nil // not ours
	}
	addrs, err := all(func() ([]netlink.Addr, error) { return w.kernel.AddrList(bridge, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list its addresses: %w", err)
	}
	if device, err := w.kernel.LinkByName(w.Device); err == nil {
		for _, a := range addrs {
			err := w.kernel.AddrDel(device, &netlink.Addr{IPNet: a.IPNet})
			if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !notFound(err) {
				return fmt.Errorf("remove %s from %s: %w", a.IPNet, w.Device, err)
			}
		}
	}
	if err := w.kernel.LinkDel(bridge); err != nil && !notFound(err) {
		return fmt.Errorf("remove it: %w", err)
	}
	return nil
}
