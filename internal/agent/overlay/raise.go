package overlay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/cuemby/warren/internal/agent/overlay/catalog"
	"github.com/cuemby/warren/internal/agent/overlay/lease"
	"github.com/cuemby/warren/internal/agent/overlay/link"
	"github.com/cuemby/warren/internal/agent/overlay/names"
	"github.com/cuemby/warren/internal/agent/overlay/port"
	"github.com/cuemby/warren/internal/agent/overlay/rules"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
	"github.com/cuemby/warren/internal/agent/overlay/wireguard"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	// keepalive holds open what a translation of addresses forgets: most keep UDP for 30 s and more (RFC 4787, 4.3, asks for
	// two minutes; the figure is WireGuard's own advice).
	keepalive = 25 * time.Second
	// usualMTU is taken where nothing tells by which link packets leave.
	usualMTU = 1500
)

// network is a network that is up.
type network struct {
	layout link.Node // but for the MTU, which Run changes; others read it
	mtu    int
	device *wireguard.Device
	leases *lease.Leases
	rules  *rules.Rules
	names  *names.Server

	stop    context.CancelFunc // of what runs for it
	running sync.WaitGroup
	fallen  chan struct{} // closed when something that ran for it has ended
	once    sync.Once
}

// lost tells whether a part of the network is gone, so that it must be made anew.
func (n *network) lost() bool {
	select {
	case <-n.device.Lost():
		return true
	case <-n.fallen:
		return true
	default:
		return false
	}
}

// raise brings the network up, or to what it should be now. It may be called again from any half-way point.
func (v *Overlay) raise(ctx context.Context, c *warrenv1.NetworkConfig) error {
	layout, err := v.plan(c)
	if err != nil {
		return err
	}
	v.nameNodes()
	own, err := v.takeKey(c)
	if err != nil {
		return err
	}
	v.mu.Lock()
	up := v.net
	v.mu.Unlock()
	if up != nil && (up.lost() || up.layout.Subnet != layout.Subnet || up.layout.NodeRange != layout.NodeRange || up.layout.VIPRange != layout.VIPRange) {
		v.letGo()
		up = nil
	}
	fresh := up == nil
	if fresh {
		if up, err = v.begin(ctx, layout); err != nil {
			return err
		}
	}
	if err := v.adjust(ctx, up, layout, own, c); err != nil {
		if fresh {
			v.abandon(up)
		}
		return err
	}
	if fresh {
		if err := v.open(ctx, up); err != nil {
			v.abandon(up)
			return err
		}
	}
	v.mu.Lock()
	if v.net != up {
		v.net = up
		v.settled()
	}
	v.mu.Unlock()
	v.report(func(s *warrenv1.OverlayStatus) {
		s.State, s.Error = warrenv1.OverlayState_OVERLAY_STATE_UP, ""
		s.Kind = warrenv1.WireGuardKind_WIRE_GUARD_KIND_USERSPACE
		if up.device.Kind() == wireguard.Kernel {
			s.Kind = warrenv1.WireGuardKind_WIRE_GUARD_KIND_KERNEL
		}
		s.PublicKey, s.KeyGeneration = own.private.PublicKey().String(), own.generation
		s.ListenPort, s.Mtu = uint32(up.device.Port()), uint32(layout.MTU)
	})
	if fresh {
		v.Logger.Info("the overlay network is up", "subnet", layout.Subnet.String(), "wireguard", string(up.device.Kind()),
			"port", up.device.Port(), "mtu", layout.MTU, "rules", string(up.rules.Backend()))
	}
	return nil
}

// plan is this node's place in the network. It fails where the machine knows the cluster's addresses elsewhere.
func (v *Overlay) plan(c *warrenv1.NetworkConfig) (link.Node, error) {
	n := link.Node{}
	for _, p := range []struct {
		name string
		text string
		into *netip.Prefix
	}{{"subnet", c.GetSubnet(), &n.Subnet}, {"node range", c.GetNodeRange(), &n.NodeRange}, {"virtual address range", c.GetVipRange(), &n.VIPRange}} {
		prefix, err := netip.ParsePrefix(p.text)
		if err != nil {
			return n, fmt.Errorf("the %s that a manager has sent: %w", p.name, err)
		}
		*p.into = prefix.Masked()
	}
	n.Addr = nodeAddr(n.Subnet)
	clashes, err := v.wires.Clashes(n.NodeRange, n.VIPRange)
	if err != nil {
		return n, err
	}
	if len(clashes) > 0 {
		texts := make([]string, 0, len(clashes))
		for _, clash := range clashes {
			texts = append(texts, clash.String())
		}
		return n, errors.New(strings.Join(texts, "; "))
	}
	n.MTU = v.mtu()
	return n, nil
}

