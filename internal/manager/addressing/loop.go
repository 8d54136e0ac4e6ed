package addressing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Inputs are the tables the loop watches.
var Inputs = []statev1.Table{statev1.Table_TABLE_CLUSTER, statev1.Table_TABLE_SERVICE, statev1.Table_TABLE_NODE, statev1.Table_TABLE_AUTHORITY}

// Outputs are what the loop alone writes.
var Outputs = []string{"service.endpoint", "service.written_at", "node.network"}

// New returns the loop.
func New() loop.Loop { return &addressing{} }

// addressing is the loop: an account of what is held, and what is to be looked at again. Decide enters into the account
// what it proposes; where a proposal is refused the account is made anew.
type addressing struct {
	layout  Layout
	problem error // why the layout cannot be read; nothing is given then
	account *account
	stale   bool // the account holds what was proposed and refused

	nodes    map[string]struct{} // to be looked at
	services map[string]struct{}
	// Services that could not be given all they want: looked at again when something becomes free.
	wanting map[string]struct{}
	// Nodes without a subnet because there is none.
	homeless map[string]struct{}
}

var _ loop.Loop = (*addressing)(nil)

// Name implements loop.Loop.
func (a *addressing) Name() string { return "addressing" }

// Reset implements loop.Loop.
func (a *addressing) Reset(s state.Snapshot) {
	a.nodes, a.services = map[string]struct{}{}, map[string]struct{}{}
	a.wanting, a.homeless = map[string]struct{}{}, map[string]struct{}{}
	a.count(s)
	for n := range s.Nodes() {
		a.nodes[n.GetMeta().GetId()] = struct{}{}
	}
	for service := range s.Services() {
		a.services[service.GetMeta().GetId()] = struct{}{}
	}
}

// count makes the account anew from what is written.
func (a *addressing) count(s state.Snapshot) {
	a.stale = false
	if a.layout, a.problem = LayoutOf(s.Cluster()); a.problem != nil {
		return
	}
	a.account = newAccount(a.layout)
	a.account.rest(a.layout, s.Authority().GetRemoved())
	for n := range s.Nodes() {
		a.account.node(a.layout, nil, n)
	}
	for service := range s.Services() {
		a.account.service(a.layout, nil, service)
	}
}

// Observe implements loop.Loop.
func (a *addressing) Observe(s state.Snapshot, changes []state.Change) {
	if a.stale || a.problem != nil {
		a.count(s)
		// What was held for nobody may have been all that they lacked.
		move(a.wanting, a.services)
		move(a.homeless, a.nodes)
	}
	for _, c := range changes {
		switch o := cmp.Or(c.After, c.Before).(type) {
		case *warrenv1.Cluster:
			a.Reset(s)
			return
		case *statev1.Authority:
			if a.account != nil {
				a.account.rest(a.layout, s.Authority().GetRemoved())
			}
		case *warrenv1.Node:
			before, _ := c.Before.(*warrenv1.Node)
			after, _ := c.After.(*warrenv1.Node)
			if a.account != nil {
				a.account.node(a.layout, before, after)
			}
			if after == nil {
				delete(a.homeless, o.GetMeta().GetId())
				move(a.homeless, a.nodes)
			} else if before == nil || !proto.Equal(before.GetNetwork(), after.GetNetwork()) {
				a.nodes[o.GetMeta().GetId()] = struct{}{}
			}
		case *warrenv1.Service:
			before, _ := c.Before.(*warrenv1.Service)
			after, _ := c.After.(*warrenv1.Service)
			if a.account != nil && a.account.service(a.layout, before, after) {
				move(a.wanting, a.services)
			}
			if after == nil {
				delete(a.wanting, o.GetMeta().GetId())
			} else {
				a.services[o.GetMeta().GetId()] = struct{}{}
			}
		}
	}
}

func move(from, to map[string]struct{}) {
	maps.Copy(to, from)
	clear(from)
}

// Refused implements loop.Loop. What a proposal of a service or a node took is not held: the account is made anew
// before it is used again.
func (a *addressing) Refused(p loop.Proposal) {
	a.stale = true
	if table, id, _ := strings.Cut(p.Key, " "); table == "node" {
		a.nodes[id] = struct{}{}
	} else {
		a.services[id] = struct{}{}
	}
}

// Decide implements loop.Loop.
func (a *addressing) Decide(s state.Snapshot, now time.Time) loop.Decision {
	var d loop.Decision
	if s.Cluster() == nil || a.problem != nil {
		return d
	}
	for _, id := range slices.Sorted(maps.Keys(a.nodes)) {
		if n := s.Node(id); n != nil {
			if t := a.settle(n, now); t != nil {
				d.Proposals = append(d.Proposals, loop.Proposal{Key: "node " + id, Transaction: t})
			}
		}
	}
	clear(a.nodes)
	for _, id := range slices.Sorted(maps.Keys(a.services)) {
		if service := s.Service(id); service != nil {
			if t := a.equip(s, service, now); t != nil {
				d.Proposals = append(d.Proposals, loop.Proposal{Key: "service " + id, Transaction: t})
			}
		}
	}
	clear(a.services)
	return d
}

// settle gives a node a subnet where it has none.
func (a *addressing) settle(n *warrenv1.Node, now time.Time) *state.Transaction {
	if n.GetNetwork().GetSubnet() != "" {
		return nil
	}
	wanted := &warrenv1.NodeNetwork{}
	if i, ok := a.account.subnets.take(n.GetMeta().GetId()); ok {
		wanted.Subnet = a.layout.subnet(i).String()
	} else {
		a.homeless[n.GetMeta().GetId()] = struct{}{}
		wanted.Problem = fmt.Sprintf("no subnet is left in %s, which has room for %d nodes: remove nodes that are gone for good", a.layout.Nodes, a.layout.subnets())
	}
	if proto.Equal(n.GetNetwork(), wanted) {
		return nil
	}
	t := state.New(now)
	state.Update(t, n, func(n *warrenv1.Node) { n.Network = wanted })
	return t
}

