package conntrack

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic/traffictest"
)

const (
	near, gone, far = "10.208.3.10", "10.208.3.11", "10.208.4.10" // tasks here, dead, and there
	vip             = "10.224.0.1"
	host, outside   = "198.51.100.1", "198.51.100.2"
)

// flow is a connection from a client to an address and port, where another address and port answer.
func flow(protocol traffic.Protocol, from, to string, port uint16, answers string, at uint16) *netlink.ConntrackFlow {
	return &netlink.ConntrackFlow{
		Forward: netlink.IPTuple{Protocol: uint8(protocol), SrcIP: net.ParseIP(from), SrcPort: 40000, DstIP: net.ParseIP(to), DstPort: port},
		Reverse: netlink.IPTuple{Protocol: uint8(protocol), SrcIP: net.ParseIP(answers), SrcPort: at, DstIP: net.ParseIP(from), DstPort: 40000},
	}
}

func TestWhatCannotGoOnIsCutAndNothingElse(t *testing.T) {
	node := traffictest.Node(3)
	known := traffic.NewFacts(node)
	known.Apply(traffic.Change{
		Services: []traffic.Service{{
			ID: "one", VIP: netip.MustParseAddr(vip), Endpoints: []netip.Addr{netip.MustParseAddr(far)},
			Published: []traffic.Published{{Port: 8080, Target: 80, Protocol: traffic.UDP}},
		}},
		Tasks: []traffic.Task{{Addr: netip.MustParseAddr(near), Local: true}, {Addr: netip.MustParseAddr(far)}},
	})
	s := stale{
		cuts: &cuts{dead: map[netip.Addr]bool{netip.MustParseAddr("10.208.4.11"): true}, opened: map[uint16]bool{8080: true}},
		node: node, known: func(ask func(*traffic.Facts) bool) bool { return ask(known) },
		hosts: map[netip.Addr]bool{netip.MustParseAddr(host): true},
	}
	for name, c := range map[string]struct {
		flow *netlink.ConntrackFlow
		cut  bool
	}{
		"from a task that is not there":              {flow(traffic.TCP, gone, far, 80, far, 80), true},
		"answered by a task that is not there":       {flow(traffic.TCP, near, vip, 80, gone, 80), true},
		"with a dead task of another node":           {flow(traffic.TCP, near, "10.208.4.11", 80, "10.208.4.11", 80), true},
		"with the node itself":                       {flow(traffic.TCP, near, "10.208.3.1", 53, "10.208.3.1", 53), false},
		"between tasks":                              {flow(traffic.TCP, near, far, 80, far, 80), false},
		"TCP to what left rotation":                  {flow(traffic.TCP, far, vip, 80, near, 80), false},
		"UDP to what left rotation":                  {flow(traffic.UDP, far, vip, 80, near, 80), true},
		"UDP to what is in rotation":                 {flow(traffic.UDP, near, vip, 80, far, 80), false},
		"UDP by a port to where it leads":            {flow(traffic.UDP, outside, host, 8080, far, 80), false},
		"UDP by a port to where it leads no more":    {flow(traffic.UDP, outside, host, 8080, near, 80), true},
		"UDP to a port that was opened since":        {flow(traffic.UDP, outside, host, 8080, host, 8080), true},
		"UDP to another port of the host":            {flow(traffic.UDP, outside, host, 8081, host, 8081), false},
		"UDP that the host passes on, of no concern": {flow(traffic.UDP, outside, "203.0.113.9", 8080, "203.0.113.9", 8080), false},
	} {
		if cut := s.MatchConntrackFlow(c.flow); cut != c.cut {
			t.Errorf("a connection %s: cut %t, want %t", name, cut, c.cut)
		}
	}
}
