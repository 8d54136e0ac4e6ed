package api

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/overlay"
	"github.com/cuemby/warren/internal/manager/relay"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// nodeService shows and manages nodes.
type nodeService struct {
	store    *state.Store
	write    writer
	exchange *relay.Exchange
}

var _ warrenv1connect.NodeServiceHandler = (*nodeService)(nil)

// ListNodes implements warrenv1connect.NodeServiceHandler.
func (h *nodeService) ListNodes(_ context.Context, req *connect.Request[warrenv1.ListNodesRequest]) (*connect.Response[warrenv1.ListNodesResponse], error) {
	after, err := parseToken(req.Msg.GetPageToken(), 2)
	if err != nil {
		return nil, err
	}
	s, size := h.store.Snapshot(), pageSize(req.Msg.GetPageSize())
	nodes := slices.SortedFunc(s.Nodes(), func(a, b *warrenv1.Node) int { return slices.Compare(nodePlace(a), nodePlace(b)) })
	if after != nil {
		first, there := slices.BinarySearchFunc(nodes, after, func(n *warrenv1.Node, c cursor) int { return slices.Compare(nodePlace(n), c) })
		if there {
			first++
		}
		nodes = nodes[first:]
	}
	res := &warrenv1.ListNodesResponse{}
	if len(nodes) > size {
		nodes = nodes[:size]
		res.NextPageToken = nodePlace(nodes[size-1]).token()
	}
	view := newNodeView(s)
	for _, n := range nodes {
		res.Nodes = append(res.Nodes, view.entry(n))
	}
	return connect.NewResponse(res), nil
}

// nodePlace is where a node stands in the list: by hostname, which need not be unique, then by id.
func nodePlace(n *warrenv1.Node) cursor {
	return cursor{n.GetFacts().GetHostname(), n.GetMeta().GetId()}
}

// nodeView counts what nodes have, and remembers what many tasks share.
type nodeView struct {
	snapshot state.Snapshot
	reserved map[revision]*warrenv1.Resources
}

func newNodeView(s state.Snapshot) *nodeView {
	return &nodeView{snapshot: s, reserved: map[revision]*warrenv1.Resources{}}
}

func (v *nodeView) entry(n *warrenv1.Node) *warrenv1.NodeEntry {
	e := &warrenv1.NodeEntry{Node: n, Reserved: &warrenv1.Resources{}, WireguardEndpoint: overlay.EndpointOf(n)}
	for t := range v.snapshot.TasksByNode(n.GetMeta().GetId()) {
		if lifecycle.Ended(t.GetStatus().GetState()) {
			continue
		}
		e.Tasks++
		r := v.reservation(revision{t.GetServiceId(), t.GetRevision()})
		e.Reserved.NanoCpus += r.GetNanoCpus()
		e.Reserved.MemoryBytes += r.GetMemoryBytes()
	}
	return e
}

func (v *nodeView) reservation(of revision) *warrenv1.Resources {
	r, known := v.reserved[of]
	if !known {
		r = v.snapshot.Revision(of.service, of.number).GetTask().GetReservations()
		v.reserved[of] = r
	}
	return r
}

// GetNode implements warrenv1connect.NodeServiceHandler.
func (h *nodeService) GetNode(_ context.Context, req *connect.Request[warrenv1.GetNodeRequest]) (*connect.Response[warrenv1.GetNodeResponse], error) {
	s := h.store.Snapshot()
	node, err := findNode(s, req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.GetNodeResponse{Entry: newNodeView(s).entry(node)}), nil
}

