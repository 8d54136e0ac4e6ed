package scheduler

import (
	"time"

	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Trial tries out where tasks would go, by the scheduler's own view of a state and without writing anything. Tasks are
// put and taken away in it one after another, and what comes later sees what came before. Make it with NewTrial.
type Trial struct {
	view *view
	at   state.Snapshot
	now  time.Time
}

// NewTrial returns a trial on a state. Tasks that wait in it for a node are left waiting.
func NewTrial(at state.Snapshot, now time.Time) *Trial {
	t := &Trial{view: newView(), at: at, now: now}
	t.view.load(at)
	return t
}

// Place puts one more task of a service's current revision into the slot, which names its node in a global service,
// and returns the node's id. Where none fits the id is empty, and why is said as the scheduler says it.
func (t *Trial) Place(service *warrenv1.Service, key slot.Key) (node, why string) {
	// A group lives as long as it has tasks; one more keeps it while it is looked at.
	task := slot.NewTask("", service, key, t.now)
	g := t.view.groupOf(t.at, task)
	g.tasks++
	defer func() {
		if node == "" {
			g.tasks--
			t.view.releaseGroup(g)
		}
	}()
	if key.NodeID != "" {
		n := t.view.node(key.NodeID)
		defer t.view.releaseNode(n)
		if verdict := g.judge(n); verdict != fits {
			return "", g.whyNot(n, verdict)
		}
		t.view.occupy(g, n, true)
		return n.id, ""
	}
	n := t.view.everywhere(g, t.now).take()
	if n == nil {
		return "", t.view.why(g)
	}
	t.view.occupy(g, n, true)
	return n.id, ""
}

// Retire has a task that is on its node be wanted no more, as while it is being stopped: it has its place still.
func (t *Trial) Retire(task *warrenv1.Task) {
	if occupies(task) && task.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING {
		if n := t.view.nodes[task.GetNodeId()]; n != nil {
			countDown(t.view.groupOf(t.at, task).service.wanted, n)
		}
	}
}

// Remove takes a task away as if it had ended. One that was not retired is wanted until then.
func (t *Trial) Remove(task *warrenv1.Task, retired bool) {
	if !occupies(task) {
		return
	}
	g := t.view.groupOf(t.at, task)
	wanted := task.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING && !retired
	t.view.vacate(g, t.view.node(task.GetNodeId()), wanted)
	g.tasks--
	t.view.releaseGroup(g)
}

// Undo takes a task away again that Place has put on a node.
func (t *Trial) Undo(service *warrenv1.Service, node string) {
	g := t.view.service(service.GetMeta().GetId()).groups[service.GetRevision()]
	t.view.vacate(g, t.view.nodes[node], true)
	g.tasks--
	t.view.releaseGroup(g)
}

// Restore puts a wanted task back where Remove has taken it away.
func (t *Trial) Restore(task *warrenv1.Task) {
	if occupies(task) {
		g := t.view.groupOf(t.at, task)
		g.tasks++
		t.view.occupy(g, t.view.node(task.GetNodeId()), true)
	}
}
