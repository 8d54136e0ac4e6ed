package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The kernel's registers of 32 bits that expressions use; the first is also the whole register 1.
const (
	reg1  = unix.NFT_REG_1
	reg32 = unix.NFT_REG32_00
)

// rule is one rule: expressions that a packet passes one after the other as long as they hold.
type rule []expr.Any

// What a packet is looked at for.

type field int

const (
	saddr field = iota
	daddr
	dport
	protocol
	originalDaddr // before DNAT
)

// loopback is what stays on a host.
var loopback = netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)

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
