package supervisor

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestClearingLeavesNothingAndATaskGivenLaterRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a"), assignment("b"))
		if active := n.supervisor.Active(); active != 2 {
			t.Errorf("%d tasks are active", active)
		}
		n.output.kept["a"] = "text"
		if err := n.supervisor.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.settle()
		n.expectContainers()
		if kept, _ := n.output.List(); len(kept) > 0 || n.supervisor.Active() != 0 {
			t.Errorf("left: output %q, %d tasks", kept, n.supervisor.Active())
		}
		if err := n.supervisor.Clear(t.Context()); err != nil {
			t.Errorf("clearing what is empty: %v", err)
		}
		n.assign(assignment("c"))
		n.expectContainers("c-1")
	})
}

func TestClearingEndsWithItsContextWhereTheRuntimeDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a"))
		n.runtime.setTrouble("remove", errors.New("down"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := n.supervisor.Clear(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		n.runtime.setTrouble("remove", nil)
	})
}

func TestATaskThatGoesWhileContainersAreListedDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assignAll(assignment("a"), assignment("b"))
		n.runtime.listTime = 10 * time.Second
		n.runtime.tell(Resync{})
		n.settle()
		n.remove("a")
		n.pass(10 * time.Second)
		n.expectContainers("b-1")
		n.supervisor.mu.Lock()
		known := len(n.supervisor.tasks)
		n.supervisor.mu.Unlock()
		if known != 1 {
			t.Errorf("%d tasks are known", known)
		}
		n.runtime.listTime = 0
	})
}

func TestContainersThatCannotBeRemovedKeepNoOthersFromIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		var stuck []string
		for i := range 10 {
			id := string(rune('a' + i))
			n.assign(assignment(id))
			n.runtime.setTrouble("remove "+id+"-1", errors.New("its process cannot be killed"))
			stuck = append(stuck, id)
		}
		n.assign(assignment("z"))
		n.remove(stuck...)
		n.pass(time.Second)
		n.remove("z")
		n.pass(time.Second)
		if all := n.runtime.all(); slices.Contains(all, "z-1") {
			t.Errorf("left: %q", all)
		}
		for _, id := range stuck {
			n.runtime.setTrouble("remove "+id+"-1", nil)
		}
		n.pass(time.Minute)
		n.expectContainers()
	})
}
