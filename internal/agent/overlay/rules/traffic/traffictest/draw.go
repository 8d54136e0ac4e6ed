package traffictest

import (
	"net/netip"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

// Node is a node whose subnet is 10.208.THIRD.0/24.
func Node(third byte) traffic.Node {
	return traffic.Node{
		Bridge: "warren0", Device: "warren-wg",
		Addr:      netip.AddrFrom4([4]byte{10, 208, third, 1}),
		Subnet:    netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 208, third, 0}), 24),
		NodeRange: netip.MustParsePrefix("10.208.0.0/12"),
		VIPRange:  netip.MustParsePrefix("10.224.0.0/16"),
	}
}

// Change draws a valid change for a node: few services, addresses and ports, so that changes meet. The addresses are those of Node(3)
// and Node(4).
func Change(t *rapid.T, n traffic.Node) traffic.Change {
	addr := rapid.Custom(taskAddr)
	id := rapid.StringMatching("[a-f]")
	return traffic.Change{
		Services: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) traffic.Service {
			s := traffic.Service{ID: id.Draw(t, "id"), Published: ports(t, "published")}
			if rapid.Bool().Draw(t, "in shares") {
				s.Shares = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) traffic.Share {
					return traffic.Share{Weight: rapid.Uint32Range(0, 3).Draw(t, "weight"), Endpoints: rapid.SliceOfN(addr, 0, 3).Draw(t, "share")}
				}), 1, 3).Draw(t, "shares")
			} else {
				s.Endpoints = rapid.SliceOfN(addr, 0, 5).Draw(t, "endpoints")
			}
			if rapid.Bool().Draw(t, "has vip") {
				s.VIP = netip.AddrFrom4([4]byte{10, 224, 0, rapid.ByteRange(1, 5).Draw(t, "vip")})
			}
			return s
		}), 0, 3).Draw(t, "services"),
		RemovedServices: rapid.SliceOfN(id, 0, 2).Draw(t, "removed services"),
		Tasks: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) traffic.Task {
			a := addr.Draw(t, "task")
			task := traffic.Task{Addr: a, Local: n.Subnet.Contains(a), Networks: rapid.SliceOfN(rapid.StringMatching("[rgb]"), 0, 3).Draw(t, "networks")}
			if task.Local {
				task.HostPorts = ports(t, "host ports")
			}
			return task
		}), 0, 3).Draw(t, "tasks"),
		RemovedTasks: rapid.SliceOfN(addr, 0, 2).Draw(t, "removed tasks"),
	}
}

func ports(t *rapid.T, label string) []traffic.Published {
	return rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) traffic.Published {
		return traffic.Published{
			Port: rapid.Uint16Range(1, 4).Draw(t, "port"), Target: rapid.Uint16Range(80, 81).Draw(t, "target"),
			Protocol: rapid.SampledFrom([]traffic.Protocol{traffic.TCP, traffic.UDP}).Draw(t, "protocol"),
		}
	}), 0, 3, port).Draw(t, label)
}

// port is a port of the node, which only one may have.
func port(p traffic.Published) traffic.Port {
	return traffic.Port{Protocol: p.Protocol, Number: p.Port}
}

func taskAddr(t *rapid.T) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 208, rapid.SampledFrom([]byte{3, 4}).Draw(t, "subnet"), rapid.ByteRange(2, 8).Draw(t, "host")})
}
