package fakemanager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Cut breaks the overlay between a node and all others, so that pings to it and from it are lost, or mends it.
func (m *Manager) Cut(hostname string, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.severed[hostname] = cut
}

// Silence has a node's agent not answer any more.
func (m *Manager) Silence(hostname string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.silent[hostname] = true
}

// Down has the cluster hold a node for down.
func (m *Manager) Down(hostname string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.nodes {
		if n.GetFacts().GetHostname() == hostname {
			n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN
		}
	}
}

// Take has another program have a TCP port on a node.
func (m *Manager) Take(hostname string, port uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.nodes {
		if n.GetFacts().GetHostname() == hostname {
			n.Status.Overlay.TakenPorts = append(n.Status.Overlay.TakenPorts, &warrenv1.TakenPort{Port: port, By: "sshd"})
		}
	}
}

// errSilent is why an agent has not answered.
const errSilent = "its agent does not answer"

// overlay gives a node its part of the overlay, the number-th of the cluster.
func overlay(n *warrenv1.Node, number int) {
	n.Network = &warrenv1.NodeNetwork{Subnet: fmt.Sprintf("10.208.%d.0/24", number)}
	n.Status.Overlay = &warrenv1.OverlayStatus{
		State: warrenv1.OverlayState_OVERLAY_STATE_UP, Kind: warrenv1.WireGuardKind_WIRE_GUARD_KIND_KERNEL,
		PublicKey: fmt.Sprintf("key%d=", number), ListenPort: 7421, Mtu: 1420,
	}
}

// networksOf are the names of the networks that a service is on.
func networksOf(spec *warrenv1.ServiceSpec) []string {
	switch spec.GetTask().GetNetwork() {
	case warrenv1.NetworkMode_NETWORK_MODE_HOST, warrenv1.NetworkMode_NETWORK_MODE_NONE:
		return nil
	}
	var names []string
	for _, a := range spec.GetNetworks() {
		names = append(names, a.GetNetwork())
	}
	if names == nil {
		names = []string{"default"}
	}
	return names
}

func (m *Manager) servicesOn(network string) []string {
	var names []string
	for _, s := range m.services {
		if slices.Contains(networksOf(s.GetSpec()), network) {
			names = append(names, s.GetSpec().GetName())
		}
	}
	slices.Sort(names)
	return names
}

