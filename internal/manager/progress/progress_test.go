package progress_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/progress"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	pending   = warrenv1.TaskState_TASK_STATE_PENDING
	preparing = warrenv1.TaskState_TASK_STATE_PREPARING
	starting  = warrenv1.TaskState_TASK_STATE_STARTING
	complete  = warrenv1.TaskState_TASK_STATE_COMPLETE
	failed    = warrenv1.TaskState_TASK_STATE_FAILED
	lost      = warrenv1.TaskState_TASK_STATE_LOST

	running   = warrenv1.RolloutState_ROLLOUT_STATE_RUNNING
	paused    = warrenv1.RolloutState_ROLLOUT_STATE_PAUSED
	rolledOut = warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE

	toRemove = warrenv1.DesiredState_DESIRED_STATE_REMOVE
)

func of(t *testing.T, service *warrenv1.Service, objects ...state.Object) *warrenv1.ServiceProgress {
	t.Helper()
	s := statetest.New(t, append(objects, service)...).Snapshot()
	return progress.Of(s, s.Service(service.GetMeta().GetId()))
}

func expect(t *testing.T, p *warrenv1.ServiceProgress, desired, running, updated, stopping uint32, converged bool) {
	t.Helper()
	if p.GetDesired() != desired || p.GetRunning() != running || p.GetUpdated() != updated || p.GetStopping() != stopping || p.GetConverged() != converged {
		t.Errorf("got %v, want %d desired, %d running, %d updated, %d stopping, converged %v", p, desired, running, updated, stopping, converged)
	}
}

func TestAServiceConvergesWhenAllItsTasksServeAndAreCurrent(t *testing.T) {
	web := statetest.Replicated("web", 2)
	one, two := statetest.Task("a", "web", 1, "n1"), statetest.Task("b", "web", 2, "n1")
	expect(t, of(t, web), 2, 0, 0, 0, false)
	expect(t, of(t, web, one), 2, 1, 1, 0, false)
	expect(t, of(t, web, one, two), 2, 2, 2, 0, true)
	expect(t, of(t, web, one, two, statetest.Task("c", "web", 3, "n1", statetest.Desired(toRemove))), 2, 2, 2, 1, false)
	expect(t, of(t, web, one, two, statetest.Task("c", "web", 1, "n1", statetest.In(failed))), 2, 2, 2, 0, true)
	expect(t, of(t, web, one, statetest.Task("b", "web", 2, "n1", statetest.NotServing)), 2, 2, 2, 0, false)
	updated := statetest.Replicated("web", 2, func(s *warrenv1.Service) { s.Revision = 2 })
	expect(t, of(t, updated, one, two), 2, 2, 0, 0, false)
	expect(t, of(t, updated, one, statetest.Task("b2", "web", 2, "n1", statetest.Of(2))), 2, 2, 1, 0, false)
	// start-first: for a moment there is one task more than wanted
	expect(t, of(t, updated, one, two, statetest.Task("b2", "web", 2, "n1", statetest.Of(2))), 2, 3, 1, 0, false)
}

func TestAServiceHasConvergedOnlyWhenItsRolloutIsOver(t *testing.T) {
	updated := func(state warrenv1.RolloutState, edits ...func(*warrenv1.Rollout)) *warrenv1.Service {
		return statetest.Replicated("web", 1, func(s *warrenv1.Service) {
			s.Revision = 2
			s.Rollout = &warrenv1.Rollout{From: 1, To: 2, State: state, Message: "said", Since: timestamppb.New(statetest.Epoch)}
			for _, edit := range edits {
				edit(s.Rollout)
			}
		})
	}
	old, current := statetest.Task("a", "web", 1, "n1"), statetest.Task("b", "web", 1, "n1", statetest.Of(2))
	if p := of(t, updated(running), current); p.GetConverged() || p.GetReason() != "said" {
		t.Errorf("while its task is watched: %v", p)
	}
	lacks := statetest.Task("b", "web", 1, "n1", statetest.Of(2), statetest.NotServing)
	if p := of(t, updated(running), old, lacks); p.GetReason() == "said" || p.GetServing() != 1 || p.GetRunning() != 2 {
		t.Errorf("what a task lacks comes first: %v", p)
	}
	if p := of(t, updated(paused), old, lacks); p.GetConverged() || p.GetReason() != "said" {
		t.Errorf("but not of a rollout that rests: %v", p)
	}
	expect(t, of(t, updated(rolledOut), current), 1, 1, 1, 0, true)
	before := updated(rolledOut, func(r *warrenv1.Rollout) { r.To = 1 })
	if p := of(t, before, current); p.GetConverged() || p.GetReason() != "" {
		t.Errorf("before the next one has begun: %v", p)
	}
	keeping := updated(rolledOut, func(r *warrenv1.Rollout) { r.KeepUntil = timestamppb.New(statetest.Epoch) })
	if p := of(t, keeping, old, current); !p.GetConverged() || p.GetRunning() != 1 || p.GetServing() != 1 {
		t.Errorf("old tasks that are kept to switch back to count for nothing: %v", p)
	}
}

