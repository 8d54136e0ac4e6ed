package overlay

import (
	"encoding/base64"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Peer is what the node `to` must know of another to exchange packets with it; nil while that one cannot.
func Peer(to, other *warrenv1.Node) *warrenv1.Peer {
	status := other.GetStatus().GetOverlay()
	if !reachable(other) || to.GetMeta().GetId() == other.GetMeta().GetId() {
		return nil
	}
	p := &warrenv1.Peer{
		NodeId:    other.GetMeta().GetId(),
		Hostname:  other.GetFacts().GetHostname(),
		PublicKey: status.GetPublicKey(),
		Subnet:    other.GetNetwork().GetSubnet(),
		Endpoint:  EndpointOf(other),
		// Who is behind a translation of addresses is reached for as long as that is kept up from inside.
		Keepalive: translated(to) || translated(other),
	}
	// Two nodes that the manager sees at one address, which neither has itself, are on the same inside.
	if translated(to) && translated(other) && to.GetStatus().GetAddr() == other.GetStatus().GetAddr() {
		for _, addr := range other.GetFacts().GetAddresses() {
			if at := join(addr, status.GetListenPort()); at != "" {
				p.LocalEndpoints = append(p.LocalEndpoints, at)
			}
		}
	}
	return p
}

// reachable tells whether a node has what it takes to be anybody's peer.
func reachable(n *warrenv1.Node) bool {
	return n.GetNetwork().GetSubnet() != "" && isKey(n.GetStatus().GetOverlay().GetPublicKey())
}

// EndpointOf is where a node's WireGuard is reached: where its operator says, or else at the address that its agent's
// session comes from. It is empty where that is not known.
func EndpointOf(n *warrenv1.Node) string {
	if at := n.GetSpec().GetWireguardEndpoint(); at != "" {
		return at
	}
	return join(reachedAt(n), n.GetStatus().GetOverlay().GetListenPort())
}

// reachedAt is the address at which a node is reached. One whose agent talks to a manager on the same machine by way of
// loopback is reached at the machine's own.
func reachedAt(n *warrenv1.Node) string {
	addr, err := netip.ParseAddr(n.GetStatus().GetAddr())
	if err == nil && !addr.IsLoopback() {
		return n.GetStatus().GetAddr()
	}
	if own := n.GetFacts().GetAddresses(); len(own) > 0 {
		return own[0]
	}
	return ""
}

// translated tells whether a node is seen at an address that it has not itself, and nobody has said where to find it.
func translated(n *warrenv1.Node) bool {
	addr := reachedAt(n)
	return addr != "" && n.GetSpec().GetWireguardEndpoint() == "" && !slices.Contains(n.GetFacts().GetAddresses(), addr)
}

func join(addr string, port uint32) string {
	a, err := netip.ParseAddr(addr)
	if err != nil || port == 0 || port > 65535 {
		return ""
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(port)).String()
}

func isKey(text string) bool {
	raw, err := base64.StdEncoding.DecodeString(text)
	return err == nil && len(raw) == 32
}

// PeerNews tells whether a change of a node has any bearing on what others must know of it.
func PeerNews(before, after *warrenv1.Node) bool {
	return !proto.Equal(peerFacts(before), peerFacts(after))
}

// ViewNews tells whether a change of a node has any bearing on what it must know of all others.
func ViewNews(before, after *warrenv1.Node) bool {
	return translated(before) != translated(after) || translated(after) && before.GetStatus().GetAddr() != after.GetStatus().GetAddr()
}

// peerFacts is what of a node enters into Peer; nil of one that is nobody's peer.
func peerFacts(n *warrenv1.Node) *warrenv1.Node {
	if !reachable(n) {
		return nil
	}
	return &warrenv1.Node{
		Meta:    &warrenv1.Meta{Id: n.GetMeta().GetId()},
		Spec:    &warrenv1.NodeSpec{WireguardEndpoint: n.GetSpec().GetWireguardEndpoint()},
		Network: &warrenv1.NodeNetwork{Subnet: n.GetNetwork().GetSubnet()},
		Facts:   &warrenv1.NodeFacts{Hostname: n.GetFacts().GetHostname(), Addresses: n.GetFacts().GetAddresses()},
		Status: &warrenv1.NodeStatus{Addr: n.GetStatus().GetAddr(), Overlay: &warrenv1.OverlayStatus{
			PublicKey: n.GetStatus().GetOverlay().GetPublicKey(), ListenPort: n.GetStatus().GetOverlay().GetListenPort(),
		}},
	}
}
