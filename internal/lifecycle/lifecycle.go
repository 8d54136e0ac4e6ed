// Package lifecycle knows the order of a task's states: which are final, and which of two
// observations is the later one. Managers and agents share it, so that both hold to one rule:
// (attempt, state) never decreases, and what has ended never runs again.
package lifecycle

import (
	"cmp"
	"fmt"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Ended tells whether s is final.
func Ended(s warrenv1.TaskState) bool { return s >= warrenv1.TaskState_TASK_STATE_COMPLETE }

// Compare orders two observations of one task: by attempt, then by state. A final state is later than
// any that is not, and no final state is later than another.
func Compare(a, b *warrenv1.TaskStatus) int {
	switch ea, eb := Ended(a.GetState()), Ended(b.GetState()); {
	case ea && eb:
		return 0
	case ea:
		return 1
	case eb:
		return -1
	}
	return cmp.Or(cmp.Compare(a.GetAttempt(), b.GetAttempt()), cmp.Compare(a.GetState(), b.GetState()))
}

// Wanted tells whether t should run and still can: the manager wants it and it has not ended.
func Wanted(t *warrenv1.Task) bool {
	return t.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING && !Ended(t.GetStatus().GetState())
}

// Name is what people call a task: web.3, or web.NODE for a task of a global service, which has no
// slot. node is its node's hostname.
func Name(t *warrenv1.Task, node string) string {
	if t.GetSlot() > 0 {
		return fmt.Sprintf("%s.%d", t.GetServiceName(), t.GetSlot())
	}
	return t.GetServiceName() + "." + cmp.Or(node, t.GetNodeId())
}
