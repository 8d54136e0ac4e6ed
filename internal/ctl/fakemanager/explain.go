package fakemanager

import (
	"context"
	"fmt"
	"strings"

	"connectrpc.com/connect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

type explainService struct{ m *Manager }

func (h explainService) Explain(_ context.Context, req *connect.Request[warrenv1.ExplainRequest]) (*connect.Response[warrenv1.ExplainResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	ref := req.Msg.GetRef()
	is := func(o warrenv1.EventObject) bool {
		return req.Msg.GetObject() == o || req.Msg.GetObject() == warrenv1.EventObject_EVENT_OBJECT_UNSPECIFIED
	}
	var err error
	if is(warrenv1.EventObject_EVENT_OBJECT_SERVICE) {
		s, failed := h.m.service(ref)
		if failed == nil {
			return connect.NewResponse(h.service(s)), nil
		}
		err = failed
	}
	if is(warrenv1.EventObject_EVENT_OBJECT_TASK) {
		t, failed := h.m.task(ref)
		if failed == nil {
			return connect.NewResponse(&warrenv1.ExplainResponse{
				Object: warrenv1.EventObject_EVENT_OBJECT_TASK, Id: t.GetMeta().GetId(), Name: h.m.taskName(t),
				Wanted: "running", Actual: strings.ToLower(strings.TrimPrefix(t.GetStatus().GetState().String(), "TASK_STATE_")),
				Happenings: h.happenings(t.GetMeta().GetId()),
			}), nil
		}
		err = failed
	}
	if is(warrenv1.EventObject_EVENT_OBJECT_NODE) {
		n, failed := h.m.node(ref)
		if failed == nil {
			return connect.NewResponse(&warrenv1.ExplainResponse{
				Object: warrenv1.EventObject_EVENT_OBJECT_NODE, Id: n.GetMeta().GetId(), Name: n.GetFacts().GetHostname(), Wanted: "active", Actual: "ready",
			}), nil
		}
		err = failed
	}
	if req.Msg.GetObject() == warrenv1.EventObject_EVENT_OBJECT_UNSPECIFIED {
		err = connect.NewError(connect.CodeNotFound, fmt.Errorf("no service, task or node is called %q", ref))
	}
	return nil, err
}

func (h explainService) service(s *warrenv1.Service) *warrenv1.ExplainResponse {
	p := h.m.progress(s)
	res := &warrenv1.ExplainResponse{
		Object: warrenv1.EventObject_EVENT_OBJECT_SERVICE, Id: s.GetMeta().GetId(), Name: s.GetSpec().GetName(),
		Wanted: fmt.Sprintf("%d tasks of revision %d", p.GetDesired(), s.GetRevision()), Actual: fmt.Sprintf("%d of them run", p.GetRunning()),
		Happenings: h.happenings(s.GetMeta().GetId()),
	}
	if p.GetReason() != "" {
		res.Causes = []*warrenv1.Cause{{
			Message: p.GetReason(), Remedy: "correct the image's name", Objects: []string{s.GetSpec().GetName() + ".1"}, Count: p.GetDesired() - p.GetRunning(),
		}}
	}
	return res
}

func (h explainService) happenings(id string) (all []*warrenv1.Happening) {
	for _, e := range h.m.events {
		if e.GetObjectId() == id {
			all = append(all, &warrenv1.Happening{At: e.GetTime(), Object: e.GetObject(), ObjectName: e.GetObjectName(), Message: e.GetMessage(), By: "anna"})
		}
	}
	return all
}
