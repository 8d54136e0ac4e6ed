package api

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Ports that are taken where a user names none.
const (
	firstFreePort = 30000
	lastFreePort  = 32767
)

// managerPort is where managers listen unless they are told otherwise.
const managerPort = 7420

// checkNetworks checks how a spec puts its service on networks, as far as the spec alone tells.
func checkNetworks(spec *warrenv1.ServiceSpec) []*validate.Violation {
	var broken []*validate.Violation
	if !onOverlay(spec) {
		mode := modeName(spec)
		if len(spec.GetNetworks()) > 0 {
			broken = append(broken, violation("networks", "a service whose tasks have network mode "+mode+" is on no network of the cluster: leave these out, or the mode",
				field("spec"), item("networks", 0)))
		}
		if spec.GetEndpoint().GetMode() == warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR {
			broken = append(broken, violation("endpoint.mode", "a service whose tasks have network mode "+mode+" has no addresses of the cluster to be told: leave it out",
				field("spec"), field("endpoint"), field("mode")))
		}
	}
	taken := map[string]bool{}
	for i, a := range spec.GetNetworks() {
		if name := a.GetNetwork(); taken[name] {
			broken = append(broken, violation("networks", "the network "+name+" is given twice: leave one out", field("spec"), item("networks", i), field("network")))
		}
		taken[a.GetNetwork()] = true
		for j, alias := range a.GetAliases() {
			var message string
			switch {
			case alias == spec.GetName():
				message = "is the service's own name, which it has in any case: leave it out"
			case slices.Contains(a.GetAliases()[:j], alias):
				message = "the alias " + alias + " is given twice: leave one out"
			default:
				continue
			}
			broken = append(broken, violation("aliases", message, field("spec"), item("networks", i), item("aliases", j)))
		}
	}
	return broken
}

func modeName(spec *warrenv1.ServiceSpec) string {
	return strings.ToLower(strings.TrimPrefix(spec.GetTask().GetNetwork().String(), "NETWORK_MODE_"))
}

// publication is one port that a spec publishes.
type publication struct {
	*warrenv1.PortSpec
	ingress bool // and not on the task's own node alone
	index   int
}

// publications are the ports of a spec, those of every node first.
func publications(spec *warrenv1.ServiceSpec) []publication {
	var all []publication
	for i, p := range spec.GetEndpoint().GetPorts() {
		all = append(all, publication{p, true, i})
	}
	for i, p := range spec.GetTask().GetHostPorts() {
		all = append(all, publication{p, false, i})
	}
	return all
}

// path is where the port stands in a request.
func (p publication) path(name string) []*validate.FieldPathElement {
	if p.ingress {
		return []*validate.FieldPathElement{field("spec"), field("endpoint"), item("ports", p.index), field(name)}
	}
	return []*validate.FieldPathElement{field("spec"), field("task"), item("host_ports", p.index), field(name)}
}

// doorway is a port of nodes.
type doorway struct {
	protocol warrenv1.Protocol
	port     uint32
}

func (d doorway) String() string { return fmt.Sprintf("%d/%s", d.port, protocolName(d.protocol)) }

func protocolName(p warrenv1.Protocol) string {
	if p == warrenv1.Protocol_PROTOCOL_UDP {
		return "udp"
	}
	return "tcp"
}

// definite is a protocol with the default in place of none.
func definite(p warrenv1.Protocol) warrenv1.Protocol {
	return cmp.Or(p, warrenv1.Protocol_PROTOCOL_TCP)
}

func doorwayOf(p *warrenv1.PortSpec) doorway {
	return doorway{definite(p.GetProtocol()), p.GetPublished()}
}

func targetOf(p *warrenv1.PortSpec) doorway { return doorway{definite(p.GetProtocol()), p.GetTarget()} }

// checkPorts checks the ports that a spec publishes, as far as the spec alone tells.
func checkPorts(spec *warrenv1.ServiceSpec) []*validate.Violation {
	ports := publications(spec)
	if len(ports) > 0 && !onOverlay(spec) {
		why := "has no network to be reached by: leave out the ports, or the mode"
		if spec.GetTask().GetNetwork() == warrenv1.NetworkMode_NETWORK_MODE_HOST {
			why = "has the node's own ports already: leave out the published ones, or the mode"
		}
		return []*validate.Violation{violation("ports", "a task with network mode "+modeName(spec)+" "+why, ports[0].path("published")...)}
	}
	var broken []*validate.Violation
	if len(spec.GetEndpoint().GetPorts()) > 0 && spec.GetEndpoint().GetMode() == warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR {
		broken = append(broken, violation("endpoint.mode",
			"mode dnsrr cannot publish ports on every node, as there is no one address that they could lead to: publish with mode=host, or leave the endpoint mode at vip",
			field("spec"), field("endpoint"), field("mode")))
	}
	type name struct {
		protocol warrenv1.Protocol
		text     string
	}
	published, open, names := map[doorway]bool{}, map[holderOf]bool{}, map[name]bool{}
	for _, p := range ports {
		switch d := doorwayOf(p.PortSpec); {
		case d.port != 0 && published[d]:
			broken = append(broken, violation("ports", fmt.Sprintf("the port %s is published twice: each needs one of its own", d), p.path("published")...))
		case d.port == 0 && open[holderOf{targetOf(p.PortSpec), p.ingress}]:
			broken = append(broken, violation("ports", fmt.Sprintf("any port for %s is asked for twice: leave one out, or name the ports", targetOf(p.PortSpec)), p.path("published")...))
		case d.port == 0:
			open[holderOf{targetOf(p.PortSpec), p.ingress}] = true
		default:
			published[d] = true
		}
		if n := (name{definite(p.GetProtocol()), p.GetName()}); n.text != "" {
			if names[n] {
				broken = append(broken, violation("ports", fmt.Sprintf("two ports of %s have the name %s: a query for it could not tell them apart", protocolName(n.protocol), n.text), p.path("name")...))
			}
			names[n] = true
		}
	}
	return broken
}

