package wireguard

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Config is what a device is to have. Peers that are not in it are removed.
type Config struct {
	PrivateKey wgtypes.Key
	ListenPort int // 0: whichever it has
	Peers      []Peer
}

// Peer is another node's device.
type Peer struct {
	PublicKey  wgtypes.Key
	Endpoint   netip.AddrPort // zero: unknown, to be learnt from what the peer sends
	AllowedIPs []netip.Prefix // where it may send from, and what is sent to it
	Keepalive  time.Duration  // whole seconds; 0: none is sent
}

// PeerStatus is what a device knows of a peer.
type PeerStatus struct {
	PublicKey     wgtypes.Key
	Endpoint      netip.AddrPort // where it was last heard, or is to be reached; zero: unknown
	LastHandshake time.Time      // zero: never
	ReceivedBytes uint64
	SentBytes     uint64
}

const maxKeepalive = math.MaxUint16 * time.Second

// normal returns the configuration as devices tell theirs: addresses and prefixes in their only form,
// prefixes in order.
func (c Config) normal() (Config, error) {
	if c.PrivateKey == (wgtypes.Key{}) {
		return Config{}, errors.New("private key: there is none: generate one")
	}
	if c.ListenPort < 0 || c.ListenPort > math.MaxUint16 {
		return Config{}, fmt.Errorf("listen port %d: it must be at most 65535, or 0 for any", c.ListenPort)
	}
	peers := make([]Peer, 0, len(c.Peers))
	seen := make(map[wgtypes.Key]bool, len(c.Peers))
	owner := map[netip.Prefix]wgtypes.Key{}
	for _, p := range c.Peers {
		if seen[p.PublicKey] {
			return Config{}, fmt.Errorf("peer %s: it is there twice: leave one of them out", p.PublicKey)
		}
		seen[p.PublicKey] = true
		p, err := p.normal()
		if err != nil {
			return Config{}, fmt.Errorf("peer %s: %w", p.PublicKey, err)
		}
		for _, prefix := range p.AllowedIPs {
			if other, taken := owner[prefix]; taken {
				return Config{}, fmt.Errorf("peer %s: allowed IPs %s: peer %s has them too, and what is sent there goes to one only: leave them out of one", p.PublicKey, prefix, other)
			}
			owner[prefix] = p.PublicKey
		}
		peers = append(peers, p)
	}
	if own := c.PrivateKey.PublicKey(); seen[own] {
		return Config{}, fmt.Errorf("peer %s: this is the device's own key: leave this node out of its peers", own)
	}
	c.Peers = peers
	return c, nil
}

// normal returns p with its key in any case.
func (p Peer) normal() (Peer, error) {
	if p.PublicKey == (wgtypes.Key{}) {
		return p, errors.New("public key: there is none")
	}
	if p.Endpoint != (netip.AddrPort{}) {
		addr := p.Endpoint.Addr().Unmap()
		if !addr.IsValid() || addr.IsUnspecified() || addr.Zone() != "" || p.Endpoint.Port() == 0 {
			return p, fmt.Errorf("endpoint %s: it must be an address without a zone, and a port", p.Endpoint)
		}
		p.Endpoint = netip.AddrPortFrom(addr, p.Endpoint.Port())
	}
	if p.Keepalive < 0 || p.Keepalive > maxKeepalive || p.Keepalive%time.Second != 0 {
		return p, fmt.Errorf("keepalive %v: it must be whole seconds, 65535 at most", p.Keepalive)
	}
	allowed := make([]netip.Prefix, 0, len(p.AllowedIPs))
	for _, prefix := range p.AllowedIPs {
		masked := prefix.Masked()
		if !masked.IsValid() || masked.Addr().Is4In6() {
			return p, fmt.Errorf("allowed IPs %s: it must be a prefix, such as 10.1.2.0/24", prefix)
		}
		allowed = append(allowed, masked)
	}
	slices.SortFunc(allowed, netip.Prefix.Compare)
	p.AllowedIPs = slices.Compact(allowed)
	return p, nil
}
