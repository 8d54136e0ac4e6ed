package logstream

import (
	"context"

	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// watch joins the tasks that come later, takes up parked sources whose node is back, and notes when what
// is read is gone. It keeps up with the feed however slowly the user reads.
func (r *reading) watch(ctx context.Context, feed *state.Feed) {
	for {
		batch, err := feed.Next(ctx)
		if err != nil {
			return
		}
		if batch.Reset {
			r.lookAround(ctx, batch.Snapshot)
		}
		for _, c := range batch.Changes {
			r.observe(ctx, batch.Snapshot, c)
		}
	}
}

// lookAround finds in a whole state what changes would have told.
func (r *reading) lookAround(ctx context.Context, s state.Snapshot) {
	if r.of.task != "" && s.Task(r.of.task) == nil || r.of.task == "" && s.Service(r.of.service) == nil {
		r.close()
		return
	}
	if r.of.task != "" {
		r.join(ctx, s, s.Task(r.of.task))
	} else {
		for t := range s.TasksByService(r.of.service) {
			r.join(ctx, s, t)
		}
	}
	for n := range s.Nodes() {
		r.revive(ctx, n)
	}
}

func (r *reading) observe(ctx context.Context, s state.Snapshot, c state.Change) {
	switch after := c.After.(type) {
	case *warrenv1.Task:
		if r.of.holds(after) {
			r.join(ctx, s, after)
		}
	case *warrenv1.Node:
		r.revive(ctx, after)
	case nil:
		switch before := c.Before.(type) {
		case *warrenv1.Task:
			r.forget(before.GetMeta().GetId())
			if r.of.task == before.GetMeta().GetId() {
				r.close()
			}
		case *warrenv1.Service:
			if r.of.task == "" && r.of.service == before.GetMeta().GetId() {
				r.close()
			}
		}
	}
}

// revive takes up the parked sources of a node that is ready.
func (r *reading) revive(ctx context.Context, n *warrenv1.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reviveLocked(ctx, n)
}

// reviveLocked is revive where the caller holds r.mu.
func (r *reading) reviveLocked(ctx context.Context, n *warrenv1.Node) {
	if n.GetStatus().GetState() != warrenv1.NodeState_NODE_STATE_READY {
		return
	}
	for id, s := range r.parked {
		if s.node == n.GetMeta().GetId() {
			delete(r.parked, id)
			r.start(ctx, s)
		}
	}
}

// forget gives up a parked source whose task is gone.
func (r *reading) forget(task string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.parked, task)
	r.rouse()
}

// close notes that what is read is gone.
func (r *reading) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	clear(r.parked)
	r.rouse()
}
