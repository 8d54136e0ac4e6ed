package scheduler

import (
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
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
	// of, best and why are what Place has last looked through: it goes on there while nothing else happens.
	of   *group
	best *candidates
	why  string
}

// NewTrial returns a trial on a state. Tasks that wait in it for a node are left waiting.
func NewTrial(at state.Snapshot, now time.Time) *Trial {
	t := &Trial{view: newView(), at: at, now: now}
	t.view.load(at)
	return t
}

// Place puts one more task of a service's revision into the slot, which names its node in a global service, and returns
// the node's id. Where none fits the id is empty, and why is said as the scheduler says it.
func (t *Trial) Place(service *warrenv1.Service, revision uint64, key slot.Key) (id, why string) {
	task := slot.NewTask("", service, key, t.now)
	task.Revision = revision
	g := t.view.groupOf(t.at, task)
	g.tasks++ // a group lives as long as it has tasks
	var n *node
	if key.NodeID == "" {
		n, why = t.anywhere(g)
	} else {
		n, why = t.bound(g, key.NodeID)
	}
	if n == nil {
		g.tasks--
		if g.tasks == 0 {
			t.forget()
		}
		t.view.releaseGroup(g)
		return "", why
	}
	return n.id, ""
}

// anywhere puts a task of g on the best node.
func (t *Trial) anywhere(g *group) (*node, string) {
	if t.of != g {
		t.of, t.best, t.why = g, t.view.everywhere(g, t.now), ""
	}
	n := t.best.take()
	if n == nil {
		if t.why == "" {
			t.why = t.view.why(g)
		}
		return nil, t.why
	}
	t.view.occupy(g, n, true)
	t.best.placed()
	return n, ""
}

// bound puts a task of g on the one node where it may go.
func (t *Trial) bound(g *group, id string) (*node, string) {
	t.forget()
	n := t.view.node(id)
	if verdict := g.judge(n); verdict != fits {
		why := g.whyNot(n, verdict)
		t.view.releaseNode(n)
		return nil, why
	}
	t.view.occupy(g, n, true)
	return n, ""
}

// forget has Place look through all nodes again.
func (t *Trial) forget() { t.of, t.best, t.why = nil, nil, "" }

// Undo takes a task away again that Place has put on a node.
func (t *Trial) Undo(service *warrenv1.Service, revision uint64, node string) {
	t.forget()
	g := t.view.service(service.GetMeta().GetId()).groups[revision]
	t.view.vacate(g, t.view.nodes[node], true)
	g.tasks--
	t.view.releaseGroup(g)
}

// Retire has a wanted task be wanted no more, as while it is being stopped: it has its place still.
func (t *Trial) Retire(task *warrenv1.Task) {
	if n := t.view.nodes[task.GetNodeId()]; occupies(task) && lifecycle.Wanted(task) && n != nil {
		t.forget()
		countDown(t.view.groupOf(t.at, task).service.wanted, n)
	}
}

// Remove takes away a task that is retired, or was not wanted before, as if it had ended.
func (t *Trial) Remove(task *warrenv1.Task) {
	if occupies(task) {
		t.forget()
		g := t.view.groupOf(t.at, task)
		t.view.vacate(g, t.view.node(task.GetNodeId()), false)
		g.tasks--
		t.view.releaseGroup(g)
	}
}

// Restore puts a wanted task back where it was before Retire and Remove.
func (t *Trial) Restore(task *warrenv1.Task) {
	if occupies(task) {
		t.forget()
		g := t.view.groupOf(t.at, task)
		g.tasks++
		t.view.occupy(g, t.view.node(task.GetNodeId()), true)
	}
}
