package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	vethPrefix = "wv"
	inside     = "eth0" // a task's own end
)

// Attach gives a task its network namespace, whose path it returns, and a veth to the bridge. Called again it
// completes what is missing. What a failed call leaves goes with Detach. It fails with ErrNotUp before
// the first Up.
func (w *Wires) Attach(ctx context.Context, task string, addr netip.Addr) (string, error) {
	if err := checkTask(task); err != nil {
		return "", err
	}
	defer w.tasks.take(task)()
	w.mu.RLock()
	defer w.mu.RUnlock()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if w.node == nil {
		return "", fmt.Errorf("attach task %s: %w", task, ErrNotUp)
	}
	if addr == w.node.Addr || !w.node.Subnet.Contains(addr) {
		return "", fmt.Errorf("attach task %s: address %s: it must be in the node's subnet %s and not the node's own", task, addr, w.node.Subnet)
	}
	if err := w.attach(ctx, *w.node, task, addr); err != nil {
		return "", fmt.Errorf("attach task %s: %w", task, err)
	}
	return w.namespacePath(task), nil
}

func checkTask(task string) error {
	if task == "" || len(task) > maxTaskID {
		return fmt.Errorf("task %q: its id has 1 to %d characters", task, maxTaskID)
	}
	for i, c := range task {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("-_.", c)) {
			return fmt.Errorf("task %q: its id may have letters, digits, and the characters - _ . but for the first", task)
		}
	}
	return nil
}

func (w *Wires) attach(ctx context.Context, n Node, task string, addr netip.Addr) error {
	bridge, err := w.kernel.LinkByName(w.Bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", w.Bridge, err)
	}
	ns, err := w.namespace(task)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer ns.Close()
	there, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer there.Close()

	host, err := w.veth(n, task, addr, ns, there)
	if err != nil {
		return fmt.Errorf("link %s: %w", vethName(task), err)
	}
	if err := w.furnish(n, addr, ns, there); err != nil {
		return fmt.Errorf("inside the network namespace: %w", err)
	}
	if err := w.within(w.host, func() error { return apply(withoutIPv6(host.Name)) }); err != nil {
		return fmt.Errorf("link %s: %w", host.Name, err)
	}
	if err := w.plug(host, bridge.Attrs().Index, addr); err != nil {
		return fmt.Errorf("link %s: %w", host.Name, err)
	}
	if err := settle(ctx, there, inside); err != nil {
		return err
	}
	if err := settle(ctx, w.kernel, host.Name); err != nil {
		return err
	}
	return settle(ctx, w.kernel, w.Bridge) // which sends while one of its ports does
}

// settle waits until a link that has just got a carrier sends too. The kernel sees to that in the background,
// later when it is busy, and drops packets meanwhile: a connection would begin with the second that TCP
// waits for an answer. From Linux 6.10 on asking is enough (linkwatch_sync_dev in rtnl_getlink).
func settle(ctx context.Context, kernel *netlink.Handle, link string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var again *time.Ticker
	for {
		l, err := kernel.LinkByName(link)
		if err != nil {
			return fmt.Errorf("%s: %w", link, err)
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if again == nil {
			again = time.NewTicker(time.Millisecond)
			defer again.Stop()
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: it is up and does not send: %w", link, ctx.Err())
		}
	}
}

func (w *Wires) namespacePath(task string) string { return filepath.Join(w.NamespaceDir, task) }

// namespace opens the task's network namespace, which it makes and mounts if it is not there.
func (w *Wires) namespace(task string) (netns.NsHandle, error) {
	path := w.namespacePath(task)
	mounted, err := isNamespace(path)
	if err != nil {
		return netns.None(), err
	}
	if !mounted {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
		if err != nil {
			return netns.None(), err
		}
		file.Close()
		err = borrowThread(func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("make: %w", err)
			}
			if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("mount at %s: %w", path, err)
			}
			return nil
		})
		if err != nil {
			return netns.None(), err
		}
	}
	return netns.GetFromPath(path)
}

func isNamespace(path string) (bool, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return fs.Type == unix.NSFS_MAGIC, nil
}

// vethName names the host's end of a task's veth. Ids are random, so their first characters will do: 13
// of base32 are 65 bits. That they are another task's all the same is found out by the alias.
func vethName(task string) string {
	return vethPrefix + task[:min(len(task), maxLinkName-len(vethPrefix))]
}

