package traces

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/traceparent"
	"github.com/cuemby/warren/internal/tracing"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// maxParents bounds the traces that are told of one write of a loop, which may be about thousands of tasks.
const maxParents = 16

// writer tells of what is written.
type writer struct {
	next   loop.Proposer
	traces *Traces
	who    string
}

// Writing returns a proposer that tells of what it writes for a control loop, or for the API.
func (t *Traces) Writing(who string, to loop.Proposer) loop.Proposer { return writer{to, t, who} }

// Propose implements loop.Proposer.
func (w writer) Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
	parents := parents(ctx, transactions)
	if len(parents) == 0 {
		return w.next.Propose(ctx, transactions...)
	}
	began := time.Now()
	results, err := w.next.Propose(ctx, transactions...)
	ended, failed, refused := time.Now(), "", 0
	if err != nil {
		failed = err.Error()
	}
	for _, why := range results {
		if why != nil {
			refused++
		}
	}
	for _, parent := range parents {
		w.traces.tracer.Record(tracing.Span{
			Parent: parent, Name: "write", Began: began, Ended: ended, Failed: failed,
			Attributes: []attribute.KeyValue{
				attribute.String("warren.writer", w.who),
				attribute.Int("warren.transactions", len(transactions)), attribute.Int("warren.transactions.refused", refused),
			},
		})
	}
	return results, err
}

// parents are the spans that a write is part of: that of the call, or those of the services whose tasks are made or are
// given a node. What becomes of tasks later is no part of the way to their start.
func parents(ctx context.Context, transactions []*state.Transaction) (all []string) {
	if parent := traceparent.From(ctx); parent != "" {
		return []string{parent}
	}
	seen := map[string]bool{}
	for _, t := range transactions {
		for _, op := range t.Message().GetOperations() {
			task := op.GetCreate().GetTask()
			if task == nil {
				task = op.GetUpdate().GetTask()
			}
			parent := task.GetTrace()
			if parent == "" || seen[parent] || !lifecycle.Wanted(task) || task.GetStatus().GetState() > warrenv1.TaskState_TASK_STATE_ASSIGNED {
				continue
			}
			seen[parent] = true
			if all = append(all, parent); len(all) == maxParents {
				return all
			}
		}
	}
	return all
}
