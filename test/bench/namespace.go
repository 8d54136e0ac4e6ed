package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// namespace is a network namespace that plays a machine. It has no name in /run/netns: it goes with its
// last process and its last handle.
type namespace struct {
	handle netns.NsHandle
	links  *netlink.Handle
	calls  chan func()
	ended  chan struct{}
}

// newNamespace makes one, with loopback up and a thread in it. Only the network is set apart: programs
// that are started there find /sys, their control groups and their files as they were.
func newNamespace() (*namespace, error) {
	n := &namespace{handle: -1, calls: make(chan func()), ended: make(chan struct{})}
	made := make(chan error, 2) // nobody asks for the second
	go func() {
		defer close(n.ended)
		err := borrowThread(func() error {
			var err error
			n.handle, err = netns.New()
			made <- err
			for call := range n.calls {
				call()
			}
			return nil
		})
		if err != nil {
			made <- err
		}
	}()
	err := <-made
	if err == nil {
		n.links, err = netlink.NewHandleAt(n.handle)
	}
	if err == nil {
		err = n.up("lo")
	}
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", errors.Join(err, n.close()))
	}
	return n, nil
}

// borrowThread runs f, which may change the network namespace of its thread, and brings the thread back. It must not
// end: this program's daemons are told to end with the thread that started them, which may be any.
func borrowThread(f func() error) error {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the network namespace: %w", err)
	}
	defer before.Close()
	err = f()
	if back := netns.Set(before); back != nil {
		return errors.Join(err, fmt.Errorf("go back to the network namespace: %w", back)) // the thread stays locked
	}
	runtime.UnlockOSThread()
	return err
}

// do runs f on the namespace's own thread, for what does not take long.
func (n *namespace) do(f func() error) error {
	result := make(chan error, 1)
	n.calls <- func() { result <- f() }
	return <-result
}

// within runs f in a network namespace, on a thread that nothing else uses meanwhile.
func within(ns netns.NsHandle, f func() error) error {
	return borrowThread(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return f()
	})
}

// listen listens in a network namespace.
func listen(ctx context.Context, ns netns.NsHandle, addr string) (l net.Listener, err error) {
	err = within(ns, func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp4", addr)
		return err
	})
	return l, err
}

// dial connects from a network namespace.
func dial(ctx context.Context, ns netns.NsHandle, addr string) (c net.Conn, err error) {
	err = within(ns, func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "tcp4", addr)
		return err
	})
	return c, err
}

// transport speaks HTTP from the namespace.
func (n *namespace) transport() *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return dial(ctx, n.handle, addr)
	}}
}

func (n *namespace) up(name string) error {
	l, err := n.links.LinkByName(name)
	if err != nil {
		return err
	}
	return n.links.LinkSetUp(l)
}

func (n *namespace) down(name string) error {
	l, err := n.links.LinkByName(name)
	if err != nil {
		return err
	}
	return n.links.LinkSetDown(l)
}

// address gives a link an address such as 192.0.2.1/24.
func (n *namespace) address(name, cidr string) error {
	l, err := n.links.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return n.links.AddrAdd(l, a)
}

// cable joins two namespaces by a pair of links, and raises them.
func cable(a *namespace, aLink string, b *namespace, bLink string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = aLink
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: bLink, PeerNamespace: netlink.NsFd(int(b.handle))}
	if err := a.links.LinkAdd(pair); err != nil {
		return fmt.Errorf("lay a cable: %w", err)
	}
	return errors.Join(a.up(aLink), b.up(bLink))
}

// close lets go of the namespace.
func (n *namespace) close() error {
	close(n.calls)
	<-n.ended
	if n.links != nil {
		n.links.Close()
	}
	if n.handle < 0 {
		return nil
	}
	return n.handle.Close()
}

// underlay is the network between the benchmark's machines: a switch in a namespace of its own, which is
// their way out too.
type underlay struct {
	*namespace
	ports int
}

// The underlay's addresses are of a range for documentation (RFC 5737).
const (
	switchName    = "switch"
	switchAddress = "198.51.100.254"
	uplinkName    = "eth0"
)

func newUnderlay() (*underlay, error) {
	n, err := newNamespace()
	if err != nil {
		return nil, err
	}
	if err := n.addSwitch(switchAddress + "/24"); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return &underlay{namespace: n}, nil
}

// addSwitch makes a bridge that has an address.
func (n *namespace) addSwitch(cidr string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = switchName
	if err := n.links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("make a bridge: %w", err)
	}
	return errors.Join(n.up(switchName), n.address(switchName, cidr))
}

// join makes a machine with a cable to the switch and a default route, and returns its address.
func (u *underlay) join() (n *namespace, address string, err error) {
	if n, err = newNamespace(); err != nil {
		return nil, "", err
	}
	u.ports++
	address = fmt.Sprintf("198.51.100.%d", u.ports)
	port := fmt.Sprintf("port%d", u.ports)
	err = cable(u.namespace, port, n, uplinkName)
	if err == nil {
		err = errors.Join(u.plug(port), n.address(uplinkName, address+"/24"), n.route(switchAddress))
	}
	if err != nil {
		return nil, "", errors.Join(err, n.close())
	}
	return n, address, nil
}

// plug joins a link to the bridge.
func (n *namespace) plug(port string) error {
	l, err := n.links.LinkByName(port)
	if err != nil {
		return err
	}
	bridge, err := n.links.LinkByName(switchName)
	if err != nil {
		return err
	}
	return n.links.LinkSetMaster(l, bridge)
}

// route makes the uplink the way to everywhere.
func (n *namespace) route(gateway string) error {
	l, err := n.links.LinkByName(uplinkName)
	if err != nil {
		return err
	}
	return n.links.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gateway)})
}
