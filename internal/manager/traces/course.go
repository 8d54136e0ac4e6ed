package traces

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/traceparent"
	"github.com/cuemby/warren/internal/tracing"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Follow tells of the ways of tasks, from where they are made to where they serve, until ctx ends.
func (t *Traces) Follow(ctx context.Context, feed *state.Feed) {
	c := course{traces: t, under: map[string]struct{}{}}
	for {
		batch, err := feed.Next(ctx)
		if err != nil {
			return
		}
		if batch.Reset {
			clear(c.under)
		}
		since, leads := t.leading()
		now := time.Now()
		for _, change := range batch.Changes {
			c.see(batch.Snapshot, change, leads && written(change, since), now)
		}
	}
}

// written tells whether a change was written since that time.
func written(c state.Change, since time.Time) bool {
	return c.After != nil && !c.After.GetMeta().GetUpdatedAt().AsTime().Before(since)
}

// course follows tasks on their way.
type course struct {
	traces *Traces
	// under are the tasks that are traced and do not serve yet. Managers that follow know them too: one of them may lead
	// when a task comes to serve.
	under map[string]struct{}
}

// see takes one change into account, and tells of it where that is this manager's to do.
func (c *course) see(s state.Snapshot, change state.Change, tells bool, now time.Time) {
	before, _ := change.Before.(*warrenv1.Task)
	after, _ := change.After.(*warrenv1.Task)
	id := after.GetMeta().GetId()
	if after == nil {
		delete(c.under, before.GetMeta().GetId()) // which is nothing where it is no task
		return
	}
	if before == nil && after.GetTrace() != "" {
		c.under[id] = struct{}{}
	}
	if _, traced := c.under[id]; !traced {
		return
	}
	was, is := before.GetStatus(), after.GetStatus()
	ended := lifecycle.Ended(is.GetState())
	over := is.GetServing() || ended
	if over {
		delete(c.under, id)
	}
	if !tells {
		return
	}
	tell := func(name string, began, ended time.Time) {
		c.traces.tracer.Record(tracing.Span{
			Parent: below(after), Name: name, Began: began, Ended: ended, Attributes: describe(s, after),
		})
	}
	if assigned := warrenv1.TaskState_TASK_STATE_ASSIGNED; is.GetState() == assigned && was.GetState() < assigned && before != nil {
		tell("schedule", after.GetMeta().GetCreatedAt().AsTime(), is.GetSince().AsTime())
	}
	if running := warrenv1.TaskState_TASK_STATE_RUNNING; is.GetState() == running && was.GetState() < running {
		// The one end is by the node's clock, the other by this machine's.
		began := is.GetSince().AsTime()
		tell("report", began, later(began, now))
	}
	if !over {
		return
	}
	failed := ""
	if ended && is.GetState() != warrenv1.TaskState_TASK_STATE_SHUTDOWN && is.GetState() != warrenv1.TaskState_TASK_STATE_COMPLETE {
		failed = is.GetError()
		if failed == "" {
			failed = is.GetState().String()
		}
	}
	c.traces.tracer.Record(tracing.Span{
		Parent: after.GetTrace(), Self: below(after), Name: "task", Failed: failed,
		Began: after.GetMeta().GetCreatedAt().AsTime(), Ended: now, Attributes: describe(s, after),
	})
}

// Sent implements dispatch.Observer: a span of how long tasks that had a node waited to be told it.
func (t *Traces) Sent(s state.Snapshot, assignments *warrenv1.Assignments) {
	now := time.Now()
	for _, a := range assignments.GetTasks() {
		task := a.GetTask()
		if task.GetTrace() == "" || task.GetStatus().GetState() != warrenv1.TaskState_TASK_STATE_ASSIGNED || !lifecycle.Wanted(task) {
			continue
		}
		began := task.GetStatus().GetSince().AsTime()
		t.tracer.Record(tracing.Span{Parent: below(task), Name: "dispatch", Began: began, Ended: later(began, now), Attributes: describe(s, task)})
	}
}

// below is the task's own span, which the steps of its way are part of. It is told when the task serves; nodes know it
// before, by the task's id.
func below(t *warrenv1.Task) string { return traceparent.Below(t.GetTrace(), t.GetMeta().GetId()) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// describe says which task a span is about.
func describe(s state.Snapshot, t *warrenv1.Task) []attribute.KeyValue {
	hostname := s.Node(t.GetNodeId()).GetFacts().GetHostname()
	return tracing.Task(t, hostname)
}
