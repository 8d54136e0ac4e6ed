package liveness

import (
	"cmp"
	"fmt"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Inputs are the tables the loop watches.
var Inputs = []statev1.Table{statev1.Table_TABLE_CLUSTER, statev1.Table_TABLE_NODE, statev1.Table_TABLE_TASK}

// Outputs are what the loop writes: of a node's states down alone, of a task's lost alone.
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
		}
	}
}

// concerns tells whether a task may have to be called lost.
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
		lose(s, nodeID, transaction, now, fmt.Sprintf("node %s was removed from the cluster", nodeID))
		return transaction, time.Time{}
	}
	since := n.GetStatus().GetSince().AsTime()
	if n.GetStatus().GetState() != warrenv1.NodeState_NODE_STATE_DOWN {
		grace, waiting := graceOf(n, s.Cluster().GetSpec())
		if !waiting {
			return nil, time.Time{}
		}
		end := later(since, leading).Add(grace)
		if end.After(now) {
			return nil, end
		}
		silent := now.Sub(since).Round(100 * time.Millisecond)
		since = now
		state.Update(transaction, n, func(n *warrenv1.Node) {
			n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN
			n.Status.Since = timestamppb.New(now)
			n.Status.Message = fmt.Sprintf("not heard of for %s", silent)
		})
	}
	lost := lose(s, nodeID, transaction, now, fmt.Sprintf("node %s is down since %s",
		cmp.Or(n.GetFacts().GetHostname(), nodeID), since.UTC().Format(time.RFC3339)))
	if lost > 0 && n.GetStatus().GetState() == warrenv1.NodeState_NODE_STATE_DOWN {
		transaction.Check(n) // it may have come back
	}
	return transaction, time.Time{}
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

// lose calls tasks of a node lost, as many as one transaction takes, and returns how many. The rest
// follow when it is applied.
func lose(s state.Snapshot, nodeID string, transaction *state.Transaction, now time.Time, why string) (lost int) {
	for t := range s.TasksByNode(nodeID) {
		if transaction.Len() >= loop.MaxOperations {
			break
		}
		if lifecycle.Ended(t.GetStatus().GetState()) {
			continue
		}
		lost++
		state.Update(transaction, t, func(t *warrenv1.Task) {
			t.Desired = max(t.GetDesired(), warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN)
			t.Status.State = warrenv1.TaskState_TASK_STATE_LOST
			t.Status.Since = timestamppb.New(now)
			t.Status.Message, t.Status.Error = "", why
			t.Status.Pid = 0
		})
	}
	return lost
}
