package progress

import (
	"testing"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// nodeEvent and taskEvent are events of an object's version.
func nodeEvent(id string, version uint64) *warrenv1.Event {
	return &warrenv1.Event{Object: warrenv1.EventObject_EVENT_OBJECT_NODE, ObjectId: id, Index: version}
}

func taskEvent(id string, version uint64) *warrenv1.Event {
	return &warrenv1.Event{Object: warrenv1.EventObject_EVENT_OBJECT_TASK, ObjectId: id, Index: version}
}

// quiet is a watch of n1 that follows no stream.
func quiet() *drainWatch {
	return &drainWatch{
		bell: make(chan struct{}, 1), nodes: map[string]bool{"n1": true}, awaited: map[string]uint64{},
		followed: map[string]func(){"webid": func() {}},
	}
}

func (w *drainWatch) rang() bool {
	select {
	case <-w.bell:
		return true
	default:
		return false
	}
}

// found is what was read of n1 at a version, with tasks of slots.
func found(version uint64, slots ...uint32) []*drain {
	d := &drain{node: Draining{ID: "n1", Hostname: "n1"}, began: epoch, improved: epoch, most: -1}
	n := draining()
	n.Meta = &warrenv1.Meta{Id: "n1", Version: version}
	var left []*warrenv1.TaskEntry
	for _, slot := range slots {
		t := taskOn(slot, "n1", running)
		t.Task.Meta.Version = version
		left = append(left, t)
	}
	d.observe(n, left, epoch)
	return []*drain{d}
}

func TestOnlyNewsOfADrainAreLookedAt(t *testing.T) {
	w := quiet()
	w.begin()
	w.settle(found(5, 1, 2))
	for n, c := range []struct {
		event *warrenv1.Event
		rings bool
	}{
		{nodeEvent("n2", 6), false},
		{taskEvent("n21", 7), false}, // of another node
		{taskEvent("n12", 8), true},
		{nodeEvent("n1", 9), true},
	} {
		w.hear(c.event)
		if got := w.rang(); got != c.rings {
			t.Errorf("event %d: rings is %v", n, got)
		}
	}
	w.hear(taskEvent("n11", 10))
	w.hear(taskEvent("n12", 11))
	if w.begin(); w.rang() {
		t.Error("what is about to be looked at rings again afterwards")
	}
}

func TestNothingThatHappensDuringALookIsMissed(t *testing.T) {
	w := quiet()
	w.begin()
	w.hear(taskEvent("n13", 6)) // which is found only now
	w.hear(taskEvent("n24", 7))
	if w.rang() {
		t.Error("what is not known yet rings")
	}
	if w.settle(found(5, 3)); !w.rang() {
		t.Error("an event of a task that was being read is lost")
	}
	w.begin()
	if w.settle(found(6, 3)); w.rang() {
		t.Error("it rings without news")
	}
}

func TestWhatIsOlderThanTheNewsIsAskedForAgain(t *testing.T) {
	w := quiet()
	w.begin()
	w.settle(found(5, 1))
	w.hear(taskEvent("n11", 7))
	for range 2 { // as long as it is
		if w.begin(); !w.settle(found(6, 1)) {
			t.Error("a manager that is behind an event is believed")
		}
	}
	if w.begin(); w.settle(found(7, 1)) {
		t.Error("a manager that has caught up is not believed")
	}
	w.hear(&warrenv1.Event{Object: warrenv1.EventObject_EVENT_OBJECT_NODE, ObjectId: "n1", Index: 99, Action: "removed"})
	if w.begin(); w.settle(found(7, 1)) {
		t.Error("a removal is awaited as a version")
	}
	ordered := found(6, 1)
	ordered[0].node.Version = 8
	ordered[0].observe(&warrenv1.Node{Meta: &warrenv1.Meta{Id: "n1", Version: 7}}, nil, epoch)
	if w.begin(); !w.settle(ordered) {
		t.Error("a manager that is behind the order is believed")
	}
}
