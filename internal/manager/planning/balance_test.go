package planning_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/manager/planning"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// What is spread evenly is so again after all that moves its tasks.
func TestABalancedServiceStaysBalanced(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var objects []state.Object
		count := rapid.IntRange(1, 6).Draw(rt, "nodes")
		for i := range count {
			zone := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "zone")
			objects = append(objects, zoned(fmt.Sprintf("n%d", i), zone))
		}
		other := statetest.Replicated("other", rapid.Uint32Range(0, 5).Draw(rt, "others"))
		web := statetest.Replicated("web", rapid.Uint32Range(0, 12).Draw(rt, "replicas"), func(s *warrenv1.Service) {
			s.Spec.Update = &warrenv1.UpdatePolicy{Parallelism: rapid.Uint32Range(0, 4).Draw(rt, "parallelism"), Monitor: durationpb.New(0)}
			if rapid.Bool().Draw(rt, "spread") {
				s.Spec.Placement = &warrenv1.Placement{Spread: []string{"node.labels.zone"}}
			}
		})
		r := newRig(t, rt, append(objects, other, statetest.Revision(other), web, statetest.Revision(web))...)
		r.settle()
		r.wantBalanced(rt, "at first")
		images := 0
		for range rapid.IntRange(1, 4).Draw(rt, "events") {
			r.now = r.now.Add(time.Minute)
			switch what := rapid.SampledFrom([]string{"update", "drain", "rebalance"}).Draw(rt, "event"); what {
			case "update":
				images++
				r.commit(update(r.store.Snapshot(), "web", func(s *warrenv1.ServiceSpec) { s.Task.Container.Image = fmt.Sprint("image", images) }))
				r.settle()
				r.wantBalanced(rt, what)
			case "drain":
				node := fmt.Sprintf("n%d", rapid.IntRange(0, count-1).Draw(rt, "drained"))
				r.offer(node, warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN)
				if count > 1 {
					r.wantBalanced(rt, what)
				}
				r.now = r.now.Add(time.Minute)
				r.offer(node, warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE)
				r.rebalance(rt)
				r.wantBalanced(rt, "drain and rebalance")
			case "rebalance":
				if moves := r.rebalance(rt); moves > 0 {
					rt.Fatalf("%d tasks were moved although all was even", moves)
				}
			}
		}
	})
}

// offer changes a node's availability and waits for what comes of it.
func (r *rig) offer(node string, to warrenv1.NodeAvailability) {
	r.t.Helper()
	transaction := state.New(r.now)
	state.Update(transaction, r.store.Snapshot().Node(node), func(n *warrenv1.Node) { n.Spec.Availability = to })
	r.commit(transaction)
	r.settle()
}

// rebalance rebalances the service once, which is to be enough, and returns how many tasks were moved.
func (r *rig) rebalance(rt *rapid.T) int {
	rt.Helper()
	find := func() planning.Moves {
		return planning.Rebalance(r.store.Snapshot(), r.store.Snapshot().Service("web"), r.now, 1000)
	}
	moves := find()
	ids := map[string]bool{}
	for _, m := range moves.Tasks {
		ids[m.GetMeta().GetId()] = true
	}
	r.write(func(t *warrenv1.Task) bool { return ids[t.GetMeta().GetId()] }, func(t *warrenv1.Task) { t.Displaced = true })
	r.settle()
	if more := find(); len(more.Tasks) > 0 || more.Moving > 0 {
		rt.Fatalf("after %d were moved, %d are to be and %d are on their way", len(moves.Tasks), len(more.Tasks), more.Moving)
	}
	return len(moves.Tasks)
}

// wantBalanced checks that the service's tasks differ by one at most: from zone to zone where it is spread over them, and from
// node to node within each. What is drained is left out.
func (r *rig) wantBalanced(rt *rapid.T, when string) {
	rt.Helper()
	s := r.store.Snapshot()
	spread := s.Service("web").GetSpec().GetPlacement() != nil
	zones, nodes := map[string]int{}, map[string]map[string]int{}
	for n := range s.Nodes() {
		if n.GetSpec().GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN {
			continue
		}
		zone := ""
		if spread {
			zone = n.GetSpec().GetLabels()["zone"]
		}
		if nodes[zone] == nil {
			nodes[zone] = map[string]int{}
		}
		nodes[zone][n.GetMeta().GetId()], zones[zone] = 0, 0
	}
	for at, tasks := range r.live("web") {
		if len(tasks) != 1 || !tasks[0].GetStatus().GetServing() {
			rt.Fatalf("%s: slot %s is not at rest: %v", when, at, tasks)
		}
		for zone := range nodes {
			if _, here := nodes[zone][tasks[0].GetNodeId()]; here {
				nodes[zone][tasks[0].GetNodeId()]++
				zones[zone]++
			}
		}
	}
	for _, counts := range append([]map[string]int{zones}, slices.Collect(maps.Values(nodes))...) {
		least, most := 1<<30, 0
		for _, n := range counts {
			least, most = min(least, n), max(most, n)
		}
		if most-least > 1 {
			rt.Fatalf("%s: %v, %v", when, zones, nodes)
		}
	}
}

// An update may change the template and where it may run, so that only the new tasks fit there, or these only where the old ones have
// not been moved to first.
func TestAnUpdateOfTemplateAndPlacementNeedsNoRoomForTheOldTasks(t *testing.T) {
	for name, c := range map[string]struct{ others, before, after int64 }{
		"the old one does not fit":          {2, 3, 0},
		"the new one does not beside it":    {0, 2, 3},
		"both do, one after the other":      {1, 2, 1},
		"neither reserves anything, either": {0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			other := statetest.Replicated("other", 1, func(s *warrenv1.Service) {
				reserves(c.others)(s.Spec)
				constrained("node.labels.zone == a")(s.Spec)
			})
			web := statetest.Replicated("web", 1, func(s *warrenv1.Service) {
				reserves(c.before)(s.Spec)
				constrained("node.labels.zone == b")(s.Spec)
			})
			r := newRig(t, t, zoned("n1", "a"), zoned("n2", "b"), other, statetest.Revision(other), web, statetest.Revision(web))
			r.settle()
			r.commit(update(r.store.Snapshot(), "web", func(s *warrenv1.ServiceSpec) {
				image(s)
				reserves(c.after)(s)
				constrained("node.labels.zone == a")(s)
			}))
			r.settle()
			is := r.live("web")["1"]
			if len(is) != 1 || is[0].GetNodeId() != "n1" || is[0].GetRevision() != 2 {
				t.Errorf("the slot has %v", is)
			}
			if took := r.now.Sub(statetest.Epoch); took > time.Minute {
				t.Errorf("it took %v", took)
			}
		})
	}
}
