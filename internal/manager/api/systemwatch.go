package api

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	// lookForNodes is how often it is looked which nodes there are, and whether those that did not answer are worth
	// asking again.
	lookForNodes = 2 * time.Second
	// firstSample is how long an agent may take to tell anything.
	firstSample = 15 * time.Second
)

// WatchUsage implements warrenv1connect.SystemServiceHandler.
func (h *systemService) WatchUsage(ctx context.Context, req *connect.Request[warrenv1.WatchUsageRequest], stream *connect.ServerStream[warrenv1.WatchUsageResponse]) error {
	w := &usageWatch{service: h, req: req.Msg, told: make(chan *warrenv1.WatchUsageResponse), watched: map[string]context.CancelFunc{}}
	nodes, err := w.wanted(h.store.Snapshot())
	if err != nil {
		return err
	}
	if err := stream.Send(&warrenv1.WatchUsageResponse{Nodes: uint32(len(nodes))}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer w.watching.Wait()
	defer cancel()
	w.follow(ctx, nodes)
	ticker := time.NewTicker(lookForNodes)
	defer ticker.Stop()
	for {
		select {
		case response := <-w.told:
			if err := stream.Send(response); err != nil {
				return err
			}
		case <-ticker.C:
			if nodes, err = w.wanted(h.store.Snapshot()); err != nil {
				return err
			}
			for _, gone := range w.follow(ctx, nodes) {
				if err := stream.Send(gone); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// usageWatch is one caller's look at what nodes use.
type usageWatch struct {
	service  *systemService
	req      *warrenv1.WatchUsageRequest
	told     chan *warrenv1.WatchUsageResponse
	watching sync.WaitGroup
	// watched are the nodes that are being watched, each with what ends that.
	watched map[string]context.CancelFunc
}

// wanted are the nodes that are to be watched now.
func (w *usageWatch) wanted(s state.Snapshot) (map[string]*warrenv1.Node, error) {
	nodes, err := namedNodes(s, w.req.GetNodes())
	if err != nil {
		return nil, err
	}
	var only map[string]bool
	if ref := w.req.GetService(); ref != "" {
		service, err := FindService(s, ref)
		if err != nil {
			return nil, err
		}
		only = map[string]bool{}
		for task := range s.TasksByService(service.GetMeta().GetId()) {
			if !lifecycle.Ended(task.GetStatus().GetState()) {
				only[task.GetNodeId()] = true
			}
		}
	}
	wanted := map[string]*warrenv1.Node{}
	for _, node := range nodes {
		if id := node.GetMeta().GetId(); only == nil || only[id] {
			wanted[id] = node
		}
	}
	return wanted, nil
}

// follow begins to watch the nodes that are new, ends it for those that are not wanted any more, and tells which.
func (w *usageWatch) follow(ctx context.Context, nodes map[string]*warrenv1.Node) (gone []*warrenv1.WatchUsageResponse) {
	for id, end := range w.watched {
		if nodes[id] == nil {
			end()
			delete(w.watched, id)
			gone = append(gone, &warrenv1.WatchUsageResponse{NodeId: id, Gone: true})
		}
	}
	for id, node := range nodes {
		if w.watched[id] != nil {
			continue
		}
		watching, end := context.WithCancel(ctx)
		w.watched[id] = end
		w.watching.Go(func() {
			defer end()
			w.watch(watching, node)
		})
	}
	return gone
}

// watch passes on what a node tells, and why it does not, until ctx ends.
func (w *usageWatch) watch(ctx context.Context, node *warrenv1.Node) {
	id, last := node.GetMeta().GetId(), ""
	for {
		if now := w.service.store.Snapshot().Node(id); now != nil {
			node = now
		}
		problem := notReady(node)
		if problem == "" {
			problem = w.listen(ctx, node, func() { last = "" })
		}
		if problem != last {
			last = problem
			w.tell(ctx, node, &warrenv1.WatchUsageResponse{Error: problem})
		}
		timer := time.NewTimer(lookForNodes)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// listen passes on what a node tells until it ends, and returns why it did.
func (w *usageWatch) listen(ctx context.Context, node *warrenv1.Node, heard func()) (problem string) {
	service := ""
	if ref := w.req.GetService(); ref != "" {
		found, err := FindService(w.service.store.Snapshot(), ref)
		if err != nil {
			return err.Error()
		}
		service = found.GetMeta().GetId()
	}
	stream, err := w.service.exchange.Open(ctx, node.GetMeta().GetId(), usagePurpose(w.req.GetInterval(), service))
	if err != nil {
		return err.Error()
	}
	defer stream.Close()
	silence := firstSample + w.req.GetInterval().AsDuration()
	for {
		waiting, cancel := context.WithTimeoutCause(ctx, silence, errSilent)
		m, err := stream.Receive(waiting)
		if err != nil {
			err = silent(waiting, err)
		}
		cancel()
		if errors.Is(err, io.EOF) {
			return "its agent has stopped telling"
		}
		if err != nil {
			return err.Error()
		}
		heard()
		w.tell(ctx, node, &warrenv1.WatchUsageResponse{Usage: m.GetUsage()})
	}
}

func (w *usageWatch) tell(ctx context.Context, node *warrenv1.Node, response *warrenv1.WatchUsageResponse) {
	response.NodeId, response.Hostname = node.GetMeta().GetId(), node.GetFacts().GetHostname()
	select {
	case w.told <- response:
	case <-ctx.Done():
	}
}
