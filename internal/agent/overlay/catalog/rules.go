package catalog

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// All is all that the packet rules are to know. Changes are counted from here.
func (c *Catalog) All() (traffic.Set, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetChanges()
	var all traffic.Set
	for _, id := range slices.Sorted(maps.Keys(c.services)) {
		if s := c.services[id]; s.front != nil {
			all.Services = append(all.Services, c.balanced(s))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.tasks)) {
		if t := c.tasks[id]; c.holds(t) {
			all.Tasks = append(all.Tasks, c.member(t))
		}
	}
	return all, c.version
}

// Changes is what has changed since All or Changes was last called, and the version that the rules are of once they have
// it in force; false where nothing has.
func (c *Catalog) Changes() (traffic.Change, uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var change traffic.Change
	for id := range c.changed.services {
		if s := c.services[id]; s != nil && s.front != nil {
			change.Services = append(change.Services, c.balanced(s))
		} else {
			change.RemovedServices = append(change.RemovedServices, id)
		}
	}
	for id := range c.changed.tasks {
		if t := c.tasks[id]; t != nil && c.holds(t) {
			change.Tasks = append(change.Tasks, c.member(t))
		}
	}
	for addr := range c.changed.gone {
		change.RemovedTasks = append(change.RemovedTasks, addr)
	}
	some := len(c.changed.services)+len(c.changed.tasks)+len(c.changed.gone) > 0
	c.forgetChanges()
	return change, c.version, some
}

func (c *Catalog) forgetChanges() {
	c.changed.services, c.changed.tasks = map[string]struct{}{}, map[string]struct{}{}
	c.changed.gone = map[netip.Addr]struct{}{}
}

// balanced is a service as the rules are to balance it.
func (c *Catalog) balanced(s *service) traffic.Service {
	balanced := traffic.Service{ID: s.id, VIP: s.vip()}
	c.share(s, &balanced)
	for _, p := range s.front.GetPorts() {
		if _, taken := c.taken[Port{p.GetProtocol(), p.GetPublished()}]; !taken {
			balanced.Published = append(balanced.Published, published(p.GetProtocol(), p.GetPublished(), p.GetTarget()))
		}
	}
	return balanced
}

func (c *Catalog) member(t *task) traffic.Task {
	member := traffic.Task{Addr: t.addr, Local: t.here != nil, Networks: t.networks()}
	if t.here == nil || !t.open() {
		return member
	}
	for _, p := range t.here.hostPorts {
		if _, taken := c.taken[Port{normal(p.GetProtocol()), p.GetPublished()}]; !taken {
			member.HostPorts = append(member.HostPorts, published(p.GetProtocol(), p.GetPublished(), p.GetTarget()))
		}
	}
	return member
}

func published(protocol warrenv1.Protocol, port, target uint32) traffic.Published {
	p := traffic.Published{Port: uint16(port), Target: uint16(target), Protocol: traffic.TCP}
	if protocol == warrenv1.Protocol_PROTOCOL_UDP {
		p.Protocol = traffic.UDP
	}
	return p
}