// portWarnings tells of ports that something else is likely to have.
func portWarnings(spec *warrenv1.ServiceSpec) []string {
	for _, p := range publications(spec) {
		if doorwayOf(p.PortSpec) == (doorway{warrenv1.Protocol_PROTOCOL_TCP, 22}) {
			return []string{"port 22 is where most machines are administered by SSH: on nodes where that is so the port stays SSH's, and `warrenctl node inspect` shows it as taken"}
		}
	}
	return nil
}

// connectService checks a spec that a service is to have, which has none before it is created, against the
// networks and ports there are, and returns it with ports of nodes in the place of those left to Warren. A
// network that the service comes on is touched by the transaction, so that it is not removed at the same time.
func connectService(s state.Snapshot, t *state.Transaction, before *warrenv1.Service, spec *warrenv1.ServiceSpec) (*warrenv1.ServiceSpec, error) {
	if err := joinNetworks(s, t, before.GetSpec(), spec); err != nil {
		return nil, err
	}
	if len(publications(spec)) == 0 {
		return spec, nil
	}
	spec = proto.CloneOf(spec)
	keepHostPorts(before.GetSpec(), spec)
	return spec, claimPorts(s, before, spec)
}

// joinNetworks checks the networks of a spec and touches those that are new to the service. The default one
// is never removed and so is left alone, as most services are on it and would get into each other's way.
func joinNetworks(s state.Snapshot, t *state.Transaction, before, spec *warrenv1.ServiceSpec) error {
	var broken []*validate.Violation
	for i, a := range spec.GetNetworks() {
		name := a.GetNetwork()
		n := networkNamed(s, name)
		if n == nil {
			broken = append(broken, violation("network", fmt.Sprintf("there is no network %s: there are %s; make it with `warrenctl network create %s`", name, networkNames(s), name),
				field("spec"), item("networks", i), field("network")))
			continue
		}
		if name != DefaultNetwork && (before == nil || !isOn(before, name)) {
			state.Update(t, n, func(*warrenv1.Network) {})
		}
		for j, alias := range a.GetAliases() {
			if other := s.ServiceByName(alias); other != nil && alias != spec.GetName() && isOn(other.GetSpec(), name) {
				broken = append(broken, violation("aliases", fmt.Sprintf("%s is the name of a service on network %s: choose another", alias, name),
					field("spec"), item("networks", i), item("aliases", j)))
			}
		}
	}
	if len(broken) > 0 {
		return invalid(broken...)
	}
	return nil
}

// networkNames lists the networks there are, of many the first few.
func networkNames(s state.Snapshot) string {
	var names []string
	for n := range networks(s) {
		if len(names) == 2*maxNamed {
			names = append(names, "…")
			break
		}
		names = append(names, n.GetSpec().GetName())
	}
	return strings.Join(names, ", ")
}

// keepHostPorts has a port that is left to Warren stay what it was before.
func keepHostPorts(before, spec *warrenv1.ServiceSpec) {
	for _, p := range spec.GetTask().GetHostPorts() {
		for _, was := range before.GetTask().GetHostPorts() {
			if p.GetPublished() == 0 && targetOf(was) == targetOf(p) && !slices.ContainsFunc(publications(spec), func(other publication) bool {
				return doorwayOf(other.PortSpec) == doorwayOf(was)
			}) {
				p.Published = was.GetPublished()
			}
		}
	}
}

// holder is who has a port.
type holder struct {
	service *warrenv1.Service
	ingress bool
}