func TestAServiceHasNotConvergedWhileATaskIsToLeaveItsNode(t *testing.T) {
	drained := statetest.Node("n1", func(n *warrenv1.Node) { n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN })
	there, next := statetest.Task("a", "web", 1, "n1"), statetest.Task("b", "web", 1, "", statetest.In(pending), func(task *warrenv1.Task) {
		task.Status.Message = "no node fits"
	})
	web := statetest.Replicated("web", 1)
	for _, c := range []struct {
		name    string
		service *warrenv1.Service
		objects []state.Object
		reason  string
		is      bool
	}{
		{"its node is drained", web, []state.Object{drained, there}, "is to leave node n1, which is drained", false},
		{"and its replacement waits", web, []state.Object{drained, there, next}, "no node fits", false},
		{"also when the drain is undone", web, []state.Object{statetest.Node("n1"), there, next}, "", false},
		{"until that is gone", web, []state.Object{statetest.Node("n1"), there}, "", true},
		{"it has been picked to be moved", web, []state.Object{statetest.Node("n1"), statetest.Task("a", "web", 1, "n1", func(task *warrenv1.Task) { task.Displaced = true })},
			"is to be moved, as it was picked to be", false},
		{"the placement does not admit its node any more", statetest.Replicated("web", 1, func(s *warrenv1.Service) {
			s.Spec.Placement = &warrenv1.Placement{Constraints: []string{"node.hostname != n1"}}
		}), []state.Object{statetest.Node("n1"), there}, "is to leave node n1, which the placement does not admit", false},
	} {
		if p := of(t, c.service, c.objects...); p.GetConverged() != c.is || p.GetReason() != c.reason {
			t.Errorf("%s: %v", c.name, p)
		}
	}
}

func TestUnhealthyTasksAreCounted(t *testing.T) {
	ill := statetest.Task("b", "web", 2, "n1", statetest.NotServing, func(task *warrenv1.Task) {
		task.Status.Health = &warrenv1.TaskHealth{State: warrenv1.HealthState_HEALTH_STATE_UNHEALTHY, Output: "GET /: status 500\n"}
	})
	p := of(t, statetest.Replicated("web", 2), statetest.Task("a", "web", 1, "n1"), ill)
	if p.GetReason() != "is unhealthy: GET /: status 500" || p.GetUnhealthy() != 1 || p.GetServing() != 1 || p.GetConverged() {
		t.Errorf("got %v", p)
	}
}

func TestSlotsAreShownWhateverTheirNumbers(t *testing.T) {
	// Scaling down keeps the slots that are best kept, not the lowest numbers.
	p := of(t, statetest.Replicated("web", 2), statetest.Task("a", "web", 2, "n1"), statetest.Task("b", "web", 7, "n1"),
		statetest.Task("gone", "web", 1, "n1", statetest.In(failed), statetest.Desired(toRemove)))
	if len(p.GetSlots()) != 2 || p.GetSlots()[0].GetSlot() != 2 || p.GetSlots()[1].GetSlot() != 7 || !p.GetConverged() {
		t.Errorf("got %v", p)
	}
}

func TestAServiceBeingRemovedWantsNothing(t *testing.T) {
	web := statetest.Replicated("web", 2, func(s *warrenv1.Service) { s.Removing = true })
	p := of(t, web, statetest.Task("a", "web", 1, "n1", statetest.Desired(toRemove)))
	expect(t, p, 0, 0, 0, 1, false)
	if len(p.GetSlots()) != 1 {
		t.Errorf("slots %v", p.GetSlots())
	}
}

