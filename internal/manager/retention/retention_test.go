package retention

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	pending = warrenv1.TaskState_TASK_STATE_PENDING
	failed  = warrenv1.TaskState_TASK_STATE_FAILED

	toRemove = warrenv1.DesiredState_DESIRED_STATE_REMOVE
)

func keeping(n uint32) *warrenv1.Cluster {
	return statetest.Cluster(func(c *warrenv1.Cluster) { c.Spec.TaskHistory = new(n) })
}

// failures returns n failed tasks f1, f2 … in the order in which they ended.
func failures(n, number uint32) []state.Object {
	var tasks []state.Object
	for i := range n {
		tasks = append(tasks, statetest.Task(fmt.Sprintf("f%d", i+1), "web", number, "n1", statetest.In(failed)))
	}
	return tasks
}

func TestDecisionsOnASlot(t *testing.T) {
	web, live := statetest.Replicated("web", 1), statetest.Task("live", "web", 1, "n1")
	with := func(tasks []state.Object, others ...state.Object) []state.Object { return append(others, tasks...) }
	for _, c := range []struct {
		name    string
		objects []state.Object
		key     slot.Key
		want    []string
	}{
		{"the history is kept", with(failures(5, 1), web, live), slot.Key{Number: 1}, nil},
		{"the oldest beyond it go", with(failures(7, 1), web, live), slot.Key{Number: 1}, []string{"delete task f2", "delete task f1"}},
		{"the cluster says how many", with(failures(3, 1), web, keeping(2), live), slot.Key{Number: 1}, []string{"delete task f1"}},
		{"one is kept for the back-off", with(failures(3, 1), web, keeping(0), live), slot.Key{Number: 1}, []string{"delete task f2", "delete task f1"}},
		{"two where no task lives", with(failures(3, 1), web, keeping(0)), slot.Key{Number: 1}, []string{"delete task f1"}},
		{"a task that was to be removed goes when it has ended", []state.Object{web,
			statetest.Task("a", "web", 1, "n1", statetest.Desired(toRemove)),
			statetest.Task("b", "web", 1, "n1", statetest.Desired(toRemove), statetest.In(failed))}, slot.Key{Number: 1}, []string{"delete task b"}},
		{"or at once where no node has had it", []state.Object{web,
			statetest.Task("a", "web", 1, "", statetest.Desired(toRemove), statetest.In(pending))}, slot.Key{Number: 1}, []string{"delete task a"}},
		{"nothing is kept of a service that is gone", failures(2, 1), slot.Key{Number: 1}, []string{"delete task f2", "delete task f1"}},
		{"a global service's slots are its nodes", with(failures(6, 0), web, statetest.Task("x", "web", 0, "n2", statetest.In(failed))),
			slot.Key{NodeID: "n1"}, []string{"delete task f1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := statetest.New(t, c.objects...).Snapshot()
			transaction, _ := decide(s, slotKey("web", c.key), statetest.Epoch)
			if got := statetest.Describe(s, transaction); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			for _, write := range statetest.Writes(s, transaction) {
				if !slices.Contains(Outputs, write) {
					t.Errorf("writes %s, which is not among its outputs", write)
				}
			}
		})
	}
}

func TestRevisionsAreKeptWhileNewOrNeeded(t *testing.T) {
	web := statetest.Replicated("web", 1)
	var objects []state.Object
	for web.Revision = 1; web.Revision <= 13; web.Revision++ {
		objects = append(objects, statetest.Revision(web))
	}
	web.Revision = 13
	objects = append(objects, web, statetest.Task("a", "web", 1, "n1", statetest.Of(2), statetest.In(failed)))
	s := statetest.New(t, objects...).Snapshot()
	transaction, _ := decide(s, "web", statetest.Epoch)
	if got, want := statetest.Describe(s, transaction), []string{"delete revision web.3", "delete revision web.1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, write := range statetest.Writes(s, transaction) {
		if !slices.Contains(Outputs, write) {
			t.Errorf("writes %s, which is not among its outputs", write)
		}
	}
}

