package view

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Networks is the table of `network ls`.
func Networks(entries []*warrenv1.NetworkEntry, now time.Time) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "NAME", Key: "Name"}, {Title: "SERVICES", Key: "Services"}, {Title: "CREATED", Key: "Created"},
		{Title: "LABELS", Key: "Labels", Wide: true},
	}}
	for _, e := range entries {
		n := e.GetNetwork()
		t.Rows = append(t.Rows, output.Row{
			ID: n.GetMeta().GetId(), Name: n.GetSpec().GetName(), Object: e,
			Cells: []output.Cell{
				cell(n.GetSpec().GetName()), number(e.GetServiceCount()), cell(Ago(n.GetMeta().GetCreatedAt(), now)),
				cell(strings.Join(sortedPairs(n.GetSpec().GetLabels()), ",")),
			},
		})
	}
	return t
}

// Network describes a network in full.
func Network(e *warrenv1.NetworkEntry, now time.Time) string {
	n := e.GetNetwork()
	p := &page{}
	p.say("Name", n.GetSpec().GetName())
	p.say("Created", when(n.GetMeta().GetCreatedAt(), now))
	p.pairs("Labels", n.GetSpec().GetLabels())
	p.say("Services", cmp.Or(strings.Join(e.GetServices(), ", "), "none"))
	return p.String()
}

func sortedPairs(m map[string]string) []string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		pairs = append(pairs, key+"="+m[key])
	}
	return pairs
}

// Protocol is a protocol in a word.
func Protocol(p warrenv1.Protocol) string {
	if p == warrenv1.Protocol_PROTOCOL_UDP {
		return "udp"
	}
	return "tcp"
}

// published is a run of ports that lead to equally many of a service's.
type published struct {
	where             string // *: every node; host: the tasks' own
	protocol          string
	from, target, run uint32 // from is 0 where it is not known yet
	name              string
}

func (p published) String() string {
	said := p.where + ":?"
	if p.from > 0 {
		said = p.where + ":" + ports(p.from, p.run)
	}
	return said + "->" + ports(p.target, p.run) + "/" + p.protocol
}

func ports(from, run uint32) string {
	text := strconv.FormatUint(uint64(from), 10)
	if run > 1 {
		text += "-" + strconv.FormatUint(uint64(from+run-1), 10)
	}
	return text
}

// publishedBy are the ports that a service publishes, as it has been given them where it has.
func publishedBy(s *warrenv1.Service) []published {
	var all []published
	given := slices.Clone(s.GetEndpoint().GetPorts())
	for _, p := range s.GetSpec().GetEndpoint().GetPorts() {
		if p.GetPublished() == 0 {
			continue
		}
		given = slices.DeleteFunc(given, func(g *warrenv1.PublishedPort) bool {
			return Protocol(g.GetProtocol()) == Protocol(p.GetProtocol()) && g.GetPublished() == p.GetPublished()
		})
	}
	for _, p := range s.GetSpec().GetEndpoint().GetPorts() {
		one := published{"*", Protocol(p.GetProtocol()), p.GetPublished(), p.GetTarget(), 1, p.GetName()}
		at := slices.IndexFunc(given, func(g *warrenv1.PublishedPort) bool {
			return Protocol(g.GetProtocol()) == one.protocol && g.GetTarget() == one.target
		})
		if one.from == 0 && at >= 0 {
			one.from = given[at].GetPublished()
			given = slices.Delete(given, at, at+1)
		}
		all = append(all, one)
	}
	for _, p := range s.GetSpec().GetTask().GetHostPorts() {
		all = append(all, published{"host", Protocol(p.GetProtocol()), p.GetPublished(), p.GetTarget(), 1, p.GetName()})
	}
	return all
}

// Ports writes the ports that a service publishes as Docker does: *:8080->80/tcp, runs of them together.
// Those of the tasks' own nodes begin with host.
func Ports(s *warrenv1.Service) string {
	all := publishedBy(s)
	slices.SortStableFunc(all, func(a, b published) int {
		return cmp.Or(cmp.Compare(a.where, b.where), cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.from, b.from), cmp.Compare(a.target, b.target))
	})
	var said []string
	for i := 0; i < len(all); {
		p := all[i]
		for i++; i < len(all) && p.from > 0; i++ {
			if n := all[i]; n.where != p.where || n.protocol != p.protocol || n.from != p.from+p.run || n.target != p.target+p.run {
				break
			}
			p.run++
		}
		said = append(said, p.String())
	}
	return strings.Join(said, ", ")
}

// Publishes tells whether a service publishes ports.
func Publishes(s *warrenv1.Service) bool { return len(publishedBy(s)) > 0 }

// Taken says which of the ports that a service publishes another program has, on which nodes.
func Taken(s *warrenv1.Service, nodes []*warrenv1.NodeEntry) []string {
	var said []string
	for _, e := range nodes {
		for _, t := range e.GetNode().GetStatus().GetOverlay().GetTakenPorts() {
			if slices.ContainsFunc(publishedBy(s), func(p published) bool { return p.from == t.GetPort() && p.protocol == Protocol(t.GetProtocol()) }) {
				said = append(said, fmt.Sprintf("%s on %s", takenPort(t), nodeName(e.GetNode().GetFacts().GetHostname(), e.GetNode().GetMeta().GetId())))
			}
		}
	}
	return said
}

