package explain

import (
	"cmp"
	"fmt"
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Node explains a node.
func Node(at state.Snapshot, n *warrenv1.Node, told []*warrenv1.Event, now time.Time) *warrenv1.ExplainResponse {
	s := scene{at, told, now}
	return &warrenv1.ExplainResponse{
		Object: warrenv1.EventObject_EVENT_OBJECT_NODE, Id: n.GetMeta().GetId(), Name: s.nodeName(n.GetMeta().GetId()),
		Wanted: s.wantedOfNode(n), Actual: s.actualOfNode(n),
		Causes:     s.nodeCauses(n).told(),
		Happenings: s.ofNode(n),
	}
}

func (s scene) wantedOfNode(n *warrenv1.Node) string {
	switch n.GetSpec().GetAvailability() {
	case warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE:
		return "ready, keeps its tasks and takes no new ones" + by(n.GetWrittenBy())
	case warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
		text := "drained of its tasks" + by(n.GetWrittenBy())
		if deadline := n.GetSpec().GetDrainDeadline(); deadline != nil {
			text += ", which are stopped at " + s.at(deadline) + " at the latest"
		}
		return text
	}
	return "ready, takes tasks"
}

func (s scene) actualOfNode(n *warrenv1.Node) string {
	tasks := 0
	for t := range s.TasksByNode(n.GetMeta().GetId()) {
		if !lifecycle.Ended(t.GetStatus().GetState()) {
			tasks++
		}
	}
	return word(n.GetStatus().GetState().String(), "NODE_STATE_") + s.since(n.GetStatus().GetSince()) + ", " + plural(tasks, "task")
}

// nodeCauses finds why a node is not ready, why it is not empty although it is drained, and what is wrong with it.
func (s scene) nodeCauses(n *warrenv1.Node) causes {
	var all causes
	name := s.nodeName(n.GetMeta().GetId())
	status := n.GetStatus()
	switch status.GetState() {
	case warrenv1.NodeState_NODE_STATE_DOWN:
		all.add(cause{
			rank: lostNode, message: "is down" + s.since(status.GetSince()) + because(status.GetMessage()),
			remedy: fmt.Sprintf("start the machine and its warren-agent, and see that it reaches a manager; or remove it for good: `warrenctl node rm %s`", name),
		})
	case warrenv1.NodeState_NODE_STATE_UNKNOWN, warrenv1.NodeState_NODE_STATE_DISCONNECTED:
		all.add(cause{
			rank: cutOff, message: "is not connected to any manager" + s.since(status.GetSince()) + because(status.GetMessage()),
			remedy: "see whether warren-agent runs there and reaches a manager: `systemctl status warren-agent`",
		})
	}
	s.drainCauses(&all, n)
	if problem := n.GetNetwork().GetProblem(); problem != "" {
		all.add(cause{rank: outside, key: "subnet", message: "has no subnet of the overlay: " + problem})
	}
	if status.GetOverlay().GetState() == warrenv1.OverlayState_OVERLAY_STATE_FAILED {
		all.add(cause{rank: outside, key: "overlay", message: "its overlay has failed" + because(firstLine(status.GetOverlay().GetError()))})
	}
	for _, taken := range status.GetOverlay().GetTakenPorts() {
		all.add(cause{
			rank: outside, key: fmt.Sprintf("port %d %v", taken.GetPort(), taken.GetProtocol()),
			message: fmt.Sprintf("the published port %d/%s is %s's there, and leads to it", taken.GetPort(), protocolName(taken.GetProtocol()), cmp.Or(taken.GetBy(), "another program")),
			remedy:  "stop that program, or publish the service on another port",
		})
	}
	if placement.Open(n) {
		s.ailing(&all, n)
	}
	return all
}

// drainCauses adds what is left on a node that is drained, and why.
func (s scene) drainCauses(all *causes, n *warrenv1.Node) {
	if n.GetSpec().GetAvailability() != warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN {
		return
	}
	for t := range s.TasksByNode(n.GetMeta().GetId()) {
		if lifecycle.Ended(t.GetStatus().GetState()) {
			continue
		}
		about := cause{rank: inProgress, objects: []string{s.taskName(t)}, noun: "task"}
		if !lifecycle.Wanted(t) {
			about.key, about.message = "stopping", "is being stopped"
			all.add(about)
			continue
		}
		in := slot.At(s.Snapshot, t.GetServiceId(), slot.KeyOf(t))
		switch next := successor(&in, t); {
		case next == nil:
			about.key, about.message = "turn", "waits for its turn to be replaced"
			all.add(about)
		case !slot.Unassigned(next) || !s.stuck(all, in.Live, next):
			about.key, about.message = "starting", "its replacement is on its way"
			all.add(about)
		}
	}
}

// successor returns the task that is to take t's place; nil where there is none yet.
func successor(in *slot.Slot, t *warrenv1.Task) *warrenv1.Task {
	for _, next := range in.Live {
		if next != t && next.GetNodeId() != t.GetNodeId() {
			return next
		}
	}
	return nil
}

// ailing adds what ails the tasks of a node, where it is likely to be the node's fault: several services' tasks there
// cannot be started.
func (s scene) ailing(all *causes, n *warrenv1.Node) {
	for t := range s.TasksByNode(n.GetMeta().GetId()) {
		recent := s.now.Sub(t.GetStatus().GetSince().AsTime()) < loopTime
		if t.GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_REJECTED && recent || lifecycle.Wanted(t) {
			if c, ails := s.ailment(t); ails && (c.rank == image || c.rank == startup || c.rank == memory) {
				all.add(c)
			}
		}
	}
}
