package scheduler

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

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
// the node's id. Where none fits the id is empty, and why is said as the scheduler says it. It counts as the newest of its slot.
func (t *Trial) Place(service *warrenv1.Service, revision uint64, key slot.Key) (id, why string) {
	task := t.tried(service, revision, key)
	g := t.view.groupOf(t.at, task)
	g.tasks++ // a group lives as long as it has tasks
	var n *node
	switch {
	case key.NodeID != "":
		n, why = t.bound(g, key.NodeID)
	case g.service.replaces(key.Number):
		n, why = t.replacement(g, key.Number)
	default:
		n, why = t.anywhere(g)
	}
	if n == nil {
		g.tasks--
		if g.tasks == 0 {
			t.forget()
		}
		t.view.releaseGroup(g)
		return "", why
	}
	t.view.occupy(g, n, task)
	if t.best != nil {
		t.best.placed()
	}
	return n.id, ""
}

// tried is a task as Place puts it into a slot: made after all that are there.
func (t *Trial) tried(service *warrenv1.Service, revision uint64, key slot.Key) *warrenv1.Task {
	task := slot.NewTaskOf("tried", service, revision, key, t.now)
	task.Meta.CreatedAt = timestamppb.New(t.now.AddDate(100, 0, 0))
	return task
}

// anywhere finds the best node for a task of g.
func (t *Trial) anywhere(g *group) (*node, string) {
	if t.of != g {
		t.of, t.best, t.why = g, t.view.everywhere(g, nil, t.now), ""
	}
	n := t.best.take()
	if n == nil && t.why == "" {
		t.why = t.view.why(g)
	}
	return n, t.why
}

// replacement finds the best node for a task of g that replaces those in its slot.
func (t *Trial) replacement(g *group, number uint32) (*node, string) {
	t.forget()
	n := t.view.everywhere(g, g.setAside(number), t.now).take()
	g.bringBack(number)
	if n == nil {
		return nil, t.view.why(g)
	}
	return n, ""
}

// bound finds out whether a task of g fits on the one node where it may go.
func (t *Trial) bound(g *group, id string) (*node, string) {
	t.forget()
	n := t.view.node(id)
	if verdict := g.judgeBound(n); verdict != fits {
		why := g.whyNot(n, verdict)
		t.view.releaseNode(n)
		return nil, why
	}
	return n, ""
}

// forget has Place look through all nodes again.
func (t *Trial) forget() { t.of, t.best, t.why = nil, nil, "" }

// Undo takes a task away again that Place has put on a node.
func (t *Trial) Undo(service *warrenv1.Service, revision uint64, key slot.Key, node string) {
	t.forget()
	g := t.view.service(service.GetMeta().GetId()).groups[revision]
	t.view.vacate(g, t.view.nodes[node], t.tried(service, revision, key))
	g.tasks--
	t.view.releaseGroup(g)
}

// Retire has a wanted task be wanted no more, as while it is being stopped: it has its place still.
func (t *Trial) Retire(task *warrenv1.Task) {
	if occupies(task) && lifecycle.Wanted(task) {
		t.forget()
		t.view.setTask(t.at, task, retired(task))
	}
}

// Remove takes away a task that is retired, or was not wanted before, as if it had ended.
func (t *Trial) Remove(task *warrenv1.Task) {
	if occupies(task) {
		t.forget()
		t.view.setTask(t.at, retired(task), nil)
	}
}

// Restore puts a wanted task back where it was before Retire and Remove.
func (t *Trial) Restore(task *warrenv1.Task) {
	if occupies(task) {
		t.forget()
		t.view.setTask(t.at, nil, task)
	}
}

// retired returns a task as one that is not wanted any more.
func retired(task *warrenv1.Task) *warrenv1.Task {
	task = proto.CloneOf(task)
	task.Desired = max(task.Desired, warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN)
	return task
}