// claimPorts checks that the ports which a spec publishes newly are nobody else's, and fills in those of
// nodes that are left to Warren.
func claimPorts(s state.Snapshot, before *warrenv1.Service, spec *warrenv1.ServiceSpec) error {
	had := map[holderOf]bool{}
	for _, p := range publications(before.GetSpec()) {
		had[holderOf{doorwayOf(p.PortSpec), p.ingress}] = true
	}
	var fresh []publication
	for _, p := range publications(spec) {
		if !had[holderOf{doorwayOf(p.PortSpec), p.ingress}] && (p.GetPublished() != 0 || !p.ingress) {
			fresh = append(fresh, p)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	reserved, taken := reservedPorts(s), takenPorts(s, before)
	for _, p := range fresh {
		d := doorwayOf(p.PortSpec)
		if d.port == 0 {
			continue
		}
		if by := reserved[d]; by != "" {
			return invalid(violation("ports", fmt.Sprintf("port %s is %s: publish another", d, by), p.path("published")...))
		}
		// Tasks of two services with the same port of their own node are kept apart by the scheduler.
		for _, h := range taken[d] {
			if p.ingress || h.ingress {
				return alreadyPublished(d, h.service)
			}
		}
	}
	for _, p := range publications(spec) {
		taken[doorwayOf(p.PortSpec)] = append(taken[doorwayOf(p.PortSpec)], holder{})
	}
	for _, p := range fresh {
		if p.GetPublished() != 0 {
			continue
		}
		free := freePort(definite(p.GetProtocol()), func(d doorway) bool { return len(taken[d]) == 0 && reserved[d] == "" })
		if free.port == 0 {
			return problemf(connect.CodeResourceExhausted, "no port from %d to %d is free for %s: name another", firstFreePort, lastFreePort, targetOf(p.PortSpec))
		}
		p.Published = free.port
		taken[free] = append(taken[free], holder{})
	}
	return nil
}

// holderOf is a port of a service's, by how it is published.
type holderOf struct {
	doorway
	ingress bool
}

func alreadyPublished(d doorway, by *warrenv1.Service) error {
	name := by.GetSpec().GetName()
	if by.GetRemoving() {
		return problemf(connect.CodeAlreadyExists, "port %s is published by service %s, which is still being removed: wait until `warrenctl service ls` no longer shows it", d, name)
	}
	return problemf(connect.CodeAlreadyExists, "port %s is published by service %s already: publish another, or take it from there with `warrenctl service update %s --publish-rm %s`", d, name, name, unpublished(d, by))
}

// unpublished is what --publish-rm is told to have a service publish a port no more.
func unpublished(d doorway, by *warrenv1.Service) string {
	suffix := ""
	if d.protocol == warrenv1.Protocol_PROTOCOL_UDP {
		suffix = "/udp"
	}
	for _, p := range publications(by.GetSpec()) {
		if doorwayOf(p.PortSpec) == d {
			return fmt.Sprintf("%d:%d%s", d.port, p.GetTarget(), suffix)
		}
	}
	for _, p := range by.GetEndpoint().GetPorts() { // the spec leaves open which port it is, and knows it by its target
		if (doorway{definite(p.GetProtocol()), p.GetPublished()}) == d {
			return fmt.Sprintf("%d%s", p.GetTarget(), suffix)
		}
	}
	return "TARGET" + suffix
}

// takenPorts are the ports of all services but one, asked for or given.
func takenPorts(s state.Snapshot, but *warrenv1.Service) map[doorway][]holder {
	taken := map[doorway][]holder{}
	for service := range s.Services() {
		if service.GetMeta().GetId() == but.GetMeta().GetId() {
			continue
		}
		for _, p := range publications(service.GetSpec()) {
			if p.GetPublished() != 0 {
				taken[doorwayOf(p.PortSpec)] = append(taken[doorwayOf(p.PortSpec)], holder{service, p.ingress})
			}
		}
		for _, p := range service.GetEndpoint().GetPorts() {
			d := doorway{definite(p.GetProtocol()), p.GetPublished()}
			taken[d] = append(taken[d], holder{service, true})
		}
	}
	return taken
}

// reservedPorts are the ports that Warren itself needs, and what for.
func reservedPorts(s state.Snapshot) map[doorway]string {
	const managers = "where managers are reached"
	reserved := map[doorway]string{
		{warrenv1.Protocol_PROTOCOL_TCP, managerPort}:                                                           managers,
		{warrenv1.Protocol_PROTOCOL_UDP, resolveNetwork(s.Cluster().GetSpec().GetNetwork()).GetWireguardPort()}: "where the overlay's packets go",
	}
	for m := range s.Members() {
		if _, port, err := net.SplitHostPort(m.GetAddr()); err == nil {
			if n, err := strconv.ParseUint(port, 10, 16); err == nil {
				reserved[doorway{warrenv1.Protocol_PROTOCOL_TCP, uint32(n)}] = managers
			}
		}
	}
	return reserved
}

// freePort returns a port that is free, from a place of the range that nobody can tell before: those who look
// at the same time are not to find the same. Of none the port is 0.
func freePort(protocol warrenv1.Protocol, free func(doorway) bool) doorway {
	const ports = lastFreePort - firstFreePort + 1
	from := rand.Uint32N(ports)
	for i := range uint32(ports) {
		if d := (doorway{protocol, firstFreePort + (from+i)%ports}); free(d) {
			return d
		}
	}
	return doorway{}
}
