package supervisor

import (
	"slices"
	"strings"
	"sync"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Outbox holds the latest status of every task until it is sent: a status that changes again before
// that is replaced, so it never holds more than there are tasks. One session at a time takes from it.
type Outbox struct {
	mu      sync.Mutex
	latest  map[string]*warrenv1.TaskStatus
	changed map[string]struct{}
	ready   chan struct{}
}

func newOutbox() *Outbox {
	return &Outbox{
		latest:  map[string]*warrenv1.TaskStatus{},
		changed: map[string]struct{}{},
		ready:   make(chan struct{}, 1),
	}
}

// Ready is readable when something has changed since it was last taken.
func (o *Outbox) Ready() <-chan struct{} { return o.ready }

// Rewind marks everything as changed, for a manager that may have missed what was sent.
func (o *Outbox) Rewind() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for task := range o.latest {
		o.changed[task] = struct{}{}
	}
	o.wake()
}

// Take returns at most limit tasks whose status has changed since they were last taken.
func (o *Outbox) Take(limit int) []*warrenv1.TaskReport {
	o.mu.Lock()
	defer o.mu.Unlock()
	reports := make([]*warrenv1.TaskReport, 0, min(limit, len(o.changed)))
	for task := range o.changed {
		if len(reports) == limit {
			o.wake()
			break
		}
		reports = append(reports, &warrenv1.TaskReport{TaskId: task, Status: o.latest[task]})
		delete(o.changed, task)
	}
	slices.SortFunc(reports, func(a, b *warrenv1.TaskReport) int { return strings.Compare(a.GetTaskId(), b.GetTaskId()) })
	return reports
}

func (o *Outbox) put(task string, status *warrenv1.TaskStatus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.latest[task] = status
	o.changed[task] = struct{}{}
	o.wake()
}

func (o *Outbox) drop(task string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.latest, task)
	delete(o.changed, task)
}

func (o *Outbox) wake() {
	select {
	case o.ready <- struct{}{}:
	default: // it is readable already
	}
}
