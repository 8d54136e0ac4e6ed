package dispatch

import (
	"time"

	"github.com/cuemby/warren/internal/manager/overlay"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// withdrawalTimeout bounds how long a task that is to stop goes on because a node has not said that it sends it
// no more connections. That takes a node some milliseconds; one that does not say so is as good as cut off.
const withdrawalTimeout = 3 * time.Second

// withdrawals are the tasks that are to stop and take connections. Such a task is told to stop only when every node
// that can be reached balances by endpoints without it: so no connection is lost. A node whose agent has just gone balances
// by what that has left in force; it is waited for as one that says nothing, since its agent may be back in a moment.
//
// They are of a term. A manager that becomes leader begins anew with the tasks it finds to be stopped, and waits for the
// nodes that it expects as well. The term's lock guards them.
type withdrawals struct {
	term  *term
	tasks map[string]*withdrawal
}

// withdrawal is one task's.
type withdrawal struct {
	node string
	// version is of endpoints without the task.
	version uint64
	// pending are the nodes that have not acknowledged these.
	pending map[string]struct{}
	timer   *time.Timer
}

// mayStop tells whether a task that is not wanted in the snapshot may be told so. If not, it is marked in its session
// when it may be.
func (w *withdrawals) mayStop(now state.Snapshot, t *warrenv1.Task) bool {
	if !overlay.Open(t) {
		return true
	}
	w.term.mu.Lock()
	defer w.term.mu.Unlock()
	id := t.GetMeta().GetId()
	if !overlay.Open(w.term.store.Snapshot().Task(id)) {
		return true // since then: it may have been dropped before it was entered
	}
	task := w.tasks[id]
	if task == nil {
		task = &withdrawal{node: t.GetNodeId(), version: now.Index(), pending: w.behind(now.Index())}
		task.timer = time.AfterFunc(withdrawalTimeout, func() { w.giveUp(id, task) })
		w.tasks[id] = task
		w.term.logger.Debug("before a task may stop no node must send it connections any more", "service", t.GetServiceName(), "task", id, "node", t.GetNodeId(),
			"version", task.version, "awaited", len(task.pending))
	}
	return len(task.pending) == 0
}

// behind returns the nodes that balance connections and are not known to have endpoints of that version in force:
// those with a session, and those whose agents are on their way to this manager, or may be back soon.
func (w *withdrawals) behind(version uint64) map[string]struct{} {
	nodes := map[string]struct{}{}
	for node := range w.term.absent {
		nodes[node] = struct{}{}
	}
	for node, since := range w.term.lapsed {
		if time.Since(since) < withdrawalTimeout {
			nodes[node] = struct{}{}
		} else {
			delete(w.term.lapsed, node)
		}
	}
	for node, s := range w.term.sessions {
		if s.inForce < version {
			nodes[node] = struct{}{}
		}
	}
	return nodes
}

// acknowledge notes that a session's node balances by the endpoints of that version. One that this manager has not come to
// yet is of a state before a backup was restored, and says nothing.
func (w *withdrawals) acknowledge(s *session, version uint64) {
	if version > w.term.store.Snapshot().Index() {
		return
	}
	w.term.mu.Lock()
	defer w.term.mu.Unlock()
	if w.term.sessions[s.node] == s {
		s.inForce = max(s.inForce, version)
		w.term.logger.Debug("a node acts by endpoints", "node", s.node, "version", version)
		w.release(s.node, version)
	}
}

// forget notes that a node is out of reach: it is not waited for. The caller holds the term's lock.
func (w *withdrawals) forget(node string) { w.release(node, ^uint64(0)) }

// release takes a node from what is waited for up to a version.
func (w *withdrawals) release(node string, version uint64) {
	for id, task := range w.tasks {
		if _, pending := task.pending[node]; pending && task.version <= version {
			delete(task.pending, node)
			w.settle(id, task)
		}
	}
}

// settle has a task told to stop if nothing is waited for any more.
func (w *withdrawals) settle(id string, task *withdrawal) {
	if len(task.pending) > 0 {
		return
	}
	task.timer.Stop()
	if s := w.term.sessions[task.node]; s != nil {
		s.mark(id)
	}
}

// giveUp has a task told to stop although some nodes have said nothing.
func (w *withdrawals) giveUp(id string, task *withdrawal) {
	w.term.mu.Lock()
	defer w.term.mu.Unlock()
	if w.tasks[id] != task || len(task.pending) == 0 {
		return
	}
	for node := range task.pending {
		w.term.logger.Warn("a task is stopped although a node may still send it connections", "task", id, "node", node)
	}
	clear(task.pending)
	w.settle(id, task)
}

// drop forgets a task that takes no connections any more, for whatever reason, and has it told to stop if it still is there: a program
// that crashes while its withdrawal is waited for would else be started again, and nobody would tell it any more.
func (w *withdrawals) drop(id string) {
	w.term.mu.Lock()
	defer w.term.mu.Unlock()
	if task := w.tasks[id]; task != nil {
		clear(task.pending)
		w.settle(id, task)
		delete(w.tasks, id)
	}
}

// end forgets all tasks. The caller holds the term's lock.
func (w *withdrawals) end() {
	for _, task := range w.tasks {
		task.timer.Stop()
	}
	clear(w.tasks)
}
