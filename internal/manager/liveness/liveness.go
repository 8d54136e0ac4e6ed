package liveness

import (
	"cmp"
	"fmt"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/nodeloss"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Inputs are the tables the loop watches.
var Inputs = []statev1.Table{statev1.Table_TABLE_CLUSTER, statev1.Table_TABLE_NODE, statev1.Table_TABLE_TASK, statev1.Table_TABLE_SERVICE}

// Outputs are what the loop writes: of a node's states down alone; of a task's status that it is lost, or that it waits for its
// node and does not serve.
var Outputs = []string{"node.status", "task.status", "task.desired"}

// What a cluster's settings are where it says nothing else.
const (
	DefaultNodeGrace    = 3500 * time.Millisecond
	DefaultRestartGrace = time.Minute
)

// NodeGrace returns how long a node may be silent before it is down.
func NodeGrace(spec *warrenv1.ClusterSpec) time.Duration {
	return orDefault(spec.GetNodeGrace(), DefaultNodeGrace)
}

func orDefault(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}

// New returns the loop of a manager that leads since that time. No grace began before it, also of nodes
// that were silent or away already: they could not be heard by a manager that did not lead.
func New(leading time.Time) loop.Loop {
	return &loop.Keyed{
		Loop:     "liveness",
		All:      all,
		Affected: affected,
		DecideOne: func(s state.Snapshot, key string, now time.Time) (*state.Transaction, time.Time) {
			return decide(s, key, now, leading)
		},
	}
}

// all lists every node, and those that are gone but have tasks left.
func all(s state.Snapshot) iter.Seq[string] {
	return func(yield func(string) bool) {
		for n := range s.Nodes() {
			if !yield(n.GetMeta().GetId()) {
				return
			}
		}
		for t := range s.Tasks() {
			if concerns(s, t) && !yield(t.GetNodeId()) {
				return
			}
		}
	}
}

func affected(s state.Snapshot, c state.Change) iter.Seq[string] {
	return func(yield func(string) bool) {
		switch o := cmp.Or(c.After, c.Before).(type) {
		case *warrenv1.Cluster:
			all(s)(yield)
		case *warrenv1.Node:
			yield(o.GetMeta().GetId())
		case *warrenv1.Task:
			if c.After != nil && concerns(s, o) {
				yield(o.GetNodeId())
			}
		case *warrenv1.Service:
			before, _ := c.Before.(*warrenv1.Service)
			after, _ := c.After.(*warrenv1.Service)
			if before.GetRemoving() == after.GetRemoving() && proto.Equal(before.GetSpec().GetNodeLoss(), after.GetSpec().GetNodeLoss()) &&
				(before == nil) == (after == nil) {
				return
			}
			for t := range s.TasksByService(o.GetMeta().GetId()) {
				if concerns(s, t) && !yield(t.GetNodeId()) {
					return
				}
			}
		}
	}
}

// concerns tells whether a task may have to be called lost, or to wait.
func concerns(s state.Snapshot, t *warrenv1.Task) bool {
	if t.GetNodeId() == "" || lifecycle.Ended(t.GetStatus().GetState()) {
		return false
	}
	n := s.Node(t.GetNodeId())
	return n == nil || n.GetStatus().GetState() == warrenv1.NodeState_NODE_STATE_DOWN
}

// decide decides about one node, which may be gone.
func decide(s state.Snapshot, nodeID string, now, leading time.Time) (*state.Transaction, time.Time) {
	transaction := state.New(now)
	n := s.Node(nodeID)
	if n == nil {
		return transaction, loseAll(s, nodeID, transaction, now)
	}
	since := n.GetStatus().GetSince().AsTime()
	if n.GetStatus().GetState() != warrenv1.NodeState_NODE_STATE_DOWN {
		grace, waiting := graceOf(n, s.Cluster().GetSpec())
		if !waiting {
			return nil, time.Time{}
		}
		if since.After(now) {
			// Told by a clock that was ahead, this one's before it was set or another manager's: what it says would have to
			// be waited for.
			state.Update(transaction, n, func(n *warrenv1.Node) { n.Status.Since = timestamppb.New(now) })
			return transaction, now.Add(grace)
		}
		end := later(since, leading).Add(grace)
		if end.After(now) {
			return nil, end
		}
		silent := now.Sub(since).Round(100 * time.Millisecond)
		state.Update(transaction, n, func(n *warrenv1.Node) {
			n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN
			n.Status.Since = timestamppb.New(now)
			n.Status.Message = fmt.Sprintf("not heard of for %s", silent)
		})
		// What becomes of its tasks is decided with it, so that none is sent connections any longer than that.
		n = proto.CloneOf(n)
		n.Status.State, n.Status.Since = warrenv1.NodeState_NODE_STATE_DOWN, timestamppb.New(now)
		_, wake := give(s, n, transaction, now, leading)
		return transaction, wake
	}
	some, wake := give(s, n, transaction, now, leading)
	if some {
		transaction.Check(n) // it may have come back
	}
	return transaction, wake
}

// give says what becomes of the tasks of a node that is down: they are lost, or wait for it where their service wants that.
// It tells whether any task is written, and when one that waits has waited for long enough.
func give(s state.Snapshot, n *warrenv1.Node, transaction *state.Transaction, now, leading time.Time) (some bool, wake time.Time) {
	down := n.GetStatus().GetSince().AsTime()
	text := fmt.Sprintf("node %s is down since %s", cmp.Or(n.GetFacts().GetHostname(), n.GetMeta().GetId()), down.UTC().Format(time.RFC3339))
	checked := map[string]bool{} // services
	for t := range s.TasksByNode(n.GetMeta().GetId()) {
		if lifecycle.Ended(t.GetStatus().GetState()) {
			continue
		}
		if transaction.Len() >= loop.MaxOperations {
			return some, now // for the rest
		}
		service := s.Service(t.GetServiceId())
		if nodeloss.Waits(service, n, t) {
			end := nodeloss.End(service, down)
			// A node that could be heard by no manager gets its chance with a new leader.
			if last := later(end, leading.Add(NodeGrace(s.Cluster().GetSpec()))); end.IsZero() || last.After(now) {
				if !end.IsZero() {
					wake = earlier(wake, last)
				}
				some = wait(transaction, t, text+until(end)) || some
				continue
			}
			if id := t.GetServiceId(); !checked[id] {
				checked[id] = true
				transaction.Check(service) // it may be told to wait longer
			}
		}
		some = true
		lose(transaction, t, now, text)
	}
	return some, wake
}

// wait has a task wait for its node, and tells whether that is news. Its state stays, as the task does: when its
// node's agent is back, what that reports of it follows on this.
func wait(transaction *state.Transaction, t *warrenv1.Task, why string) bool {
	if !t.GetStatus().GetServing() && t.GetStatus().GetMessage() == why {
		return false
	}
	state.Update(transaction, t, func(t *warrenv1.Task) { t.Status.Serving, t.Status.Message = false, why })
	return true
}

// until says until when a task waits.
func until(end time.Time) string {
	if end.IsZero() {
		return "; waits for it, as --on-node-loss says"
	}
	return fmt.Sprintf("; waits for it until %s, as --on-node-loss says", end.UTC().Format(time.RFC3339))
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// graceOf returns how long a node may stay in the state it is in, and whether there is a bound at all.
func graceOf(n *warrenv1.Node, spec *warrenv1.ClusterSpec) (grace time.Duration, bounded bool) {
	switch n.GetStatus().GetState() {
	case warrenv1.NodeState_NODE_STATE_UNKNOWN:
		return NodeGrace(spec), true
	case warrenv1.NodeState_NODE_STATE_DISCONNECTED:
		return orDefault(spec.GetRestartGrace(), DefaultRestartGrace), true
	}
	return 0, false
}

// loseAll calls the tasks of a node that is gone lost. It returns when to look again: at once where one transaction does
// not take them all.
func loseAll(s state.Snapshot, nodeID string, transaction *state.Transaction, now time.Time) (wake time.Time) {
	why := fmt.Sprintf("node %s was removed from the cluster", cmp.Or(s.Hostname(nodeID), nodeID))
	for t := range s.TasksByNode(nodeID) {
		if lifecycle.Ended(t.GetStatus().GetState()) {
			continue
		}
		if transaction.Len() >= loop.MaxOperations {
			return now
		}
		lose(transaction, t, now, why)
	}
	return time.Time{}
}

// lose calls a task lost.
func lose(transaction *state.Transaction, t *warrenv1.Task, now time.Time, why string) {
	state.Update(transaction, t, func(t *warrenv1.Task) {
		t.Desired = max(t.GetDesired(), warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN)
		t.Status.State = warrenv1.TaskState_TASK_STATE_LOST
		t.Status.Since = timestamppb.New(now)
		t.Status.Message, t.Status.Error = "", why
		t.Status.Serving, t.Status.Pid = false, 0
	})
}
