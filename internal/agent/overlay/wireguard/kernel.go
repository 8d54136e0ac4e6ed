package wireguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// kernel is a device of the kernel's.
type kernel struct {
	name   string
	links  *links
	client *wgctrl.Client

	release func() error
	gone    chan struct{} // closed when the link is gone
}

// openKernel takes up a link that is there.
func openKernel(links *links, name string) (*kernel, error) {
	client, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("speak to the kernel about WireGuard: %w", err)
	}
	k := &kernel{name: name, links: links, client: client, gone: make(chan struct{})}
	unwatch, err := k.watch()
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	k.release = sync.OnceValue(func() error {
		unwatch()
		return client.Close()
	})
	return k, nil
}

// watch waits for the end of the link, until it is told not to.
func (k *kernel) watch() (unwatch func(), err error) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	updates := make(chan netlink.LinkUpdate, 16)
	if err := netlink.LinkSubscribe(updates, stop); err != nil {
		return nil, fmt.Errorf("watch link %s: %w", k.name, err)
	}
	// Only now, or its end might be missed.
	there, err := k.links.find(k.name)
	go func() {
		defer close(stopped)
		lost := false
		for update := range updates { // to their end: who sends them waits until they are taken
			if !lost && update.Header.Type == unix.RTM_DELLINK && update.Family == unix.AF_UNSPEC && int(update.Index) == there.index {
				lost = true
				close(k.gone)
			}
		}
		// Nobody tells any more what becomes of the link: the kernel had too much to tell at once, or this
		// was asked for.
		if !lost {
			close(k.gone)
		}
	}()
	unwatch = sync.OnceFunc(func() {
		close(stop)
		<-stopped
	})
	if err != nil {
		unwatch()
		return nil, err
	}
	return unwatch, nil
}

func (k *kernel) lost() <-chan struct{} { return k.gone }

func (k *kernel) close() error { return k.release() }

func (k *kernel) setMTU(_ context.Context, mtu int) error { return k.links.setMTU(k.name, mtu) }

func (k *kernel) remove(context.Context) error { return k.links.remove(k.name) }

func (k *kernel) read(context.Context) (Config, []PeerStatus, error) {
	device, err := k.device()
	if err != nil {
		return Config{}, nil, err
	}
	c := Config{PrivateKey: device.PrivateKey, ListenPort: device.ListenPort, Peers: make([]Peer, 0, len(device.Peers))}
	status := make([]PeerStatus, 0, len(device.Peers))
	for i := range device.Peers {
		p := &device.Peers[i]
		endpoint := addrPort(p.Endpoint)
		c.Peers = append(c.Peers, Peer{
			PublicKey: p.PublicKey, Endpoint: endpoint, AllowedIPs: prefixes(p.AllowedIPs), Keepalive: p.PersistentKeepaliveInterval,
		})
		s := PeerStatus{
			PublicKey: p.PublicKey, Endpoint: endpoint,
			ReceivedBytes: uint64(max(0, p.ReceiveBytes)), SentBytes: uint64(max(0, p.TransmitBytes)),
		}
		if p.LastHandshakeTime.Unix() > 0 {
			s.LastHandshake = p.LastHandshakeTime
		}
		status = append(status, s)
	}
	return c, status, nil
}

// device makes sure that it is the kernel's: where the kernel has none of the name, the client looks for
// one of userspace, whose it may be.
func (k *kernel) device() (*wgtypes.Device, error) {
	device, err := k.client.Device(k.name)
	if err != nil {
		return nil, fmt.Errorf("ask the kernel: %w", err)
	}
	if device.Type != wgtypes.LinuxKernel {
		return nil, fmt.Errorf("ask the kernel: link %s: %w", k.name, errNoLink)
	}
	return device, nil
}

func (k *kernel) write(_ context.Context, d delta) error {
	there, err := k.links.find(k.name)
	if err != nil {
		return err
	}
	if there.kind != Kernel { // see device
		return fmt.Errorf("link %s is of the kernel no more, but a %s", k.name, there.what)
	}
	if err := k.client.ConfigureDevice(k.name, kernelConfig(d)); err != nil {
		return fmt.Errorf("tell the kernel: %w", err)
	}
	return nil
}

// kernelConfig is d in the words of wgctrl.
func kernelConfig(d delta) wgtypes.Config {
	c := wgtypes.Config{PrivateKey: d.privateKey, ListenPort: d.port}
	for _, p := range d.peers {
		peer := wgtypes.PeerConfig{
			PublicKey: p.key, Remove: p.what == remove, UpdateOnly: p.what != add,
			PersistentKeepaliveInterval: p.keepalive,
		}
		if p.endpoint.IsValid() {
			peer.Endpoint = net.UDPAddrFromAddrPort(p.endpoint)
		}
		// Kernels before 6.16 cannot take single ones away.
		allowed := p.gained
		if len(p.lost) > 0 {
			peer.ReplaceAllowedIPs, allowed = true, p.allowed
		}
		for _, prefix := range allowed {
			peer.AllowedIPs = append(peer.AllowedIPs, net.IPNet{
				IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
			})
		}
		c.Peers = append(c.Peers, peer)
	}
	return c
}

func addrPort(a *net.UDPAddr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	endpoint := a.AddrPort()
	return netip.AddrPortFrom(endpoint.Addr().Unmap(), endpoint.Port())
}

func prefixes(nets []net.IPNet) []netip.Prefix {
	all := make([]netip.Prefix, 0, len(nets))
	for _, n := range nets {
		if addr, ok := netip.AddrFromSlice(n.IP); ok {
			bits, _ := n.Mask.Size()
			all = append(all, netip.PrefixFrom(addr.Unmap(), bits))
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return all
}
