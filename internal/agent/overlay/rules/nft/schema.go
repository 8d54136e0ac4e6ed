package nft

import (
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

// schema is the part of a table that is the same whatever the facts.
type schema struct {
	sets   []*nftables.Set
	inner  []innerChain
	hooked []hookedChain
}

// innerChain is a chain that rules lead to.
type innerChain struct {
	name  string
	rules []rule
}

// hookedChain is a chain that packets come to.
type hookedChain struct {
	innerChain
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
}

// schemaOf is the schema for a node. Where bridged packets pass the rules too it refuses in another way.
func schemaOf(n traffic.Node, bridged bool) schema {
	addr, mark := nftables.TypeIPAddr, nftables.TypeMark
	port := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	set := func(name string, key ...nftables.SetDatatype) *nftables.Set {
		s := &nftables.Set{Name: name, KeyType: key[0]}
		if len(key) > 1 {
			s.KeyType, s.Concatenation = nftables.MustConcatSetType(key...), true
		}
		return s
	}
	leadingTo := func(s *nftables.Set, data nftables.SetDatatype) *nftables.Set {
		s.IsMap, s.DataType = true, data
		return s
	}

	toVIP := within(daddr, n.VIPRange)
	vip := rules(toVIP, load(daddr, reg1), verdictOf(vipsMap))
	published := rules(load(protocol, reg32), load(dport, reg32+1), verdictOf(portsMap))

	refusal := []rule{
		rules(is(protocol, byte(traffic.TCP)), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}),
		rules(unreachable()),
	}
	if bridged {
		// There a reset that answers what came by a bridge leaves by that port as it is: from a task's address, where a VIP
		// was asked. ICMP is routed, and says on its way which connection it is about. But the kernel sends few of them
		// (net.ipv4.icmp_ratelimit), and so it is for nobody else.
		refusal = slices.Insert(refusal, 0, rules(dnatted(), link(expr.MetaKeyIIFNAME, n.Bridge), unreachable()))
	}

	return schema{
		sets: []*nftables.Set{
			leadingTo(set(vipsMap, addr), nftables.TypeVerdict),
			// Slots are marks since nft cannot print a map with keys of plain integers.
			leadingTo(set(endpointsMap, addr, mark), addr),
			leadingTo(set(portsMap, port...), nftables.TypeVerdict),
			leadingTo(set(targetsMap, append(slices.Clone(port), mark)...), nftables.MustConcatSetType(addr, nftables.TypeInetService)),
			leadingTo(set(sourcesMap, addr), nftables.TypeVerdict),
			leadingTo(set(sinksMap, addr), nftables.TypeVerdict),
			set(localSet, addr, addr),
			set(remoteSet, addr),
		},
		inner: []innerChain{
			{"refuse", refusal},
			{"loopback", []rule{
				rules(within(saddr, loopback), verdict(expr.VerdictDrop)),
				rules(within(daddr, loopback), verdict(expr.VerdictDrop)),
			}},
			// A set is looked up twice since a change may come between the look at how many endpoints there are and
			// the look at the one that was drawn: who finds nothing at first asks once more.
			{"published", []rule{
				rules(isAddr(daddr, n.Addr), is(protocol, byte(traffic.UDP)), is(dport, 0, traffic.DNSPort), verdict(expr.VerdictReturn)),
				rules(isAddr(daddr, n.Addr), is(protocol, byte(traffic.TCP)), is(dport, 0, traffic.DNSPort), verdict(expr.VerdictReturn)),
				published,
				published,
			}},
			{"from-task", []rule{
				rules(outside(saddr, n.Subnet), verdict(expr.VerdictDrop)), // a task speaks for itself only
				rules(outside(daddr, n.NodeRange), verdict(expr.VerdictAccept)),
				rules(dnatted(), outside(originalDaddr, n.VIPRange), verdict(expr.VerdictAccept)), // published: for everyone
				rules(load(saddr, reg1), verdictOf(sourcesMap)),
				rules(gotoChain("refuse")),
			}},
			{"to-task", []rule{
				rules(dnatted(), not(link(expr.MetaKeyIIFNAME, n.Device)), verdict(expr.VerdictAccept)), // published, from outside
				rules(not(link(expr.MetaKeyIIFNAME, n.Device)), gotoChain("refuse")),
				rules(outside(saddr, n.NodeRange), gotoChain("refuse")),
				rules(load(daddr, reg1), verdictOf(sinksMap)),
				rules(gotoChain("refuse")), // no such task (any more)
			}},
		},
		// Ours come one before the usual places, so that what is published here is not taken by another's rule.
		hooked: []hookedChain{
			{innerChain{"raw", []rule{
				rules(link(expr.MetaKeyIIFNAME, n.Bridge), gotoChain("loopback")),
				rules(link(expr.MetaKeyIIFNAME, n.Device), gotoChain("loopback")),
			}}, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw},
			{innerChain{"prerouting", []rule{
				rules(link(expr.MetaKeyIIFNAME, n.Bridge), vip),
				rules(link(expr.MetaKeyIIFNAME, n.Bridge), vip),
				rules(local(), jump("published")),
			}}, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest - 1},
			{innerChain{"host", []rule{
				vip,
				vip,
				rules(local(), jump("published")),
			}}, nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest - 1},
			{innerChain{"postrouting", []rule{
				rules(dnatted(), load(saddr, reg32), load(daddr, reg32+1), in(localSet, reg32), snat(n.Addr)), // hairpin
				rules(within(saddr, loopback), link(expr.MetaKeyOIFNAME, n.Bridge), snat(n.Addr)),
				rules(outside(saddr, n.NodeRange), link(expr.MetaKeyOIFNAME, n.Device), snat(n.Addr)),
				// Published here, runs there: the answer has to come back this way.
				rules(link(expr.MetaKeyOIFNAME, n.Device), dnatted(), outside(originalDaddr, n.VIPRange), snat(n.Addr)),
				rules(within(saddr, n.Subnet), outside(daddr, n.NodeRange), outside(daddr, n.VIPRange),
					not(link(expr.MetaKeyOIFNAME, n.Bridge)), &expr.Masq{}),
			}}, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource - 1},
			{innerChain{"forward", []rule{
				rules(established(), verdict(expr.VerdictAccept)),
				rules(toVIP, gotoChain("refuse")), // a VIP with an endpoint has become the endpoint by now
				rules(link(expr.MetaKeyIIFNAME, n.Bridge), gotoChain("from-task")),
				rules(link(expr.MetaKeyOIFNAME, n.Bridge), gotoChain("to-task")),
				rules(link(expr.MetaKeyIIFNAME, n.Device), gotoChain("refuse")), // this node is no one's way out
				rules(link(expr.MetaKeyOIFNAME, n.Device), dnatted(), verdict(expr.VerdictAccept)),
				rules(link(expr.MetaKeyOIFNAME, n.Device), gotoChain("refuse")), // nor anyone's way in
			}}, nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter},
			{innerChain{"output", []rule{
				rules(established(), verdict(expr.VerdictAccept)),
				rules(toVIP, gotoChain("refuse")),
				rules(link(expr.MetaKeyOIFNAME, n.Bridge), within(daddr, n.Subnet), load(daddr, reg32), load(daddr, reg32+1),
					notIn(localSet, reg32), gotoChain("refuse")),
			}}, nftables.ChainTypeFilter, nftables.ChainHookOutput, *nftables.ChainPriorityFilter},
		},
	}
}

