package link

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrNotUp tells that the node's part has not been laid yet: tasks are attached after the first Up.
var ErrNotUp = errors.New("the node's bridge is not up yet")

const (
	// routeProtocol marks Warren's routes. It is none of those that iproute2's rt_protos names.
	routeProtocol = netlink.RouteProtocol(87)

	// lastResort is the metric of the routes that apply while no link leads to a range. Without them what
	// is meant for another node would leave by the default route, and not encrypted.
	lastResort = 1 << 30

	maxLinkName = unix.IFNAMSIZ - 1
	maxTaskID   = 64

	minMTU = 1280
	maxMTU = 65535
)

// bridgeMAC is the same on every node, for no two bridges share a wire: a task knows its gateway's without
// asking, whatever address the node has.
var bridgeMAC = net.HardwareAddr{0x0a, 0x57, 'w', 'a', 'r', 'n'}

// Options says by what names the wires are found.
type Options struct {
	// Bridge is the bridge's name, and Device that of the WireGuard device, which others make: it may come
	// and go.
	Bridge, Device string
	// NamespaceDir is where tasks' network namespaces are mounted: on a tmpfs, so that it is empty after a
	// reboot, as the kernel is.
	NamespaceDir string
	Logger       *slog.Logger
}

// Node is a node's place in the cluster's network.
type Node struct {
	// Addr is the node's own address in its subnet: the tasks' gateway, and the source of what the host
	// itself sends to the overlay.
	Addr   netip.Addr
	Subnet netip.Prefix
	// NodeRange holds the subnets of all nodes, VIPRange the services' addresses.
	NodeRange, VIPRange netip.Prefix
	MTU                 int
}

// Wires are the links, namespaces, addresses and routes of one node.
type Wires struct {
	Options
	host   netns.NsHandle // where the node's links are
	kernel *netlink.Handle
	// remover is for what takes long: a handle carries one request at a time.
	remover *netlink.Handle

	// mu is held for reading while a task's links are made or removed, for writing while the node's are.
	mu    sync.RWMutex
	node  *Node // as last laid; nil before the first Up
	tasks turns

	removals removals
}

// Open takes hold of the network namespace of the calling thread, which is the process's own unless the
// caller has changed it. It changes nothing.
func Open(o Options) (*Wires, error) {
	for field, name := range map[string]string{"Bridge": o.Bridge, "Device": o.Device} {
		if name == "" || len(name) > maxLinkName || strings.ContainsAny(name, "/ \t\n") || name == "." || name == ".." {
			return nil, fmt.Errorf("%s %q: the name of a link has 1 to %d characters, without space and slash", field, name, maxLinkName)
		}
	}
	if !filepath.IsAbs(o.NamespaceDir) {
		return nil, fmt.Errorf("NamespaceDir %q: it must be an absolute path", o.NamespaceDir)
	}
	host, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	kernel, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		host.Close()
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	remover, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		kernel.Close()
		host.Close()
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &Wires{Options: o, host: host, kernel: kernel, remover: remover, tasks: turns{busy: map[string]*turn{}}}, nil
}

// Close lets go of the network namespace. Everything in it stays.
func (w *Wires) Close() error {
	w.kernel.Close()
	w.remover.Close()
	return w.host.Close()
}

func (n *Node) check() error {
	for field, p := range map[string]netip.Prefix{"Subnet": n.Subnet, "NodeRange": n.NodeRange, "VIPRange": n.VIPRange} {
		if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() {
			return fmt.Errorf("%s %s: it must be an IPv4 network, with no bit set beyond its length", field, p)
		}
	}
	if !n.Subnet.Contains(n.Addr) {
		return fmt.Errorf("address %s: it must be in the node's subnet %s", n.Addr, n.Subnet)
	}
	if n.MTU < minMTU || n.MTU > maxMTU {
		return fmt.Errorf("MTU %d: it must be %d to %d", n.MTU, minMTU, maxMTU)
	}
	return nil
}

// turns lets one call at a time work on a task, and calls for different tasks together.
type turns struct {
	mu   sync.Mutex
	busy map[string]*turn
}

type turn struct {
	mu   sync.Mutex
	want int // calls that have it or wait for it: guarded by the mutex of turns
}

// take waits for the task's turn and returns what ends it.
func (t *turns) take(task string) func() {
	t.mu.Lock()
	one := t.busy[task]
	if one == nil {
		one = &turn{}
		t.busy[task] = one
	}
	one.want++
	t.mu.Unlock()

	one.mu.Lock()
	return func() {
		one.mu.Unlock()
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.want--; one.want == 0 {
			delete(t.busy, task)
		}
	}
}

// all repeats a listing that the kernel says was overtaken by a change, some times.
func all[T any](list func() ([]T, error)) (found []T, err error) {
	for range 10 {
		if found, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return found, err
}

func notFound(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefix is the reverse of ipNet. It is invalid for nil.
func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

// alone is the network of one address.
func alone(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
