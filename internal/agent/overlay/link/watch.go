package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Of linux/netconf.h.
const (
	netconfLink = 1  // the attribute NETCONFA_IFINDEX
	allLinks    = -1 // its value for the settings of all
)

// look is what is compared of a link.
type look struct {
	index, mtu int
	mac        string
	up         bool
}

// Watch calls changed when Up may have something to do: at once, and whenever the kernel tells of a change to
// the bridge, the device, their addresses, Warren's routes or forwarding. It calls too often rather than
// not often enough, Up's own changes being changes, and ends with ctx. Nothing is heard while changed runs,
// and nothing missed.
func (w *Wires) Watch(ctx context.Context, changed func()) error {
	seen := map[string]look{}
	concerned := func(header unix.NlMsghdr, data []byte) bool { return w.concerns(seen, header, data) }
	begin := func() {
		for _, name := range []string{w.Bridge, w.Device} {
			if l, err := w.kernel.LinkByName(name); err == nil {
				seen[name] = lookOf(l.Attrs())
			}
		}
		changed()
	}
	groups := []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_NETCONF}
	if err := w.listen(ctx, groups, begin, concerned, changed); err != nil {
		return fmt.Errorf("watch the host's links: %w", err)
	}
	return nil
}

// WatchUplinks calls changed when Uplink may tell something else than before: at once, and whenever the kernel
// tells of a change to the MTU or the state of a link that is not Warren's, to routes that are not, or to what
// chooses between those. It ends with ctx.
func (w *Wires) WatchUplinks(ctx context.Context, changed func()) error {
	seen := map[int]look{}
	groups := []uint{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
	}
	begin := func() {
		if links, err := all(w.kernel.LinkList); err == nil {
			for _, l := range links {
				if !w.own(l.Attrs()) {
					seen[l.Attrs().Index] = stateOf(l.Attrs())
				}
			}
		}
		changed()
	}
	concerned := func(header unix.NlMsghdr, data []byte) bool { return w.leadsElsewhere(seen, header, data) }
	if err := w.listen(ctx, groups, begin, concerned, changed); err != nil {
		return fmt.Errorf("watch the host's uplinks: %w", err)
	}
	return nil
}

// listen calls begin once it misses nothing any more, and then changed for what the kernel tells that is of concern.
func (w *Wires) listen(ctx context.Context, groups []uint, begin func(), concerned func(unix.NlMsghdr, []byte) bool, changed func()) error {
	notices, err := nl.SubscribeAt(w.host, netns.None(), unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, notices.Close)
	defer func() {
		if stop() {
			notices.Close()
		}
	}()
	begin()
	for {
		messages, _, err := notices.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // there were more than the socket holds
			changed()
			continue
		case err != nil:
			return err
		}
		some := false
		for _, m := range messages {
			some = concerned(unix.NlMsghdr(m.Header), m.Data) || some
		}
		if some {
			changed()
		}
	}
}

// leadsElsewhere tells whether packets may take another way out of the host after what a notice tells of, or may be larger
// or must be smaller there. IPv4's routes go with their link without a word of it.
func (w *Wires) leadsElsewhere(seen map[int]look, header unix.NlMsghdr, data []byte) bool {
	switch header.Type {
	case unix.RTM_NEWLINK:
		if nl.DeserializeIfInfomsg(data).Family != unix.AF_UNSPEC {
			return false
		}
		l, err := netlink.LinkDeserialize(&header, data)
		if err != nil {
			return true
		}
		attrs := l.Attrs()
		if w.own(attrs) {
			return false
		}
		before, now := seen[attrs.Index], stateOf(attrs)
		seen[attrs.Index] = now
		return before != now
	case unix.RTM_DELLINK:
		index := int(nl.DeserializeIfInfomsg(data).Index)
		_, known := seen[index]
		delete(seen, index)
		return known
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r := nl.DeserializeRtMsg(data)
		return r.Protocol != uint8(routeProtocol) && (r.Type == unix.RTN_UNICAST || r.Type == unix.RTN_UNREACHABLE) && r.Flags&unix.RTM_F_CLONED == 0
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		return true
	}
	return false
}

// own tells whether a link is Warren's.
func (w *Wires) own(a *netlink.LinkAttrs) bool {
	return a.Name == w.Bridge || a.Name == w.Device || strings.HasPrefix(a.Name, vethPrefix) && addrOf(a.HardwareAddr).IsValid()
}

// stateOf is what of a link matters to those that send by it.
func stateOf(a *netlink.LinkAttrs) look {
	return look{index: a.Index, mtu: a.MTU, up: a.Flags&net.FlagUp != 0}
}

// concerns tells whether Up may have something to do after what a notice tells of.
func (w *Wires) concerns(seen map[string]look, header unix.NlMsghdr, data []byte) bool {
	ours := func(index int) bool { return seen[w.Bridge].index == index || seen[w.Device].index == index }
	switch header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if nl.DeserializeIfInfomsg(data).Family != unix.AF_UNSPEC {
			return false // of a port's place in the bridge
		}
		l, err := netlink.LinkDeserialize(&header, data)
		if err != nil {
			return true
		}
		attrs := l.Attrs()
		if header.Type == unix.RTM_NEWLINK && (attrs.Name == w.Bridge || attrs.Name == w.Device) {
			before, now := seen[attrs.Name], lookOf(attrs)
			seen[attrs.Name] = now
			return before != now
		}
		// It is deleted, or it may have got another name.
		for name, s := range seen {
			if s.index == attrs.Index {
				delete(seen, name)
				return true
			}
		}
	case unix.RTM_DELADDR, unix.RTM_NEWADDR:
		return ours(int(nl.DeserializeIfAddrmsg(data).Index))
	case unix.RTM_DELROUTE:
		return nl.DeserializeRtMsg(data).Protocol == uint8(routeProtocol)
	case unix.RTM_NEWNETCONF:
		index, ok := netconfIndex(data)
		return ok && (index == allLinks || ours(index))
	}
	return false
}

func lookOf(a *netlink.LinkAttrs) look {
	return look{index: a.Index, mtu: a.MTU, mac: a.HardwareAddr.String(), up: a.Flags&net.FlagUp != 0}
}

// netconfIndex is the link whose settings a notice is about.
func netconfIndex(data []byte) (int, bool) {
	const header = 4 // the family, padded
	if len(data) < header {
		return 0, false
	}
	attributes, err := nl.ParseRouteAttr(data[header:])
	if err != nil {
		return 0, false
	}
	for _, a := range attributes {
		if a.Attr.Type == netconfLink && len(a.Value) == 4 {
			return int(int32(nl.NativeEndian().Uint32(a.Value))), true
		}
	}
	return 0, false
}
