package addressing

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// What holds of a cluster's network where its spec says nothing.
const (
	DefaultNodeRange     = "10.208.0.0/12"
	DefaultNodePrefix    = 24
	DefaultVIPRange      = "10.224.0.0/16"
	DefaultWireGuardPort = 7421
	DefaultKeyLife       = 30 * 24 * time.Hour
)

// Ports that are given where a service leaves it open which one of the node's it is published on, from the first to
// the last: the range that Swarm's users know.
const (
	firstPort = 30000
	lastPort  = 32767
)

// Layout is how a cluster's addresses are cut.
type Layout struct {
	// Nodes is the range of the nodes' subnets, whose prefixes are NodeBits long.
	Nodes    netip.Prefix
	NodeBits int
	// VIPs is the range of the services' addresses.
	VIPs netip.Prefix
}

// LayoutOf reads the layout of a cluster, which may be nil. It fails where a range makes no sense.
func LayoutOf(c *warrenv1.Cluster) (Layout, error) {
	network := c.GetSpec().GetNetwork()
	nodes, err := ipv4(cmp.Or(network.GetNodeRange(), DefaultNodeRange))
	if err != nil {
		return Layout{}, fmt.Errorf("node_range: %w", err)
	}
	vips, err := ipv4(cmp.Or(network.GetVipRange(), DefaultVIPRange))
	if err != nil {
		return Layout{}, fmt.Errorf("vip_range: %w", err)
	}
	bits := int(cmp.Or(network.GetNodePrefix(), DefaultNodePrefix))
	if bits < nodes.Bits() || bits > 30 {
		return Layout{}, fmt.Errorf("node_prefix: %s cannot be cut into subnets with a prefix of %d", nodes, bits)
	}
	return Layout{Nodes: nodes, NodeBits: bits, VIPs: vips}, nil
}

func ipv4(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, err
	}
	if !p.Addr().Is4() {
		return p, fmt.Errorf("%s is not of IPv4", text)
	}
	return p.Masked(), nil
}

// subnets is the number of nodes that the layout has room for.
func (l Layout) subnets() uint32 { return 1 << (l.NodeBits - l.Nodes.Bits()) }

func (l Layout) subnet(i uint32) netip.Prefix {
	return netip.PrefixFrom(nth(l.Nodes, i<<(32-l.NodeBits)), l.NodeBits)
}

// subnetIndex is the i of which p is the subnet; false where p is none of the layout's.
func (l Layout) subnetIndex(p netip.Prefix) (uint32, bool) {
	if p.Bits() != l.NodeBits || !l.Nodes.Contains(p.Addr()) {
		return 0, false
	}
	return offset(l.Nodes, p.Addr()) >> (32 - l.NodeBits), true
}

// vips is the number of services that the layout has room for: the first and the last address are not given, as
// some programs take them for the network's and everybody's.
func (l Layout) vips() uint32 { return uint32(1)<<(32-l.VIPs.Bits()) - 2 }

func (l Layout) vip(i uint32) netip.Addr { return nth(l.VIPs, i+1) }

func (l Layout) vipIndex(a netip.Addr) (uint32, bool) {
	if !l.VIPs.Contains(a) {
		return 0, false
	}
	i := offset(l.VIPs, a)
	return i - 1, i > 0 && i <= l.vips()
}

func nth(p netip.Prefix, i uint32) netip.Addr {
	base := p.Addr().As4()
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], binary.BigEndian.Uint32(base[:])+i)
	return netip.AddrFrom4(sum)
}

func offset(p netip.Prefix, a netip.Addr) uint32 {
	base, at := p.Addr().As4(), a.As4()
	return binary.BigEndian.Uint32(at[:]) - binary.BigEndian.Uint32(base[:])
}
