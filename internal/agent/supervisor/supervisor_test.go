package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/agent/prober"
	"github.com/cuemby/warren/internal/agent/store"
	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// node is a machine with a supervisor that can be killed and started again.
type node struct {
	t interface {
		Helper()
		Fatalf(string, ...any)
	}
	dir     string
	runtime *fakeRuntime
	network *fakeNetwork // nil for a node without an overlay
	output  *fakeOutput
	starts  int           // bound of the next supervisor
	first   time.Duration // how long that waits for the manager's first word

	prober     *prober.Prober
	store      *store.Store
	supervisor *Supervisor
	leave      context.CancelFunc
	told       map[string]*warrenv1.TaskStatus // by the supervisor that runs now
	reported   map[string]*warrenv1.TaskStatus // as a manager has it, which drops old reports
}

func makeNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), runtime: newFakeRuntime(), output: newFakeOutput(), starts: 8,
		reported: map[string]*warrenv1.TaskStatus{}}
	n.network = newFakeNetwork(n.runtime)
	n.start()
	return n
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := makeNode(t)
	t.Cleanup(func() {
		n.stop()
		if violations := n.violations(); len(violations) > 0 {
			t.Errorf("this must never happen: %q", violations)
		}
	})
	return n
}

// violations are what has happened that never must.
func (n *node) violations() []string {
	n.runtime.mu.Lock()
	defer n.runtime.mu.Unlock()
	if n.network == nil {
		return n.runtime.violations
	}
	n.network.mu.Lock()
	defer n.network.mu.Unlock()
	return slices.Concat(n.runtime.violations, n.network.violations)
}

func (n *node) start() {
	n.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	var err error
	if n.store, err = store.Open(n.dir, logger); err != nil {
		n.t.Fatalf("%v", err)
	}
	if n.prober, err = prober.New(prober.Options{Probe: n.runtime.probe}); err != nil {
		n.t.Fatalf("%v", err)
	}
	n.told = map[string]*warrenv1.TaskStatus{}
	var ctx context.Context
	ctx, n.leave = context.WithCancel(context.Background())
	o := Options{
		Runtime: n.runtime, Prober: n.prober, Output: n.output, Journal: n.store,
		NodeID: func() string { return "node" }, Hostname: "host", MaxParallelStarts: n.starts, FirstWord: n.first, Logger: logger,
	}
	if n.network != nil {
		o.Network = n.network
	}
	n.supervisor, err = Start(ctx, o)
	if err != nil {
		n.t.Fatalf("%v", err)
	}
	n.settle()
}

// stop ends the supervisor in good order.
func (n *node) stop() {
	n.leave()
	n.supervisor.Wait()
	if err := errors.Join(n.store.Close(), n.prober.Close()); err != nil {
		n.t.Fatalf("%v", err)
	}
}

// kill ends the supervisor as kill -9 does: what it has not written by now is lost.
func (n *node) kill() {
	n.t.Helper()
	synctest.Wait()
	path := filepath.Join(n.dir, "agent.db")
	written, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatalf("%v", err)
	}
	n.stop()
	if err := os.WriteFile(path, written, 0o600); err != nil {
		n.t.Fatalf("%v", err)
	}
}

// settle waits until nothing moves any more without time passing, and takes the reports.
func (n *node) settle() {
	n.t.Helper()
	synctest.Wait()
	for _, report := range n.supervisor.Outbox().Take(10000) {
		id, after := report.GetTaskId(), report.GetStatus()
		if before := n.told[id]; lifecycle.Compare(after, before) < 0 {
			n.t.Fatalf("task %s went back from %v to %v", id, before, after)
		}
		n.told[id] = after
		before := n.reported[id]
		if lifecycle.Ended(before.GetState()) && !proto.Equal(before, after) {
			n.t.Fatalf("task %s had ended as %v and changed to %v", id, before, after)
		}
		if after.GetServing() && after.GetState() != running {
			n.t.Fatalf("task %s serves and does not run: %v", id, after)
		}
		if lifecycle.Compare(after, before) >= 0 {
			n.reported[id] = after
		}
	}
}

// pass lets time pass.
func (n *node) pass(d time.Duration) {
	n.t.Helper()
	<-time.After(d)
	n.settle()
}

