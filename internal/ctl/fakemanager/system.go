package fakemanager

import (
	"context"
	"errors"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

type systemService struct{ m *Manager }

var _ warrenv1connect.SystemServiceHandler = systemService{}

// asked finds the nodes that are meant.
func (m *Manager) asked(refs []string) ([]*warrenv1.Node, error) {
	if err := m.initialised(); err != nil {
		return nil, err
	}
	if len(refs) == 0 {
		return slices.Clone(m.nodes), nil
	}
	var nodes []*warrenv1.Node
	for _, ref := range refs {
		n, err := m.node(ref)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// WatchUsage tells the same of every node, every interval: half a processor and 2 GiB, and of each task that runs there a
// tenth and 64 MiB.
func (h systemService) WatchUsage(ctx context.Context, req *connect.Request[warrenv1.WatchUsageRequest], stream *connect.ServerStream[warrenv1.WatchUsageResponse]) error {
	interval := req.Msg.GetInterval().AsDuration()
	if interval == 0 {
		interval = time.Second
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	h.m.mu.Lock()
	cut := h.m.cut
	h.m.mu.Unlock()
	for first := true; ; first = false {
		told, err := h.usage(req.Msg)
		if err != nil {
			return err
		}
		if first {
			if err := stream.Send(&warrenv1.WatchUsageResponse{Nodes: uint32(len(told))}); err != nil {
				return err
			}
		}
		for _, m := range told {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		select {
		case <-ticker.C:
		case <-cut:
			return connect.NewError(connect.CodeUnavailable, errors.New("the stream is cut"))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (h systemService) usage(req *warrenv1.WatchUsageRequest) ([]*warrenv1.WatchUsageResponse, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	nodes, err := h.m.asked(req.GetNodes())
	if err != nil {
		return nil, err
	}
	service := ""
	if req.GetService() != "" {
		s, err := h.m.service(req.GetService())
		if err != nil {
			return nil, err
		}
		service = s.GetMeta().GetId()
	}
	var told []*warrenv1.WatchUsageResponse
	for _, n := range nodes {
		m := &warrenv1.WatchUsageResponse{NodeId: n.GetMeta().GetId(), Hostname: n.GetFacts().GetHostname()}
		if h.m.silent[m.GetHostname()] {
			m.Error = errSilent
			told = append(told, m)
			continue
		}
		m.Usage = &warrenv1.NodeUsage{
			At: timestamppb.Now(), NanoCpus: 5e8, TotalNanoCpus: 4e9, MemoryBytes: 2 << 30, TotalMemoryBytes: 8 << 30,
			ReceivedPerSecond: 1500, SentPerSecond: 2500,
		}
		for _, t := range h.m.tasks {
			if t.GetNodeId() != m.GetNodeId() || t.GetStatus().GetState() != warrenv1.TaskState_TASK_STATE_RUNNING || service != "" && t.GetServiceId() != service {
				continue
			}
			received, sent := uint64(1000), uint64(0)
			m.Usage.Tasks = append(m.Usage.Tasks, &warrenv1.TaskUsage{
				TaskId: t.GetMeta().GetId(), Name: h.m.taskName(t), ServiceId: t.GetServiceId(), ServiceName: t.GetServiceName(),
				NanoCpus: 1e8, MemoryBytes: 64 << 20, LimitMemoryBytes: 128 << 20, ReceivedPerSecond: &received, SentPerSecond: &sent,
			})
		}
		if service == "" || len(m.GetUsage().GetTasks()) > 0 {
			told = append(told, m)
		}
	}
	return told, nil
}

// old is an image that no task needs, until it is pruned.
func old() *warrenv1.StoredImage {
	return &warrenv1.StoredImage{
		Names: []string{"docker.io/library/old:1"}, Digest: "sha256:" + "01d", Bytes: 30 << 20,
		UnusedSince: timestamppb.New(time.Now().Add(-3 * time.Hour)), Pulled: true,
	}
}

// GetDiskUsage tells of an image in use on every node, and of one that is not as long as it has not been pruned.
func (h systemService) GetDiskUsage(_ context.Context, req *connect.Request[warrenv1.GetDiskUsageRequest], stream *connect.ServerStream[warrenv1.GetDiskUsageResponse]) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	nodes, err := h.m.asked(req.Msg.GetNodes())
	if err != nil {
		return err
	}
	if err := stream.Send(&warrenv1.GetDiskUsageResponse{Nodes: uint32(len(nodes))}); err != nil {
		return err
	}
	for _, n := range nodes {
		row := &warrenv1.GetDiskUsageResponse{NodeId: n.GetMeta().GetId(), Hostname: n.GetFacts().GetHostname()}
		if h.m.silent[row.GetHostname()] {
			row.Error = errSilent
		} else {
			row.Disk = &warrenv1.NodeDisk{
				TotalBytes: 40 << 30, FreeBytes: 10 << 30, ImageBytes: 100 << 20, Containers: 2, ContainerBytes: 5 << 20,
				Outputs: 3, OutputBytes: 7 << 20, DataBytes: 1 << 20,
				Images: []*warrenv1.StoredImage{{Names: []string{"docker.io/library/web:1"}, Digest: "sha256:e8", Bytes: 100 << 20, Used: true}},
			}
			if !h.m.pruned[row.GetHostname()] {
				row.Disk.Images = append(row.Disk.Images, old())
				row.Disk.ImageBytes += 30 << 20
				row.Disk.ReclaimableImageBytes = 20 << 20
			}
		}
		if err := stream.Send(row); err != nil {
			return err
		}
	}
	return nil
}

// PruneImages removes the image that is not in use.
func (h systemService) PruneImages(_ context.Context, req *connect.Request[warrenv1.PruneImagesRequest], stream *connect.ServerStream[warrenv1.PruneImagesResponse]) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	nodes, err := h.m.asked(req.Msg.GetNodes())
	if err != nil {
		return err
	}
	if err := stream.Send(&warrenv1.PruneImagesResponse{Nodes: uint32(len(nodes))}); err != nil {
		return err
	}
	for _, n := range nodes {
		row := &warrenv1.PruneImagesResponse{NodeId: n.GetMeta().GetId(), Hostname: n.GetFacts().GetHostname()}
		switch {
		case h.m.silent[row.GetHostname()]:
			row.Error = errSilent
		case h.m.pruned[row.GetHostname()]:
			row.Pruned = &warrenv1.PrunedImages{}
		default:
			row.Pruned = &warrenv1.PrunedImages{Images: []*warrenv1.StoredImage{old()}, FreedBytes: 20 << 20}
			h.m.pruned[row.GetHostname()] = !req.Msg.GetDryRun()
		}
		if err := stream.Send(row); err != nil {
			return err
		}
	}
	return nil
}
