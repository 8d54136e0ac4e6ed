package rules

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// port is a port of this node.
type port struct {
	protocol Protocol
	number   uint16
}

// member is what isolation needs to know of a task.
type member struct {
	local    bool
	networks []string // in order
}

// turn is a fact before and after a change.
type turn[T any] struct{ before, after T }

// delta is the facts that a change changes. The lists are in order and without repetitions, so that equal
// facts are equal lists, whichever way they came about.
type delta struct {
	vips  map[netip.Addr]turn[pool[netip.Addr]] // a VIP's endpoints; none means that it is refused
	ports map[port]turn[pool[netip.AddrPort]]   // where a port leads
	tasks map[netip.Addr]turn[*member]          // nil where there is no such task
	dead  map[netip.Addr]bool                   // the tasks of whom no connection may stay
}

func (d delta) empty() bool { return len(d.vips)+len(d.ports)+len(d.tasks) == 0 }

// facts is what this node knows: the services and tasks it was told of, and what follows of them for packets.
// It depends on what it was told last of each, never on the order.
type facts struct {
	node     Node
	services map[string]Service
	tasks    map[netip.Addr]Task

	vips    map[netip.Addr]pool[netip.Addr]
	ports   map[port]pool[netip.AddrPort]
	members map[netip.Addr]*member

	// Whoever claims a VIP or a port. There is one of each but for moments in which news of the old holder's end
	// come after news of the new holder.
	vipClaims  map[netip.Addr][]string
	portClaims map[port][]claim
}

// claim is a task's or a service's claim of a port. A task's goes first.
type claim struct {
	task    netip.Addr
	service string
	target  uint16
}

func (c claim) compare(other claim) int {
	if c.task.IsValid() != other.task.IsValid() {
		if c.task.IsValid() {
			return -1
		}
		return 1
	}
	return cmp.Or(c.task.Compare(other.task), cmp.Compare(c.service, other.service), cmp.Compare(c.target, other.target))
}

func newFacts(node Node) *facts {
	return &facts{
		node:       node,
		services:   map[string]Service{},
		tasks:      map[netip.Addr]Task{},
		vips:       map[netip.Addr]pool[netip.Addr]{},
		ports:      map[port]pool[netip.AddrPort]{},
		members:    map[netip.Addr]*member{},
		vipClaims:  map[netip.Addr][]string{},
		portClaims: map[port][]claim{},
	}
}

// all is everything that is known, as what changes if nothing was known before.
func (f *facts) all() delta {
	d := delta{
		vips:  make(map[netip.Addr]turn[pool[netip.Addr]], len(f.vips)),
		ports: make(map[port]turn[pool[netip.AddrPort]], len(f.ports)),
		tasks: make(map[netip.Addr]turn[*member], len(f.members)),
	}
	for vip, endpoints := range f.vips {
		d.vips[vip] = turn[pool[netip.Addr]]{after: endpoints}
	}
	for p, targets := range f.ports {
		d.ports[p] = turn[pool[netip.AddrPort]]{after: targets}
	}
	for addr, m := range f.members {
		d.tasks[addr] = turn[*member]{after: m}
	}
	return d
}

// apply takes a change in and returns the facts that it changes. Its cost is that of what changes.
func (f *facts) apply(c Change) delta {
	vips := map[netip.Addr]bool{}
	ports := map[port]bool{}
	d := delta{tasks: map[netip.Addr]turn[*member]{}, dead: map[netip.Addr]bool{}}

	for _, id := range c.RemovedServices {
		f.forgetService(id, vips, ports)
	}
	for _, addr := range c.RemovedTasks {
		if f.members[addr] != nil {
			d.tasks[addr] = turn[*member]{before: f.members[addr]}
		}
		d.dead[addr] = true
		f.forgetTask(addr, ports)
	}
	for _, s := range c.Services {
		f.forgetService(s.ID, vips, ports)
		f.learnService(s, vips, ports)
	}
	for _, t := range c.Tasks {
		was, seen := d.tasks[t.Addr]
		if !seen {
			was.before = f.members[t.Addr]
		}
		f.forgetTask(t.Addr, ports)
		f.learnTask(t, ports)
		was.after = f.members[t.Addr]
		d.tasks[t.Addr] = was
	}
	maps.DeleteFunc(d.tasks, func(_ netip.Addr, t turn[*member]) bool {
		return t.before != nil && t.after != nil && t.before.local == t.after.local && slices.Equal(t.before.networks, t.after.networks)
	})

	d.vips = settle(f.vips, vips, f.endpointsOf)
	d.ports = settle(f.ports, ports, f.targetsOf)
	return d
}

