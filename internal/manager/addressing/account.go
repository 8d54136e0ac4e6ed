package addressing

import (
	"net/netip"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// port is one of every node's ports.
type port struct {
	protocol warrenv1.Protocol
	number   uint32
}

func portOf(protocol warrenv1.Protocol, number uint32) port {
	if protocol == warrenv1.Protocol_PROTOCOL_UNSPECIFIED {
		protocol = warrenv1.Protocol_PROTOCOL_TCP
	}
	return port{protocol, number}
}

func (p port) String() string {
	return protocolName(p.protocol, p.number)
}

// account is who holds what.
type account struct {
	subnets pool
	vips    pool
	ports   map[port]string // service by port
	next    uint32          // where the search for a free port begins
}

func newAccount(l Layout) *account {
	return &account{
		subnets: newPool(l.subnets()), vips: newPool(l.vips()),
		ports: map[port]string{}, next: firstPort,
	}
}

// pool is a numbered lot of equal things. The search for a free one goes round, so that one that was given back
// is given last.
type pool struct {
	size   uint32
	holder map[uint32]string
	next   uint32
	// resting are those that somebody may still use who should not, each with its place among them, the lowest first: they are given
	// only where no other is free.
	resting map[uint32]int
}

func newPool(size uint32) pool { return pool{size: size, holder: map[uint32]string{}} }

// enter notes that somebody holds number i.
func (p *pool) enter(i uint32, who string) {
	p.holder[i] = who
	if i >= p.next {
		p.next = (i + 1) % p.size
	}
}

// free notes that who does not hold i any more.
func (p *pool) free(i uint32, who string) {
	if p.holder[i] == who {
		delete(p.holder, i)
	}
}

// take gives who a free one; false where all are held.
func (p *pool) take(who string) (uint32, bool) {
	if uint32(len(p.holder)) >= p.size {
		return 0, false
	}
	rested, found := uint32(0), false
	for range p.size {
		i := p.next
		p.next = (p.next + 1) % p.size
		if p.holder[i] != "" {
			continue
		}
		since, rests := p.resting[i]
		if !rests {
			p.holder[i] = who
			return i, true
		}
		if !found || since < p.resting[rested] {
			rested, found = i, true
		}
	}
	p.holder[rested] = who
	return rested, true
}

// rest notes which subnets were nodes' that have been removed, as far as that is remembered. Such a node may be cut off, and not gone: what runs
// there has addresses of its subnet still.
func (a *account) rest(l Layout, removed []*statev1.RemovedMember) {
	a.subnets.resting = map[uint32]int{}
	for place, gone := range removed {
		if p, err := netip.ParsePrefix(gone.GetSubnet()); err == nil {
			if i, ok := l.subnetIndex(p); ok {
				a.subnets.resting[i] = place // they come in the order in which they were removed
			}
		}
	}
}

// node keeps account of a node's coming, changing or going.
func (a *account) node(l Layout, before, after *warrenv1.Node) {
	if i, ok := subnetOf(l, before); ok {
		a.subnets.free(i, before.GetMeta().GetId())
	}
	if i, ok := subnetOf(l, after); ok {
		a.subnets.enter(i, after.GetMeta().GetId())
	}
}

func subnetOf(l Layout, n *warrenv1.Node) (uint32, bool) {
	p, err := netip.ParsePrefix(n.GetNetwork().GetSubnet())
	if err != nil {
		return 0, false
	}
	return l.subnetIndex(p)
}

// service keeps account of a service's coming, changing or going, and tells whether something has become free.
func (a *account) service(l Layout, before, after *warrenv1.Service) (freed bool) {
	was, is := before.GetEndpoint(), after.GetEndpoint()
	if i, ok := vipOf(l, was); ok && was.GetVip() != is.GetVip() {
		a.vips.free(i, before.GetMeta().GetId())
		freed = true
	}
	if i, ok := vipOf(l, is); ok {
		a.vips.enter(i, after.GetMeta().GetId())
	}
	holds := map[port]bool{}
	for _, p := range is.GetPorts() {
		key := portOf(p.GetProtocol(), p.GetPublished())
		holds[key] = true
		a.ports[key] = after.GetMeta().GetId()
	}
	for _, p := range was.GetPorts() {
		key := portOf(p.GetProtocol(), p.GetPublished())
		if !holds[key] && a.ports[key] == before.GetMeta().GetId() {
			delete(a.ports, key)
			freed = true
		}
	}
	return freed
}

func vipOf(l Layout, e *warrenv1.ServiceEndpoint) (uint32, bool) {
	addr, err := netip.ParseAddr(e.GetVip())
	if err != nil {
		return 0, false
	}
	return l.vipIndex(addr)
}

// takePort gives a service any free port of the range; false where none is.
func (a *account) takePort(protocol warrenv1.Protocol, service string) (uint32, bool) {
	for range lastPort - firstPort + 1 {
		key := portOf(protocol, a.next)
		if a.next++; a.next > lastPort {
			a.next = firstPort
		}
		if a.ports[key] == "" {
			a.ports[key] = service
			return key.number, true
		}
	}
	return 0, false
}