// rulesOf are the rules of a chain that the facts call for.
func rulesOf(c chain) []rule {
	switch {
	case c.slots > 0 && strings.HasPrefix(c.name, "vip-"):
		return c.shared(func(n, from uint32) rule {
			return rules(load(daddr, reg32), draw(n, from, reg32+1),
				&expr.Lookup{SourceRegister: reg32, DestRegister: reg1, IsDestRegSet: true, SetName: endpointsMap},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1})
		})
	case c.slots > 0:
		return c.shared(func(n, from uint32) rule {
			return rules(load(protocol, reg32), load(dport, reg32+1), draw(n, from, reg32+2),
				&expr.Lookup{SourceRegister: reg32, DestRegister: reg1, IsDestRegSet: true, SetName: targetsMap},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: reg32 + 1})
		})
	}
	var list []rule
	other := daddr
	if c.sink() {
		other = saddr
	}
	for _, network := range c.networks {
		list = append(list, rules(load(other, reg1), in(network, reg1), verdict(expr.VerdictAccept)))
	}
	if c.sink() {
		// Whoever is not known is let through, see Rules of package rules.
		list = append(list, rules(load(saddr, reg1), notIn(remoteSet, reg1), verdict(expr.VerdictAccept)))
	}
	return append(list, rules(gotoChain("refuse")))
}

// shared are the rules that draw one of the chain's slots; of draws one of so many from that one on.
func (c chain) shared(of func(n, from uint32) rule) []rule {
	if len(c.parts) == 0 {
		return []rule{of(c.slots, 0)}
	}
	left := uint32(0) // of all weights
	for _, part := range c.parts {
		left += part.Weight
	}
	var list []rule
	from := uint32(0)
	for i, part := range c.parts {
		if i < len(c.parts)-1 {
			list = append(list, rules(below(left, part.Weight), of(part.Size, from)))
		} else {
			list = append(list, of(part.Size, from))
		}
		left, from = left-part.Weight, from+part.Size
	}
	return list
}

func (c chain) sink() bool { return len(c.name) > 3 && c.name[:3] == "to-" }
