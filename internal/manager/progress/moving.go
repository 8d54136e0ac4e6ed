package progress

import (
	"cmp"
	"fmt"

	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// mover tells which of a service's tasks may not stay where they are: until they have been replaced the service is not as its
// spec wants it. It asks about each node once.
type mover struct {
	snapshot state.Snapshot
	rules    *placement.Rules // nil where the placement cannot be read: nothing moves for it
	global   bool             // its slots go with their nodes
	nodes    map[string]string
}

func newMover(s state.Snapshot, service *warrenv1.Service) *mover {
	m := &mover{snapshot: s, global: service.GetSpec().GetGlobal() != nil, nodes: map[string]string{}}
	if rules, err := placement.Compile(service.GetSpec().GetPlacement()); err == nil {
		m.rules = rules
	}
	return m
}

// why says why a live task is to be moved; empty where it may stay.
func (m *mover) why(t *warrenv1.Task) string {
	switch {
	case m.global:
		return ""
	case t.GetDisplaced():
		return "is to be moved, as it was picked to be"
	case t.GetNodeId() == "":
		return ""
	}
	why, known := m.nodes[t.GetNodeId()]
	if !known {
		why = m.ofNode(t.GetNodeId())
		m.nodes[t.GetNodeId()] = why
	}
	return why
}

func (m *mover) ofNode(id string) string {
	n := m.snapshot.Node(id)
	name := cmp.Or(n.GetFacts().GetHostname(), id)
	switch {
	case n == nil:
		return "" // its tasks are lost
	case n.GetSpec().GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
		return fmt.Sprintf("is to leave node %s, which is drained", name)
	case m.rules != nil && !m.rules.Admits(n):
		return fmt.Sprintf("is to leave node %s, which the placement does not admit", name)
	}
	return ""
}
