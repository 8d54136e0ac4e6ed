package rollout

import (
	"testing"
	"time"

	"github.com/cuemby/warren/internal/manager/rollout/policy"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestTasksThatMustLeaveTheirNode(t *testing.T) {
	drainedOne, onN2 := statetest.Node("n1", isDrained), func(id string, slot uint32, edits ...func(*warrenv1.Task)) *warrenv1.Task {
		return statetest.Task(id, "web", slot, "n2", edits...)
	}
	unavailable := func(n uint32) func(*warrenv1.Service) {
		return policyOf(func(p *warrenv1.UpdatePolicy) { p.MaxUnavailable = n })
	}
	picked := func(t *warrenv1.Task) { t.Displaced = true }
	inZone := func(n *warrenv1.Node) { n.Spec.Labels = map[string]string{"zone": "a"} }
	deadline := policy.DefaultProgressDeadline - 30*time.Second
	play(t, []scene{
		{"a drained node's tasks are all replaced elsewhere at once", []state.Object{web(), drainedOne, task("a", 1), task("b", 2), onN2("c", 3)}, []string{"create web.1@1", "create web.2@1"}, 0},
		{"and kept while the replacement does not serve", []state.Object{web(), drainedOne, n2, task("a", 1), onN2("a2", 1, statetest.NotServing)}, nil, 0},
		{"then stopped", []state.Object{web(), drainedOne, n2, task("a", 1), onN2("a2", 1)}, []string{"shutdown a"}, 0},
		{"without being watched, which only updates are", []state.Object{web(), drainedOne, n2, task("a", 1), onN2("a2", 1, young)}, []string{"shutdown a"}, 0},
		{"unless one has failed there before", []state.Object{web(), drainedOne, n2, task("a", 1), onN2("a1", 1, stateIs(hasFailed)), onN2("a2", 1, young)}, nil, 4 * time.Second},
		{"no pause is made between them", []state.Object{web(delayed(time.Hour)), drainedOne, n2, task("a", 1), onN2("b", 2)}, []string{"create web.1@1"}, 0},
		{"a crashing slot does not hold up a drain", []state.Object{web(), drainedOne, task("a", 1), task("b", 2, stateIs(hasFailed))}, []string{"create web.1@1"}, 0},
		{"but does where the old task is stopped first", []state.Object{web(stopFirst), drainedOne, task("a", 1), task("b", 2, stateIs(hasFailed))}, nil, 0},
		{"which is done one at a time", []state.Object{web(stopFirst), drainedOne, task("a", 1), task("b", 2)}, []string{"shutdown a"}, 0},
		{"or as many as may be missing", []state.Object{web(stopFirst, unavailable(2)), drainedOne, task("a", 1), task("b", 2), task("c", 3)}, []string{"shutdown a", "shutdown b"}, 0},
		{"a paused node keeps its tasks", []state.Object{web(), statetest.Node("n1", isPaused), task("a", 1)}, nil, 0},
		{"a node that no longer fits loses its tasks, some at a time", []state.Object{web(zoned), n1, task("a", 1), task("b", 2)}, []string{"create web.1@1"}, 0},
		{"so do tasks that a rebalancing has picked", []state.Object{web(), n1, task("a", 1, picked), task("b", 2, picked), task("c", 3)}, []string{"create web.1@1"}, 0},
		{"and their replacements stay", []state.Object{web(), n1, n2, task("a", 1, picked), onN2("a2", 1)}, []string{"shutdown a"}, 0},
		{"a node that is gone is not this loop's matter", []state.Object{web(), task("a", 1)}, nil, 0},
		{"a drained node's global task is not this loop's matter", []state.Object{statetest.Global("web"), drainedOne, task("a", 0)}, nil, 0},

		{"a deadline is waited for", []state.Object{web(), statetest.Node("n1", until(now.Add(time.Second))), task("a", 1), statetest.Task("a2", "web", 1, "", unplaced)}, nil, time.Second},
		{"after it nothing stays, also where there is no other place", []state.Object{web(), statetest.Node("n1", until(now)), task("a", 1), statetest.Task("a2", "web", 1, "", unplaced)}, []string{"shutdown a"}, 0},
		{"nor where none was looked for", []state.Object{web(), statetest.Node("n1", until(now)), task("a", 1)}, []string{"shutdown a", "create web.1@1"}, 0},
		{"nor however many", []state.Object{web(stopFirst), statetest.Node("n1", until(now)), task("a", 1), task("b", 2)}, []string{"shutdown a", "shutdown b"}, 0},

		{"a drain that is undone stops what has begun and does not serve", []state.Object{web(), n1, n2, task("a", 1), onN2("a2", 1, stateIs(isPreparing))}, []string{"shutdown a2"}, 0},
		{"what has no node yet is dropped", []state.Object{web(), n1, n2, task("a", 1), statetest.Task("a2", "web", 1, "", unplaced)}, []string{"remove a2"}, 0},
		{"of two that serve the older stays", []state.Object{web(), n1, n2, task("a", 1), onN2("a2", 1, young)}, []string{"shutdown a2"}, 0},

		{"a drain in an update that has proved nothing moves tasks as they are", []state.Object{web(at(2)), drainedOne, n2, task("a", 1), onN2("b", 2), onN2("b2", 2, of2, young)}, []string{"create web.1@1"}, 4 * time.Second},
		{"and updates them on the way where it has", []state.Object{web(at(2)), drainedOne, n2, task("a", 1), onN2("b2", 2, of2)}, []string{"create web.1@2"}, deadline},
		{"one that was moved as it is waits for its turn", []state.Object{web(at(2)), drainedOne, n2, task("a", 1), onN2("a1", 1), onN2("b", 2), onN2("b2", 2, of2, young)}, []string{"shutdown a"}, 4 * time.Second},
		{"one whose node no longer fits is updated in its turn", []state.Object{web(at(2), zoned), n1, statetest.Node("n2", inZone), task("a", 1), task("b", 2)}, []string{"create web.1@2"}, deadline},
		{"and runs on until then", []state.Object{web(at(2), zoned), n1, statetest.Node("n2", inZone), task("a", 1), onN2("a2", 1, of2, young), task("b", 2)}, nil, 4 * time.Second},
		{"but as it is where a rebalancing has picked it", []state.Object{web(at(2), zoned), n1, statetest.Node("n2", inZone), task("a", 1, picked)}, []string{"create web.1@1"}, deadline},
		{"or the rollout rests", []state.Object{web(at(2), zoned, in(paused)), n1, statetest.Node("n2", inZone), task("a", 1)}, []string{"create web.1@1"}, 0},
		{"where it can never serve it is replaced in its turn", []state.Object{web(at(3)), drainedOne, n2, task("a", 1), onN2("a1", 1, of2, statetest.NotServing)}, []string{"shutdown a1", "create web.1@3"}, deadline},
		{"also where it fits nowhere as it is", []state.Object{web(at(2)), drainedOne, n2, task("a", 1), statetest.Task("a1", "web", 1, "", unplaced)}, []string{"remove a1", "create web.1@2"}, deadline},
		{"without being taken for one that nobody misses", []state.Object{web(at(2)), drainedOne, n2, task("a", 1), statetest.Task("a1", "web", 1, "", unplaced), onN2("b", 2), onN2("b2", 2, of2, young)}, nil, 4 * time.Second},
	})
}

func TestAllTasksOfARevisionRunOneImage(t *testing.T) {
	found := func(digest string) func(*warrenv1.Task) {
		return func(t *warrenv1.Task) { t.Status.ImageDigest = digest }
	}
	pinned := func(s *warrenv1.Service, digest string) *warrenv1.Revision {
		r := statetest.Revision(s)
		r.ImageDigest = digest
		return r
	}
	two := web(at(2), parallel(3))
	deadline := policy.DefaultProgressDeadline - 30*time.Second
	play(t, []scene{
		{"what the first task finds is what the revision stands for", []state.Object{web(), pinned(web(), ""), n1, task("a", 1, found("sha256:1")), task("b", 2)}, []string{"image 1"}, 0},
		{"a task that has found another is replaced", []state.Object{web(), pinned(web(), "sha256:1"), n1, task("a", 1, found("sha256:1")), task("b", 2, found("sha256:2"))}, []string{"create web.2@1"}, 0},
		{"an image without a digest is let be", []state.Object{web(), pinned(web(), ""), n1, task("a", 1), task("b", 2)}, nil, 0},
		{"an update finds out with one task", []state.Object{two, pinned(two, ""), n1, task("a", 1), task("b", 2), task("c", 3)}, []string{"create web.1@2"}, deadline},
		{"and waits for what it finds", []state.Object{two, pinned(two, ""), n1, task("a", 1), task("a2", 1, of2, stateIs(isPreparing)), task("b", 2), task("c", 3)}, nil, deadline},
		{"then begins as many as it may", []state.Object{two, pinned(two, ""), n1, task("a", 1), task("a2", 1, of2, stateIs(isPreparing), found("sha256:2")), task("b", 2), task("c", 3)},
			[]string{"image 2", "create web.2@2", "create web.3@2"}, deadline},
		{"also where there is nothing to find", []state.Object{two, pinned(two, ""), n1, task("a", 1), task("a2", 1, of2, young), task("b", 2), task("c", 3)},
			[]string{"create web.2@2", "create web.3@2"}, 4 * time.Second},
	})
	again := []state.Object{web(), pinned(web(), "sha256:1"), n1,
		task("b", 2, found("sha256:2"), ago(20*time.Second), notWanted, statetest.Ended(isShutDown, now.Add(-10*time.Second))), task("b2", 2, found("sha256:2"))}
	play(t, []scene{{"a node that finds the wrong one again is asked once a minute", again, nil, 50 * time.Second}})
}
