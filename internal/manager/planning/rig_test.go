package planning_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/replicas"
	"github.com/cuemby/warren/internal/manager/rollout"
	"github.com/cuemby/warren/internal/manager/scheduler"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// tester is what testing.TB and rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// rig is a quiet cluster: the loops that make tasks, and agents that do at once what they are told.
type rig struct {
	t     tester
	store *state.Store
	log   *statetest.Proposer
	now   time.Time
	loops map[string]*driven
	wakes []time.Time
}

type driven struct {
	loop.Loop
	feed *state.Feed
}

func newRig(tb testing.TB, t tester, objects ...state.Object) *rig {
	store := statetest.New(tb, objects...)
	r := &rig{t: t, store: store, log: statetest.NewProposer(store), now: statetest.Epoch, loops: map[string]*driven{}}
	for _, l := range []loop.Loop{replicas.New(statetest.Counter("r")), rollout.New(statetest.Counter("u"), time.Time{}), scheduler.New()} {
		at, feed := store.Watch()
		l.Reset(at)
		r.loops[l.Name()] = &driven{l, feed}
	}
	return r
}

// run has a loop do all it does, and tells whether that is anything.
func (r *rig) run(name string) (did bool) {
	r.t.Helper()
	l := r.loops[name]
	for {
		batch := l.feed.Take()
		l.Observe(batch.Snapshot, batch.Changes)
		d := l.Decide(batch.Snapshot, r.now)
		if len(d.Proposals) == 0 {
			if !d.Wake.IsZero() {
				r.wakes = append(r.wakes, d.Wake)
			}
			return did
		}
		did = true
		for _, p := range d.Proposals {
			r.commit(p.Transaction)
		}
		if name == "rollout" {
			return true // what it does rests on what has come of it
		}
	}
}

func (r *rig) commit(transactions ...*state.Transaction) {
	r.t.Helper()
	results, err := r.log.Propose(context.Background(), transactions...)
	if err != nil || results != nil {
		r.t.Fatalf("commit: %v, %v", results, err)
	}
}

// write changes tasks.
func (r *rig) write(which func(*warrenv1.Task) bool, edit func(*warrenv1.Task)) (did bool) {
	r.t.Helper()
	transaction := state.New(r.now)
	for t := range r.store.Snapshot().Tasks() {
		if which(t) {
			did = true
			state.Update(transaction, t, edit)
		}
	}
	if did {
		r.commit(transaction)
	}
	return did
}

func (r *rig) startTasks() bool {
	return r.write(func(t *warrenv1.Task) bool {
		return lifecycle.Wanted(t) && t.GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_ASSIGNED
	}, func(t *warrenv1.Task) {
		t.Status.State, t.Status.Attempt, t.Status.Serving = warrenv1.TaskState_TASK_STATE_RUNNING, 1, true
		t.Status.ImageDigest = fmt.Sprintf("sha256:%064d", t.GetRevision())
		t.Status.Since, t.Status.StartedAt = timestamppb.New(r.now), timestamppb.New(r.now)
	})
}

func (r *rig) endTasks() bool {
	return r.write(func(t *warrenv1.Task) bool {
		return t.GetDesired() > warrenv1.DesiredState_DESIRED_STATE_RUNNING && !lifecycle.Ended(t.GetStatus().GetState())
	}, func(t *warrenv1.Task) {
		t.Status.State, t.Status.Serving, t.Status.Since = warrenv1.TaskState_TASK_STATE_SHUTDOWN, false, timestamppb.New(r.now)
	})
}

// settle goes on until nothing happens any more, whatever time it takes.
func (r *rig) settle() {
	r.t.Helper()
	for range 1000 {
		r.wakes = nil
		did := false
		for _, step := range []func() bool{
			func() bool { return r.run("replicas") }, func() bool { return r.run("scheduler") }, r.endTasks,
			func() bool { return r.run("scheduler") }, r.startTasks, func() bool { return r.run("rollout") }, r.endTasks,
		} {
			did = step() || did
		}
		if did {
			continue
		}
		r.wakes = slices.DeleteFunc(r.wakes, func(at time.Time) bool { return !at.After(r.now) })
		if len(r.wakes) == 0 || slices.MinFunc(r.wakes, time.Time.Compare).Sub(statetest.Epoch) > 5*time.Hour {
			return
		}
		r.now = slices.MinFunc(r.wakes, time.Time.Compare)
	}
	r.t.Fatalf("does not come to rest")
}

// live returns the tasks of a service that are wanted, by slot or node.
func (r *rig) live(service string) map[string][]*warrenv1.Task {
	all := map[string][]*warrenv1.Task{}
	for t := range r.store.Snapshot().TasksByService(service) {
		if lifecycle.Wanted(t) {
			all[place(t.GetSlot(), t.GetNodeId())] = append(all[place(t.GetSlot(), t.GetNodeId())], t)
		}
	}
	return all
}