func (n *node) assign(assignments ...*warrenv1.Assignment) {
	n.t.Helper()
	n.supervisor.Apply(&warrenv1.Assignments{Tasks: assignments})
	n.settle()
}

func (n *node) assignAll(assignments ...*warrenv1.Assignment) {
	n.t.Helper()
	n.supervisor.Apply(&warrenv1.Assignments{Full: true, Tasks: assignments})
	n.settle()
}

func (n *node) remove(ids ...string) {
	n.t.Helper()
	n.supervisor.Apply(&warrenv1.Assignments{Removed: ids})
	n.settle()
}

func (n *node) expect(id string, attempt uint32, state warrenv1.TaskState) *warrenv1.TaskStatus {
	n.t.Helper()
	status := n.reported[id]
	if status.GetAttempt() != attempt || status.GetState() != state {
		n.t.Fatalf("task %s is %v, want attempt %d %s", id, status, attempt, state)
	}
	return status
}

func (n *node) expectContainers(want ...string) {
	n.t.Helper()
	if got := n.runtime.all(); !slices.Equal(got, want) {
		n.t.Fatalf("containers: %q, want %q", got, want)
	}
}

func assignment(id string, change ...func(*warrenv1.Assignment)) *warrenv1.Assignment {
	a := &warrenv1.Assignment{
		Task: &warrenv1.Task{
			Meta: &warrenv1.Meta{Id: id}, ServiceId: "s", ServiceName: "web", Slot: 1,
			Desired: warrenv1.DesiredState_DESIRED_STATE_RUNNING,
			Status:  &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_ASSIGNED},
		},
		Spec: &warrenv1.TaskSpec{
			Container: &warrenv1.ContainerSpec{Image: "img"}, Restart: &warrenv1.RestartPolicy{},
			Network: warrenv1.NetworkMode_NETWORK_MODE_HOST,
		},
	}
	for _, f := range change {
		f(a)
	}
	return a
}

func desired(d warrenv1.DesiredState) func(*warrenv1.Assignment) {
	return func(a *warrenv1.Assignment) { a.Task.Desired = d }
}

func policy(p *warrenv1.RestartPolicy) func(*warrenv1.Assignment) {
	return func(a *warrenv1.Assignment) { a.Spec.Restart = p }
}

const (
	preparing = warrenv1.TaskState_TASK_STATE_PREPARING
	starting  = warrenv1.TaskState_TASK_STATE_STARTING
	running   = warrenv1.TaskState_TASK_STATE_RUNNING
	stopping  = warrenv1.TaskState_TASK_STATE_STOPPING
	complete  = warrenv1.TaskState_TASK_STATE_COMPLETE
	failedEnd = warrenv1.TaskState_TASK_STATE_FAILED
	shutdown  = warrenv1.TaskState_TASK_STATE_SHUTDOWN
	rejected  = warrenv1.TaskState_TASK_STATE_REJECTED
	lost      = warrenv1.TaskState_TASK_STATE_LOST

	wantShutdown = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN
)

func TestAnAssignedTaskRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.stepTime = time.Millisecond
		n.assign(assignment("a"))
		n.expect("a", 1, preparing)
		n.pass(time.Millisecond)
		n.expect("a", 1, preparing) // created, not started: over in a moment, and not worth a report
		n.pass(time.Millisecond)
		status := n.expect("a", 1, running)
		if status.GetPid() == 0 || status.GetContainerId() != "a-1" || status.GetImageDigest() != "sha256:img" ||
			status.GetStartedAt() == nil || status.GetMessage() != "" {
			t.Errorf("the status lacks something: %v", status)
		}
		n.expectContainers("a-1")
	})
}

func TestACrashedContainerIsRemovedOnlyWhenItsReplacementRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.stepTime = time.Millisecond
		n.assign(assignment("a"))
		n.pass(2 * time.Millisecond)
		n.runtime.end("a-1", 3, false)
		n.settle()
		n.expectContainers("a-1")
		n.pass(time.Millisecond)
		n.expectContainers("a-1", "a-2")
		n.pass(time.Millisecond)
		n.expect("a", 2, running)
		n.expectContainers("a-2")
	})
}

