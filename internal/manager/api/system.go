package api

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/manager/relay"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const (
	// diskTimeout is how long an agent may take to look through its disk, or to remove images from it.
	diskTimeout  = 2 * time.Minute
	pruneTimeout = 10 * time.Minute
)

// systemService looks into the machines.
type systemService struct {
	warrenv1connect.UnimplementedSystemServiceHandler
	store    *state.Store
	exchange *relay.Exchange
}

var _ warrenv1connect.SystemServiceHandler = (*systemService)(nil)

// GetDiskUsage implements warrenv1connect.SystemServiceHandler.
func (h *systemService) GetDiskUsage(ctx context.Context, req *connect.Request[warrenv1.GetDiskUsageRequest], stream *connect.ServerStream[warrenv1.GetDiskUsageResponse]) error {
	nodes, err := namedNodes(h.store.Snapshot(), req.Msg.GetNodes())
	if err != nil {
		return err
	}
	if err := stream.Send(&warrenv1.GetDiskUsageResponse{Nodes: uint32(len(nodes))}); err != nil {
		return err
	}
	return eachNode(ctx, nodes, func(ctx context.Context, node *warrenv1.Node) *warrenv1.GetDiskUsageResponse {
		row := &warrenv1.GetDiskUsageResponse{NodeId: node.GetMeta().GetId(), Hostname: node.GetFacts().GetHostname()}
		ask := &warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Disk{Disk: &warrenv1.DiskPurpose{}}}
		row.Error = h.ask(ctx, node, diskTimeout, ask, func(m *warrenv1.RelayRequest) { row.Disk = m.GetDisk() })
		return row
	}, stream.Send)
}

// PruneImages implements warrenv1connect.SystemServiceHandler.
func (h *systemService) PruneImages(ctx context.Context, req *connect.Request[warrenv1.PruneImagesRequest], stream *connect.ServerStream[warrenv1.PruneImagesResponse]) error {
	nodes, err := namedNodes(h.store.Snapshot(), req.Msg.GetNodes())
	if err != nil {
		return err
	}
	if err := stream.Send(&warrenv1.PruneImagesResponse{Nodes: uint32(len(nodes))}); err != nil {
		return err
	}
	return eachNode(ctx, nodes, func(ctx context.Context, node *warrenv1.Node) *warrenv1.PruneImagesResponse {
		row := &warrenv1.PruneImagesResponse{NodeId: node.GetMeta().GetId(), Hostname: node.GetFacts().GetHostname()}
		ask := &warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Prune{Prune: &warrenv1.PrunePurpose{DryRun: req.Msg.GetDryRun()}}}
		row.Error = h.ask(ctx, node, pruneTimeout, ask, func(m *warrenv1.RelayRequest) { row.Pruned = m.GetPruned() })
		return row
	}, stream.Send)
}

// ask has a node's agent answer, and returns why it does not, in words.
func (h *systemService) ask(ctx context.Context, node *warrenv1.Node, atMost time.Duration, ask *warrenv1.OpenStream, take func(*warrenv1.RelayRequest)) string {
	if problem := notReady(node); problem != "" {
		return problem
	}
	ctx, cancel := context.WithTimeoutCause(ctx, atMost, errSilent)
	defer cancel()
	answered := false
	err := gather(ctx, h.exchange, node, ask, func(m *warrenv1.RelayRequest) {
		answered = true
		take(m)
	})
	switch {
	case err != nil:
		return err.Error()
	case !answered:
		return "its agent has ended the answer before it began"
	}
	return ""
}

// notReady says why a node is not worth asking; empty where it is.
func notReady(node *warrenv1.Node) string {
	if now := node.GetStatus().GetState(); now != warrenv1.NodeState_NODE_STATE_READY {
		return "the node is " + stateName(now)
	}
	return ""
}

// namedNodes finds the nodes that refs name, each once; all there are where none is named.
func namedNodes(s state.Snapshot, refs []string) ([]*warrenv1.Node, error) {
	var nodes []*warrenv1.Node
	if len(refs) == 0 {
		for node := range s.Nodes() {
			nodes = append(nodes, node)
		}
		return nodes, nil
	}
	named := map[string]bool{}
	for _, ref := range refs {
		node, err := findNode(s, ref)
		if err != nil {
			return nil, err
		}
		if id := node.GetMeta().GetId(); !named[id] {
			named[id] = true
			nodes = append(nodes, node)
		}
	}
	return nodes, nil
}

// eachNode asks nodes, so many at the same time as maxAsked says, and passes on what each answers as it comes.
func eachNode[T any](ctx context.Context, nodes []*warrenv1.Node, ask func(context.Context, *warrenv1.Node) T, send func(T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan T)
	var asking errgroup.Group
	asking.SetLimit(maxAsked)
	done := make(chan struct{})
	go func() { // waited for below
		defer close(done)
		for _, node := range nodes {
			asking.Go(func() error {
				select {
				case answers <- ask(ctx, node):
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
	for range nodes {
		select {
		case answer := <-answers:
			if err := send(answer); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// defaultInterval is how often nodes tell what they use.
const defaultInterval = time.Second

// usagePurpose asks a node for what it uses.
func usagePurpose(interval *durationpb.Duration, service string) *warrenv1.OpenStream {
	if interval.AsDuration() == 0 {
		interval = durationpb.New(defaultInterval)
	}
	return &warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Usage{Usage: &warrenv1.UsagePurpose{Interval: interval, ServiceId: service}}}
}
