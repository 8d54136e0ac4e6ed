package supervisor

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/agent/store"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// overlaid puts a task on the overlay.
func overlaid(a *warrenv1.Assignment) { a.Spec.Network = warrenv1.NetworkMode_NETWORK_MODE_OVERLAY }

// draining gives a task time for the connections it has.
func draining(d time.Duration) func(*warrenv1.Assignment) {
	return func(a *warrenv1.Assignment) { a.Spec.Container.DrainPeriod = durationpb.New(d) }
}

// declare has a task's service declare a port.
func (n *node) declare(task string) {
	n.network.change(func() { n.network.declaring[task] = true })
}

// listen has a container's program listen on its port.
func (n *node) listen(container string) {
	n.network.change(func() { n.network.listens[container] = true })
	n.settle()
}

func (n *node) expectServing(id string, serving bool, message string) {
	n.t.Helper()
	status := n.reported[id]
	if status.GetServing() != serving || status.GetMessage() != message || n.network.serves(id) != serving {
		n.t.Fatalf("task %s: %v; served %v; want serving %v and the message %q", id, status, n.network.serves(id), serving, message)
	}
}

func (n *node) expectCalls(want ...string) {
	n.t.Helper()
	if got := n.network.take(); !slices.Equal(got, want) {
		n.t.Fatalf("calls %q, want %q", got, want)
	}
}

func (n *node) expectAttached(want ...string) {
	n.t.Helper()
	if got, _ := n.network.Attached(n.supervisor.ctx); !slices.Equal(got, want) {
		n.t.Fatalf("attached are %q, want %q", got, want)
	}
}

func TestATaskWhoseServiceDeclaresNoPortsServesWithTheReportThatItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", overlaid))
		n.expect("a", 1, running)
		n.expectServing("a", true, "")
		if address := n.reported["a"].GetAddress(); address != "10.0.0.2" {
			t.Errorf("address %q", address)
		}
		if c := n.runtime.containers["a-1"]; c.Place.Namespace != "/run/a" || string(c.Place.ResolvConf) != "nameserver 10.0.0.1\n" {
			t.Errorf("the container is at %v", c.Place)
		}
		n.expectCalls("withdraw a", "attach a", "serve a")
	})
}

func TestTasksOnOtherNetworksServeWhenTheyRunAndNeverTouchTheOverlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		none := func(a *warrenv1.Assignment) { a.Spec.Network = warrenv1.NetworkMode_NETWORK_MODE_NONE }
		n.network.setUp(false)
		n.assign(assignment("a", draining(time.Hour)), assignment("b", none))
		for _, id := range []string{"a", "b"} {
			if status := n.expect(id, 1, running); !status.GetServing() || status.GetAddress() != "" {
				t.Errorf("%s: %v", id, status)
			}
		}
		n.runtime.end("a-1", 1, false)
		n.kill()
		n.start()
		n.expect("a", 2, running)
		n.assign(assignment("a", desired(wantShutdown), draining(time.Hour)))
		n.expect("a", 2, shutdown)
		n.remove("a")
		n.kill()
		n.start()
		n.expectCalls()
	})
}

func TestARecordFromBeforeTasksServedIsSetRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a"))
		status := n.expect("a", 1, running)
		n.stop()
		old := proto.CloneOf(status)
		old.Serving = false
		journal, err := store.Open(n.dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := journal.Advance("a", store.Progress{Status: old}).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := journal.Close(); err != nil {
			t.Fatal(err)
		}
		n.start()
		if !n.expect("a", 1, running).GetServing() {
			t.Error("a running task of the host's network does not serve")
		}
	})
}

func TestANodeWithoutAddressesRejectsTheTaskInTheOverlaysWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.network.size = 1
		n.assign(assignment("a", overlaid))
		n.assign(assignment("b", overlaid))
		if status := n.expect("b", 1, rejected); status.GetError() != "network: no address left in 10.0.0.0/24" {
			t.Errorf("error %q", status.GetError())
		}
		n.expectContainers("a-1")
		n.expectAttached("a")
	})
}

func TestANodeWithoutAnOverlayRejectsTheTaskAndRunsOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.stop()
		n.network = nil
		n.start()
		n.assign(assignment("a", overlaid), assignment("b"))
		if status := n.expect("a", 1, rejected); !strings.Contains(status.GetError(), "no overlay") {
			t.Errorf("error %q", status.GetError())
		}
		n.expect("b", 1, running)
		n.remove("a", "b")
		n.expectContainers()
	})
}

func TestATaskThatWaitsForTheOverlaySaysSoAndKeepsNobodyFromStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.stop()
		n.starts = 1
		n.start()
		n.network.setUp(false)
		n.assign(assignment("a", overlaid), assignment("b", overlaid), assignment("c", overlaid))
		n.assign(assignment("d"))
		n.expect("d", 1, running)
		n.pass(time.Minute)
		if got := n.expect("a", 1, preparing).GetMessage(); got != "waiting for the overlay" {
			t.Errorf("the message is %q", got)
		}
		n.assign(assignment("c", overlaid, desired(wantShutdown)))
		n.expect("c", 1, shutdown)
		n.network.setUp(true)
		n.settle()
		for _, id := range []string{"a", "b"} {
			n.expect(id, 1, running)
			n.expectServing(id, true, "")
		}
		n.expectAttached("a", "b")
	})
}

func TestAnOverlayThatHasFailedIsShownAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.network.setTrouble("attach", Transient(errors.New("no WireGuard device")))
		n.assign(assignment("a", overlaid))
		if got := n.expect("a", 1, preparing).GetMessage(); got != "trying again: no WireGuard device" {
			t.Errorf("the message is %q", got)
		}
		n.network.setTrouble("attach", nil)
		n.pass(retryDelay(1))
		n.expect("a", 1, running)
	})
}

func TestATaskServesOnlyWhenItListensAndSaysWhereItDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.declare("a")
		n.assign(assignment("a", overlaid))
		n.expect("a", 1, running)
		n.expectServing("a", false, "")
		n.pass(2 * time.Second)
		n.expectServing("a", false, "runs, but does not listen on 8080/tcp yet")
		n.listen("a-1")
		n.expectServing("a", true, "")
	})
}

func TestACrashedTaskIsWithdrawnAndKeepsItsPlaceOverItsRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.declare("a")
		n.assign(assignment("other", overlaid), assignment("a", overlaid, policy(&warrenv1.RestartPolicy{Delay: durationpb.New(time.Second)})))
		n.listen("a-1")
		address := n.reported["a"].GetAddress()
		n.remove("other")
		n.pass(lastConnections) // its address is free, and may be lower
		n.network.take()
		n.runtime.end("a-1", 1, false)
		n.settle()
		n.expect("a", 2, starting)
		n.expectServing("a", false, "restarts in 1s")
		n.pass(time.Second)
		n.expectServing("a", false, "")
		n.listen("a-2")
		n.expectServing("a", true, "")
		if got := n.expect("a", 2, running).GetAddress(); got != address {
			t.Errorf("address %s after a restart, %s before", got, address)
		}
		n.expectCalls("withdraw a", "attach a", "serve a")
	})
}

func TestOtherNodesLearnOfACrashAlsoWhereTheRestartHasToWaitForARemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", overlaid))
		n.runtime.setTrouble("remove", errors.New("device busy"))
		n.runtime.end("a-1", 1, false)
		n.settle()
		n.expect("a", 2, running)
		n.expectServing("a", true, "")
		n.runtime.end("a-2", 1, false)
		n.settle()
		n.expect("a", 2, running)
		n.expectServing("a", false, "")
		n.runtime.setTrouble("remove", nil)
		n.pass(time.Minute)
		n.expect("a", 3, running)
		n.expectServing("a", true, "")
	})
}

func TestATaskThatIsToStopIsWithdrawnThenDrainsAndThenGetsItsSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.stubborn = true
		n.assign(assignment("a", overlaid, draining(20*time.Second)))
		n.assign(assignment("a", overlaid, draining(20*time.Second), desired(wantShutdown)))
		const message = "drains: goes on for 20s for the connections it has, before it is told to stop"
		n.expect("a", 1, stopping)
		n.expectServing("a", false, message)
		n.pass(15 * time.Second)
		n.kill() // the next agent goes on with the rest of it
		n.start()
		n.pass(5*time.Second - time.Millisecond)
		n.expect("a", 1, stopping)
		if got := n.runtime.signalled(); len(got) > 0 {
			t.Fatalf("it got %v before it had drained", got)
		}
		n.pass(time.Millisecond)
		n.expect("a", 1, stopping)
		n.expectServing("a", false, "")
		if got, want := n.runtime.signalled(), []syscall.Signal{syscall.SIGTERM}; !slices.Equal(got, want) {
			t.Fatalf("it got %v, want %v", got, want)
		}
		n.pass(defaultStopGrace)
		n.expect("a", 1, shutdown)
		n.expectAttached()
	})
}

func TestDrainingEndsWithTheProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", overlaid, draining(time.Hour)))
		n.assign(assignment("a", overlaid, draining(time.Hour), desired(wantShutdown)))
		n.runtime.end("a-1", 0, false)
		n.settle()
		n.expect("a", 1, shutdown)
	})
}

func TestWhatTheManagerHasGivenUpIsStoppedWithoutDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", overlaid, draining(time.Hour)))
		n.assign(assignment("a", overlaid, draining(time.Hour), func(a *warrenv1.Assignment) {
			a.Task.Status = &warrenv1.TaskStatus{State: lost, Attempt: 1}
		}))
		n.expectContainers()
		n.expectAttached()
	})
}

func TestATaskThatIsStoppedBeforeItListensIsNeverServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.declare("a")
		n.assign(assignment("a", overlaid, draining(time.Minute)))
		n.assign(assignment("a", overlaid, draining(time.Minute), desired(wantShutdown)))
		n.listen("a-1")
		n.expect("a", 1, stopping)
		if n.network.serves("a") {
			t.Error("it is served")
		}
	})
}