func TestACrashedContainerIsRemovedAlsoWhenItsReplacementCannotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a"))
		n.runtime.setTrouble("create", Transient(errors.New("not now")))
		n.runtime.end("a-1", 3, false)
		n.settle()
		n.expectContainers()
		n.runtime.setTrouble("create", nil)
		n.pass(time.Minute)
		n.expect("a", 2, running)
	})
}

func TestAfterABootAManagerHasTheFirstWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("kept"), assignment("replaced"))
		n.pass(2 * time.Second)
		n.first = 2 * time.Second
		n.kill()
		n.runtime.reboot()
		n.start()
		n.pass(time.Second)
		n.expectContainers() // nobody has said yet what is wanted
		n.supervisor.Apply(&warrenv1.Assignments{Full: true, Tasks: []*warrenv1.Assignment{assignment("kept")}})
		n.settle()
		n.expect("kept", 2, running)
		n.expectContainers("kept-2")

		n.kill()
		n.runtime.reboot()
		n.start()
		n.pass(2 * time.Second) // no manager is heard of
		n.expect("kept", 3, running)
	})
}

func TestAnAttemptIsCountedAlsoWhereItsContainerWentBeforeItWasRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a"))
		n.pass(2 * time.Second)
		for range 2 {
			n.kill()
			n.runtime.reboot()
			n.start()
		}
		n.expect("a", 3, running)
		n.kill()
		n.runtime.reboot()
		n.runtime.setTrouble("create", Transient(errors.New("not now")))
		n.start()
		n.expect("a", 4, preparing)
		n.expectContainers()
		n.kill()
		n.runtime.setTrouble("create", nil)
		n.start()
		n.expect("a", 4, running)
	})
}

func TestACrashedTaskIsRestartedAtOnceAndThenWithBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.output.kept["a"] = "boom"
		n.assign(assignment("a"))
		n.runtime.end("a-1", 3, false)
		n.settle()
		status := n.expect("a", 2, running)
		if status.GetError() != "exit code 3" || status.GetExit().GetCode() != 3 || status.GetExit().GetLastOutput() != "boom" {
			t.Errorf("the status does not tell of the crash: %v", status)
		}
		if since := n.output.since["a"]; !since[len(since)-1].Equal(time.Now()) { // when the attempt began: no time has passed
			t.Errorf("its last lines were asked for since %v", since)
		}
		n.expectContainers("a-2")
		for attempt, delay := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			n.runtime.end(fmt.Sprintf("a-%d", attempt+2), 3, false)
			n.settle()
			n.expect("a", uint32(attempt+3), starting)
			n.pass(delay - time.Millisecond)
			n.expect("a", uint32(attempt+3), starting)
			n.pass(time.Millisecond)
			n.expect("a", uint32(attempt+3), running)
		}
		n.pass(5 * time.Minute)
		n.runtime.end("a-5", 3, false)
		n.settle()
		n.expect("a", 6, running)
	})
}

func TestATaskFailsWhenItsRestartsAreSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", policy(&warrenv1.RestartPolicy{MaxAttempts: proto.Uint32(1)})))
		n.runtime.end("a-1", 1, false)
		n.settle()
		n.expect("a", 2, running)
		n.runtime.end("a-2", 1, false)
		n.settle()
		n.expect("a", 2, failedEnd)
		n.expectContainers()
	})
}

func TestAShutDownTaskGetsItsGraceAndThenSIGKILL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.stubborn = true
		n.assign(assignment("a", func(a *warrenv1.Assignment) {
			a.Spec.Container.StopGracePeriod = durationpb.New(3 * time.Second)
		}))
		n.assign(assignment("a", desired(wantShutdown), func(a *warrenv1.Assignment) {
			a.Spec.Container.StopGracePeriod = durationpb.New(3 * time.Second)
		}))
		n.expect("a", 1, stopping)
		n.pass(3*time.Second - time.Millisecond)
		n.expect("a", 1, stopping)
		n.pass(time.Millisecond)
		n.expect("a", 1, shutdown)
		if want := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}; !slices.Equal(n.runtime.signals, want) {
			t.Errorf("signals %v, want %v", n.runtime.signals, want)
		}
		n.expectContainers()
	})
}