// insideMAC and outsideMAC are of a veth's two ends. The host's end says so what address the task has.
func insideMAC(a netip.Addr) net.HardwareAddr {
	return append(net.HardwareAddr{0x02, 0x57}, a.AsSlice()...)
}
func outsideMAC(a netip.Addr) net.HardwareAddr {
	return append(net.HardwareAddr{0x06, 0x57}, a.AsSlice()...)
}

// addrOf is the reverse of outsideMAC. It is invalid for hardware addresses that are none of those.
func addrOf(mac net.HardwareAddr) netip.Addr {
	if len(mac) != 6 || mac[0] != 0x06 || mac[1] != 0x57 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(mac[2:]))
}

// veth finds the task's veth or makes it, and returns the host's end. One that leads elsewhere, or is
// of another address, is replaced.
func (w *Wires) veth(n Node, task string, addr netip.Addr, ns netns.NsHandle, there *netlink.Handle) (*netlink.LinkAttrs, error) {
	host, err := w.ownVeth(task)
	if err != nil {
		return nil, err
	}
	if host != nil {
		peer, err := there.LinkByName(inside)
		if err == nil && peer.Attrs().ParentIndex == host.Index && addrOf(host.HardwareAddr) == addr {
			return host, w.label(host, task)
		}
		if err != nil && !notFound(err) {
			return nil, err
		}
		if err := w.remove(&netlink.Veth{LinkAttrs: *host}); err != nil {
			return nil, fmt.Errorf("remove one that fits no longer: %w", err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = vethName(task), n.MTU, outsideMAC(addr)
	made := &netlink.Veth{
		LinkAttrs: attrs, PeerName: inside, PeerMTU: uint32(n.MTU), PeerTxQLen: -1,
		PeerHardwareAddr: insideMAC(addr), PeerNamespace: netlink.NsFd(ns),
	}
	if err := w.kernel.LinkAdd(made); err != nil {
		return nil, fmt.Errorf("make it: %w", err)
	}
	return &made.LinkAttrs, w.label(&made.LinkAttrs, task)
}

func (w *Wires) label(host *netlink.LinkAttrs, task string) error {
	if host.Alias == task {
		return nil
	}
	if err := w.kernel.LinkSetAlias(&netlink.Veth{LinkAttrs: *host}, task); err != nil {
		return fmt.Errorf("set its alias: %w", err)
	}
	return nil
}

// ownVeth finds the host's end of the task's veth, nil if there is none. One without alias was left half
// made.
func (w *Wires) ownVeth(task string) (*netlink.LinkAttrs, error) {
	found, err := w.kernel.LinkByName(vethName(task))
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	attrs := found.Attrs()
	if attrs.Alias != "" && attrs.Alias != task || found.Type() != "veth" {
		return nil, fmt.Errorf("a %s of this name is there already, with the alias %q: the names of two tasks begin alike", found.Type(), attrs.Alias)
	}
	return attrs, nil
}

// furnish lays the task's side. The task cannot get its gateway wrong, and asks nobody for it.
func (w *Wires) furnish(n Node, addr netip.Addr, ns netns.NsHandle, there *netlink.Handle) error {
	err := w.within(ns, func() error {
		return apply(
			withoutIPv6(inside),
			v4("all", "accept_redirects", "0"), // the way to a neighbour on the bridge is by the gateway
			v4(inside, "accept_redirects", "0"),
		)
	})
	if err != nil {
		return err
	}
	lo, err := there.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := there.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	eth, err := there.LinkByName(inside)
	if err != nil {
		return fmt.Errorf("%s: %w", inside, err)
	}
	if eth.Attrs().MTU != n.MTU {
		if err := there.LinkSetMTU(eth, n.MTU); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", inside, n.MTU, err)
		}
	}
	if err := there.AddrReplace(eth, &netlink.Addr{IPNet: ipNet(alone(addr))}); err != nil {
		return fmt.Errorf("give %s the address %s: %w", inside, addr, err)
	}
	if err := there.LinkSetUp(eth); err != nil {
		return fmt.Errorf("bring %s up: %w", inside, err)
	}
	index, gateway := eth.Attrs().Index, n.Addr.AsSlice()
	neighbour := &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: gateway, HardwareAddr: bridgeMAC}
	if err := there.NeighSet(neighbour); err != nil {
		return fmt.Errorf("introduce the gateway %s: %w", n.Addr, err)
	}
	for _, r := range []netlink.Route{
		{LinkIndex: index, Dst: ipNet(alone(n.Addr)), Scope: netlink.SCOPE_LINK},
		{LinkIndex: index, Dst: ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)), Gw: gateway},
	} {
		if err := there.RouteReplace(&r); err != nil {
			return fmt.Errorf("route %s: %w", r.Dst, err)
		}
	}
	return nil
}

