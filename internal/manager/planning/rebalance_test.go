package planning_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/manager/planning"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// spreadOut is a service with so many tasks on each node.
func spreadOut(counts map[string]int, edits ...func(*warrenv1.ServiceSpec)) (*warrenv1.Service, []state.Object) {
	total := uint32(0)
	var objects []state.Object
	for _, node := range slices.Sorted(maps.Keys(counts)) {
		for range counts[node] {
			total++
			id := fmt.Sprintf("t%d", total)
			objects = append(objects, statetest.Task(id, "web", total, node, statetest.Created(statetest.Epoch.Add(time.Duration(total)*time.Second))))
		}
	}
	service := statetest.Replicated("web", total, func(s *warrenv1.Service) {
		for _, edit := range edits {
			edit(s.Spec)
		}
	})
	return service, append(objects, service, statetest.Revision(service))
}

func zoned(id, zone string, edits ...func(*warrenv1.Node)) *warrenv1.Node {
	return statetest.Node(id, append(edits, func(n *warrenv1.Node) { n.Spec.Labels = map[string]string{"zone": zone} })...)
}

func small(n *warrenv1.Node) { n.Facts.Resources.NanoCpus = 1e9 }

func away(n *warrenv1.Node) { n.Status.State = warrenv1.NodeState_NODE_STATE_UNKNOWN }

func TestRebalancingMovesAsFewTasksAsItTakes(t *testing.T) {
	spread := func(s *warrenv1.ServiceSpec) { s.Placement = &warrenv1.Placement{Spread: []string{"node.labels.zone"}} }
	nodes := []state.Object{zoned("n1", "a"), zoned("n2", "a"), zoned("n3", "b")}
	for name, c := range map[string]struct {
		nodes  []state.Object
		counts map[string]int
		edits  []func(*warrenv1.ServiceSpec)
		want   []string // the nodes from which a task is moved
	}{
		"balanced":            {nodes, map[string]int{"n1": 2, "n2": 2, "n3": 2}, nil, nil},
		"within one":          {nodes, map[string]int{"n1": 2, "n2": 2, "n3": 1}, nil, nil},
		"one too many":        {nodes, map[string]int{"n1": 2, "n2": 2}, nil, []string{"n1"}},
		"all on one":          {nodes, map[string]int{"n1": 6}, nil, []string{"n1", "n1", "n1", "n1"}},
		"two too full":        {nodes, map[string]int{"n1": 4, "n2": 4, "n3": 1}, nil, []string{"n1", "n2"}},
		"spread over zones":   {nodes, map[string]int{"n1": 2, "n2": 2, "n3": 2}, []func(*warrenv1.ServiceSpec){spread}, []string{"n1"}},
		"spread well":         {nodes, map[string]int{"n1": 1, "n2": 1, "n3": 2}, []func(*warrenv1.ServiceSpec){spread}, nil},
		"the old order":       {nodes, map[string]int{"n1": 2, "n2": 2}, []func(*warrenv1.ServiceSpec){stopFirst}, []string{"n1"}},
		"constraint":          {nodes, map[string]int{"n1": 4}, []func(*warrenv1.ServiceSpec){constrained("node.labels.zone == a")}, []string{"n1", "n1"}},
		"most per node":       {nodes, map[string]int{"n1": 4, "n2": 1}, []func(*warrenv1.ServiceSpec){func(s *warrenv1.ServiceSpec) { s.Placement = &warrenv1.Placement{MaxReplicasPerNode: 1} }}, []string{"n1"}},
		"no room":             {[]state.Object{zoned("n1", "a"), zoned("n2", "a", small)}, map[string]int{"n1": 4}, []func(*warrenv1.ServiceSpec){reserves(1)}, []string{"n1"}},
		"nowhere else":        {[]state.Object{zoned("n1", "a"), zoned("n2", "a", small)}, map[string]int{"n1": 2}, []func(*warrenv1.ServiceSpec){reserves(2)}, nil},
		"a node that is away": {[]state.Object{zoned("n1", "a", away), zoned("n2", "a"), zoned("n3", "a")}, map[string]int{"n1": 4}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			service, objects := spreadOut(c.counts, c.edits...)
			s := statetest.New(t, append(slices.Clone(c.nodes), objects...)...).Snapshot()
			moves := planning.Rebalance(s, service, statetest.Epoch, 1000)
			var from []string
			for _, task := range moves.Tasks {
				from = append(from, task.GetNodeId())
			}
			if slices.Sort(from); !slices.Equal(from, c.want) {
				t.Errorf("moves from %v, want %v", from, c.want)
			}
		})
	}
}

func TestRebalancingTakesTheNewestOfANode(t *testing.T) {
	service, objects := spreadOut(map[string]int{"n1": 3})
	s := statetest.New(t, append(objects, statetest.Node("n1"), statetest.Node("n2"))...).Snapshot()
	moves := planning.Rebalance(s, service, statetest.Epoch, 1000)
	if len(moves.Tasks) != 1 || moves.Tasks[0].GetMeta().GetId() != "t3" {
		t.Errorf("moves %v", moves.Tasks)
	}
}

func TestWhatIsBeingMovedIsNotMovedTwice(t *testing.T) {
	service, objects := spreadOut(map[string]int{"n1": 4})
	store := statetest.New(t, append(objects, statetest.Node("n1"), statetest.Node("n2"))...)
	first := planning.Rebalance(store.Snapshot(), service, statetest.Epoch, 1000)
	for _, task := range first.Tasks {
		task.Displaced = true
		statetest.Put(t, store, task)
	}
	again := planning.Rebalance(store.Snapshot(), service, statetest.Epoch, 1000)
	if len(first.Tasks) != 2 || len(again.Tasks) != 0 || again.Moving != 2 {
		t.Errorf("first %d, then %d with %d on their way", len(first.Tasks), len(again.Tasks), again.Moving)
	}
}

// However tasks are spread, rebalancing evens them out with the least of moves, and then finds nothing to do.
func TestRebalancingEvensOut(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		counts := map[string]int{}
		var nodes []state.Object
		for i := range rapid.IntRange(1, 8).Draw(rt, "nodes") {
			id := fmt.Sprintf("n%d", i)
			nodes = append(nodes, statetest.Node(id))
			counts[id] = rapid.IntRange(0, 9).Draw(rt, "tasks")
		}
		var edits []func(*warrenv1.ServiceSpec)
		if rapid.Bool().Draw(rt, "stop first") {
			edits = append(edits, stopFirst)
		}
		service, objects := spreadOut(counts, edits...)
		s := statetest.New(t, append(nodes, objects...)...).Snapshot()
		total := len(objects) - 2
		least, most := total/len(nodes), (total+len(nodes)-1)/len(nodes)
		over, under := 0, 0
		for _, n := range counts {
			over, under = over+max(0, n-most), under+max(0, least-n)
		}
		moves := planning.Rebalance(s, service, statetest.Epoch, 1000)
		if want := max(over, under); len(moves.Tasks) != want {
			rt.Fatalf("%v: %d moves, want %d", counts, len(moves.Tasks), want)
		}
		seen := map[slot.Key]bool{}
		for _, task := range moves.Tasks {
			if counts[task.GetNodeId()]--; counts[task.GetNodeId()] < least {
				rt.Fatalf("too many from %s", task.GetNodeId())
			}
			if seen[slot.KeyOf(task)] {
				rt.Fatalf("%v is moved twice", task)
			}
			seen[slot.KeyOf(task)] = true
		}
	})
}
