package api

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"net/netip"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/cuemby/warren/internal/manager/relay"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	// peersTimeout is how long an agent may take to say how its overlay stands, the dialling included.
	peersTimeout = 15 * time.Second
	// pingTimeout and pingInterval are how long it may take to ping the others: they are pinged at the same
	// time, once a second at the slowest.
	pingTimeout  = 20 * time.Second
	pingInterval = time.Second
	// rouseTimeout is how long the first words between the nodes may take: no longer than what a row may.
	rouseTimeout = 5 * time.Second
	// defaultPings is how often each node pings each other.
	defaultPings = 3
	// maxAsked is how many agents are asked at the same time.
	maxAsked = 32
)

// GetNodePeers implements warrenv1connect.NodeServiceHandler.
func (h *nodeService) GetNodePeers(ctx context.Context, req *connect.Request[warrenv1.GetNodePeersRequest]) (*connect.Response[warrenv1.GetNodePeersResponse], error) {
	node, err := findNode(h.store.Snapshot(), req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, peersTimeout, errSilent)
	defer cancel()
	res := &warrenv1.GetNodePeersResponse{}
	ask := &warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Peers{Peers: &warrenv1.PeersPurpose{}}}
	err = gather(ctx, h.exchange, node, ask, func(m *warrenv1.RelayRequest) {
		res.Peers = append(res.Peers, m.GetPeers().GetPeers()...)
	})
	if err != nil {
		return nil, problemf(connect.CodeUnavailable, "%s cannot say how it stands with the others: %v", nodeName(node), err)
	}
	s := h.store.Snapshot()
	for _, p := range res.GetPeers() {
		p.Hostname = s.Node(p.GetNodeId()).GetFacts().GetHostname()
	}
	return connect.NewResponse(res), nil
}

// errSilent: an agent that has been asked does not come to an end.
var errSilent = errors.New("its agent has not answered in time")

// gather asks a node's agent, and gives take each message of its answer. Its errors say why there is none, or
// not all of it.
func gather(ctx context.Context, exchange *relay.Exchange, node *warrenv1.Node, ask *warrenv1.OpenStream, take func(*warrenv1.RelayRequest)) error {
	stream, err := exchange.Open(ctx, node.GetMeta().GetId(), ask)
	if err != nil {
		return silent(ctx, err)
	}
	defer stream.Close()
	for {
		m, err := stream.Receive(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return silent(ctx, err)
		}
		take(m)
	}
}