// equip gives a service what it wants and has not, and takes from it what it does not want any more.
func (a *addressing) equip(s state.Snapshot, service *warrenv1.Service, now time.Time) *state.Transaction {
	id, has := service.GetMeta().GetId(), service.GetEndpoint()
	delete(a.wanting, id)
	var wanted *warrenv1.ServiceEndpoint
	if OnOverlay(service.GetSpec().GetTask()) {
		wanted = &warrenv1.ServiceEndpoint{}
		if service.GetSpec().GetEndpoint().GetMode() != warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR {
			a.giveVIP(wanted, has, id)
		}
		a.givePorts(s, wanted, service)
	}
	if len(wanted.GetProblems()) > 0 {
		a.wanting[id] = struct{}{}
	}
	if proto.Equal(has, wanted) {
		return nil
	}
	t := state.New(now)
	state.Update(t, service, func(service *warrenv1.Service) {
		service.Endpoint = wanted
		// For a user who has read the service before this, nothing has changed.
		service.WrittenAt = cmp.Or(service.GetWrittenAt(), service.GetMeta().GetVersion())
	})
	return t
}

// OnOverlay tells whether tasks of a template have an address of the cluster.
func OnOverlay(spec *warrenv1.TaskSpec) bool {
	switch spec.GetNetwork() {
	case warrenv1.NetworkMode_NETWORK_MODE_UNSPECIFIED, warrenv1.NetworkMode_NETWORK_MODE_OVERLAY:
		return true
	}
	return false
}

func (a *addressing) giveVIP(wanted, has *warrenv1.ServiceEndpoint, id string) {
	if i, ok := vipOf(a.layout, has); ok && a.account.vips.holder[i] == id {
		wanted.Vip = has.GetVip()
	} else if i, ok := a.account.vips.take(id); ok {
		wanted.Vip = a.layout.vip(i).String()
	} else {
		wanted.Problems = append(wanted.Problems, fmt.Sprintf("no virtual address is left in %s: remove services, or use --endpoint-mode dnsrr", a.layout.VIPs))
	}
}

// givePorts gives the ports in the order of the spec: first those that it names, so that none of them is taken for one
// that it leaves open.
func (a *addressing) givePorts(s state.Snapshot, wanted *warrenv1.ServiceEndpoint, service *warrenv1.Service) {
	id, specs := service.GetMeta().GetId(), service.GetSpec().GetEndpoint().GetPorts()
	given := make([]*warrenv1.PublishedPort, len(specs))
	give := func(i int, published uint32) {
		p := specs[i]
		key := portOf(p.GetProtocol(), published)
		a.account.ports[key] = id
		given[i] = &warrenv1.PublishedPort{Protocol: key.protocol, Published: published, Target: p.GetTarget(), Name: p.GetName()}
	}
	for i, p := range specs {
		if p.GetPublished() == 0 {
			continue
		}
		key := portOf(p.GetProtocol(), p.GetPublished())
		if holder := a.account.ports[key]; holder != "" && holder != id {
			name := cmp.Or(s.Service(holder).GetSpec().GetName(), holder)
			wanted.Problems = append(wanted.Problems, fmt.Sprintf("port %s is published by service %s: choose another with --publish", key, name))
			continue
		}
		if holds(given, key) {
			wanted.Problems = append(wanted.Problems, fmt.Sprintf("port %s is published twice by this service", key))
			continue
		}
		give(i, key.number)
	}
	for i, p := range specs {
		if p.GetPublished() != 0 {
			continue
		}
		if number, ok := a.kept(service, given, p); ok {
			give(i, number)
		} else if number, ok := a.account.takePort(p.GetProtocol(), id); ok {
			give(i, number)
		} else {
			wanted.Problems = append(wanted.Problems, fmt.Sprintf("no port between %d and %d is free for %s: publish it on one of your choice",
				firstPort, lastPort, protocolName(portOf(p.GetProtocol(), 0).protocol, p.GetTarget())))
		}
	}
	for _, p := range given {
		if p != nil {
			wanted.Ports = append(wanted.Ports, p)
		}
	}
}

// kept returns the port that was given to the service before for the same target, where it still holds it.
func (a *addressing) kept(service *warrenv1.Service, given []*warrenv1.PublishedPort, spec *warrenv1.PortSpec) (uint32, bool) {
	for _, had := range service.GetEndpoint().GetPorts() {
		key := portOf(had.GetProtocol(), had.GetPublished())
		if !holds(given, key) && key.protocol == portOf(spec.GetProtocol(), 0).protocol && had.GetTarget() == spec.GetTarget() &&
			key.number >= firstPort && key.number <= lastPort && a.account.ports[key] == service.GetMeta().GetId() {
			return key.number, true
		}
	}
	return 0, false
}

func holds(given []*warrenv1.PublishedPort, key port) bool {
	return slices.ContainsFunc(given, func(p *warrenv1.PublishedPort) bool {
		return p != nil && portOf(p.GetProtocol(), p.GetPublished()) == key
	})
}

func protocolName(p warrenv1.Protocol, number uint32) string {
	return fmt.Sprintf("%d/%s", number, strings.ToLower(strings.TrimPrefix(p.String(), "PROTOCOL_")))
}
