package api

import (
	"cmp"
	"context"
	"runtime"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/version"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// Defaults of a cluster's spec. Unlike a service's they are stored, so that people see what holds.
const (
	defaultClusterName       = "warren"
	defaultHeartbeatInterval = time.Second
	defaultNodeGrace         = 3500 * time.Millisecond
	defaultRestartGrace      = 60 * time.Second
	defaultTaskHistory       = 5
	defaultCertificateLife   = 30 * 24 * time.Hour
)

// resolveCluster returns a copy of spec, which may be nil, with the defaults in its unset fields.
func resolveCluster(spec *warrenv1.ClusterSpec) *warrenv1.ClusterSpec {
	resolved := &warrenv1.ClusterSpec{}
	proto.Merge(resolved, spec)
	resolved.Name = cmp.Or(resolved.GetName(), defaultClusterName)
	resolved.HeartbeatInterval = cmp.Or(resolved.GetHeartbeatInterval(), durationpb.New(defaultHeartbeatInterval))
	resolved.NodeGrace = cmp.Or(resolved.GetNodeGrace(), durationpb.New(defaultNodeGrace))
	resolved.RestartGrace = cmp.Or(resolved.GetRestartGrace(), durationpb.New(defaultRestartGrace))
	resolved.CertificateLife = cmp.Or(resolved.GetCertificateLife(), durationpb.New(defaultCertificateLife))
	resolved.TaskHistory = cmp.Or(resolved.TaskHistory, proto.Uint32(defaultTaskHistory))
	resolved.Network = resolveNetwork(resolved.GetNetwork())
	return resolved
}

// checkCluster checks what the rules in the proto cannot say of a resolved spec.
func checkCluster(spec *warrenv1.ClusterSpec) error {
	interval, grace := spec.GetHeartbeatInterval().AsDuration(), spec.GetNodeGrace().AsDuration()
	if grace < 2*interval {
		return invalid(violation("node_grace",
			"must be at least twice the heartbeat interval, "+interval.String()+", or one late heartbeat would take a node down",
			field("spec"), field("node_grace")))
	}
	if broken := checkNetwork(spec.GetNetwork()); len(broken) > 0 {
		return invalid(broken...)
	}
	return nil
}

// clusterService makes and describes the cluster.
type clusterService struct {
	warrenv1connect.UnimplementedClusterServiceHandler
	store      *state.Store
	write      writer
	membership Membership
	authority  *authority.Authority
}

var _ warrenv1connect.ClusterServiceHandler = (*clusterService)(nil)

// InitCluster implements warrenv1connect.ClusterServiceHandler.
func (h *clusterService) InitCluster(ctx context.Context, req *connect.Request[warrenv1.InitClusterRequest]) (*connect.Response[warrenv1.InitClusterResponse], error) {
	spec := resolveCluster(req.Msg.GetSpec())
	if err := checkCluster(spec); err != nil {
		return nil, err
	}
	// A cluster that there is already has routes of its own, and is refused for being there.
	if h.store.Snapshot().Cluster() == nil {
		if err := checkRoutes(spec.GetNetwork(), hostRoutes); err != nil {
			return nil, err
		}
	}
	cluster, err := h.membership.Initialize(ctx, spec, Addresses{Listen: req.Msg.GetListenAddr(), Advertise: req.Msg.GetAdvertiseAddr()})
	if err != nil {
		return nil, err
	}
	res := &warrenv1.InitClusterResponse{Cluster: cluster, AgentAddr: h.membership.AgentAddr()}
	if cluster.GetSpec().GetAutolock() {
		key, err := h.authority.UnlockKey(ctx, false)
		if err != nil {
			return nil, err
		}
		res.UnlockKey = key.Text()
	}
	return connect.NewResponse(res), nil
}

// GetCluster implements warrenv1connect.ClusterServiceHandler.
func (h *clusterService) GetCluster(context.Context, *connect.Request[warrenv1.GetClusterRequest]) (*connect.Response[warrenv1.GetClusterResponse], error) {
	managers, err := h.membership.Managers()
	if err != nil {
		return nil, err
	}
	s := h.store.Snapshot()
	res := &warrenv1.GetClusterResponse{Cluster: s.Cluster(), Managers: managers, CaRotation: len(s.Authority().GetRoots()) > 1}
	voters := uint32(0)
	for _, m := range managers {
		if m.GetVoter() {
			voters++
			if m.GetReachable() {
				res.ManagersReachable++
			}
		}
	}
	res.Quorum = voters/2 + 1
	for n := range s.Nodes() {
		res.Nodes++
		if n.GetStatus().GetState() == warrenv1.NodeState_NODE_STATE_READY {
			res.NodesReady++
		}
	}
	for range s.Services() {
		res.Services++
	}
	for t := range s.Tasks() {
		if !lifecycle.Ended(t.GetStatus().GetState()) {
			res.Tasks++
		}
	}
	return connect.NewResponse(res), nil
}

// UpdateCluster implements warrenv1connect.ClusterServiceHandler.
func (h *clusterService) UpdateCluster(ctx context.Context, req *connect.Request[warrenv1.UpdateClusterRequest]) (*connect.Response[warrenv1.UpdateClusterResponse], error) {
	err := h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) error {
		cluster := s.Cluster()
		if err := unchanged("the cluster", cluster, req.Msg.GetVersion()); err != nil {
			return err
		}
		spec := resolveCluster(req.Msg.GetSpec())
		network, broken := keepNetwork(cluster.GetSpec().GetNetwork(), req.Msg.GetSpec().GetNetwork())
		if len(broken) > 0 {
			return invalid(broken...)
		}
		spec.Network = network
		if err := checkCluster(spec); err != nil {
			return err
		}
		if !proto.Equal(cluster.GetSpec(), spec) {
			authority.Respec(t, s, spec, time.Now())
			state.Update(t, cluster, func(after *warrenv1.Cluster) { after.Spec = spec })
		}
		return h.authority.Autolock(t, s, spec.GetAutolock())
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.UpdateClusterResponse{Cluster: h.store.Snapshot().Cluster()}), nil
}

// GetVersion implements warrenv1connect.ClusterServiceHandler.
func (h *clusterService) GetVersion(context.Context, *connect.Request[warrenv1.GetVersionRequest]) (*connect.Response[warrenv1.GetVersionResponse], error) {
	return connect.NewResponse(&warrenv1.GetVersionResponse{
		Version: version.Version, Commit: version.Commit,
		GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Initialized: h.store.Snapshot().Cluster() != nil,
	}), nil
}