// silent tells why there is no answer where it was not waited for any longer.
func silent(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// CheckNetwork implements warrenv1connect.NetworkServiceHandler.
func (h *networkService) CheckNetwork(ctx context.Context, req *connect.Request[warrenv1.CheckNetworkRequest], stream *connect.ServerStream[warrenv1.CheckNetworkResponse]) error {
	s := h.store.Snapshot()
	check, err := newCheck(s, req.Msg)
	if err != nil {
		return err
	}
	if err := stream.Send(&warrenv1.CheckNetworkResponse{Rows: uint32(len(check.nodes))}); err != nil {
		return err
	}
	check.rouse(ctx, h.exchange)
	ctx, cancel := context.WithCancel(ctx)
	rows := make(chan *warrenv1.CheckNetworkResponse)
	var asking errgroup.Group
	asking.SetLimit(maxAsked)
	done := make(chan struct{})
	go func() { // waited for below
		defer close(done)
		for _, node := range check.nodes {
			asking.Go(func() error {
				select {
				case rows <- check.row(ctx, h.exchange, node):
				case <-ctx.Done():
				}
				return nil
			})
		}
	}()
	defer func() {
		cancel()
		<-done
		_ = asking.Wait() // none fails
	}()
	for range check.nodes {
		select {
		case row := <-rows:
			if err := stream.Send(row); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// check is one look at whether the overlay is whole.
type check struct {
	nodes []*warrenv1.Node
	// alone, where only one node was named, is that one: it pings all others, and they ping it.
	alone *warrenv1.Node
	count uint32
}

// newCheck finds the nodes that are to ping each other.
func newCheck(s state.Snapshot, req *warrenv1.CheckNetworkRequest) (*check, error) {
	c := &check{count: cmp.Or(req.GetCount(), defaultPings)}
	named := map[string]bool{}
	for _, ref := range req.GetNodes() {
		node, err := findNode(s, ref)
		if err != nil {
			return nil, err
		}
		if id := node.GetMeta().GetId(); !named[id] {
			named[id] = true
			c.nodes = append(c.nodes, node)
		}
	}
	if len(c.nodes) > 1 {
		return c, nil
	}
	if len(c.nodes) == 1 {
		c.alone = c.nodes[0]
	}
	for node := range s.Nodes() {
		if node.GetStatus().GetState() == warrenv1.NodeState_NODE_STATE_READY && !named[node.GetMeta().GetId()] {
			c.nodes = append(c.nodes, node)
		}
	}
	return c, nil
}

// rouse has one of each two nodes ping the other, before they all ping each other at the same time. Two that have been
// quiet for WireGuard's REJECT_AFTER_TIME of 3 min shake hands first, and where both begin at once neither takes the
// other's answer: they are cut off until REKEY_TIMEOUT has passed, 5 s later. That would be a hole of the check's own
// making. What comes of these pings is of no interest.
func (c *check) rouse(ctx context.Context, exchange *relay.Exchange) {
	ctx, cancel := context.WithTimeoutCause(ctx, rouseTimeout, errSilent)
	defer cancel()
	var asking errgroup.Group
	asking.SetLimit(maxAsked)
	for _, node := range c.nodes {
		if node.GetStatus().GetState() != warrenv1.NodeState_NODE_STATE_READY {
			continue
		}
		ask := &warrenv1.PingPurpose{Count: 1}
		for other := range c.pingedBy(node) {
			if address, _ := overlayAddress(other); address != "" && node.GetMeta().GetId() < other.GetMeta().GetId() {
				ask.Addresses = append(ask.Addresses, address)
			}
		}
		// Also one that has none to ping: it answers when its overlay is up, and until then the others would ping it in vain.
		asking.Go(func() error {
			_ = gather(ctx, exchange, node, &warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Ping{Ping: ask}}, func(*warrenv1.RelayRequest) {})
			return nil
		})
	}
	_ = asking.Wait()
}

// pingedBy are those that a node is to ping.
func (c *check) pingedBy(node *warrenv1.Node) iter.Seq[*warrenv1.Node] {
	return func(yield func(*warrenv1.Node) bool) {
		for _, other := range c.nodes {
			if other == node || c.alone != nil && c.alone != node && c.alone != other {
				continue
			}
			if !yield(other) {
				return
			}
		}
	}
}

// row has one node ping those that it is to ping.
func (c *check) row(ctx context.Context, exchange *relay.Exchange, node *warrenv1.Node) *warrenv1.CheckNetworkResponse {
	row := &warrenv1.CheckNetworkResponse{NodeId: node.GetMeta().GetId(), Hostname: node.GetFacts().GetHostname()}
	ask, at := &warrenv1.PingPurpose{Count: c.count}, map[string]*warrenv1.Ping{}
	for other := range c.pingedBy(node) {
		ping := &warrenv1.Ping{NodeId: other.GetMeta().GetId(), Hostname: other.GetFacts().GetHostname()}
		row.Pings = append(row.Pings, ping)
		if ping.Address, ping.Error = overlayAddress(other); ping.GetAddress() != "" {
			ask.Addresses = append(ask.Addresses, ping.GetAddress())
			at[ping.GetAddress()] = ping
			ping.Error = "was not tried"
		}
	}
	if now := node.GetStatus().GetState(); now != warrenv1.NodeState_NODE_STATE_READY {
		row.Error = "the node is " + stateName(now)
		return row
	}
	if len(ask.GetAddresses()) == 0 {
		return row
	}
	ctx, cancel := context.WithTimeoutCause(ctx, pingTimeout+time.Duration(c.count)*pingInterval, errSilent)
	defer cancel()
	err := gather(ctx, exchange, node, &warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Ping{Ping: ask}}, func(m *warrenv1.RelayRequest) {
		for _, told := range m.GetPings().GetPings() {
			if ping := at[told.GetAddress()]; ping != nil {
				ping.Sent, ping.Received, ping.Error = told.GetSent(), told.GetReceived(), told.GetError()
				ping.Min, ping.Average, ping.Max = told.GetMin(), told.GetAverage(), told.GetMax()
			}
		}
	})
	if err != nil {
		row.Error = err.Error()
	}
	return row
}

// overlayAddress returns a node's own address on the overlay, the first of its subnet, or why it has none.
func overlayAddress(n *warrenv1.Node) (address, problem string) {
	subnet, err := netip.ParsePrefix(n.GetNetwork().GetSubnet())
	if err != nil {
		return "", cmp.Or(n.GetNetwork().GetProblem(), "the node has no subnet yet")
	}
	return subnet.Masked().Addr().Next().String(), ""
}
