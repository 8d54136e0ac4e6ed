package dispatch

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/liveness"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// watch runs the liveness loop beside a rig.
func (r *rig) watch() {
	ended := make(chan error, 1)
	ctx := r.t.Context()
	go func() { ended <- loop.Run(ctx, r.store, r.proposer, liveness.New(time.Now()), r.d.logger) }()
	r.t.Cleanup(func() { <-ended })
	synctest.Wait()
}

// stateful has a service's tasks wait for their node.
func stateful(s *warrenv1.Service) {
	s.Spec.NodeLoss = &warrenv1.NodeLossPolicy{Action: warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT}
}

func reported(task string, since time.Time, edits ...func(*warrenv1.TaskStatus)) *warrenv1.TaskReport {
	r := observed(task, 1, running, since, "")
	r.Status.Address, r.Status.Serving = "10.208.0."+task[1:], true
	for _, edit := range edits {
		edit(r.Status)
	}
	return r
}

// lostAndBack is a rig with a node n1, of tasks t1 of web and t2 of db, that was cut off until it was down, and is back. n2 is
// another node's agent, which has heard of the end of t1.
func lostAndBack(t *testing.T) (r *rig, a *agent, began time.Time) {
	web, db := statetest.Replicated("web", 1), statetest.Replicated("db", 1, stateful)
	r = newRig(t, overlaid("n1", "10.208.0.0/24", "192.0.2.1"), overlaid("n2", "10.208.1.0/24", "192.0.2.2"),
		web, statetest.Revision(web), db, statetest.Revision(db), statetest.Task("t1", "web", 1, "n1"), statetest.Task("t2", "db", 1, "n1"))
	began = time.Now()
	r.watch()
	a, b := r.dial("n1"), r.dial("n2")
	a.report(reported("t1", began), reported("t2", began))
	var k known
	if b.learn(&k); !k.tasks["t1"] || !k.tasks["t2"] {
		t.Fatalf("tasks %v", k.tasks)
	}
	a.hangUp()
	<-a.done
	for range 4 {
		time.Sleep(time.Second)
		b.heartbeat()
	}
	if got := r.node("n1").GetStatus().GetState(); got != warrenv1.NodeState_NODE_STATE_DOWN {
		t.Fatalf("the node is %v", got)
	}
	b.learn(&k)
	if _, there := k.tasks["t1"]; there || k.tasks["t2"] {
		t.Errorf("others are told of %v", k.tasks)
	}
	return r, r.dial("n1"), began
}

// A node that was merely cut off has kept its tasks up. What was replaced meanwhile leaves its rotation before anything
// else is done there, and is stopped.
func TestALostNodeThatReturnsHearsFirstWhatWasReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := lostAndBack(t)
		a.welcome()
		assigned := a.assignments()
		// What has been sent before the assignments, and nothing that came later.
		told := map[string]*warrenv1.TaskEndpoint{}
		full := false
		for len(a.network) > 0 {
			if e := (<-a.network).GetEndpoints(); e != nil {
				full = full || e.GetFull()
				for _, task := range e.GetTasks() {
					told[task.GetTaskId()] = task
				}
			}
		}
		if !full || !told["t1"].GetWithdrawn() || told["t1"].GetServing() {
			t.Errorf("told of its replaced task: %v", told["t1"])
		}
		if told["t2"].GetWithdrawn() {
			t.Errorf("told of the task that waited: %v", told["t2"])
		}
		for _, as := range assigned.GetTasks() {
			task := as.GetTask()
			switch task.GetMeta().GetId() {
			case "t1":
				if task.GetDesired() != warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN || !lifecycle.Ended(task.GetStatus().GetState()) || task.GetStatus().GetServing() {
					t.Errorf("the replaced task is assigned as %v", task)
				}
			case "t2":
				if !lifecycle.Wanted(task) {
					t.Errorf("the task that waited is assigned as %v", task)
				}
			}
		}
	})
}

