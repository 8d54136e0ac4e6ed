package rollout

import (
	"time"

	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// cause is why a task is to be replaced, the weightier the higher.
type cause int

const (
	nothing cause = iota
	// outdated: it is of another revision, or runs another image than the others of its own.
	outdated
	// misplaced: the placement does not allow it where it is, or a rebalancing has picked it.
	misplaced
	// drained: its node is drained.
	drained
	// overdue: its node was to be empty by now.
	overdue
)

// judge tells which tasks of one service are due. It asks about each node once.
type judge struct {
	snapshot state.Snapshot
	service  *warrenv1.Service
	now      time.Time
	images   *images
	rules    *placement.Rules // nil where the placement cannot be read
	leave    map[string]cause
	// deadline is when the next node must be empty.
	deadline time.Time
}

func newJudge(s state.Snapshot, service *warrenv1.Service, images *images, now time.Time) *judge {
	rules, err := placement.Compile(service.GetSpec().GetPlacement())
	if err != nil {
		// The API lets none in that cannot be read; a later manager's may be, and moves nothing.
		rules = nil
	}
	return &judge{snapshot: s, service: service, now: now, images: images, rules: rules, leave: map[string]cause{}}
}

// due tells whether and why a live task is to be replaced.
//
// One that the placement no longer admits where it is waits for its turn in a rollout that goes on. The update may have changed both:
// moved as it is, a task would have to fit twice where the placement allows it, first as what it was and then beside that as what it
// is to be, and may do neither.
func (j *judge) due(t *warrenv1.Task) cause {
	c, old := j.leaves(t), t.GetRevision() != j.service.GetRevision()
	switch {
	case c == misplaced && old && !t.GetDisplaced() && j.goesOn():
		return outdated
	case c == nothing && (old || j.images.mixes(t)):
		return outdated
	}
	return c
}

// goesOn tells whether the service's rollout replaces outdated tasks one after the other.
func (j *judge) goesOn() bool {
	return underway(j.service) && j.service.GetRollout().GetState() == warrenv1.RolloutState_ROLLOUT_STATE_RUNNING
}

// leaves tells whether and why a live task may not stay where it is. A global service's slots go with their nodes: the replicas
// loop's matter.
func (j *judge) leaves(t *warrenv1.Task) cause {
	if j.service.GetSpec().GetGlobal() != nil {
		return nothing
	}
	c := nothing
	if t.GetDisplaced() {
		c = misplaced
	}
	if t.GetNodeId() != "" {
		c = max(c, j.mustLeave(t.GetNodeId()))
	}
	return c
}

// mustLeave tells whether and why tasks may not stay on a node. Those of a node that is gone are lost: the
// liveness loop's matter.
func (j *judge) mustLeave(nodeID string) cause {
	leave, known := j.leave[nodeID]
	if known {
		return leave
	}
	n := j.snapshot.Node(nodeID)
	switch deadline := n.GetSpec().GetDrainDeadline(); {
	case n == nil:
	case n.GetSpec().GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
		leave = drained
		if deadline != nil && !deadline.AsTime().After(j.now) {
			leave = overdue
		} else if deadline != nil && (j.deadline.IsZero() || deadline.AsTime().Before(j.deadline)) {
			j.deadline = deadline.AsTime()
		}
	case j.rules != nil && !j.rules.Admits(n):
		leave = misplaced
	}
	j.leave[nodeID] = leave
	return leave
}

// open tells whether a node takes new tasks.
func (j *judge) open(nodeID string) bool {
	n := j.snapshot.Node(nodeID)
	return n != nil && placement.Open(n)
}

// away tells whether a live task's node is down: the service waits for it, and so does its rollout.
func (j *judge) away(t *warrenv1.Task) bool {
	return j.snapshot.Node(t.GetNodeId()).GetStatus().GetState() == warrenv1.NodeState_NODE_STATE_DOWN
}
