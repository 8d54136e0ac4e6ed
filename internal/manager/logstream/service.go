package logstream

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/relay"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// Refs finds what users name. Its errors go to the user as they are.
type Refs struct {
	Service func(s state.Snapshot, ref string) (*warrenv1.Service, error)
	Task    func(s state.Snapshot, ref string) (*warrenv1.Task, error)
}

// Service implements warrenv1connect.LogServiceHandler.
type Service struct {
	store *state.Store
	refs  Refs
	open  opener
}

var _ warrenv1connect.LogServiceHandler = (*Service)(nil)

// opener asks a node for a stream.
type opener func(ctx context.Context, node string, ask *warrenv1.OpenStream) (stream, error)

// stream is a relay.Stream.
type stream interface {
	Receive(context.Context) (*warrenv1.RelayRequest, error)
	Close()
}

// New returns the service over the streams that exchange opens.
func New(store *state.Store, exchange *relay.Exchange, refs Refs) *Service {
	return &Service{store: store, refs: refs, open: func(ctx context.Context, node string, ask *warrenv1.OpenStream) (stream, error) {
		s, err := exchange.Open(ctx, node, ask)
		if err != nil {
			return nil, err // not s: a nil pointer in an interface is not nil
		}
		return s, nil
	}}
}

// StreamLogs implements warrenv1connect.LogServiceHandler.
func (s *Service) StreamLogs(ctx context.Context, req *connect.Request[warrenv1.StreamLogsRequest], out *connect.ServerStream[warrenv1.StreamLogsResponse]) error {
	return s.stream(ctx, req.Msg, out.Send)
}

func (s *Service) stream(ctx context.Context, req *warrenv1.StreamLogsRequest, send func(*warrenv1.StreamLogsResponse) error) error {
	snapshot, feed := s.store.Watch()
	var of target
	var tasks []*warrenv1.Task
	switch ref := req.GetTarget().(type) {
	case *warrenv1.StreamLogsRequest_Service:
		service, err := s.refs.Service(snapshot, ref.Service)
		if err != nil {
			return err
		}
		of.service = service.GetMeta().GetId()
		tasks = slices.SortedFunc(snapshot.TasksByService(of.service), wantedThenNewest)
	case *warrenv1.StreamLogsRequest_Task:
		task, err := s.refs.Task(snapshot, ref.Task)
		if err != nil {
			return err
		}
		of.task = task.GetMeta().GetId()
		tasks = []*warrenv1.Task{task}
	default:
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("target: name a service or a task"))
	}
	selection := req.GetSelection()
	if selection == nil {
		selection = &warrenv1.LogSelection{}
	}
	return newReading(s.store, s.open, of, selection, send).run(ctx, snapshot, tasks, feed)
}

// wantedThenNewest orders tasks by how much their output is likely to matter.
func wantedThenNewest(a, b *warrenv1.Task) int {
	switch wa, wb := lifecycle.Wanted(a), lifecycle.Wanted(b); {
	case wa && !wb:
		return -1
	case wb && !wa:
		return 1
	}
	return created(b).Compare(created(a))
}

func created(t *warrenv1.Task) time.Time { return t.GetMeta().GetCreatedAt().AsTime() }

// target is whose output is read: a service's or one task's.
type target struct{ service, task string }

func (g target) holds(t *warrenv1.Task) bool {
	return g.task == t.GetMeta().GetId() || g.task == "" && g.service == t.GetServiceId()
}