func TestAGlobalServiceWantsTheNodesThatFit(t *testing.T) {
	is := func(a warrenv1.NodeAvailability) func(*warrenv1.Node) {
		return func(n *warrenv1.Node) { n.Spec.Availability = a }
	}
	nodes := []state.Object{
		statetest.Node("ready"),
		statetest.Node("excluded"),
		statetest.Node("down", func(n *warrenv1.Node) { n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN }),
		statetest.Node("drained", is(warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN)),
		statetest.Node("paused", is(warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE)),
		statetest.Node("paused-too", is(warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE)),
	}
	agent := statetest.Global("agent", func(s *warrenv1.Service) {
		s.Spec.Placement = &warrenv1.Placement{Constraints: []string{"node.hostname!=excluded"}}
	})
	expect(t, of(t, agent, nodes...), 1, 0, 0, 0, false)
	nodes = append(nodes, statetest.Task("a", "agent", 0, "ready"), statetest.Task("b", "agent", 0, "paused"))
	expect(t, of(t, agent, nodes...), 2, 2, 2, 0, true)
}

func TestTheReasonIsWhatWasSaidLastOfASlotThatIsNotWell(t *testing.T) {
	since := func(seconds int, text string) func(*warrenv1.Task) {
		return func(task *warrenv1.Task) {
			task.Status.Since = timestamppb.New(statetest.Epoch.Add(time.Duration(seconds) * time.Second))
			task.Meta.CreatedAt = task.Status.Since
			if state := task.Status.State; state == pending || state == preparing {
				task.Status.Message = text
			} else {
				task.Status.Error = text
			}
		}
	}
	wrote := func(output string) func(*warrenv1.Task) {
		return func(task *warrenv1.Task) { task.Status.Exit = &warrenv1.TaskExit{Code: 1, LastOutput: output} }
	}
	web := statetest.Replicated("web", 2)
	for _, c := range []struct {
		name       string
		service    *warrenv1.Service
		objects    []state.Object
		text, task string
	}{
		{"nothing was said", web, nil, "", ""},
		{"no node fits", web, []state.Object{statetest.Task("a", "web", 1, "", statetest.In(pending), since(1, "no node fits"))}, "no node fits", "a"},
		{"the newer of two", web, []state.Object{
			statetest.Task("a", "web", 1, "", statetest.In(pending), since(1, "no node fits")),
			statetest.Task("b", "web", 2, "n1", statetest.In(preparing), since(2, "pulling 10 %")),
		}, "pulling 10 %", "b"},
		{"a crash with its last line", web, []state.Object{
			statetest.Task("a", "web", 1, "n1", statetest.In(starting), since(1, "exit code 1"), wrote("starting\npanic: no config\n\n")),
		}, "exit code 1: panic: no config", "a"},
		{"an ended task whose replacement has said nothing yet", web, []state.Object{
			statetest.Task("a", "web", 1, "n1", statetest.In(failed), since(1, "exit code 2")),
			statetest.Task("b", "web", 1, "n1", statetest.In(starting), since(2, "")),
		}, "exit code 2", "a"},
		{"a node that is gone", web, []state.Object{statetest.Task("a", "web", 1, "n1", statetest.In(lost), since(1, ""))}, "its node is gone", "a"},
		{"a program that ended by itself", web, []state.Object{statetest.Task("a", "web", 1, "n1", statetest.In(complete), since(1, ""))}, "its program ended by itself with exit code 0", "a"},
		{"what went wrong in a slot that runs is history", web, []state.Object{
			statetest.Task("a", "web", 1, "n1", statetest.In(failed), since(1, "exit code 2")), statetest.Task("b", "web", 1, "n1"),
		}, "", ""},
		{"what went wrong with an older revision is history", statetest.Replicated("web", 2, func(s *warrenv1.Service) { s.Revision = 2 }), []state.Object{
			statetest.Task("a", "web", 1, "n1", statetest.In(failed), since(1, "exit code 2")),
		}, "", ""},
		{"a slot given up is history", web, []state.Object{
			statetest.Task("a", "web", 3, "n1", statetest.In(failed), statetest.Desired(toRemove), since(1, "exit code 2")),
		}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := of(t, c.service, c.objects...)
			if p.GetReason() != c.text || p.GetReasonTaskId() != c.task {
				t.Errorf("got %q of %q", p.GetReason(), p.GetReasonTaskId())
			}
		})
	}
}

