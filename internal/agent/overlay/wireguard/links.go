package wireguard

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// links are the links of the network namespace in which it was opened.
type links struct {
	handle *netlink.Handle
}

func openLinks() (*links, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("speak to the kernel about links: %w", err)
	}
	return &links{handle: handle}, nil
}

func (l *links) close() { l.handle.Close() }

// linkState is a link as far as it matters here.
type linkState struct {
	kind  Kind // empty: it is no WireGuard device
	what  string
	index int
	mtu   int
	up    bool
}

// errNoLink: there is no link of that name.
var errNoLink = errors.New("there is no such link")

func (l *links) find(name string) (linkState, error) {
	link, err := l.handle.LinkByName(name)
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		return linkState{}, fmt.Errorf("link %s: %w", name, errNoLink)
	}
	if err != nil {
		return linkState{}, fmt.Errorf("link %s: %w", name, err)
	}
	attrs := link.Attrs()
	found := linkState{what: link.Type(), index: attrs.Index, mtu: attrs.MTU, up: attrs.Flags&net.FlagUp != 0}
	switch link.Type() {
	case "wireguard":
		found.kind = Kernel
	case "tuntap":
		found.kind = Userspace
	}
	return found, nil
}

// choose says of which kind the device is, or is to be; where that is the kernel's, the link is there
// afterwards. A device that is there stays of its kind: there may be traffic on it.
func (l *links) choose(name string, mtu int, wanted Kind) (Kind, error) {
	there, err := l.find(name)
	switch {
	case errors.Is(err, errNoLink):
		return l.create(name, mtu, wanted)
	case err != nil:
		return "", err
	case there.kind == "":
		return "", fmt.Errorf("link %s is there and is no WireGuard device, but a %s: remove it, or choose another name", name, there.what)
	case wanted != Auto && wanted != there.kind:
		return "", fmt.Errorf("link %s is there and is of kind %s, not %s: remove it first", name, there.kind, wanted)
	}
	return there.kind, nil
}

func (l *links) create(name string, mtu int, wanted Kind) (Kind, error) {
	if wanted == Userspace {
		return Userspace, nil
	}
	err := l.handle.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu}})
	switch {
	case err == nil:
		return Kernel, nil
	case !errors.Is(err, unix.EOPNOTSUPP):
		return "", fmt.Errorf("create link %s: %w", name, err)
	case wanted == Kernel:
		return "", fmt.Errorf("create link %s: %w: this kernel has no WireGuard: load its module, or choose kind %s", name, err, Userspace)
	}
	return Userspace, nil
}

func (l *links) up(name string) error {
	return l.alter(name, "take it up", l.handle.LinkSetUp)
}

func (l *links) setMTU(name string, mtu int) error {
	return l.alter(name, "set its MTU", func(link netlink.Link) error { return l.handle.LinkSetMTU(link, mtu) })
}

// remove removes a link, which need not be there.
func (l *links) remove(name string) error {
	err := l.alter(name, "remove it", l.handle.LinkDel)
	if errors.Is(err, errNoLink) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func (l *links) alter(name, what string, do func(netlink.Link) error) error {
	there, err := l.find(name)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index = name, there.index
	if err := do(&netlink.GenericLink{LinkAttrs: attrs, LinkType: there.what}); err != nil {
		return fmt.Errorf("link %s: %s: %w", name, what, err)
	}
	return nil
}