// mtu is what tasks' packets may measure on every way out: to each peer, and by default.
func (v *Overlay) mtu() int {
	smallest, ipv6 := 0, false
	look := func(toward netip.Addr) {
		if _, mtu, err := v.wires.Uplink(toward); err == nil && (smallest == 0 || mtu < smallest) {
			smallest = mtu
		}
		ipv6 = ipv6 || toward.Unmap().Is6()
	}
	look(netip.Addr{})
	v.mu.Lock()
	var ends []netip.AddrPort
	for _, p := range v.peers {
		if end := endpoint(p, nil); end.IsValid() {
			ends = append(ends, end)
		}
	}
	v.mu.Unlock()
	for _, end := range ends {
		look(end.Addr())
	}
	if host, _, err := net.SplitHostPort(v.Manager()); err == nil {
		if addr, err := netip.ParseAddr(host); err == nil && !addr.IsLoopback() {
			look(addr)
		}
	}
	mtu, fits := link.OverlayMTU(cmp.Or(smallest, usualMTU), ipv6)
	if fits {
		v.tooSmall = 0
	} else if v.tooSmall != smallest {
		v.tooSmall = smallest
		v.Logger.Warn("this machine's uplink is too small for the overlay: its packets will come in fragments", "mtu", smallest)
	}
	return mtu
}

// lookAtUplinks has the network laid anew where the uplinks bear packets of another size now.
func (v *Overlay) lookAtUplinks() {
	v.mu.Lock()
	up := v.net
	v.mu.Unlock()
	if up == nil {
		return
	}
	if mtu := v.mtu(); mtu != up.mtu {
		v.Logger.Info("the uplinks' MTU is another", "before", up.mtu, "now", mtu)
		v.mu.Lock()
		v.due.wires = true
		v.mu.Unlock()
	}
}

// begin opens what the network is made of, and changes nothing that works.
func (v *Overlay) begin(ctx context.Context, layout link.Node) (*network, error) {
	device, err := wireguard.Open(ctx, wireguard.Options{
		Name: Device, MTU: layout.MTU, Socket: v.WireGuardSocket, Kind: v.Kind, Logger: v.Logger,
	})
	if err != nil {
		return nil, err
	}
	up := &network{layout: layout, mtu: layout.MTU, device: device, fallen: make(chan struct{}), stop: func() {}}
	attached, err := v.wires.Attached(ctx)
	if err == nil {
		up.leases, err = lease.Open(layout.Subnet, v.Record, attached, v.Logger)
	}
	if err == nil {
		up.rules, err = rules.Open(ctx, traffic.Node{
			Bridge: Bridge, Device: Device, Addr: layout.Addr,
			Subnet: layout.Subnet, NodeRange: layout.NodeRange, VIPRange: layout.VIPRange,
		}, rules.Options{Backend: v.Backend, Logger: v.Logger})
	}
	if err != nil {
		return nil, errors.Join(err, device.Close())
	}
	if err := v.adopt(attached); err != nil {
		return nil, errors.Join(err, up.rules.Close(), device.Close())
	}
	return up, nil
}

// adopt has the catalog know the tasks that an earlier agent has left, by the addresses that they have: before any rule is
// changed, since what the rules do not know is refused.
func (v *Overlay) adopt(attached map[string]netip.Addr) error {
	recorded, err := v.Record.Tasks()
	if err != nil {
		return fmt.Errorf("recall the tasks on the network: %w", err)
	}
	for id, addr := range attached {
		task, known := recorded[id]
		if !known {
			continue // it is about to be purged
		}
		status := task.Progress.Status
		v.catalog.Adopt(catalog.Earlier{
			Task: task.Assignment.GetTask(), HostPorts: task.Assignment.GetSpec().GetHostPorts(), Addr: addr,
			Serving: status.GetState() == warrenv1.TaskState_TASK_STATE_RUNNING && status.GetServing(),
		})
	}
	return nil
}

// adjust makes device and wires what they should be now.
func (v *Overlay) adjust(ctx context.Context, up *network, layout link.Node, own key, c *warrenv1.NetworkConfig) error {
	if layout.MTU != up.mtu {
		if err := up.device.SetMTU(ctx, layout.MTU); err != nil {
			return err
		}
	}
	wanted := wireguard.Config{PrivateKey: own.private, ListenPort: int(c.GetWireguardPort()), Peers: v.wanted(own.private.PublicKey())}
	if err := up.device.Apply(ctx, wanted); err != nil {
		return err
	}
	if err := v.wires.Up(ctx, layout); err != nil {
		return err
	}
	up.mtu = layout.MTU
	return nil
}

