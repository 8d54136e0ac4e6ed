package scheduler

import (
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
	lacksCPUs
	lacksMemory
	full
	// violates and above: the constraint at verdict-violates is not met.
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

// atBound tells whether n has as many tasks of the service as are allowed per node. Where updates start
// first, the tasks of another revision are on their way out or in, each beside the one it replaces or is
// replaced by; counting both would leave an update on full nodes waiting for itself.
func (g *group) atBound(n *node) bool {
	bound := int(g.service.object.GetSpec().GetPlacement().GetMaxReplicasPerNode())
	if bound == 0 {
		return false
	}
	present := g.present[n]
	if !startsFirst(g.service.object) {
		present = 0
		for _, other := range g.service.groups {
			present += other.present[n]
		}
	}
	return present >= bound
}