// plug puts the host's end into the bridge. The bridge is told where each task is and learns nothing, so no
// packet is flooded and no task can take another's place.
//
// Hairpin is for hosts where bridged packets pass the rules for routed ones too, which Docker switches on
// (net.bridge.bridge-nf-call-iptables). There a packet to a service's address gets the address of a task while
// still on the bridge, and goes straight to that task's port, which may be the one it came from.
func (w *Wires) plug(host *netlink.LinkAttrs, bridge int, addr netip.Addr) error {
	port := &netlink.Veth{LinkAttrs: *host}
	if err := w.kernel.LinkSetMasterByIndex(port, bridge); err != nil {
		return fmt.Errorf("put it into the bridge: %w", err)
	}
	if err := w.kernel.LinkSetHairpin(port, true); err != nil {
		return fmt.Errorf("switch hairpin on: %w", err)
	}
	if err := w.kernel.LinkSetLearning(port, false); err != nil {
		return fmt.Errorf("switch learning off: %w", err)
	}
	if err := w.kernel.LinkSetFlood(port, false); err != nil {
		return fmt.Errorf("switch flooding off: %w", err)
	}
	mac := insideMAC(addr)
	for _, n := range []netlink.Neigh{
		{LinkIndex: host.Index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER, HardwareAddr: mac},
		{LinkIndex: bridge, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac},
	} {
		if err := w.kernel.NeighSet(&n); err != nil {
			return fmt.Errorf("tell the bridge of it: %w", err)
		}
	}
	if err := w.kernel.LinkSetUp(port); err != nil {
		return fmt.Errorf("bring it up: %w", err)
	}
	return nil
}