func takenPort(t *warrenv1.TakenPort) string {
	said := fmt.Sprintf("%d/%s", t.GetPort(), Protocol(t.GetProtocol()))
	if t.GetBy() != "" {
		said += " by " + t.GetBy()
	}
	return said
}

// connections adds how a service is reached. taken are ports that lead elsewhere on some nodes.
func (p *page) connections(s *warrenv1.Service, taken []string) {
	p.under("Endpoint", func() {
		overlay := s.GetSpec().GetTask().GetNetwork() == warrenv1.NetworkMode_NETWORK_MODE_UNSPECIFIED || s.GetSpec().GetTask().GetNetwork() == warrenv1.NetworkMode_NETWORK_MODE_OVERLAY
		if !overlay {
			return
		}
		mode := "vip"
		if s.GetSpec().GetEndpoint().GetMode() == warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR {
			mode = "dnsrr"
		}
		p.say("Mode", mode)
		p.say("VIP", s.GetEndpoint().GetVip())
		var networks []string
		for _, a := range s.GetSpec().GetNetworks() {
			said := a.GetNetwork()
			if len(a.GetAliases()) > 0 {
				said += " (also as " + strings.Join(a.GetAliases(), ", ") + ")"
			}
			networks = append(networks, said)
		}
		if networks == nil {
			networks = []string{"default"}
		}
		p.list("Networks", networks)
		var open []string
		for _, port := range publishedBy(s) {
			said := port.String()
			if port.name != "" {
				said += " (" + port.name + ")"
			}
			open = append(open, said)
		}
		p.list("Ports", open)
		p.list("Taken ports", taken)
		p.list("Problems", s.GetEndpoint().GetProblems())
	})
}

// OverlayState is how a node's overlay stands, in a word or two.
func OverlayState(n *warrenv1.Node) output.Cell {
	o := n.GetStatus().GetOverlay()
	switch {
	case n.GetNetwork().GetProblem() != "":
		return output.Cell{Text: "No subnet: " + n.GetNetwork().GetProblem(), Colour: output.Bad}
	case o.GetState() == warrenv1.OverlayState_OVERLAY_STATE_UP:
		return output.Cell{Text: "Up", Colour: output.Good}
	case o.GetState() == warrenv1.OverlayState_OVERLAY_STATE_FAILED:
		return output.Cell{Text: "Failed: " + o.GetError(), Colour: output.Bad}
	}
	return output.Cell{}
}

// overlay adds a node's part of the overlay; peers are those its agent tells of, or problem why it does not.
func (p *page) overlay(e *warrenv1.NodeEntry, peers []*warrenv1.OverlayPeer, problem string, now time.Time) {
	n := e.GetNode()
	p.under("Overlay", func() {
		o := n.GetStatus().GetOverlay()
		p.say("State", OverlayState(n).Text)
		p.say("Subnet", n.GetNetwork().GetSubnet())
		if kind := o.GetKind(); kind != 0 {
			p.say("WireGuard", word(kind.String(), "WIRE_GUARD_KIND_"))
		}
		p.say("Public key", o.GetPublicKey())
		p.say("Endpoint", cmp.Or(e.GetWireguardEndpoint(), n.GetSpec().GetWireguardEndpoint()))
		p.amount("Port", int64(o.GetListenPort()))
		p.amount("MTU", int64(o.GetMtu()))
		var taken []string
		for _, t := range o.GetTakenPorts() {
			taken = append(taken, takenPort(t))
		}
		p.list("Taken ports", taken)
		if problem != "" {
			p.say("Peers", "not known: "+problem)
		}
		var said []string
		for _, peer := range peers {
			said = append(said, overlayPeer(peer, now))
		}
		p.list("Peers", said)
	})
}

func overlayPeer(peer *warrenv1.OverlayPeer, now time.Time) string {
	said := cmp.Or(peer.GetHostname(), peer.GetNodeId())
	if peer.GetSubnet() != "" {
		said += ", " + peer.GetSubnet()
	}
	if peer.GetEndpoint() != "" {
		said += " at " + peer.GetEndpoint()
	}
	handshake := "no handshake yet"
	if peer.GetLastHandshake() != nil {
		handshake = "last handshake " + Ago(peer.GetLastHandshake(), now)
	}
	return fmt.Sprintf("%s, %s, %s received, %s sent", said, handshake, Memory(int64(peer.GetReceivedBytes())), Memory(int64(peer.GetSentBytes())))
}

// layout adds how the cluster's overlay is laid out.
func (p *page) layout(n *warrenv1.ClusterNetwork) {
	p.under("Network", func() {
		if n.GetNodeRange() != "" {
			p.say("Nodes", fmt.Sprintf("%s, a /%d for each", n.GetNodeRange(), n.GetNodePrefix()))
		}
		p.say("VIPs", n.GetVipRange())
		p.amount("WireGuard port", int64(n.GetWireguardPort()))
		p.say("Key life", duration(n.GetKeyLife()))
	})
}

// latency writes a round trip as people do: 0.42ms.
func latency(d *durationpb.Duration) string {
	ms := float64(d.AsDuration()) / float64(time.Millisecond)
	digits := 2
	if ms >= 100 {
		digits = 0
	} else if ms >= 10 {
		digits = 1
	}
	return strconv.FormatFloat(ms, 'f', digits, 64) + "ms"
}