func (m *Manager) network(name string) (*warrenv1.Network, error) {
	for _, n := range m.networks {
		if n.GetSpec().GetName() == name {
			return n, nil
		}
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no network is named %q", name))
}

// attach refuses a service on networks that there are not, and gives it what it is reached by.
func (m *Manager) attach(s *warrenv1.Service) error {
	for _, name := range networksOf(s.GetSpec()) {
		if _, err := m.network(name); err != nil {
			return err
		}
	}
	s.Endpoint = &warrenv1.ServiceEndpoint{}
	if len(networksOf(s.GetSpec())) > 0 && s.GetSpec().GetEndpoint().GetMode() != warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR {
		s.Endpoint.Vip = "10.224.0.1"
	}
	for _, p := range s.GetSpec().GetEndpoint().GetPorts() {
		s.Endpoint.Ports = append(s.Endpoint.Ports, &warrenv1.PublishedPort{
			Protocol: p.GetProtocol(), Published: cmp.Or(p.GetPublished(), 30000), Target: p.GetTarget(), Name: p.GetName(),
		})
	}
	return nil
}

type networkService struct{ m *Manager }

func (h networkService) CreateNetwork(_ context.Context, req *connect.Request[warrenv1.CreateNetworkRequest]) (*connect.Response[warrenv1.CreateNetworkResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.initialised(); err != nil {
		return nil, err
	}
	name := req.Msg.GetSpec().GetName()
	if _, err := h.m.network(name); err == nil {
		return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("network %s already exists", name))
	}
	n := &warrenv1.Network{Meta: h.m.meta("network"), Spec: proto.CloneOf(req.Msg.GetSpec())}
	n.Meta.Id = name
	h.m.networks = append(h.m.networks, n)
	h.m.bump()
	return connect.NewResponse(&warrenv1.CreateNetworkResponse{Network: proto.CloneOf(n)}), nil
}

func (h networkService) ListNetworks(_ context.Context, req *connect.Request[warrenv1.ListNetworksRequest]) (*connect.Response[warrenv1.ListNetworksResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.initialised(); err != nil {
		return nil, err
	}
	sorted := slices.SortedFunc(slices.Values(h.m.networks), func(a, b *warrenv1.Network) int {
		return cmp.Compare(a.GetSpec().GetName(), b.GetSpec().GetName())
	})
	some, next := page(h.m, sorted, req.Msg.GetPageSize(), req.Msg.GetPageToken())
	res := &warrenv1.ListNetworksResponse{NextPageToken: next}
	for _, n := range some {
		res.Networks = append(res.Networks, &warrenv1.NetworkEntry{
			Network: proto.CloneOf(n), ServiceCount: uint32(len(h.m.servicesOn(n.GetSpec().GetName()))),
		})
	}
	return connect.NewResponse(res), nil
}

func (h networkService) GetNetwork(_ context.Context, req *connect.Request[warrenv1.GetNetworkRequest]) (*connect.Response[warrenv1.GetNetworkResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	n, err := h.m.network(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	on := h.m.servicesOn(n.GetSpec().GetName())
	return connect.NewResponse(&warrenv1.GetNetworkResponse{Entry: &warrenv1.NetworkEntry{
		Network: proto.CloneOf(n), Services: on, ServiceCount: uint32(len(on)),
	}}), nil
}

func (h networkService) DeleteNetwork(_ context.Context, req *connect.Request[warrenv1.DeleteNetworkRequest]) (*connect.Response[warrenv1.DeleteNetworkResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	n, err := h.m.network(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	if on := h.m.servicesOn(n.GetSpec().GetName()); len(on) > 0 {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("network %s cannot be removed: services are on it: %v", n.GetSpec().GetName(), on))
	}
	h.m.networks = slices.DeleteFunc(h.m.networks, func(o *warrenv1.Network) bool { return o == n })
	h.m.bump()
	return connect.NewResponse(&warrenv1.DeleteNetworkResponse{Network: n}), nil
}

// CheckNetwork answers with half a millisecond for every pair whose overlay is whole.
func (h networkService) CheckNetwork(_ context.Context, req *connect.Request[warrenv1.CheckNetworkRequest], stream *connect.ServerStream[warrenv1.CheckNetworkResponse]) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.initialised(); err != nil {
		return err
	}
	nodes := slices.DeleteFunc(slices.Clone(h.m.nodes), func(n *warrenv1.Node) bool {
		return n.GetStatus().GetState() != warrenv1.NodeState_NODE_STATE_READY
	})
	if refs := req.Msg.GetNodes(); len(refs) > 0 {
		nodes = nil
		for _, ref := range refs {
			n, err := h.m.node(ref)
			if err != nil {
				return err
			}
			nodes = append(nodes, n)
		}
	}
	if err := stream.Send(&warrenv1.CheckNetworkResponse{Rows: uint32(len(nodes))}); err != nil {
		return err
	}
	for _, from := range nodes {
		if err := stream.Send(h.row(from, nodes, cmp.Or(req.Msg.GetCount(), 3))); err != nil {
			return err
		}
	}
	return nil
}

func (h networkService) row(from *warrenv1.Node, nodes []*warrenv1.Node, pings uint32) *warrenv1.CheckNetworkResponse {
	row := &warrenv1.CheckNetworkResponse{NodeId: from.GetMeta().GetId(), Hostname: from.GetFacts().GetHostname()}
	if h.m.silent[row.GetHostname()] {
		row.Error = errSilent
	}
	for _, to := range nodes {
		if to == from {
			continue
		}
		p := &warrenv1.Ping{NodeId: to.GetMeta().GetId(), Hostname: to.GetFacts().GetHostname()}
		switch {
		case row.GetError() != "":
			p.Error = "was not tried"
		default:
			if p.Sent = pings; !h.m.severed[row.GetHostname()] && !h.m.severed[p.GetHostname()] {
				p.Received = pings
				p.Average = durationpb.New(500 * time.Microsecond)
				p.Min, p.Max = p.Average, p.Average
			}
		}
		row.Pings = append(row.Pings, p)
	}
	return row
}

func (h nodeService) GetNodePeers(_ context.Context, req *connect.Request[warrenv1.GetNodePeersRequest]) (*connect.Response[warrenv1.GetNodePeersResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	n, err := h.m.node(req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	if host := n.GetFacts().GetHostname(); h.m.silent[host] {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("node "+host+" cannot say how it stands with the others: "+errSilent))
	}
	res := &warrenv1.GetNodePeersResponse{}
	for _, other := range h.m.nodes {
		if other != n {
			res.Peers = append(res.Peers, &warrenv1.OverlayPeer{
				NodeId: other.GetMeta().GetId(), Hostname: other.GetFacts().GetHostname(), PublicKey: other.GetStatus().GetOverlay().GetPublicKey(),
				Endpoint: "192.0.2.7:7421", Subnet: other.GetNetwork().GetSubnet(), LastHandshake: timestamppb.Now(),
				ReceivedBytes: 2 << 20, SentBytes: 512 << 10,
			})
		}
	}
	return connect.NewResponse(res), nil
}