// nameNodes tells the catalog what nodes are called, this one among them.
func (v *Overlay) nameNodes() {
	v.mu.Lock()
	defer v.mu.Unlock()
	hostnames := map[string]string{v.NodeID(): v.Hostname}
	for id, p := range v.peers {
		hostnames[id] = p.GetHostname()
	}
	v.catalog.Hostnames(hostnames)
}

// wanted are the device's peers. What a manager has sent and is no peer is left out, and told in the log: the others
// must not suffer for it. So it is with a key that is this node's own or another peer's, which only a node could have
// reported that means harm.
func (v *Overlay) wanted(own wgtypes.Key) []wireguard.Peer {
	inside := directlyConnected()
	v.mu.Lock()
	defer v.mu.Unlock()
	var wanted []wireguard.Peer
	holders := map[wgtypes.Key]string{own: "this one"}
	for _, id := range slices.Sorted(maps.Keys(v.peers)) {
		p := v.peers[id]
		public, err := wgtypes.ParseKey(p.GetPublicKey())
		subnet, subnetErr := netip.ParsePrefix(p.GetSubnet())
		if err := errors.Join(err, subnetErr); err != nil {
			v.Logger.Error("a manager has sent a peer that makes no sense", "node", id, "error", err)
			continue
		}
		if holder, held := holders[public]; held {
			v.Logger.Error("a peer has the WireGuard key of another node and is left out", "node", id, "other", holder)
			continue
		}
		holders[public] = id
		peer := wireguard.Peer{PublicKey: public, Endpoint: endpoint(p, inside), AllowedIPs: []netip.Prefix{subnet}}
		if p.GetKeepalive() {
			peer.Keepalive = keepalive
		}
		wanted = append(wanted, peer)
	}
	return wanted
}

// endpoint is where a peer is looked for: on the inside, if it has an address there, where both are behind one
// translation of addresses.
func endpoint(p *warrenv1.Peer, inside []netip.Prefix) netip.AddrPort {
	for _, text := range p.GetLocalEndpoints() {
		near, err := netip.ParseAddrPort(text)
		if err == nil && slices.ContainsFunc(inside, func(p netip.Prefix) bool { return p.Contains(near.Addr()) }) {
			return near
		}
	}
	end, err := netip.ParseAddrPort(p.GetEndpoint())
	if err != nil {
		return netip.AddrPort{}
	}
	return end
}

// directlyConnected are the networks that this machine has an address in.
func directlyConnected() []netip.Prefix {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var networks []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			networks = append(networks, p.Masked())
		}
	}
	return networks
}

// open puts rules and names in force.
func (v *Overlay) open(ctx context.Context, up *network) error {
	if err := v.replace(ctx, up); err != nil {
		return err
	}
	server, err := names.Listen(ctx, names.Options{
		Addr: netip.AddrPortFrom(up.layout.Addr, port.Names), Directory: v.catalog,
		Ranges: []netip.Prefix{up.layout.NodeRange, up.layout.VIPRange}, ResolvConf: v.ResolvConf, Sockets: v.Sockets, Logger: v.Logger,
	})
	if err != nil {
		return err
	}
	up.names = server
	running, stop := context.WithCancel(ctx)
	up.stop = stop
	attend := func(what string, run func(context.Context) error) {
		up.running.Go(func() {
			err := run(running)
			if running.Err() == nil {
				v.Logger.Error("a part of the overlay network has ended; it is begun anew", "part", what, "error", err)
			}
			up.once.Do(func() { close(up.fallen) })
			v.rouse()
		})
	}
	attend("names", server.Serve)
	attend("packet rules", func(ctx context.Context) error { return up.rules.Watch(ctx, nil) })
	attend("device", func(ctx context.Context) error {
		select {
		case <-up.device.Lost():
			return errors.New("the WireGuard device is gone")
		case <-ctx.Done():
			return nil
		}
	})
	return nil
}

// letGo lets go of the network, which stays up.
func (v *Overlay) letGo() {
	v.mu.Lock()
	up := v.net
	v.net = nil
	v.settled()
	v.mu.Unlock()
	if up != nil {
		v.abandon(up)
	}
}

func (v *Overlay) abandon(up *network) {
	v.enforcing.Lock() // nobody is changing its rules from here on
	defer v.enforcing.Unlock()
	up.stop()
	up.running.Wait()
	if err := errors.Join(up.rules.Close(), up.device.Close()); err != nil {
		v.Logger.Warn("could not let go of the overlay network", "error", err)
	}
}