func TestATaskNotWantedBeforeItRanIsShutDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", desired(wantShutdown)))
		n.expect("a", 0, shutdown)
		n.expectContainers()
	})
}

func TestARemovedTaskLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a"))
		n.output.kept["a"] = "text"
		n.remove("a")
		n.expectContainers()
		if kept, _ := n.output.List(); len(kept) > 0 {
			t.Errorf("output is left of %q", kept)
		}
		if tasks, err := n.store.Tasks(); err != nil || len(tasks) > 0 {
			t.Errorf("the journal still has %v, %v", tasks, err)
		}
		n.supervisor.mu.Lock()
		defer n.supervisor.mu.Unlock()
		if len(n.supervisor.tasks)+len(n.supervisor.watches)+len(n.supervisor.outbox.latest) > 0 {
			t.Error("the supervisor still knows it")
		}
	})
}

func TestAnImageThatIsNotThereRejectsTheTaskInTheRegistrysWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.missing["img"] = errors.New("pull image img: not found")
		n.assign(assignment("a"))
		if status := n.expect("a", 1, rejected); status.GetError() != "pull image img: not found" {
			t.Errorf("error %q", status.GetError())
		}
	})
}

func TestATransientErrorIsShownAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.setTrouble("create", Transient(errors.New("connection reset")))
		n.assign(assignment("a"))
		if status := n.expect("a", 1, preparing); status.GetMessage() != "trying again: connection reset" {
			t.Errorf("message %q", status.GetMessage())
		}
		n.runtime.setTrouble("create", nil)
		n.pass(retryDelay(1))
		n.expect("a", 1, running)
	})
}

func TestATaskSaysThatItWaitsForARuntimeThatHasNotAnsweredYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.setTrouble("list", errors.New("down"))
		n.kill()
		n.start()
		n.assign(assignment("a"))
		n.pass(slowStart)
		if got := n.expect("a", 1, preparing).GetMessage(); got != waitingForRuntime {
			t.Errorf("the message is %q", got)
		}
		n.runtime.setTrouble("list", nil)
		n.pass(time.Minute)
		if got := n.expect("a", 1, running).GetMessage(); got != "" {
			t.Errorf("the message is still %q", got)
		}
	})
}

func TestWaitingRetriesGoOnAtOnceWhenTheRuntimeIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.setTrouble("create", Transient(errors.New("connection refused")))
		n.assign(assignment("a"))
		n.pass(time.Minute)
		n.runtime.setTrouble("create", nil)
		n.runtime.tell(Resync{})
		n.settle()
		n.expect("a", 1, running)
	})
}

func TestOutOfMemoryIsSaidInWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", policy(&warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_NONE}),
			func(a *warrenv1.Assignment) { a.Spec.Limits = &warrenv1.Resources{MemoryBytes: 64 << 20} }))
		n.runtime.end("a-1", 137, true)
		n.settle()
		status := n.expect("a", 1, failedEnd)
		if want := "out of memory: used more than its limit of 64 MiB"; status.GetError() != want || !status.GetExit().GetOomKilled() {
			t.Errorf("error %q, want %q; exit %v", status.GetError(), want, status.GetExit())
		}
	})
}

func TestAKilledAgentTakesUpWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a"))
		n.kill()
		n.start()
		n.expect("a", 1, running)
		n.expectContainers("a-1")
		n.runtime.end("a-1", 1, false)
		n.settle()
		n.expect("a", 2, running)
	})
}

func TestAnExitWhileTheAgentWasDownIsFollowedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a"), assignment("b", policy(&warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_NONE})))
		n.kill()
		n.runtime.end("a-1", 7, false)
		n.runtime.end("b-1", 0, false)
		n.start()
		if status := n.expect("a", 2, running); status.GetExit().GetCode() != 7 {
			t.Errorf("exit %v, want code 7", status.GetExit())
		}
		n.expect("b", 1, complete)
		n.expectContainers("a-2")
	})
}

func TestAfterARebootTheLastAssignmentsStartAgainWithoutAManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a"))
		n.kill()
		n.runtime.reboot()
		n.start()
		n.expect("a", 2, running)
		n.expectContainers("a-2")
	})
}

