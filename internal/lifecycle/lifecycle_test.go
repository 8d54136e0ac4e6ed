package lifecycle_test

import (
	"testing"

	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// What an agent finds of a task that goes on running is neither earlier nor later than what it found before, so
// that managers take the last one told.
func TestWhatChangesWhileATaskRunsDoesNotOrderItsStatuses(t *testing.T) {
	is := func(edit func(*warrenv1.TaskStatus)) *warrenv1.TaskStatus {
		s := &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_RUNNING, Attempt: 2, Address: "10.208.1.5"}
		edit(s)
		return s
	}
	before := is(func(*warrenv1.TaskStatus) {})
	for name, after := range map[string]*warrenv1.TaskStatus{
		"serving": is(func(s *warrenv1.TaskStatus) { s.Serving = true }),
		"address": is(func(s *warrenv1.TaskStatus) { s.Address = "10.208.1.6" }),
		"message": is(func(s *warrenv1.TaskStatus) { s.Message = "nothing listens on port 80/tcp" }),
	} {
		if lifecycle.Compare(before, after) != 0 || lifecycle.Compare(after, before) != 0 {
			t.Errorf("statuses that differ by %s alone are ordered", name)
		}
	}
	next := is(func(s *warrenv1.TaskStatus) { s.Attempt, s.Address = 3, "" })
	if lifecycle.Compare(next, is(func(s *warrenv1.TaskStatus) { s.Serving = true })) <= 0 {
		t.Error("that a task serves makes its status later than the next attempt's")
	}
}
