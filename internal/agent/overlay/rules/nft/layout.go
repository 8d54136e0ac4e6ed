package nft

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

// The sets and maps of nftables in which the facts stand. A packet's path through them:
//
//	vips       VIP                      → jump vip-N, N the number of its endpoints
//	endpoints  VIP . slot               → endpoint; vip-N draws the slot below N
//	ports      protocol . port          → jump port-N
//	targets    protocol . port . slot   → endpoint . port
//	             where there are shares: vip-mix-… and port-mix-… draw the share first, then the slot within it
//	sources    local task               → goto from-H, H standing for its networks
//	sinks      local task               → goto to-H
//	local      local task . itself      a set; the pair tells a task that speaks to itself
//	remote     tasks of other nodes     a set
//	net-H      members of a network     a set each
//
// As there is a chain for every number of endpoints, every endpoint has its exact share, and a new connection
// costs the same with any number of services. Shares are exact as well: of the weights the first draw decides, among a share's
// endpoints the second. So does a change (measured: 0.1 ms to change one of 5,000 where a
// chain per service takes 40), but for one of the number: with each new way to a chain the kernel looks for
// loops in all the ways there are, 0.9 ms at 5,000 VIPs.
const (
	vipsMap      = "vips"
	endpointsMap = "endpoints"
	portsMap     = "ports"
	targetsMap   = "targets"
	sourcesMap   = "sources"
	sinksMap     = "sinks"
	localSet     = "local"
	remoteSet    = "remote"
)

// slotsAhead is up to which number of endpoints there are chains from the start.
const slotsAhead = 16

// element is an element of a set; of a map if it has a value or leads to a chain.
type element struct {
	set, key     string
	value, chain string
}

// chain is a chain that the facts call for.
type chain struct {
	name     string
	slots    uint32         // of vip-N and port-N: N, the number of endpoints
	parts    []traffic.Part // of vip-mix-… and port-mix-…: how they are shared out
	networks []string       // of from-H and to-H: the sets of their members
}

// script is what turns the sets and chains before a change into those after, in this order.
type script struct {
	// ahead are chains for numbers of endpoints that there were not yet. They have to stand before the change: a
	// packet that is on its way through the rules while a chain is made may come to it and find it empty.
	ahead []chain

	newSets    []string // net-H
	newChains  []chain
	drop, add  []element
	goneChains []string
	goneSets   []string
}

// layout keeps count of what leads to the chains of networks and who is in the networks' sets.
type layout struct {
	uses   map[string]int // by name of the chain or the set
	chains map[string]chain
	slots  map[string]chain // vip-N and port-N, which stay as long as the table does, and vip-mix-… and port-mix-… in use
}

func newLayout() *layout {
	l := &layout{uses: map[string]int{}, chains: map[string]chain{}, slots: map[string]chain{}}
	for n := 1; n <= slotsAhead; n++ {
		for _, kind := range []string{"vip-", "port-"} {
			c := slotsChain(kind, n)
			l.slots[c.name] = c
		}
	}
	return l
}

// change turns changed facts into changed sets and chains.
func (l *layout) change(d traffic.Delta) script {
	var s script
	before := maps.Clone(l.uses)
	known := l.chains
	needed := map[string]chain{}
	use := func(c chain) string {
		l.uses[c.name]++
		needed[c.name] = c
		return c.name
	}

	for vip, t := range d.VIPs {
		l.lead(&s, element{set: vipsMap, key: addrKey(vip)}, chainOf("vip-", t.Before), chainOf("vip-", t.After), use)
		slots(&s, endpointsMap, addrKey(vip), t.Before.All, t.After.All, addrKey)
	}
	for p, t := range d.Ports {
		l.lead(&s, element{set: portsMap, key: portKey(p)}, chainOf("port-", t.Before), chainOf("port-", t.After), use)
		slots(&s, targetsMap, portKey(p), t.Before.All, t.After.All, func(a netip.AddrPort) string {
			return addrKey(a.Addr()) + numberKey(a.Port())
		})
	}
	for addr, t := range d.Tasks {
		if t.Before != nil {
			for _, e := range memberElements(addr, t.Before, func(c chain) string { l.uses[c.name]--; return c.name }) {
				s.drop = append(s.drop, e)
				l.leave(e.set)
			}
		}
		if t.After != nil {
			for _, e := range memberElements(addr, t.After, use) {
				s.add = append(s.add, e)
				l.enter(e.set)
			}
		}
	}

	for _, name := range slices.Sorted(maps.Keys(l.uses)) {
		was, is := before[name] > 0, l.uses[name] > 0
		network := strings.HasPrefix(name, "net-")
		mix := len(needed[name].parts)+len(l.slots[name].parts) > 0
		switch {
		case is && !was && mix:
			l.slots[name] = needed[name]
			s.ahead = append(s.ahead, needed[name])
		case was && !is && mix:
			delete(l.slots, name)
			s.goneChains = append(s.goneChains, name)
		case is && !was && network:
			s.newSets = append(s.newSets, name)
		case is && !was:
			known[name] = needed[name]
			s.newChains = append(s.newChains, needed[name])
		case was && !is && network:
			s.goneSets = append(s.goneSets, name)
		case was && !is:
			delete(known, name)
			s.goneChains = append(s.goneChains, name)
		}
		if !is {
			delete(l.uses, name)
		}
	}
	return s
}

