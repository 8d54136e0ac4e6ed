package catalog

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"github.com/cuemby/warren/internal/agent/overlay/names"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var _ names.Directory = (*Catalog)(nil)

// Service implements names.Directory.
func (c *Catalog) Service(name string, asker netip.Addr) (names.Service, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.find(name, asker)
	if s == nil {
		return names.Service{}, false
	}
	found := names.Service{Name: s.front.GetServiceName(), VIP: s.vip()}
	for _, part := range c.rotation(s) {
		for _, t := range part.tasks {
			found.Tasks = append(found.Tasks, names.Task{Slot: t.slot(), Name: c.taskName(t), Addr: t.addr})
		}
	}
	slices.SortFunc(found.Tasks, func(a, b names.Task) int { return cmp.Or(cmp.Compare(a.Slot, b.Slot), a.Addr.Compare(b.Addr)) })
	for _, p := range s.front.GetPorts() {
		found.Ports = append(found.Ports, names.Port{Name: p.GetName(), Protocol: protocolName(p.GetProtocol()), Target: uint16(p.GetTarget())})
	}
	for _, p := range s.front.GetHostPorts() { // one target may be open on all nodes too
		one := names.Port{Name: p.GetName(), Protocol: protocolName(p.GetProtocol()), Target: uint16(p.GetTarget())}
		if !slices.Contains(found.Ports, one) {
			found.Ports = append(found.Ports, one)
		}
	}
	return found, true
}

// find returns the service of that name that the asker may see. A service's own name goes before the aliases of others,
// and among those the one that came to be named so first, by id.
func (c *Catalog) find(name string, asker netip.Addr) *service {
	task := c.tasks[c.byAddr[asker]]
	if task == nil && !c.isNode(asker) {
		return nil // nobody that is known here
	}
	var found *service
	for s := range c.byName[name] {
		if task != nil && !s.answers(name, task.of) {
			continue
		}
		own, best := s.front.GetServiceName() == name, found != nil && found.front.GetServiceName() == name
		if found == nil || own && !best || own == best && s.id < found.id {
			found = s
		}
	}
	return found
}

// isNode tells whether an asker is this node itself.
func (c *Catalog) isNode(asker netip.Addr) bool {
	return asker.IsLoopback() || c.own.IsValid() && asker == c.own.Addr().Next()
}

// answers tells whether a service goes by that name for another.
func (s *service) answers(name string, other *service) bool {
	theirs := other.networks()
	for _, n := range s.front.GetNetworks() {
		if slices.Contains(theirs, n.GetNetwork()) && (s.front.GetServiceName() == name || slices.Contains(n.GetAliases(), name)) {
			return true
		}
	}
	return false
}

// Name implements names.Directory.
func (c *Catalog) Name(addr, asker netip.Addr) (string, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var of *service
	var name string
	if s := c.byVIP[addr]; s != nil {
		of, name = s, s.front.GetServiceName()
	} else if t := c.tasks[c.byAddr[addr]]; t != nil && t.of.front != nil {
		of, name = t.of, c.taskName(t)
	} else {
		return "", false
	}
	if task := c.tasks[c.byAddr[asker]]; task == nil && !c.isNode(asker) || task != nil && !slices.ContainsFunc(task.networks(), func(n string) bool { return slices.Contains(of.networks(), n) }) {
		return "", false
	}
	return name, true
}

// taskName is what a task is called: web.3, or web.NODE of a global service.
func (c *Catalog) taskName(t *task) string {
	service := t.of.front.GetServiceName()
	if slot := t.slot(); slot > 0 {
		return service + "." + strconv.FormatUint(uint64(slot), 10)
	}
	node := t.told.GetNodeId()
	return service + "." + cmp.Or(c.hostnames[node], node)
}

func protocolName(p warrenv1.Protocol) string {
	if p == warrenv1.Protocol_PROTOCOL_UDP {
		return "udp"
	}
	return "tcp"
}
