package planning_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/manager/planning"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestWhatIsRebalancedIsBalancedThen(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		counts := map[string]int{}
		var nodes []state.Object
		for i := range rapid.IntRange(1, 6).Draw(rt, "nodes") {
			id := fmt.Sprintf("n%d", i)
			nodes = append(nodes, statetest.Node(id, func(n *warrenv1.Node) {
				n.Spec.Labels = map[string]string{"zone": rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "zone")}
			}))
			counts[id] = rapid.IntRange(0, 6).Draw(rt, "tasks")
		}
		var edits []func(*warrenv1.ServiceSpec)
		if rapid.Bool().Draw(rt, "stop first") {
			edits = append(edits, stopFirst)
		}
		if rapid.Bool().Draw(rt, "spread") {
			edits = append(edits, func(s *warrenv1.ServiceSpec) { s.Placement = &warrenv1.Placement{Spread: []string{"node.labels.zone"}} })
		}
		_, objects := spreadOut(counts, edits...)
		r := newRig(t, rt, append(nodes, objects...)...)
		r.settle()
		for round := 0; ; round++ {
			moves := planning.Rebalance(r.store.Snapshot(), r.store.Snapshot().Service("web"), r.now, 1000)
			if len(moves.Tasks) == 0 && moves.Moving == 0 {
				break
			}
			if round > 0 {
				rt.Fatalf("%v: round %d: %d and %d", counts, round, len(moves.Tasks), moves.Moving)
			}
			ids := map[string]bool{}
			for _, m := range moves.Tasks {
				ids[m.GetMeta().GetId()] = true
			}
			r.write(func(t *warrenv1.Task) bool { return ids[t.GetMeta().GetId()] }, func(t *warrenv1.Task) { t.Displaced = true })
			r.settle()
		}
	})
}