func TestATaskThatWaitedCarriesOnWhenItsNodeIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, began := lostAndBack(t)
		if s := r.store.Snapshot().Task("t2").GetStatus(); s.GetServing() || s.GetState() != running || s.GetMessage() == "" {
			t.Errorf("while it waits its status is %v", s)
		}
		a.report(reported("t1", began), reported("t2", began)) // as after every break
		if s := r.store.Snapshot().Task("t2").GetStatus(); !s.GetServing() || s.GetState() != running || s.GetMessage() != "" || s.GetAttempt() != 1 {
			t.Errorf("its status is %v", s)
		}
		if s := r.store.Snapshot().Task("t1").GetStatus(); s.GetState() != warrenv1.TaskState_TASK_STATE_LOST || s.GetServing() {
			t.Errorf("the replaced task is %v", s)
		}
	})
}

// After a power cut the agent starts its tasks again: the same ones, at their next attempt.
func TestATaskThatWaitedMayHaveBeenStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, _ := lostAndBack(t)
		a.report(reported("t2", time.Now(), func(s *warrenv1.TaskStatus) {
			s.Attempt, s.State, s.Serving = 2, warrenv1.TaskState_TASK_STATE_STARTING, false
		}))
		if s := r.store.Snapshot().Task("t2").GetStatus(); s.GetAttempt() != 2 || s.GetMessage() != "" {
			t.Errorf("its status is %v", s)
		}
		a.report(reported("t2", time.Now(), func(s *warrenv1.TaskStatus) { s.Attempt = 2 }))
		if s := r.store.Snapshot().Task("t2").GetStatus(); !s.GetServing() || s.GetState() != running {
			t.Errorf("its status is %v", s)
		}
	})
}

func TestANodeHearsWhenTheRecordOfALostTaskGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, _ := lostAndBack(t)
		var k known
		a.learn(&k)
		if _, there := k.tasks["t1"]; !there {
			t.Fatalf("told of %v", k.tasks)
		}
		gone := state.New(time.Now())
		gone.Delete(r.store.Snapshot().Task("t1"))
		statetest.Commit(t, r.proposer, gone)
		if a.learn(&k); len(k.tasks) != 1 {
			t.Errorf("told of %v", k.tasks)
		}
	})
}

func TestTheImageOfARevisionIsAssignedOnceItIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := statetest.Replicated("web", 3)
		old := statetest.Replicated("web", 3, func(s *warrenv1.Service) { s.Revision = 2 })
		preparing := statetest.In(warrenv1.TaskState_TASK_STATE_PREPARING)
		r := newRig(t, statetest.Node("n1"), web, statetest.Revision(web), statetest.Revision(old),
			statetest.Task("t1", "web", 1, "n1"), statetest.Task("t2", "web", 2, "n1", preparing), statetest.Task("t3", "web", 3, "n1", preparing, statetest.Of(2)))
		a := r.dial("n1")
		a.welcome()
		for _, as := range a.assignments().GetTasks() {
			if as.GetImageDigest() != "" {
				t.Errorf("digest %q before any is known", as.GetImageDigest())
			}
		}
		known := state.New(time.Now())
		state.Update(known, r.store.Snapshot().Revision("web", 1), func(r *warrenv1.Revision) { r.ImageDigest = "sha256:aa" })
		statetest.Commit(t, r.proposer, known)
		got := a.assignments().GetTasks() // only of the one that has not been started
		if len(got) != 1 || got[0].GetTask().GetMeta().GetId() != "t2" || got[0].GetImageDigest() != "sha256:aa" {
			t.Errorf("assigned %v", got)
		}
		a.hearsNothing()
		r.edit("t1", func(t *warrenv1.Task) {
			t.Desired, t.Status.Since = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN, timestamppb.Now()
		})
		if got := a.assignments().GetTasks(); len(got) != 1 || got[0].GetImageDigest() != "sha256:aa" {
			t.Errorf("assigned %v", got)
		}
	})
}
