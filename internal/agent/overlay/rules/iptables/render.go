package iptables

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

// trieFan is how many rules a chain of a trie has before it is cut in sixteen.
const trieFan = 16

// render is all that should stand in iptables where there are no nftables. The rules are those of package nft's schema.go;
// sets are tries of chains, in which a packet passes some dozens of rules to find one of thousands of
// addresses.
func render(f *traffic.Facts, bridged bool) ruleset {
	n := f.Node
	r := ruleset{"filter": {}, "nat": {}, "raw": {}}
	add := func(table, chain string, format string, args ...any) {
		r[table][chain] = append(r[table][chain], fmt.Sprintf(format, args...))
	}

	for _, end := range []string{n.Bridge, n.Device} {
		add("raw", "WARREN-RAW", "-i %s -g WARREN-LOOPBACK", end)
	}
	add("raw", "WARREN-LOOPBACK", "-s 127.0.0.0/8 -j DROP")
	add("raw", "WARREN-LOOPBACK", "-d 127.0.0.0/8 -j DROP")

	add("nat", "WARREN-PREROUTING", "-i %s -d %s -j WARREN-VIPS", n.Bridge, n.VIPRange)
	add("nat", "WARREN-PREROUTING", "-m addrtype --dst-type LOCAL -j WARREN-PORTS")
	add("nat", "WARREN-OUTPUT", "-d %s -j WARREN-VIPS", n.VIPRange)
	add("nat", "WARREN-OUTPUT", "-m addrtype --dst-type LOCAL -j WARREN-PORTS")
	r.vips(f)
	r.ports(f)

	add("nat", "WARREN-POSTROUTING", "-m conntrack --ctstate DNAT -j WARREN-HAIRPIN")
	add("nat", "WARREN-POSTROUTING", "-s 127.0.0.0/8 -o %s -j SNAT --to-source %s", n.Bridge, n.Addr)
	add("nat", "WARREN-POSTROUTING", "! -s %s -o %s -j SNAT --to-source %s", n.NodeRange, n.Device, n.Addr)
	add("nat", "WARREN-POSTROUTING", "-o %s -m conntrack --ctstate DNAT ! --ctorigdst %s -j SNAT --to-source %s", n.Device, n.VIPRange, n.Addr)
	add("nat", "WARREN-POSTROUTING", "-s %s ! -o %s -j WARREN-OUT", n.Subnet, n.Bridge)
	add("nat", "WARREN-OUT", "-d %s -j RETURN", n.NodeRange)
	add("nat", "WARREN-OUT", "-d %s -j RETURN", n.VIPRange)
	add("nat", "WARREN-OUT", "-j MASQUERADE")

	add("filter", forwardChain, "-j %s", userChain)
	for _, end := range []string{"-i " + n.Bridge, "-o " + n.Bridge, "-i " + n.Device, "-o " + n.Device} {
		add("filter", forwardChain, "%s -g WARREN-OURS", end)
	}
	add("filter", forwardChain, "-d %s -g WARREN-REFUSE", n.VIPRange)
	add("filter", "WARREN-OURS", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	add("filter", "WARREN-OURS", "-d %s -g WARREN-REFUSE", n.VIPRange)
	add("filter", "WARREN-OURS", "-i %s -g WARREN-FROM-TASK", n.Bridge)
	add("filter", "WARREN-OURS", "-o %s -g WARREN-TO-TASK", n.Bridge)
	add("filter", "WARREN-OURS", "! -i %s -m conntrack --ctstate DNAT -j ACCEPT", n.Device)
	add("filter", "WARREN-OURS", "-g WARREN-REFUSE")
	add("filter", "WARREN-FROM-TASK", "! -s %s -j DROP", n.Subnet)
	add("filter", "WARREN-FROM-TASK", "! -d %s -j ACCEPT", n.NodeRange)
	add("filter", "WARREN-FROM-TASK", "-m conntrack --ctstate DNAT ! --ctorigdst %s -j ACCEPT", n.VIPRange)
	add("filter", "WARREN-FROM-TASK", "-j WARREN-SOURCES")
	add("filter", "WARREN-FROM-TASK", "-g WARREN-REFUSE")
	add("filter", "WARREN-TO-TASK", "! -i %s -m conntrack --ctstate DNAT -j ACCEPT", n.Device)
	add("filter", "WARREN-TO-TASK", "! -i %s -g WARREN-REFUSE", n.Device)
	add("filter", "WARREN-TO-TASK", "! -s %s -g WARREN-REFUSE", n.NodeRange)
	add("filter", "WARREN-TO-TASK", "-j WARREN-SINKS")
	add("filter", "WARREN-TO-TASK", "-g WARREN-REFUSE")
	add("filter", "WARREN-OUTPUT", "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN")
	add("filter", "WARREN-OUTPUT", "-d %s -g WARREN-REFUSE", n.VIPRange)
	add("filter", "WARREN-OUTPUT", "-o %s -d %s -j WARREN-NOBODY", n.Bridge, n.Subnet)
	if bridged { // see schemaOf of package nft
		add("filter", "WARREN-REFUSE", "-i %s -m conntrack --ctstate DNAT -j REJECT --reject-with icmp-port-unreachable", n.Bridge)
	}
	add("filter", "WARREN-REFUSE", "-p tcp -j REJECT --reject-with tcp-reset")
	add("filter", "WARREN-REFUSE", "-j REJECT --reject-with icmp-port-unreachable")
	r.tasks(f)
	return r
}

func (r ruleset) vips(f *traffic.Facts) {
	chainOf := func(vip netip.Addr) string { return "WARREN-S-" + vip.String() }
	vips := slices.Collect(maps.Keys(f.VIPs))
	r.trie("nat", "WARREN-VIPS", "-d", f.Node.VIPRange, single(vips), func(p netip.Prefix) string {
		return "-d " + p.Addr().String() + " -j " + chainOf(p.Addr())
	})
	for vip, endpoints := range f.VIPs {
		r["nat"][chainOf(vip)] = drawn(endpoints, func(a netip.Addr) string { return "-j DNAT --to-destination " + a.String() })
	}
}

func (r ruleset) ports(f *traffic.Facts) {
	rules := make([]string, 0, 2+len(f.Ports))
	for _, p := range []traffic.Protocol{traffic.UDP, traffic.TCP} {
		rules = append(rules, fmt.Sprintf("-d %s -p %s --dport %d -j RETURN", f.Node.Addr, p, traffic.DNSPort))
	}
	for _, p := range slices.SortedFunc(maps.Keys(f.Ports), func(a, b traffic.Port) int {
		return int(a.Protocol)<<16 + int(a.Number) - int(b.Protocol)<<16 - int(b.Number)
	}) {
		name := "WARREN-P-" + p.Protocol.String() + "-" + strconv.Itoa(int(p.Number))
		rules = append(rules, fmt.Sprintf("-p %s --dport %d -j %s", p.Protocol, p.Number, name))
		r["nat"][name] = drawn(f.Ports[p], func(a netip.AddrPort) string {
			return "-p " + p.Protocol.String() + " -j DNAT --to-destination " + a.String()
		})
	}
	r["nat"]["WARREN-PORTS"] = rules
}

// drawn gives each its share: of n alike the first gets one in n, the second one in n-1 of the rest, the last what is left.
func drawn[T comparable](from traffic.Pool[T], rule func(T) string) []string {
	rules, chances := make([]string, 0, len(from.All)), from.Chances()
	for i, one := range from.All {
		text := rule(one)
		if i < len(from.All)-1 {
			text = "-m statistic --mode random --probability " + strconv.FormatFloat(chances[i], 'f', 10, 64) + " " + text
		}
		rules = append(rules, text)
	}
	return rules
}

func (r ruleset) tasks(f *traffic.Facts) {
	n := f.Node
	var local, remote []netip.Addr
	inNetwork := map[string][]netip.Addr{}
	mixOf := map[netip.Addr]string{}
	mixes := map[string][]string{}
	for addr, m := range f.Members {
		for _, network := range m.Networks {
			inNetwork[network] = append(inNetwork[network], addr)
		}
		if !m.Local {
			remote = append(remote, addr)
			continue
		}
		local = append(local, addr)
		mix := traffic.Digest(strings.Join(m.Networks, "\x00"))
		mixOf[addr], mixes[mix] = mix, m.Networks
	}

	each := func(format string) func(netip.Prefix) string {
		return func(p netip.Prefix) string { return strings.ReplaceAll(format, "%", p.String()) }
	}
	r.trie("nat", "WARREN-HAIRPIN", "-s", n.Subnet, single(local), each("-s % -d % -j SNAT --to-source "+n.Addr.String()))
	r.trie("filter", "WARREN-SOURCES", "-s", n.Subnet, single(local), func(p netip.Prefix) string {
		return "-s " + p.String() + " -g WARREN-F-" + mixOf[p.Addr()]
	})
	r.trie("filter", "WARREN-SINKS", "-d", n.Subnet, single(local), func(p netip.Prefix) string {
		return "-d " + p.String() + " -g WARREN-T-" + mixOf[p.Addr()]
	})
	_, nobody := cover(n.Subnet, inOrder(append(local, n.Addr)))
	r.trie("filter", "WARREN-NOBODY", "-d", n.Subnet, nobody, each("-d % -g WARREN-REFUSE"))
	known, _ := cover(n.NodeRange, inOrder(remote))
	r.trie("filter", "WARREN-REMOTE", "-s", n.NodeRange, known, each("-s % -g WARREN-REFUSE"))

	used := map[string]bool{}
	for mix, networks := range mixes {
		from, to := []string{}, []string{}
		for _, network := range networks {
			used[network] = true
			from = append(from, "-j WARREN-D-"+traffic.Digest(network))
			to = append(to, "-j WARREN-M-"+traffic.Digest(network))
		}
		r["filter"]["WARREN-F-"+mix] = append(from, "-g WARREN-REFUSE")
		r["filter"]["WARREN-T-"+mix] = append(to, "-j WARREN-REMOTE", "-j ACCEPT")
	}
	for network := range used {
		members, _ := cover(n.NodeRange, inOrder(inNetwork[network]))
		r.trie("filter", "WARREN-D-"+traffic.Digest(network), "-d", n.NodeRange, members, each("-d % -j ACCEPT"))
		r.trie("filter", "WARREN-M-"+traffic.Digest(network), "-s", n.NodeRange, members, each("-s % -j ACCEPT"))
	}
}

// trie writes a chain that finds one of many prefixes, which are in order and apart from each other.
func (r ruleset) trie(table, name, flag string, of netip.Prefix, all []netip.Prefix, rule func(netip.Prefix) string) {
	r.branch(table, name, name, flag, of, all, rule)
}

func (r ruleset) branch(table, root, name, flag string, of netip.Prefix, all []netip.Prefix, rule func(netip.Prefix) string) {
	rules := make([]string, 0, trieFan)
	if len(all) <= trieFan {
		for _, one := range all {
			rules = append(rules, rule(one))
		}
		r[table][name] = rules
		return
	}
	bits := min(of.Bits()+4, 32)
	for len(all) > 0 {
		part := netip.PrefixFrom(all[0].Addr(), bits).Masked()
		n := 0
		for n < len(all) && all[n].Bits() > bits && part.Contains(all[n].Addr()) {
			n++
		}
		if n < 2 {
			rules = append(rules, rule(all[0]))
			all = all[1:]
			continue
		}
		child := "WARREN-X-" + traffic.Digest(table+root+part.String())
		rules = append(rules, flag+" "+part.String()+" -j "+child)
		r.branch(table, root, child, flag, part, all[:n], rule)
		all = all[n:]
	}
	r[table][name] = rules
}

func single(addrs []netip.Addr) []netip.Prefix {
	all := make([]netip.Prefix, 0, len(addrs))
	for _, addr := range inOrder(addrs) {
		all = append(all, netip.PrefixFrom(addr, 32))
	}
	return all
}

// inOrder is a sorted copy.
func inOrder(addrs []netip.Addr) []netip.Addr {
	return slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)
}

// cover cuts a range into the prefixes that hold the addresses and nothing else, and those that hold none.
// The addresses are in order and within the range.
func cover(of netip.Prefix, addrs []netip.Addr) (held, free []netip.Prefix) {
	switch {
	case len(addrs) == 0:
		return nil, []netip.Prefix{of}
	case uint64(len(addrs)) == 1<<(32-of.Bits()):
		return []netip.Prefix{of}, nil
	}
	low := netip.PrefixFrom(of.Addr(), of.Bits()+1)
	first := of.Addr().As4()
	middle := binary.BigEndian.Uint32(first[:]) + 1<<(31-of.Bits())
	high := netip.PrefixFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, middle))), of.Bits()+1)
	at, _ := slices.BinarySearchFunc(addrs, high.Addr(), netip.Addr.Compare)
	held, free = cover(low, addrs[:at])
	heldHigh, freeHigh := cover(high, addrs[at:])
	return append(held, heldHigh...), append(free, freeHigh...)
}