func TestATaskThatDoesNotServeSaysWhatItLacks(t *testing.T) {
	lacks := func(task *warrenv1.Task) {
		statetest.NotServing(task)
		task.Status.Message = "runs, but does not listen on 80/tcp yet"
	}
	const text = "runs, but does not take connections yet: does not listen on 80/tcp"
	web := statetest.Replicated("web", 2)
	p := of(t, web, statetest.Task("a", "web", 1, "n1"), statetest.Task("b", "web", 2, "n1", lacks))
	if p.GetReason() != text || p.GetReasonTaskId() != "b" || p.GetSlots()[1].GetMessage() != text || p.GetSlots()[0].GetMessage() != "" {
		t.Errorf("got %v", p)
	}
	p = of(t, web, statetest.Task("a", "web", 1, "n1", statetest.NotServing))
	if want := "runs, but does not take connections yet"; p.GetReason() != want {
		t.Errorf("where nothing was said: %q", p.GetReason())
	}
	// Before it is told to stop, a task that is not wanted any more leaves the rotation.
	p = of(t, web, statetest.Task("a", "web", 1, "n1", statetest.NotServing, statetest.Desired(toRemove)))
	if p.GetReason() != "" || p.GetSlots()[0].GetMessage() != "" {
		t.Errorf("a task that is not wanted: %v", p)
	}
	p = of(t, statetest.Replicated("web", 1, func(s *warrenv1.Service) { s.Revision = 2 }), statetest.Task("a", "web", 1, "n1", lacks))
	if p.GetReason() != "" {
		t.Errorf("a task that is about to be replaced is a reason: %v", p)
	}
}

func TestProgressIsConvergedExactlyWhenTheCountsSaySo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		objects := []state.Object{statetest.Replicated("web", rapid.Uint32Range(0, 4).Draw(rt, "replicas"), func(s *warrenv1.Service) {
			s.Revision = 2
			s.Rollout = &warrenv1.Rollout{From: 1, To: 2, State: rapid.SampledFrom([]warrenv1.RolloutState{running, rolledOut}).Draw(rt, "rollout")}
		})}
		for i := range rapid.IntRange(0, 8).Draw(rt, "tasks") {
			objects = append(objects, statetest.Task(string(rune('a'+i)), "web", rapid.Uint32Range(1, 5).Draw(rt, "slot"), "n1",
				statetest.In(warrenv1.TaskState(rapid.Int32Range(1, 11).Draw(rt, "state"))),
				statetest.Desired(warrenv1.DesiredState(rapid.Int32Range(1, 3).Draw(rt, "desired"))),
				statetest.Of(rapid.Uint64Range(1, 2).Draw(rt, "revision")),
				func(task *warrenv1.Task) { task.Status.Serving = rapid.Bool().Draw(rt, "serving") }))
		}
		s := statetest.New(t, objects...).Snapshot()
		p := progress.Of(s, s.ServiceByName("web"))
		silent, coming, over := 0, 0, s.ServiceByName("web").GetRollout().GetState() == rolledOut
		for task := range s.Tasks() {
			if status := task.GetStatus(); lifecycle.Wanted(task) && status.GetState() == warrenv1.TaskState_TASK_STATE_RUNNING && !status.GetServing() {
				silent++
			}
			if lifecycle.Wanted(task) && task.GetStatus().GetState() != warrenv1.TaskState_TASK_STATE_RUNNING {
				coming++
			}
		}
		if want := p.GetDesired() == p.GetRunning() && p.GetRunning() == p.GetUpdated() && p.GetStopping() == 0 && silent == 0 && coming == 0 && over; p.GetConverged() != want {
			rt.Errorf("converged %v: %v", p.GetConverged(), p)
		}
		if p.GetConverged() && p.GetReason() != "" {
			rt.Errorf("a converged service has a reason: %v", p)
		}
		summary := progress.Summary(s, s.ServiceByName("web"))
		if summary.Slots = p.GetSlots(); summary.String() != p.String() {
			rt.Errorf("the summary differs: %v, %v", summary, p)
		}
	})
}
