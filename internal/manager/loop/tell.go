package loop

import (
	"context"
	"log/slog"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// tell logs for developers what a decision does to tasks, rollouts and nodes, and why, as far as the objects say it.
func tell(ctx context.Context, logger *slog.Logger, s state.Snapshot, p Proposal) {
	if !logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	for _, op := range p.Transaction.Message().GetOperations() {
		if t := op.GetCreate().GetTask(); t != nil {
			logger.DebugContext(ctx, "makes a task", about(s, t, "revision", t.GetRevision())...)
		}
		switch o := op.GetUpdate().GetKind().(type) {
		case *statev1.Object_Task:
			tellOfTask(ctx, logger, s, s.Task(o.Task.GetMeta().GetId()), o.Task)
		case *statev1.Object_Service:
			if r := o.Service.GetRollout(); !proto.Equal(r, s.Service(o.Service.GetMeta().GetId()).GetRollout()) {
				logger.DebugContext(ctx, "takes a rollout a step further", "service", o.Service.GetSpec().GetName(), "from", r.GetFrom(), "to", r.GetTo(),
					"state", r.GetState().String(), "weight", r.GetWeight(), "failed", r.GetFailed(), "why", r.GetMessage())
			}
		case *statev1.Object_Node:
			if is := o.Node.GetStatus(); is.GetState() != s.Node(o.Node.GetMeta().GetId()).GetStatus().GetState() {
				logger.DebugContext(ctx, "judges a node anew", "node", o.Node.GetMeta().GetId(), "hostname", o.Node.GetFacts().GetHostname(),
					"state", is.GetState().String(), "why", is.GetMessage())
			}
		}
	}
}

func tellOfTask(ctx context.Context, logger *slog.Logger, s state.Snapshot, before, t *warrenv1.Task) {
	was, is := before.GetStatus(), t.GetStatus()
	switch {
	case t.GetNodeId() != before.GetNodeId():
		there, ofService := 0, 0
		for other := range s.TasksByNode(t.GetNodeId()) {
			if !lifecycle.Wanted(other) {
				continue
			}
			there++
			if other.GetServiceId() == t.GetServiceId() {
				ofService++
			}
		}
		logger.DebugContext(ctx, "places a task", about(s, t, "of_its_service_there", ofService, "tasks_there", there, "note", is.GetMessage())...)
	case t.GetDesired() != before.GetDesired():
		logger.DebugContext(ctx, "wants a task no more", about(s, t, "desired", t.GetDesired().String(), "revision", t.GetRevision(), "state", was.GetState().String())...)
	case is.GetState() != was.GetState():
		logger.DebugContext(ctx, "notes what has become of a task", about(s, t, "state", is.GetState().String(), "why", is.GetError())...)
	case is.GetMessage() != was.GetMessage():
		logger.DebugContext(ctx, "leaves a task waiting", about(s, t, "why", is.GetMessage())...)
	}
}

// about are the keys of a task, before others.
func about(s state.Snapshot, t *warrenv1.Task, more ...any) []any {
	keys := []any{"service", t.GetServiceName(), "task", lifecycle.Name(t, s.Hostname(t.GetNodeId())), "id", t.GetMeta().GetId()}
	if t.GetNodeId() != "" {
		keys = append(keys, "node", t.GetNodeId(), "hostname", s.Hostname(t.GetNodeId()))
	}
	return append(keys, more...)
}
