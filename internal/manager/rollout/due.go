package rollout

import (
	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// cause is why a task is to be replaced.
type cause int

const (
	nothing cause = iota
	// outdated: it is of an older revision.
	outdated
	// displaced: it may not stay on its node.
	displaced
)

// judge tells which tasks of one service are due. It asks about each node once.
type judge struct {
	snapshot state.Snapshot
	service  *warrenv1.Service
	rules    *placement.Rules // nil where the placement cannot be read
	leave    map[string]bool
}

func newJudge(s state.Snapshot, service *warrenv1.Service) judge {
	rules, err := placement.Compile(service.GetSpec().GetPlacement())
	if err != nil {
		// The API lets none in that cannot be read; a later manager's may be, and moves nothing.
		rules = nil
	}
	return judge{snapshot: s, service: service, rules: rules, leave: map[string]bool{}}
}

// due tells whether and why a live task is to be replaced.
func (j judge) due(t *warrenv1.Task) cause {
	switch {
	case t.GetRevision() != j.service.GetRevision():
		return outdated
	case j.service.GetSpec().GetGlobal() != nil:
		return nothing // its slot goes with its node: the replicas loop's matter
	case t.GetNodeId() != "" && j.mustLeave(t.GetNodeId()):
		return displaced
	}
	return nothing
}

// mustLeave tells whether tasks may not stay on a node. Those of a node that is gone are lost: the
// liveness loop's matter.
func (j judge) mustLeave(nodeID string) bool {
	leave, known := j.leave[nodeID]
	if !known {
		n := j.snapshot.Node(nodeID)
		leave = n != nil && (n.GetSpec().GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN ||
			j.rules != nil && !j.rules.Admits(n))
		j.leave[nodeID] = leave
	}
	return leave
}
