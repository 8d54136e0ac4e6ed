package traffic

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Node is what the rules of a node are about. Whoever wires the node has to see to what the rules count on:
//   - ip_forward is 1, so that the host routes for its tasks;
//   - route_localnet is 1 on Bridge and Device, so that clients on 127.0.0.1 reach published ports; the rules
//     drop what arrives there from or for 127.0.0.0/8;
//   - the VIP range has a route to Bridge, so that the host itself can speak to VIPs;
//   - bridge-nf-call-iptables may be 0 or 1: with 1 packets are seen once too, on the bridge where they stay on it.
type Node struct {
	Bridge string // the bridge of this node's tasks
	Device string // the way to other nodes
	// Addr is this node's own address in Subnet.
	Addr netip.Addr
	// Subnet is this node's part of NodeRange, the range of all nodes; VIPRange is apart from it.
	Subnet, NodeRange, VIPRange netip.Prefix
}

// Service is a service as this node is to balance it.
type Service struct {
	ID string
	// VIP is the service's address; the zero Addr if it has none. Every protocol and port of it leads to an
	// endpoint.
	VIP netip.Addr
	// Endpoints are the addresses of the tasks in rotation, on any node: each gets as many new connections as any other.
	Endpoints []netip.Addr
	// Shares, where there are any, stand in place of Endpoints: each gets its weight of new connections, in proportion to the
	// others' that have endpoints.
	Shares []Share
	// Published are the ports that are open on every address of this node.
	Published []Published
}

// Share is endpoints that have their weight of a service's new connections between them, each as many as any other.
type Share struct {
	Weight    uint32
	Endpoints []netip.Addr
}

// Task is a task of any node.
type Task struct {
	Addr  netip.Addr
	Local bool // runs on this node
	// Networks are the ids of the networks it is a member of. Two tasks may speak if they share one.
	Networks []string
	// HostPorts are the ports of this node that lead to this task alone; a local task's only.
	HostPorts []Published
}

// Published is a port of the node that leads to a port of a task.
type Published struct {
	Port, Target uint16
	Protocol     Protocol
}

// maxWeight is the largest weight of a share.
const maxWeight = 10000

// DNSPort is where the node answers names on its own address: that port is never published there.
const DNSPort = 53

// Protocol is a transport protocol by its number in the IP header.
type Protocol uint8

// The protocols whose ports can be published.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// Set is all that the rules are to know.
type Set struct {
	Services []Service
	Tasks    []Task
}

// Change is what the rules are to know from now on. A service or task that is there already is replaced
// whole.
type Change struct {
	Services        []Service
	RemovedServices []string
	Tasks           []Task
	// RemovedTasks are tasks that are dead, where an endpoint that is merely missing from its service has left
	// rotation and may finish what it has begun: connections of dead tasks are cut.
	RemovedTasks []netip.Addr
}

// Validate tells what of a node's description cannot be.
func (n Node) Validate() error {
	for field, name := range map[string]string{"bridge": n.Bridge, "device": n.Device} {
		if name == "" || len(name) > 15 {
			return fmt.Errorf("%s %q: give a link's name of 1 to 15 characters", field, name)
		}
	}
	for field, prefix := range map[string]netip.Prefix{"subnet": n.Subnet, "node range": n.NodeRange, "vip range": n.VIPRange} {
		if !prefix.IsValid() || !prefix.Addr().Is4() || prefix != prefix.Masked() {
			return fmt.Errorf("%s %s: give an IPv4 range in CIDR notation with no host bits", field, prefix)
		}
	}
	switch {
	case n.NodeRange.Bits() > n.Subnet.Bits() || !n.NodeRange.Contains(n.Subnet.Addr()):
		return fmt.Errorf("subnet %s: give one that is a part of the node range %s", n.Subnet, n.NodeRange)
	case n.NodeRange.Overlaps(n.VIPRange):
		return fmt.Errorf("vip range %s: give one apart from the node range %s", n.VIPRange, n.NodeRange)
	case !n.Subnet.Contains(n.Addr):
		return fmt.Errorf("address %s: give one of the subnet %s", n.Addr, n.Subnet)
	}
	return nil
}

func (s Service) valid(n Node) error {
	if s.ID == "" {
		return errors.New("service without id: give its id")
	}
	if s.VIP.IsValid() && !n.VIPRange.Contains(s.VIP) {
		return fmt.Errorf("service %s: vip %s: give one of the range %s", s.ID, s.VIP, n.VIPRange)
	}
	for _, endpoint := range s.Endpoints {
		if !n.NodeRange.Contains(endpoint) {
			return fmt.Errorf("service %s: endpoint %s: give one of the range %s", s.ID, endpoint, n.NodeRange)
		}
	}
	if len(s.Shares) > 0 && len(s.Endpoints) > 0 {
		return fmt.Errorf("service %s: endpoints beside shares: give one of the two", s.ID)
	}
	for _, share := range s.Shares {
		if share.Weight > maxWeight {
			return fmt.Errorf("service %s: weight %d: give %d at most", s.ID, share.Weight, maxWeight)
		}
		for _, endpoint := range share.Endpoints {
			if !n.NodeRange.Contains(endpoint) {
				return fmt.Errorf("service %s: endpoint %s: give one of the range %s", s.ID, endpoint, n.NodeRange)
			}
		}
	}
	if err := validPorts(s.Published); err != nil {
		return fmt.Errorf("service %s: %w", s.ID, err)
	}
	return nil
}

func (t Task) valid(n Node) error {
	switch {
	case !n.NodeRange.Contains(t.Addr):
		return fmt.Errorf("task %s: give it an address of the range %s", t.Addr, n.NodeRange)
	case t.Local != n.Subnet.Contains(t.Addr):
		return fmt.Errorf("task %s: local tasks, and no others, have addresses of this node's subnet %s", t.Addr, n.Subnet)
	case t.Addr == n.Addr:
		return fmt.Errorf("task %s: that is the node's own address, give it another of %s", t.Addr, n.Subnet)
	case !t.Local && len(t.HostPorts) > 0:
		return fmt.Errorf("task %s: host ports open on the task's own node only", t.Addr)
	}
	if err := validPorts(t.HostPorts); err != nil {
		return fmt.Errorf("task %s: %w", t.Addr, err)
	}
	return nil
}

func validPorts(ports []Published) error {
	for _, p := range ports {
		if p.Port == 0 || p.Target == 0 {
			return fmt.Errorf("port %d to %d: give ports from 1 to 65535", p.Port, p.Target)
		}
		if p.Protocol != TCP && p.Protocol != UDP {
			return fmt.Errorf("port %d: %s: give tcp or udp", p.Port, p.Protocol)
		}
	}
	return nil
}

// Validate tells the first thing of a change that cannot be, so that a change is taken whole or not at all.
func (c Change) Validate(n Node) error {
	for _, s := range c.Services {
		if err := s.valid(n); err != nil {
			return err
		}
	}
	for _, t := range c.Tasks {
		if err := t.valid(n); err != nil {
			return err
		}
	}
	return nil
}

// ordered returns a sorted copy without repetitions.
func ordered[T cmp.Ordered](values []T) []T {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

// orderedAddrs is ordered for addresses.
func orderedAddrs(values []netip.Addr) []netip.Addr {
	sorted := slices.Clone(values)
	slices.SortFunc(sorted, netip.Addr.Compare)
	return slices.Compact(sorted)
}

// Digest makes a name of whatever an id may be, of 16 hexadecimal digits: 64 bits are plenty for the networks of a cluster.
func Digest(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
}
