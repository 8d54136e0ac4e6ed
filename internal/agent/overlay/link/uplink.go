package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What WireGuard puts around a packet (Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel",
// 5.4.6): 16 bytes of header and 16 of authentication, 8 of UDP, and the 20 of IPv4 or the 40 of IPv6.
const (
	overheadIPv4 = 16 + 16 + 8 + 20
	overheadIPv6 = 16 + 16 + 8 + 40
)

// OverlayMTU is what tasks' packets may measure so that they fit an uplink's when WireGuard has wrapped them.
// It is never less than 1280, which is the least that IPv6 and with it much software counts on; fits is
// false when the uplink is too small for that, and wrapped packets will come in fragments.
func OverlayMTU(uplink int, ipv6 bool) (mtu int, fits bool) {
	overhead := overheadIPv4
	if ipv6 {
		overhead = overheadIPv6
	}
	mtu = min(uplink, maxMTU) - overhead
	return max(mtu, minMTU), mtu >= minMTU
}

// Uplink tells by which link the host reaches an address, and the largest packet it may send there. For an
// address of the host itself that is the link which has it; for the zero address the default route's, of
// several the one with the smallest packets.
func (w *Wires) Uplink(toward netip.Addr) (name string, mtu int, err error) {
	if toward = toward.Unmap(); !toward.IsValid() || toward.IsLoopback() {
		return w.defaultUplink()
	}
	routes, err := w.kernel.RouteGet(toward.AsSlice())
	if err != nil {
		return "", 0, fmt.Errorf("find the link towards %s: %w", toward, err)
	}
	if len(routes) == 0 {
		return "", 0, fmt.Errorf("find the link towards %s: no route leads there", toward)
	}
	r := routes[0]
	l, err := w.kernel.LinkByIndex(r.LinkIndex)
	if err == nil && l.Attrs().Flags&net.FlagLoopback != 0 {
		l, err = w.holder(toward)
	}
	if err != nil {
		return "", 0, fmt.Errorf("find the link towards %s: %w", toward, err)
	}
	if name := l.Attrs().Name; name == w.Device || name == w.Bridge {
		return "", 0, fmt.Errorf("find the link towards %s: it is an address of the overlay, to which %s leads", toward, name)
	}
	return l.Attrs().Name, routeMTU(r, l), nil
}

// holder is the link that has one of the host's addresses.
func (w *Wires) holder(addr netip.Addr) (netlink.Link, error) {
	addrs, err := all(func() ([]netlink.Addr, error) { return w.kernel.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if prefix(a.IPNet).Addr() == addr {
			return w.kernel.LinkByIndex(a.LinkIndex)
		}
	}
	return nil, errors.New("no link has this address")
}

func (w *Wires) defaultUplink() (name string, mtu int, err error) {
	routes, err := all(func() ([]netlink.Route, error) { return w.kernel.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return "", 0, fmt.Errorf("find the default route: %w", err)
	}
	for _, r := range routes {
		if prefix(r.Dst).Bits() > 0 || r.Type != unix.RTN_UNICAST {
			continue
		}
		hops := []int{r.LinkIndex}
		for _, hop := range r.MultiPath {
			hops = append(hops, hop.LinkIndex)
		}
		for _, index := range hops {
			l, err := w.kernel.LinkByIndex(index)
			if err != nil || l.Attrs().Name == w.Device {
				continue // 0, or gone
			}
			if here := routeMTU(r, l); name == "" || here < mtu {
				name, mtu = l.Attrs().Name, here
			}
		}
	}
	if name == "" {
		return "", 0, errors.New("find the default route: this host has none")
	}
	return name, mtu, nil
}

func routeMTU(r netlink.Route, l netlink.Link) int {
	if r.MTU > 0 {
		return min(r.MTU, l.Attrs().MTU)
	}
	return l.Attrs().MTU
}