// settle brings the facts of the touched keys up to date and returns those that changed.
func settle[K, V comparable](known map[K]pool[V], touched map[K]bool, now func(K) pool[V]) map[K]turn[pool[V]] {
	changed := map[K]turn[pool[V]]{}
	for key := range touched {
		before, after := known[key], now(key)
		if before.equal(after) {
			continue
		}
		changed[key] = turn[pool[V]]{before, after}
		if len(after.all) == 0 {
			delete(known, key)
		} else {
			known[key] = after
		}
	}
	return changed
}

func (f *facts) forgetService(id string, vips map[netip.Addr]bool, ports map[port]bool) {
	s, known := f.services[id]
	if !known {
		return
	}
	delete(f.services, id)
	if s.VIP.IsValid() {
		unclaim(f.vipClaims, s.VIP, id)
		vips[s.VIP] = true
	}
	for _, p := range s.Published {
		unclaim(f.portClaims, portOf(p), claim{service: id, target: p.Target})
		ports[portOf(p)] = true
	}
}

func (f *facts) learnService(s Service, vips map[netip.Addr]bool, ports map[port]bool) {
	s.Endpoints, s.Shares = slices.Clone(s.Endpoints), slices.Clone(s.Shares)
	s.Published = slices.Clone(s.Published)
	f.services[s.ID] = s
	if s.VIP.IsValid() {
		f.vipClaims[s.VIP] = append(f.vipClaims[s.VIP], s.ID)
		vips[s.VIP] = true
	}
	for _, p := range s.Published {
		f.portClaims[portOf(p)] = append(f.portClaims[portOf(p)], claim{service: s.ID, target: p.Target})
		ports[portOf(p)] = true
	}
}

func (f *facts) forgetTask(addr netip.Addr, ports map[port]bool) {
	t := f.tasks[addr]
	delete(f.tasks, addr)
	delete(f.members, addr)
	for _, p := range t.HostPorts {
		unclaim(f.portClaims, portOf(p), claim{task: addr, target: p.Target})
		ports[portOf(p)] = true
	}
}

func (f *facts) learnTask(t Task, ports map[port]bool) {
	t.HostPorts = slices.Clone(t.HostPorts)
	f.tasks[t.Addr] = t
	f.members[t.Addr] = &member{local: t.Local, networks: ordered(t.Networks)}
	for _, p := range t.HostPorts {
		f.portClaims[portOf(p)] = append(f.portClaims[portOf(p)], claim{task: t.Addr, target: p.Target})
		ports[portOf(p)] = true
	}
}

func portOf(p Published) port { return port{p.Protocol, p.Port} }

func unclaim[K, V comparable](claims map[K][]V, key K, one V) {
	at := slices.Index(claims[key], one)
	if at < 0 {
		return
	}
	if rest := slices.Delete(claims[key], at, at+1); len(rest) > 0 {
		claims[key] = rest
	} else {
		delete(claims, key)
	}
}

// endpointsOf is where a VIP leads: of several holders the one whose id comes first has it.
func (f *facts) endpointsOf(vip netip.Addr) pool[netip.Addr] {
	claims := f.vipClaims[vip]
	if len(claims) == 0 {
		return pool[netip.Addr]{}
	}
	return f.services[slices.Min(claims)].pooled()
}

// targetsOf is where a port leads.
func (f *facts) targetsOf(p port) pool[netip.AddrPort] {
	claims := f.portClaims[p]
	if len(claims) == 0 {
		return pool[netip.AddrPort]{}
	}
	first := slices.MinFunc(claims, claim.compare)
	if first.task.IsValid() {
		return pool[netip.AddrPort]{all: []netip.AddrPort{netip.AddrPortFrom(first.task, first.target)}}
	}
	return mapped(f.services[first.service].pooled(), func(endpoint netip.Addr) netip.AddrPort {
		return netip.AddrPortFrom(endpoint, first.target)
	})
}