// UpdateNode implements warrenv1connect.NodeServiceHandler.
func (h *nodeService) UpdateNode(ctx context.Context, req *connect.Request[warrenv1.UpdateNodeRequest]) (*connect.Response[warrenv1.UpdateNodeResponse], error) {
	var node *warrenv1.Node
	err := h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) (err error) {
		if node, err = findNode(s, req.Msg.GetRef()); err != nil {
			return err
		}
		if err := unwrittenNode(node, req.Msg.GetVersion()); err != nil {
			return err
		}
		spec := proto.CloneOf(req.Msg.GetSpec())
		if err := checkNode(s, node, spec); err != nil {
			return err
		}
		if err := limitDrain(spec, req.Msg.GetDrainWithin(), time.Now()); err != nil {
			return err
		}
		if !proto.Equal(node.GetSpec(), spec) {
			state.Update(t, node, func(after *warrenv1.Node) {
				after.Spec, after.WrittenOver, after.WrittenBy = spec, node.GetMeta().GetVersion(), caller.From(ctx).Name
				node = after
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.UpdateNodeResponse{Node: cmp.Or(h.store.Snapshot().Node(node.GetMeta().GetId()), node)}), nil
}

// checkNode checks what the rules in the proto cannot say of the spec that a node is to have. A generation of
// its key that is left out stays.
func checkNode(s state.Snapshot, node *warrenv1.Node, spec *warrenv1.NodeSpec) error {
	spec.KeyGeneration = cmp.Or(spec.GetKeyGeneration(), node.GetSpec().GetKeyGeneration())
	if was := node.GetSpec().GetKeyGeneration(); spec.GetKeyGeneration() < was {
		return invalid(violation("key_generation", fmt.Sprintf("can only grow, and is %d already: write %d to have the node draw another key", was, was+1),
			field("spec"), field("key_generation")))
	}
	endpoint := spec.GetWireguardEndpoint()
	if endpoint == "" || endpoint == node.GetSpec().GetWireguardEndpoint() {
		return nil
	}
	if why := badEndpoint(endpoint); why != "" {
		return invalid(violation("wireguard_endpoint", why, field("spec"), field("wireguard_endpoint")))
	}
	for other := range s.Nodes() {
		if other.GetMeta().GetId() != node.GetMeta().GetId() && other.GetSpec().GetWireguardEndpoint() == endpoint {
			return invalid(violation("wireguard_endpoint", fmt.Sprintf("%s is where %s is reached: each needs an address and port of its own", endpoint, nodeName(other)),
				field("spec"), field("wireguard_endpoint")))
		}
	}
	return nil
}

// limitDrain gives a drain the deadline that is so far from now, and takes it from a node that is not drained any more.
func limitDrain(spec *warrenv1.NodeSpec, within *durationpb.Duration, now time.Time) error {
	switch {
	case spec.GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
		if within != nil {
			spec.DrainDeadline = timestamppb.New(now.Add(within.AsDuration()))
		}
	case within != nil:
		return invalid(violation("drain_within", "only a drain has a time to be done within: set the availability to drain, or leave this out", field("drain_within")))
	default:
		spec.DrainDeadline = nil
	}
	return nil
}

// badEndpoint tells why other nodes could not reach a node's WireGuard there.
func badEndpoint(text string) string {
	const example = "write ADDRESS:PORT, such as 203.0.113.7:7421 or [2001:db8::7]:7421"
	at, err := netip.ParseAddrPort(text)
	switch {
	case err != nil:
		if host, _, err := net.SplitHostPort(text); err == nil && host != "" && strings.Trim(host, "0123456789.:") != "" && !strings.Contains(host, ":") {
			return fmt.Sprintf("%q is a name, which nodes do not look up again when it changes: %s", host, example)
		}
		return fmt.Sprintf("%q is no address and port: %s", text, example)
	case at.Port() == 0:
		return "port 0 cannot be reached: " + example
	case at.Addr().Zone() != "" || at.Addr().IsLinkLocalUnicast():
		return fmt.Sprintf("%s is good on one link alone: give an address that every node reaches", at.Addr())
	case at.Addr().Is4In6():
		return "write " + netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String()
	case at.Addr().IsUnspecified(), at.Addr().IsLoopback(), at.Addr().IsMulticast():
		return fmt.Sprintf("other nodes cannot reach this one at %s: give an address of the machine's, or the one it is forwarded from", at.Addr())
	}
	return ""
}

// DeleteNode implements warrenv1connect.NodeServiceHandler. The node's certificate is worth nothing from
// then on. The liveness loop declares the tasks of a node that is no more lost.
func (h *nodeService) DeleteNode(ctx context.Context, req *connect.Request[warrenv1.DeleteNodeRequest]) (*connect.Response[warrenv1.DeleteNodeResponse], error) {
	var node *warrenv1.Node
	err := h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) (err error) {
		if node, err = findNode(s, req.Msg.GetRef()); err != nil {
			return err
		}
		if now := node.GetStatus().GetState(); now != warrenv1.NodeState_NODE_STATE_DOWN && !req.Msg.GetForce() {
			return problemf(connect.CodeFailedPrecondition, "%s is %s, not down: stop its warren-agent and wait until it is down, or use --force", nodeName(node), stateName(now))
		}
		t.Delete(node)
		authority.Remove(t, s, node.GetMeta().GetId(), time.Now())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.DeleteNodeResponse{Node: node}), nil
}

func nodeName(n *warrenv1.Node) string {
	return "node " + cmp.Or(n.GetFacts().GetHostname(), n.GetMeta().GetId())
}

func stateName(s warrenv1.NodeState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "NODE_STATE_"))
}