func TestATaskThatIsStoppedWhileItStartsIsNeverServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.stepTime = 10 * time.Millisecond
		n.assign(assignment("a", overlaid))
		n.pass(15 * time.Millisecond) // its program is about to run
		n.assign(assignment("a", overlaid, desired(wantShutdown)))
		n.pass(time.Minute)
		n.expect("a", 1, shutdown)
		n.expectCalls("withdraw a", "attach a", "withdraw a", "detach a")
	})
}

func TestARestartedAgentTakesUpPlacesAndWhatServesGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.declare("a")
		n.declare("b")
		n.assign(assignment("a", overlaid))
		n.assign(assignment("b", overlaid))
		n.listen("a-1")
		n.pass(time.Minute) // all is on disk
		n.kill()
		n.network.take()
		n.network.setUp(false)
		n.start()
		n.expect("a", 1, running)
		n.expectServing("a", true, "") // although the overlay is not up again
		n.network.setUp(true)
		n.settle()
		n.expectServing("a", true, "")
		n.expectServing("b", false, "")
		if calls := n.network.take(); slices.Contains(calls, "withdraw a") || !slices.Contains(calls, "attach b") {
			t.Errorf("calls %q", calls)
		}
		n.listen("b-1")
		n.expectServing("b", true, "")
	})
}

func TestARunningTaskWhosePlaceIsLostIsWithdrawnUntilItHasOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", overlaid))
		n.pass(time.Minute)
		n.kill()
		n.network.setTrouble("attach", errors.New("no address left"))
		n.start()
		n.expect("a", 1, running)
		n.expectServing("a", false, "runs, but is not back on the overlay; trying again: no address left")
		n.network.setTrouble("attach", nil)
		n.pass(retryDelay(1))
		n.expectServing("a", true, "")
	})
}

func TestAnExitWhileAnAgentTakesUpThePlaceIsFollowedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", overlaid, policy(&warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_NONE})))
		n.pass(time.Minute)
		n.kill()
		n.network.setUp(false)
		n.start()
		n.runtime.end("a-1", 1, false)
		n.settle()
		n.expect("a", 1, failedEnd)
		n.expectAttached()
		if n.network.serves("a") {
			t.Error("it is served")
		}
	})
}

func TestWhatDidNotSurviveAnAgentIsWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", overlaid))
		n.pass(time.Minute)
		n.kill()
		delete(n.runtime.containers, "a-1")
		n.network.setUp(false)
		n.start()
		n.expect("a", 2, preparing)
		n.expectServing("a", false, "waiting for the overlay")
	})
}

func TestAfterARebootATaskHasItsAddressAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("other", overlaid))
		n.assign(assignment("a", overlaid))
		address := n.reported["a"].GetAddress()
		n.remove("other")
		n.pass(time.Minute)
		n.kill()
		n.runtime.reboot()
		n.network.reboot()
		n.start()
		if got := n.expect("a", 2, running).GetAddress(); got != address {
			t.Errorf("address %s after a reboot, %s before", got, address)
		}
		n.expectServing("a", true, "")
	})
}

func TestAnEndedTaskLeavesTheOverlayOnceItsContainersAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.setTrouble("remove", errors.New("device busy"))
		n.assign(assignment("a", overlaid, policy(&warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_NONE})))
		n.runtime.end("a-1", 1, false)
		n.settle()
		n.expect("a", 1, failedEnd)
		n.expectAttached("a")
		n.network.setTrouble("detach", errors.New("not now"))
		n.runtime.setTrouble("remove", nil)
		n.pass(time.Minute)
		n.expectContainers()
		n.expectAttached("a")
		n.kill()
		n.start() // it is recorded as ended, and leaves all the same
		n.network.setTrouble("detach", nil)
		n.pass(time.Minute)
		n.expectAttached()
		n.expect("a", 1, failedEnd)
	})
}

func TestARemovedTaskIsForgottenOnlyWhenItHasLeftTheOverlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", overlaid))
		n.network.setTrouble("detach", errors.New("not now"))
		n.remove("a")
		n.kill()
		n.start()
		n.network.setTrouble("detach", nil)
		n.assignAll()
		n.pass(time.Minute)
		n.expectAttached()
		if tasks, err := n.store.Tasks(); err != nil || len(tasks) > 0 {
			t.Errorf("the journal still has %v, %v", tasks, err)
		}
	})
}

func TestUnknownTasksLeaveTheOverlayOnlyWhenTheManagerHasSaidAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", overlaid))
		for _, id := range []string{"left", "over"} {
			if _, err := n.network.Attach(t.Context(), assignment(id, overlaid), nil); err != nil {
				t.Fatal(err)
			}
		}
		n.kill()
		n.start()
		n.pass(time.Hour)
		n.expectAttached("a", "left", "over")
		n.network.setTrouble("attached", errors.New("not now"))
		n.assignAll(assignment("a", overlaid))
		n.expectAttached("a", "left", "over")
		n.network.setTrouble("attached", nil)
		n.pass(time.Minute)
		n.expectAttached("a")
		n.expectServing("a", true, "")
	})
}
