package progress

import (
	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// demand is what a service should have: a number of slots, or for a global one a slot on each of some
// nodes.
type demand struct {
	replicas uint32
	nodes    map[string]struct{} // nil unless global
}

func (d demand) size() uint32 { return d.replicas + uint32(len(d.nodes)) }

// has tells whether a slot is one of those that the service should have. Which numbers they have is
// the replicas loop's choice: it gives up the slots it can do without best.
func (d demand) has(s *slot.Slot) bool {
	if s.Number == 0 {
		_, wanted := d.nodes[s.NodeID]
		return wanted
	}
	return d.replicas > 0 && s.InUse()
}

// demandOf works out what a service should have. A global one wants the nodes that its placement admits
// and that take new tasks; where it has a task on one that takes none, the task may stay.
func demandOf(s state.Snapshot, service *warrenv1.Service, slots []slot.Slot) demand {
	switch {
	case service.GetRemoving():
		return demand{}
	case service.GetSpec().GetGlobal() == nil:
		return demand{replicas: service.GetSpec().GetReplicated().GetReplicas()}
	}
	d := demand{nodes: map[string]struct{}{}}
	rules, err := placement.Compile(service.GetSpec().GetPlacement())
	if err != nil {
		return d // a placement that cannot be read admits no node
	}
	occupied := map[string]bool{}
	for i := range slots {
		occupied[slots[i].NodeID] = len(slots[i].Live) > 0
	}
	for n := range s.Nodes() {
		id := n.GetMeta().GetId()
		stays := occupied[id] && n.GetSpec().GetAvailability() != warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
		if (placement.Open(n) || stays) && rules.Admits(n) {
			d.nodes[id] = struct{}{}
		}
	}
	return d
}
