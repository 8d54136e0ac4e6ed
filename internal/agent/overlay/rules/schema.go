package rules

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The kernel's registers of 32 bits that expressions use; the first is also the whole register 1.
const (
	reg1  = unix.NFT_REG_1
	reg32 = unix.NFT_REG32_00
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

// rule is one rule: expressions that a packet passes one after the other as long as they hold.
type rule []expr.Any

func schemaOf(n Node, bridged bool) schema {
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
		rules(is(protocol, byte(TCP)), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}),
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
				rules(isAddr(daddr, n.Addr), is(protocol, byte(UDP)), is(dport, 0, dnsPort), verdict(expr.VerdictReturn)),
				rules(isAddr(daddr, n.Addr), is(protocol, byte(TCP)), is(dport, 0, dnsPort), verdict(expr.VerdictReturn)),
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
		// Whoever is not known is let through, see Rules.
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
		left += part.weight
	}
	var list []rule
	from := uint32(0)
	for i, part := range c.parts {
		if i < len(c.parts)-1 {
			list = append(list, rules(below(left, part.weight), of(part.size, from)))
		} else {
			list = append(list, of(part.size, from))
		}
		left, from = left-part.weight, from+part.size
	}
	return list
}

func (c chain) sink() bool { return len(c.name) > 3 && c.name[:3] == "to-" }

// What a packet is looked at for.

type field int

const (
	saddr field = iota
	daddr
	dport
	protocol
	originalDaddr // before DNAT
)

var loopback = netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)

// dnsPort is where the node answers names on its own address: that port is never published there.
const dnsPort = 53

func load(f field, register uint32) expr.Any {
	switch f {
	case saddr:
		return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
	case daddr:
		return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
	case dport:
		return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	case originalDaddr:
		return &expr.Ct{Register: register, Key: expr.CtKeyDST, Direction: 0}
	default:
		return &expr.Meta{Register: register, Key: expr.MetaKeyL4PROTO}
	}
}

// rules puts expressions and lists of them into one rule.
func rules(parts ...any) rule {
	var all rule
	for _, part := range parts {
		switch part := part.(type) {
		case rule:
			all = append(all, part...)
		case expr.Any:
			all = append(all, part)
		}
	}
	return all
}

func is(f field, value ...byte) rule {
	return rule{load(f, reg1), &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: value}}
}

func isAddr(f field, addr netip.Addr) rule { return is(f, addr.AsSlice()...) }

func within(f field, prefix netip.Prefix) rule {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-prefix.Bits()))
	return rule{
		load(f, reg1),
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: prefix.Addr().AsSlice()},
	}
}

func outside(f field, prefix netip.Prefix) rule { return not(within(f, prefix)) }

// not turns the comparison round that a rule ends with.
func not(r rule) rule {
	last := *r[len(r)-1].(*expr.Cmp)
	last.Op = expr.CmpOpNeq
	return append(slices.Clone(r[:len(r)-1]), &last)
}

func link(key expr.MetaKey, name string) rule {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return rule{&expr.Meta{Key: key, Register: reg1}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: padded}}
}

// local holds for packets to an address of this host.
func local() rule {
	return rule{
		&expr.Fib{Register: reg1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// unreachable refuses as a machine does on which nobody listens.
func unreachable() rule {
	return rule{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3 /* port unreachable */}}
}

func established() rule {
	return bits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// dnatted holds for packets of connections whose destination was changed.
func dnatted() rule { return bits(expr.CtKeySTATUS, 1<<5 /* IPS_DST_NAT */) }

func bits(key expr.CtKey, wanted uint32) rule {
	return rule{
		&expr.Ct{Register: reg1, Key: key},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(wanted), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
	}
}

func in(set string, register uint32) expr.Any {
	return &expr.Lookup{SourceRegister: register, SetName: set}
}

func notIn(set string, register uint32) expr.Any {
	return &expr.Lookup{SourceRegister: register, SetName: set, Invert: true}
}

// What becomes of a packet.

func verdict(kind expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: kind} }

func jump(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictJump, Chain: chain} }

func gotoChain(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

// verdictOf follows a map of which the key is in the first register.
func verdictOf(set string) expr.Any {
	return &expr.Lookup{SourceRegister: reg32, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set}
}

// draw draws one of n numbers from a first one on.
func draw(n, from, register uint32) expr.Any {
	return &expr.Numgen{Register: register, Modulus: n, Offset: from, Type: unix.NFT_NG_RANDOM}
}

// below holds for so many in n packets.
func below(n, many uint32) rule {
	return rule{
		draw(n, 0, reg1),
		// Comparing goes byte by byte from the first on.
		&expr.Byteorder{SourceRegister: reg1, DestRegister: reg1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: reg1, Data: binary.BigEndian.AppendUint32(nil, many)},
	}
}

func snat(addr netip.Addr) rule {
	return rule{
		&expr.Immediate{Register: reg1, Data: addr.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1},
	}
}
