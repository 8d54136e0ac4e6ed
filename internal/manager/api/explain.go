package api

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/explain"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// explainService tells why things are as they are.
type explainService struct {
	store *state.Store
	log   *events.Log
}

var _ warrenv1connect.ExplainServiceHandler = (*explainService)(nil)

// Explain implements warrenv1connect.ExplainServiceHandler.
func (h *explainService) Explain(_ context.Context, req *connect.Request[warrenv1.ExplainRequest]) (*connect.Response[warrenv1.ExplainResponse], error) {
	s := h.store.Snapshot()
	service, task, node, err := findAny(s, req.Msg.GetObject(), req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	told, now := h.log.Remembered(), time.Now()
	switch {
	case service != nil:
		return connect.NewResponse(explain.Service(s, service, told, now)), nil
	case task != nil:
		return connect.NewResponse(explain.Task(s, task, told, now)), nil
	}
	return connect.NewResponse(explain.Node(s, node, told, now)), nil
}

// findAny returns the service, task or node that ref names, a service before a task before a node where it may be any.
func findAny(s state.Snapshot, kind warrenv1.EventObject, ref string) (service *warrenv1.Service, task *warrenv1.Task, node *warrenv1.Node, err error) {
	switch kind {
	case warrenv1.EventObject_EVENT_OBJECT_SERVICE:
		service, err = FindService(s, ref)
	case warrenv1.EventObject_EVENT_OBJECT_TASK:
		task, err = FindTask(s, ref)
	case warrenv1.EventObject_EVENT_OBJECT_NODE:
		node, err = findNode(s, ref)
	case warrenv1.EventObject_EVENT_OBJECT_UNSPECIFIED:
		var notService, notTask, notNode error
		if service, notService = FindService(s, ref); notService == nil {
			return service, nil, nil, nil
		}
		if task, notTask = FindTask(s, ref); notTask == nil {
			return nil, task, nil, nil
		}
		if node, notNode = findNode(s, ref); notNode == nil {
			return nil, nil, node, nil
		}
		err = problemf(connect.CodeNotFound, "no service, task or node is named or begins with %q: `warrenctl service ls`, `warrenctl service ps` and `warrenctl node ls` show them", ref)
		for _, refused := range []error{notService, notTask, notNode} {
			if tell(refused).Code() != connect.CodeNotFound { // it may be several
				err = refused
				break
			}
		}
	default:
		err = invalid(violation("object", "only a service, a task or a node can be explained: leave it out, or name one of these", field("object")))
	}
	return service, task, node, err
}
