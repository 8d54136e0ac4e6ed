package scheduler

import (
	"github.com/cuemby/warren/internal/manager/slot"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// verdict is what the filters say of a node: fits, or which of them turned it away first. They stand
// in the order in which they are asked.
type verdict int

const (
	fits verdict = iota
	missing
	notReady
	paused
	drained
	wrongPlatform
	lacksSubnet
	lacksOverlay
	lacksCPUs
	lacksMemory
	full
	// violates and above: the constraint at verdict-violates is not met. Behind the last constraint the
	// group's ports follow: the port is taken.
	violates
)

// judge asks the filters whether one more task of g can go to n.
func (g *group) judge(n *node) verdict {
	switch {
	case n.object == nil:
		return missing
	case !n.open:
		return closure(n.object)
	case g.service.rules == nil || !g.template || g.service.object.GetRemoving():
		return missing
	case !g.service.rules.OnPlatform(n.object):
		return wrongPlatform
	}
	if i := g.service.rules.Violated(n.object); i >= 0 {
		return violates + verdict(i)
	}
	if g.overlay && n.offOverlay != fits {
		return n.offOverlay
	}
	for i, p := range g.ports {
		if n.ports[p] > 0 {
			return g.taken(i)
		}
	}
	// What reserves nothing fits a node however much is reserved there.
	switch {
	case g.need.cpus > 0 && n.reserved.cpus+g.need.cpus > n.capacity.cpus:
		return lacksCPUs
	case g.need.memory > 0 && n.reserved.memory+g.need.memory > n.capacity.memory:
		return lacksMemory
	case g.atBound(n):
		return full
	}
	return fits
}

// judgeBound asks whether a task of g can go to n that may go nowhere else. The node is its slot, so that what is there of
// its service is what it replaces.
func (g *group) judgeBound(n *node) verdict {
	if why := g.judge(n); why != full || !g.outgrows() {
		return why
	}
	return fits
}

// closure tells why n takes no new tasks.
func closure(n *warrenv1.Node) verdict {
	switch {
	case n.GetStatus().GetState() != warrenv1.NodeState_NODE_STATE_READY:
		return notReady
	case n.GetSpec().GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
		return drained
	}
	return paused
}

// offOverlay tells why n has no overlay for new tasks, fits where it has. One that is not up yet is no
// reason: the node's agent has its tasks wait for it.
func offOverlay(n *warrenv1.Node) verdict {
	switch {
	case n.GetNetwork().GetProblem() != "":
		return lacksSubnet
	case n.GetStatus().GetOverlay().GetState() == warrenv1.OverlayState_OVERLAY_STATE_FAILED:
		return lacksOverlay
	}
	return fits
}

// taken is the verdict that another task on the node has the i-th of g's ports.
func (g *group) taken(i int) verdict {
	return violates + verdict(len(g.service.rules.Constraints())+i)
}

// atBound tells whether n has as many tasks of the service as are allowed per node. Where updates start
// first, the tasks of another revision are on their way out or in, each beside the one it replaces or is
// replaced by; counting both would leave an update on full nodes waiting for itself.
func (g *group) atBound(n *node) bool {
	bound := int(g.service.object.GetSpec().GetPlacement().GetMaxReplicasPerNode())
	if bound == 0 {
		return false
	}
	present := g.present[n]
	if slot.StopFirst(g.service.object) {
		present = 0
		for _, other := range g.service.groups {
			present += other.present[n]
		}
	}
	return present >= bound
}