func TestARevisionThatIsGoneBackToMeanwhileIsKept(t *testing.T) {
	web := statetest.Replicated("web", 1)
	var objects []state.Object
	for web.Revision = 1; web.Revision <= 11; web.Revision++ {
		objects = append(objects, statetest.Revision(web))
	}
	web.Revision = 11
	store := statetest.New(t, append(objects, web)...)
	proposer := statetest.NewProposer(store)
	transaction, _ := decide(store.Snapshot(), "web", statetest.Epoch)

	back := state.New(statetest.Epoch)
	state.Update(back, store.Snapshot().Service("web"), func(s *warrenv1.Service) { s.Revision = 1 })
	back.Check(store.Snapshot().Revision("web", 1))
	statetest.Commit(t, proposer, back)

	if results, err := proposer.Propose(t.Context(), transaction); err != nil || results == nil {
		t.Errorf("what was decided before got %v, %v", results, err)
	}
	if store.Snapshot().Revision("web", 1) == nil {
		t.Error("the revision that the service is at is gone")
	}
}

func TestRevisionsThatARolloutMayNeedAreKept(t *testing.T) {
	web := statetest.Replicated("web", 1)
	var objects []state.Object
	for web.Revision = 1; web.Revision <= 15; web.Revision++ {
		objects = append(objects, statetest.Revision(web))
	}
	web.Revision, web.LastRevision, web.PreviousRevision = 3, 15, 2
	web.Rollout = &warrenv1.Rollout{From: 4, To: 3, Rollback: true}
	s := statetest.New(t, append(objects, web)...).Snapshot()
	transaction, _ := decide(s, "web", statetest.Epoch)
	if got, want := statetest.Describe(s, transaction), []string{"delete revision web.5", "delete revision web.1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhatIsLookedAt(t *testing.T) {
	web := statetest.Replicated("web", 1, func(s *warrenv1.Service) { s.Revision = 2 })
	live, ended := statetest.Task("a", "web", 1, "n1"), statetest.Task("a", "web", 1, "n1", statetest.In(failed))
	s := statetest.New(t, web, ended).Snapshot()
	for _, c := range []struct {
		name   string
		change state.Change
		want   []string
	}{
		{"a task ends", state.Change{Before: live, After: ended}, []string{"web/1/"}},
		{"a global task ends", state.Change{After: statetest.Task("b", "log", 0, "n1", statetest.In(failed))}, []string{"log/0/n1"}},
		{"a task takes a step", state.Change{Before: live, After: live}, nil},
		{"a task of an old revision goes", state.Change{Before: ended}, []string{"web"}},
		{"a task of the current one goes", state.Change{Before: statetest.Task("a", "web", 1, "n1", statetest.Of(2))}, nil},
		{"a service changes", state.Change{Before: web, After: web}, []string{"web"}},
		{"a service goes", state.Change{Before: web}, []string{"web/1/"}},
		{"the cluster changes", state.Change{Before: keeping(1), After: keeping(2)}, []string{"web", "web/1/"}},
		{"a node changes", state.Change{Before: statetest.Node("n1"), After: statetest.Node("n1")}, nil},
	} {
		if got := slices.Collect(affected(s, c.change)); !slices.Equal(got, c.want) {
			t.Errorf("%s: looks at %v, want %v", c.name, got, c.want)
		}
	}
}

func TestSlotKeysAreReadBack(t *testing.T) {
	for _, key := range []slot.Key{{Number: 7}, {NodeID: "n1"}} {
		service, got, ok := parseSlotKey(slotKey("web", key))
		if !ok || service != "web" || got != key {
			t.Errorf("%v came back as %q %v %v", key, service, got, ok)
		}
	}
	if _, _, ok := parseSlotKey("web"); ok {
		t.Error("a service was taken for a slot")
	}
}