func TestWhatHasEndedStaysEndedAlthoughTheManagerDoesNotKnowYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		a := assignment("a", policy(&warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_NONE}))
		n.assign(a)
		n.runtime.end("a-1", 1, false)
		n.settle()
		n.kill()
		n.start()
		n.assignAll(a)
		n.pass(time.Hour)
		n.expect("a", 1, failedEnd)
		n.expectContainers()
	})
}

func TestARestartDelayGoesOnWhereTheKilledAgentLeftIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", policy(&warrenv1.RestartPolicy{Delay: durationpb.New(30 * time.Second)})))
		n.runtime.end("a-1", 1, false)
		n.settle()
		n.pass(10 * time.Second)
		n.kill()
		n.start()
		n.pass(19 * time.Second)
		n.expect("a", 2, starting)
		n.pass(time.Second)
		n.expect("a", 2, running)
	})
}

func TestUnknownContainersGoOnlyWhenTheManagerHasSaidAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a"), assignment("b"))
		n.output.kept["b"] = "text"
		n.leave()
		n.supervisor.Wait()
		n.store.Close()
		if err := os.Remove(filepath.Join(n.dir, "agent.db")); err != nil {
			t.Fatal(err)
		}
		n.start()
		n.pass(time.Hour)
		n.expectContainers("a-1", "b-1")
		n.supervisor.Apply(&warrenv1.Assignments{Full: true, More: true, Tasks: []*warrenv1.Assignment{assignment("a")}})
		n.settle()
		n.expect("a", 1, running)
		n.expectContainers("a-1", "b-1")
		n.supervisor.Apply(&warrenv1.Assignments{})
		n.settle()
		n.expectContainers("a-1")
		if kept, _ := n.output.List(); len(kept) > 0 {
			t.Errorf("output is left of %q", kept)
		}
	})
}

func TestAFullSetRemovesWhatIsNotInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assignAll(assignment("a"), assignment("b"))
		n.assignAll(assignment("b"))
		n.expectContainers("b-1")
	})
}

func TestATaskTheManagerHasGivenUpIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a"))
		n.assign(assignment("a", func(a *warrenv1.Assignment) {
			a.Task.Status = &warrenv1.TaskStatus{State: lost, Attempt: 1}
		}))
		n.expectContainers()
		n.kill()
		n.start()
		n.pass(time.Hour)
		n.expectContainers()
	})
}

func TestAnExitMissedWhileTheRuntimeWasAwayIsFoundByListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a"), assignment("b"), assignment("c"))
		n.runtime.mu.Lock()
		listeners := n.runtime.listeners
		n.runtime.listeners = map[int]func(Event){}
		n.runtime.mu.Unlock()
		n.runtime.end("a-1", 9, false)
		n.runtime.mu.Lock()
		delete(n.runtime.containers, "b-1")
		n.runtime.listeners = listeners
		n.runtime.mu.Unlock()
		n.runtime.tell(Resync{})
		n.settle()
		if status := n.expect("a", 2, running); status.GetExit().GetCode() != 9 {
			t.Errorf("exit %v, want code 9", status.GetExit())
		}
		n.expect("b", 2, running)
		n.expect("c", 1, running)
	})
}

func TestStartsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.stepTime = 10 * time.Millisecond
		var all []*warrenv1.Assignment
		for i := range 50 {
			all = append(all, assignment(fmt.Sprintf("t%02d", i)))
		}
		n.assign(all...)
		n.pass(time.Second)
		if len(n.runtime.running()) != 50 {
			t.Fatalf("%d of 50 run", len(n.runtime.running()))
		}
		if n.runtime.mostStarting != 8 {
			t.Errorf("%d were started at once, want 8", n.runtime.mostStarting)
		}
	})
}

func TestARemovalThatFailsDelaysNoStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.setTrouble("remove", errors.New("device busy"))
		n.assign(assignment("a"))
		n.runtime.end("a-1", 1, false)
		n.settle()
		n.expect("a", 2, running)
		n.expectContainers("a-1", "a-2")
		n.runtime.setTrouble("remove", nil)
		n.pass(time.Minute)
		n.expectContainers("a-2")
	})
}