// replug puts back into the bridge the tasks' veths that have come out of it, and what it was told of tasks, and gives
// them the MTU.
func (w *Wires) replug(bridge netlink.Link, mtu int) error {
	veths, err := w.veths()
	if err != nil || len(veths) == 0 {
		return err
	}
	for _, host := range veths {
		if err := w.resize(host, mtu); err != nil && !notFound(err) {
			// It goes on with what it has: what is too large is told by ICMP, as on any route.
			w.Logger.Warn("a task's link keeps its MTU", "task", host.Alias, "mtu", mtu, "error", err)
		}
	}
	index := bridge.Attrs().Index
	known, err := all(func() ([]netlink.Neigh, error) { return w.kernel.NeighList(index, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list the bridge's neighbours: %w", err)
	}
	placed, err := all(func() ([]netlink.Neigh, error) { return w.kernel.NeighList(0, unix.AF_BRIDGE) })
	if err != nil {
		return fmt.Errorf("list what the bridge forwards: %w", err)
	}
	told := map[string]bool{}
	for _, n := range known {
		if n.State == netlink.NUD_PERMANENT {
			told[n.IP.String()+n.HardwareAddr.String()] = true
		}
	}
	at := map[int]string{} // by port: the task's hardware address
	for _, n := range placed {
		if n.MasterIndex == index && n.State == netlink.NUD_NOARP {
			at[n.LinkIndex] = n.HardwareAddr.String()
		}
	}
	for _, host := range veths {
		addr := addrOf(host.HardwareAddr)
		mac := insideMAC(addr).String()
		if host.Alias == "" || host.MasterIndex == index && host.Flags&net.FlagUp != 0 && at[host.Index] == mac && told[addr.String()+mac] {
			continue
		}
		if err := w.plug(host, index, addr); err != nil && !notFound(err) {
			return fmt.Errorf("task %s: link %s: %w", host.Alias, host.Name, err)
		}
	}
	return nil
}

// resize gives a task's link the MTU, unless it has it. Connections go on: TCP looks at the link's with each packet that it
// makes. The host's end is the last to change, so that by it is seen what is left to do.
func (w *Wires) resize(host *netlink.LinkAttrs, mtu int) error {
	if host.MTU == mtu || host.Alias == "" {
		return nil
	}
	ns, err := netns.GetFromPath(w.namespacePath(host.Alias))
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer ns.Close()
	there, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer there.Close()
	peer, err := there.LinkByName(inside)
	if err != nil {
		return err
	}
	if err := there.LinkSetMTU(peer, mtu); err != nil {
		return fmt.Errorf("%s: %w", inside, err)
	}
	return w.kernel.LinkSetMTU(&netlink.Veth{LinkAttrs: *host}, mtu)
}

// veths are the host's ends of tasks' veths, those half made too.
func (w *Wires) veths() ([]*netlink.LinkAttrs, error) {
	links, err := all(w.kernel.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the links: %w", err)
	}
	var found []*netlink.LinkAttrs
	for _, l := range links {
		a := l.Attrs()
		if l.Type() == "veth" && strings.HasPrefix(a.Name, vethPrefix) && addrOf(a.HardwareAddr).IsValid() {
			found = append(found, a)
		}
	}
	return found, nil
}

// Attached tells what tasks there is anything of, and their addresses. The address is invalid where too
// little is there to tell; what is not wanted goes with Detach.
func (w *Wires) Attached(ctx context.Context) (map[string]netip.Addr, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return w.attached()
}

func (w *Wires) attached() (map[string]netip.Addr, error) {
	veths, err := w.veths()
	if err != nil {
		return nil, err
	}
	found := map[string]netip.Addr{}
	for _, v := range veths {
		if checkTask(v.Alias) == nil && vethName(v.Alias) == v.Name {
			found[v.Alias] = addrOf(v.HardwareAddr)
		}
	}
	mounted, err := os.ReadDir(w.NamespaceDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list the network namespaces: %w", err)
	}
	for _, m := range mounted {
		if _, has := found[m.Name()]; !has && checkTask(m.Name()) == nil {
			found[m.Name()] = netip.Addr{}
		}
	}
	return found, nil
}

// Detach removes all there is of a task, which may be nothing. Processes that are still in its network
// namespace keep it, but not its link.
func (w *Wires) Detach(ctx context.Context, task string) error {
	if err := checkTask(task); err != nil {
		return err
	}
	defer w.tasks.take(task)()
	w.mu.RLock()
	defer w.mu.RUnlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.detach(task); err != nil {
		return fmt.Errorf("detach task %s: %w", task, err)
	}
	return nil
}

func (w *Wires) detach(task string) error {
	// The link goes first: the namespace is what Attached finds a half-removed task by.
	found, err := w.kernel.LinkByName(vethName(task))
	if err != nil && !notFound(err) {
		return fmt.Errorf("link %s: %w", vethName(task), err)
	}
	if err == nil && found.Type() == "veth" && (found.Attrs().Alias == task || found.Attrs().Alias == "") {
		if err := w.unplug(found); err != nil {
			return fmt.Errorf("link %s: %w", found.Attrs().Name, err)
		}
	}
	path := w.namespacePath(task)
	// EINVAL: nothing is mounted there.
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the network namespace: %w", err)
	}
	return nil
}

// unplug removes a veth, and makes the bridge forget its task's address.
func (w *Wires) unplug(veth netlink.Link) error {
	addr := addrOf(veth.Attrs().HardwareAddr)
	if bridge, err := w.kernel.LinkByName(w.Bridge); err == nil && addr.IsValid() {
		neighbour := &netlink.Neigh{LinkIndex: bridge.Attrs().Index, IP: addr.AsSlice(), HardwareAddr: insideMAC(addr)}
		if err := w.kernel.NeighDel(neighbour); err != nil && !errors.Is(err, unix.ENOENT) && !notFound(err) {
			return fmt.Errorf("forget its neighbour %s: %w", addr, err)
		}
	}
	if err := w.remove(veth); err != nil {
		return fmt.Errorf("remove it: %w", err)
	}
	return nil
}
