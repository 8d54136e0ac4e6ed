package api

import (
	"context"
	"iter"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager/relay"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// DefaultNetwork is the network of services that name none. It is made with the cluster and never goes.
const DefaultNetwork = "default"

// networkService writes and shows networks.
type networkService struct {
	store    *state.Store
	write    writer
	exchange *relay.Exchange
}

var _ warrenv1connect.NetworkServiceHandler = (*networkService)(nil)

// CreateNetwork implements warrenv1connect.NetworkServiceHandler.
func (h *networkService) CreateNetwork(ctx context.Context, req *connect.Request[warrenv1.CreateNetworkRequest]) (*connect.Response[warrenv1.CreateNetworkResponse], error) {
	spec := req.Msg.GetSpec()
	name := spec.GetName()
	if name == "host" || name == "none" {
		return nil, invalid(violation("network.name", name+" is what a service says that is on no network of the cluster: choose another name", field("spec"), field("name")))
	}
	err := h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) error {
		if networkNamed(s, name) != nil {
			return problemf(connect.CodeAlreadyExists, "network %s already exists: choose another name, or use the one there is", name)
		}
		t.Create(&warrenv1.Network{Meta: &warrenv1.Meta{Id: name}, Spec: spec})
		return nil
	})
	if err != nil {
		return nil, err
	}
	made := h.store.Snapshot().Network(name)
	if made == nil { // somebody has removed it since
		made = &warrenv1.Network{Meta: &warrenv1.Meta{Id: name}, Spec: spec}
	}
	return connect.NewResponse(&warrenv1.CreateNetworkResponse{Network: made}), nil
}

// ListNetworks implements warrenv1connect.NetworkServiceHandler.
func (h *networkService) ListNetworks(_ context.Context, req *connect.Request[warrenv1.ListNetworksRequest]) (*connect.Response[warrenv1.ListNetworksResponse], error) {
	after, err := parseToken(req.Msg.GetPageToken(), 1)
	if err != nil {
		return nil, err
	}
	s, size := h.store.Snapshot(), pageSize(req.Msg.GetPageSize())
	on := map[string]uint32{}
	for service := range s.Services() {
		for name := range networksOf(service.GetSpec()) {
			on[name]++
		}
	}
	res := &warrenv1.ListNetworksResponse{}
	for n := range networks(s) {
		name := n.GetSpec().GetName()
		if after != nil && name <= after[0] {
			continue
		}
		if len(res.Networks) == size {
			res.NextPageToken = cursor{res.Networks[size-1].GetNetwork().GetSpec().GetName()}.token()
			break
		}
		res.Networks = append(res.Networks, &warrenv1.NetworkEntry{Network: n, ServiceCount: on[name]})
	}
	return connect.NewResponse(res), nil
}

// GetNetwork implements warrenv1connect.NetworkServiceHandler.
func (h *networkService) GetNetwork(_ context.Context, req *connect.Request[warrenv1.GetNetworkRequest]) (*connect.Response[warrenv1.GetNetworkResponse], error) {
	s := h.store.Snapshot()
	n, err := findNetwork(s, req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	services := servicesOn(s, n.GetSpec().GetName())
	return connect.NewResponse(&warrenv1.GetNetworkResponse{Entry: &warrenv1.NetworkEntry{
		Network: n, Services: services, ServiceCount: uint32(len(services)),
	}}), nil
}

// maxNamed bounds how many services an error names.
const maxNamed = 5

// DeleteNetwork implements warrenv1connect.NetworkServiceHandler. A service that is put on the network at the
// same time has touched it, so that only one of the two comes about.
func (h *networkService) DeleteNetwork(ctx context.Context, req *connect.Request[warrenv1.DeleteNetworkRequest]) (*connect.Response[warrenv1.DeleteNetworkResponse], error) {
	var n *warrenv1.Network
	err := h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) (err error) {
		if n, err = findNetwork(s, req.Msg.GetRef()); err != nil {
			return err
		}
		name := n.GetSpec().GetName()
		if name == DefaultNetwork {
			return Refuse("the network %s cannot be removed: services that name no network are on it", DefaultNetwork)
		}
		if on := servicesOn(s, name); len(on) > 0 {
			return Refuse("network %s cannot be removed: %s on it: remove what is, or take it off with `warrenctl service update --network-rm %s`",
				name, areOn(on), name)
		}
		t.Delete(n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.DeleteNetworkResponse{Network: n}), nil
}

// networkNamed returns the network of that name. The default one is there in clusters too that were made
// before there were networks.
func networkNamed(s state.Snapshot, name string) *warrenv1.Network {
	n := s.Network(name)
	if n == nil && name == DefaultNetwork {
		return NewDefaultNetwork()
	}
	return n
}

// NewDefaultNetwork makes the network that every cluster has.
func NewDefaultNetwork() *warrenv1.Network {
	return &warrenv1.Network{Meta: &warrenv1.Meta{Id: DefaultNetwork}, Spec: &warrenv1.NetworkSpec{Name: DefaultNetwork}}
}

// networks iterates over all networks by name.
func networks(s state.Snapshot) iter.Seq[*warrenv1.Network] {
	return func(yield func(*warrenv1.Network) bool) {
		missing := s.Network(DefaultNetwork) == nil
		for n := range s.Networks() {
			if missing && n.GetSpec().GetName() > DefaultNetwork {
				if missing = false; !yield(NewDefaultNetwork()) {
					return
				}
			}
			if !yield(n) {
				return
			}
		}
		if missing {
			yield(NewDefaultNetwork())
		}
	}
}

// findNetwork returns the network that ref names.
func findNetwork(s state.Snapshot, ref string) (*warrenv1.Network, error) {
	if n := networkNamed(s, ref); n != nil {
		return n, nil
	}
	return nil, problemf(connect.CodeNotFound, "no network is named %q: `warrenctl network ls` shows those there are", ref)
}

// onOverlay tells whether tasks of a service have addresses of the cluster.
func onOverlay(spec *warrenv1.ServiceSpec) bool {
	mode := spec.GetTask().GetNetwork()
	return mode == warrenv1.NetworkMode_NETWORK_MODE_UNSPECIFIED || mode == warrenv1.NetworkMode_NETWORK_MODE_OVERLAY
}

// networksOf iterates over the names of the networks that a service is on.
func networksOf(spec *warrenv1.ServiceSpec) iter.Seq[string] {
	return func(yield func(string) bool) {
		if !onOverlay(spec) {
			return
		}
		for _, a := range spec.GetNetworks() {
			if !yield(a.GetNetwork()) {
				return
			}
		}
		if len(spec.GetNetworks()) == 0 {
			yield(DefaultNetwork)
		}
	}
}

// isOn tells whether a service is on a network.
func isOn(spec *warrenv1.ServiceSpec, network string) bool {
	for name := range networksOf(spec) {
		if name == network {
			return true
		}
	}
	return false
}

// servicesOn returns the names of the services on a network, those being removed included: their tasks may
// still run.
func servicesOn(s state.Snapshot, network string) []string {
	var names []string
	for service := range s.ServicesFrom("") {
		if isOn(service.GetSpec(), network) {
			names = append(names, service.GetSpec().GetName())
		}
	}
	return names
}

// areOn words which services there are, of many the first few: services api, web are.
func areOn(names []string) string {
	if len(names) == 1 {
		return "service " + names[0] + " is"
	}
	if len(names) > maxNamed {
		names = append(slices.Clone(names[:maxNamed]), "…")
	}
	return "services " + strings.Join(names, ", ") + " are"
}
