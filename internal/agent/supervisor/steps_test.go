package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// fakeTracer notes the steps that it is told of.
type fakeTracer struct {
	mu    sync.Mutex
	steps []string
}

func (f *fakeTracer) Step(a *warrenv1.Assignment, step string, began, ended time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ended.Before(began) {
		step += " backwards"
	}
	if err != nil {
		step += ": " + err.Error()
	}
	f.steps = append(f.steps, fmt.Sprintf("%s %s", a.GetTask().GetMeta().GetId(), step))
}

// take returns the steps since the last time.
func (f *fakeTracer) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	steps := f.steps
	f.steps = nil
	return steps
}

func (f *fakeTracer) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := f.take(); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// traced has a task be part of a trace.
func traced(a *warrenv1.Assignment) {
	a.Task.Trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
}

// tracedNode is a node whose supervisor tells a tracer.
func tracedNode(t *testing.T) (*node, *fakeTracer) {
	n, tracer := newNode(t), &fakeTracer{}
	n.supervisor.Tracer = tracer // before there are tasks
	return n, tracer
}

func TestTheStepsOfAStartAreToldInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, tracer := tracedNode(t)
		n.declare("a")
		n.assign(assignment("a", overlaid, traced))
		tracer.expect(t, "a receive assignment", "a pull image", "a attach to network", "a create container", "a start container")
		n.listen("a-1")
		tracer.expect(t, "a become ready")
		n.assign(assignment("b", overlaid, traced))
		tracer.expect(t, "b receive assignment", "b pull image", "b attach to network", "b create container", "b start container", "b become ready")
		n.assign(assignment("c", overlaid))
		tracer.expect(t) // it is part of no trace
	})
}

func TestARestartIsNoPartOfTheWayToTheFirstStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, tracer := tracedNode(t)
		n.assign(assignment("a", traced))
		tracer.take()
		n.runtime.end("a-1", 1, false)
		time.Sleep(time.Minute)
		n.settle()
		n.expect("a", 2, running)
		tracer.expect(t)
	})
}

func TestAStepThatFailsSaysWhyAndIsToldAgainWhenItIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, tracer := tracedNode(t)
		n.runtime.setTrouble("create", Transient(errors.New("busy")))
		n.assign(assignment("a", traced))
		tracer.expect(t, "a receive assignment", "a pull image", "a create container: busy")
		n.runtime.setTrouble("create", nil)
		time.Sleep(time.Minute)
		n.settle()
		steps := tracer.take()
		if want := []string{"a pull image", "a create container", "a start container", "a become ready"}; len(steps) < 4 || !slices.Equal(steps[len(steps)-4:], want) {
			t.Errorf("told %q at last, want %q", steps, want)
		}
	})
}

func TestWithoutATracerStepsCostNothing(t *testing.T) {
	task, c, a := &task{Supervisor: &Supervisor{}}, &container{attempt: 1}, assignment("a", traced)
	began := time.Now()
	if allocations := testing.AllocsPerRun(100, func() { task.step(c, a, StepPull, began, nil) }); allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}