// lead has an element lead to the chain for its endpoints, if that differs. use notes that a chain is used.
func (l *layout) lead(s *script, from element, before, after chain, use func(chain) string) {
	if before.name == after.name {
		return
	}
	if before.name != "" {
		from.chain = before.name
		s.drop = append(s.drop, from)
		if len(before.parts) > 0 {
			l.uses[before.name]--
		}
	}
	if after.name == "" {
		return
	}
	from.chain = after.name
	s.add = append(s.add, from)
	if len(after.parts) > 0 {
		use(after)
	} else if _, stands := l.slots[after.name]; !stands {
		l.slots[after.name] = after
		s.ahead = append(s.ahead, after)
	}
}

func (l *layout) enter(set string) {
	if strings.HasPrefix(set, "net-") {
		l.uses[set]++
	}
}

func (l *layout) leave(set string) {
	if strings.HasPrefix(set, "net-") {
		l.uses[set]--
	}
}

// slots writes the slots that differ.
func slots[T comparable](s *script, set, key string, before, after []T, value func(T) string) {
	for i := range max(len(before), len(after)) {
		slot := key + slotKey(uint32(i))
		if i < len(before) && i < len(after) && before[i] == after[i] {
			continue
		}
		if i < len(before) {
			s.drop = append(s.drop, element{set: set, key: slot, value: value(before[i])})
		}
		if i < len(after) {
			s.add = append(s.add, element{set: set, key: slot, value: value(after[i])})
		}
	}
}

// memberElements are the elements of a task; by says for each chain they lead to that they do.
func memberElements(addr netip.Addr, m *traffic.Member, by func(chain) string) []element {
	key := addrKey(addr)
	var elements []element
	sets := make([]string, 0, len(m.Networks))
	for _, network := range m.Networks {
		set := "net-" + traffic.Digest(network)
		sets = append(sets, set)
		elements = append(elements, element{set: set, key: key})
	}
	if !m.Local {
		return append(elements, element{set: remoteSet, key: key})
	}
	mix := traffic.Digest(strings.Join(m.Networks, "\x00"))
	return append(elements,
		element{set: localSet, key: key + key},
		element{set: sourcesMap, key: key, chain: by(chain{name: "from-" + mix, networks: sets})},
		element{set: sinksMap, key: key, chain: by(chain{name: "to-" + mix, networks: sets})})
}

// chainOf is the chain that a pool calls for: one for the number of its endpoints, or for its parts; the zero chain where it is
// empty.
func chainOf[T comparable](kind string, p traffic.Pool[T]) chain {
	switch {
	case len(p.All) == 0:
		return chain{}
	case len(p.Parts) == 0:
		return slotsChain(kind, len(p.All))
	}
	var mix strings.Builder
	for _, part := range p.Parts {
		mix.WriteString("-" + strconv.Itoa(int(part.Size)) + "x" + strconv.Itoa(int(part.Weight)))
	}
	name := mix.String()
	if len(name) > 64 {
		name = "-" + traffic.Digest(name)
	}
	return chain{name: kind + "mix" + name, slots: uint32(len(p.All)), parts: p.Parts}
}

func slotsChain(prefix string, n int) chain {
	return chain{name: prefix + strconv.Itoa(n), slots: uint32(n)}
}

// Keys are as the kernel's registers hold them: every part fills up 32 bits.

func addrKey(addr netip.Addr) string {
	b := addr.As4()
	return string(b[:])
}

func numberKey(n uint16) string { return string([]byte{byte(n >> 8), byte(n), 0, 0}) }

func portKey(p traffic.Port) string {
	return string([]byte{byte(p.Protocol), 0, 0, 0}) + numberKey(p.Number)
}

// slotKey is in the machine's own order, as numgen's numbers are.
func slotKey(slot uint32) string { return string(binary.NativeEndian.AppendUint32(nil, slot)) }
