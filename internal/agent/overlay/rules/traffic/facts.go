package traffic

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// Port is a port of this node.
type Port struct {
	Protocol Protocol
	Number   uint16
}

// Member is what isolation needs to know of a task.
type Member struct {
	Local    bool     // runs on this node
	Networks []string // ids, in order and without repetitions
}

// Turn is a fact before and after a change.
type Turn[T any] struct{ Before, After T }

// Delta is the facts that a change changes. The lists are in order and without repetitions, so that equal
// facts are equal lists, whichever way they came about. It shares them with the facts: they are not to be changed.
type Delta struct {
	VIPs  map[netip.Addr]Turn[Pool[netip.Addr]] // a VIP's endpoints; none means that it is refused
	Ports map[Port]Turn[Pool[netip.AddrPort]]   // where a port leads
	Tasks map[netip.Addr]Turn[*Member]          // nil where there is no such task
	Dead  map[netip.Addr]bool                   // the tasks of whom no connection may stay
}

// Empty tells whether nothing changes for packets.
func (d Delta) Empty() bool { return len(d.VIPs)+len(d.Ports)+len(d.Tasks) == 0 }

// Facts is what a node knows: the services and tasks it was told of, and what follows of them for packets.
// It depends on what it was told last of each, never on the order. It is for one caller at a time.
type Facts struct {
	Node Node

	// What follows, for others to read: where each VIP and each port leads, never to an empty pool, and all tasks.
	VIPs    map[netip.Addr]Pool[netip.Addr]
	Ports   map[Port]Pool[netip.AddrPort]
	Members map[netip.Addr]*Member

	services map[string]Service
	tasks    map[netip.Addr]Task

	// Whoever claims a VIP or a port. There is one of each but for moments in which news of the old holder's end
	// come after news of the new holder.
	vipClaims  map[netip.Addr][]string
	portClaims map[Port][]claim
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

// NewFacts are those of a node that was told nothing yet.
func NewFacts(node Node) *Facts {
	return &Facts{
		Node:       node,
		VIPs:       map[netip.Addr]Pool[netip.Addr]{},
		Ports:      map[Port]Pool[netip.AddrPort]{},
		Members:    map[netip.Addr]*Member{},
		services:   map[string]Service{},
		tasks:      map[netip.Addr]Task{},
		vipClaims:  map[netip.Addr][]string{},
		portClaims: map[Port][]claim{},
	}
}

// All is everything that is known, as what changes if nothing was known before.
func (f *Facts) All() Delta {
	d := Delta{
		VIPs:  make(map[netip.Addr]Turn[Pool[netip.Addr]], len(f.VIPs)),
		Ports: make(map[Port]Turn[Pool[netip.AddrPort]], len(f.Ports)),
		Tasks: make(map[netip.Addr]Turn[*Member], len(f.Members)),
	}
	for vip, endpoints := range f.VIPs {
		d.VIPs[vip] = Turn[Pool[netip.Addr]]{After: endpoints}
	}
	for p, targets := range f.Ports {
		d.Ports[p] = Turn[Pool[netip.AddrPort]]{After: targets}
	}
	for addr, m := range f.Members {
		d.Tasks[addr] = Turn[*Member]{After: m}
	}
	return d
}

// Apply takes in a change, which has to be valid for the node, and returns the facts that it changes. Its cost is that of
// what changes.
func (f *Facts) Apply(c Change) Delta {
	vips := map[netip.Addr]bool{}
	ports := map[Port]bool{}
	d := Delta{Tasks: map[netip.Addr]Turn[*Member]{}, Dead: map[netip.Addr]bool{}}

	for _, id := range c.RemovedServices {
		f.forgetService(id, vips, ports)
	}
	for _, addr := range c.RemovedTasks {
		if f.Members[addr] != nil {
			d.Tasks[addr] = Turn[*Member]{Before: f.Members[addr]}
		}
		d.Dead[addr] = true
		f.forgetTask(addr, ports)
	}
	for _, s := range c.Services {
		f.forgetService(s.ID, vips, ports)
		f.learnService(s, vips, ports)
	}
	for _, t := range c.Tasks {
		was, seen := d.Tasks[t.Addr]
		if !seen {
			was.Before = f.Members[t.Addr]
		}
		f.forgetTask(t.Addr, ports)
		f.learnTask(t, ports)
		was.After = f.Members[t.Addr]
		d.Tasks[t.Addr] = was
	}
	maps.DeleteFunc(d.Tasks, func(_ netip.Addr, t Turn[*Member]) bool {
		return t.Before != nil && t.After != nil && t.Before.Local == t.After.Local && slices.Equal(t.Before.Networks, t.After.Networks)
	})

	d.VIPs = settle(f.VIPs, vips, f.endpointsOf)
	d.Ports = settle(f.Ports, ports, f.targetsOf)
	return d
}

// settle brings the facts of the touched keys up to date and returns those that changed.
func settle[K, V comparable](known map[K]Pool[V], touched map[K]bool, now func(K) Pool[V]) map[K]Turn[Pool[V]] {
	changed := map[K]Turn[Pool[V]]{}
	for key := range touched {
		before, after := known[key], now(key)
		if before.equal(after) {
			continue
		}
		changed[key] = Turn[Pool[V]]{before, after}
		if len(after.All) == 0 {
			delete(known, key)
		} else {
			known[key] = after
		}
	}
	return changed
}

func (f *Facts) forgetService(id string, vips map[netip.Addr]bool, ports map[Port]bool) {
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

func (f *Facts) learnService(s Service, vips map[netip.Addr]bool, ports map[Port]bool) {
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

func (f *Facts) forgetTask(addr netip.Addr, ports map[Port]bool) {
	t := f.tasks[addr]
	delete(f.tasks, addr)
	delete(f.Members, addr)
	for _, p := range t.HostPorts {
		unclaim(f.portClaims, portOf(p), claim{task: addr, target: p.Target})
		ports[portOf(p)] = true
	}
}

func (f *Facts) learnTask(t Task, ports map[Port]bool) {
	t.HostPorts = slices.Clone(t.HostPorts)
	f.tasks[t.Addr] = t
	f.Members[t.Addr] = &Member{Local: t.Local, Networks: ordered(t.Networks)}
	for _, p := range t.HostPorts {
		f.portClaims[portOf(p)] = append(f.portClaims[portOf(p)], claim{task: t.Addr, target: p.Target})
		ports[portOf(p)] = true
	}
}

func portOf(p Published) Port { return Port{p.Protocol, p.Port} }

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
func (f *Facts) endpointsOf(vip netip.Addr) Pool[netip.Addr] {
	claims := f.vipClaims[vip]
	if len(claims) == 0 {
		return Pool[netip.Addr]{}
	}
	return f.services[slices.Min(claims)].pooled()
}

// targetsOf is where a port leads.
func (f *Facts) targetsOf(p Port) Pool[netip.AddrPort] {
	claims := f.portClaims[p]
	if len(claims) == 0 {
		return Pool[netip.AddrPort]{}
	}
	first := slices.MinFunc(claims, claim.compare)
	if first.task.IsValid() {
		return Pool[netip.AddrPort]{All: []netip.AddrPort{netip.AddrPortFrom(first.task, first.target)}}
	}
	return mapped(f.services[first.service].pooled(), func(endpoint netip.Addr) netip.AddrPort {
		return netip.AddrPortFrom(endpoint, first.target)
	})
}
