package planning_test

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/manager/planning"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// place names a slot: its number, or its node in a global service.
func place(slot uint32, node string) string {
	if slot > 0 {
		return strconv.FormatUint(uint64(slot), 10)
	}
	return node
}

// update makes the transaction that changes a service as the API does.
func update(s state.Snapshot, name string, edit func(*warrenv1.ServiceSpec)) *state.Transaction {
	before, t := s.Service(name), state.New(statetest.Epoch)
	state.Update(t, before, func(after *warrenv1.Service) {
		edit(after.Spec)
		if !proto.Equal(before.GetSpec().GetTask(), after.GetSpec().GetTask()) {
			after.Revision++
			t.Create(statetest.Revision(proto.CloneOf(after)))
		}
	})
	return t
}

// planned plans an update.
func planned(t tester, s state.Snapshot, name string, edit func(*warrenv1.ServiceSpec)) *warrenv1.ServicePlan {
	t.Helper()
	supposed, _, err := s.Suppose(update(s, name, edit))
	if err != nil {
		t.Fatalf("suppose: %v", err)
	}
	return planning.Of(supposed, name, statetest.Epoch)
}

// words tells of a plan, a slot each: "replace 1 n1>n2".
func words(p *warrenv1.ServicePlan) (said []string) {
	for _, t := range p.GetTasks() {
		text := strings.ToLower(strings.TrimPrefix(t.GetAction().String(), "PLANNED_ACTION_"))
		if t.GetSlot() > 0 {
			text += fmt.Sprintf(" %d", t.GetSlot())
		}
		text += " " + t.GetNodeHostname()
		if t.GetNewNodeId() != "" {
			text += ">" + t.GetNewNodeHostname()
		}
		if t.GetProblem() != "" {
			text += " (" + t.GetProblem() + ")"
		}
		said = append(said, text)
	}
	return said
}

func reserves(cpus int64) func(*warrenv1.ServiceSpec) {
	return func(s *warrenv1.ServiceSpec) { s.Task.Reservations = &warrenv1.Resources{NanoCpus: cpus * 1e9} }
}

func scaled(replicas uint32) func(*warrenv1.ServiceSpec) {
	return func(s *warrenv1.ServiceSpec) { s.GetReplicated().Replicas = replicas }
}

func image(s *warrenv1.ServiceSpec) { s.Task.Container.Image = "other" }

func stopFirst(s *warrenv1.ServiceSpec) {
	s.Update = &warrenv1.UpdatePolicy{Order: warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST}
}

func strategy(to warrenv1.RolloutStrategy) func(*warrenv1.ServiceSpec) {
	return func(s *warrenv1.ServiceSpec) { s.Update = &warrenv1.UpdatePolicy{Strategy: to} }
}

func onePerNode(s *warrenv1.ServiceSpec) { s.Placement = &warrenv1.Placement{MaxReplicasPerNode: 1} }

func constrained(expr string) func(*warrenv1.ServiceSpec) {
	return func(s *warrenv1.ServiceSpec) { s.Placement = &warrenv1.Placement{Constraints: []string{expr}} }
}

func TestAPlanTellsSlotBySlotWhatWouldBecomeOfIt(t *testing.T) {
	all := func(edits ...func(*warrenv1.ServiceSpec)) func(*warrenv1.ServiceSpec) {
		return func(s *warrenv1.ServiceSpec) {
			for _, edit := range edits {
				edit(s)
			}
		}
	}
	for name, c := range map[string]struct {
		before, edit func(*warrenv1.ServiceSpec)
		want         []string
	}{
		"nothing":           {all(), all(), []string{"keep 1 n1", "keep 2 n2"}},
		"label":             {all(), func(s *warrenv1.ServiceSpec) { s.Labels = map[string]string{"a": "b"} }, []string{"keep 1 n1", "keep 2 n2"}},
		"update parameters": {all(), func(s *warrenv1.ServiceSpec) { s.Update = &warrenv1.UpdatePolicy{Parallelism: 9} }, []string{"keep 1 n1", "keep 2 n2"}},
		"image":             {all(), all(image, onePerNode), []string{"replace 1 n1>n1", "replace 2 n2>n2"}},
		"scaled up":         {all(), scaled(4), []string{"keep 1 n1", "keep 2 n2", "create 3 >n1", "create 4 >n2"}},
		"scaled down":       {all(), scaled(1), []string{"keep 1 n1", "stop 2 n2"}},
		"no room": {all(), reserves(5), []string{
			"replace 1 n1 (no node fits: 2 nodes: 2 lack 5 cpus)", "replace 2 n2 (no node fits: 2 nodes: 2 lack 5 cpus)"}},
		"no room beside the old one": {reserves(3), reserves(4), []string{
			"replace 1 n1 (no node fits: 2 nodes: 2 lack 4 cpus)", "replace 2 n2 (no node fits: 2 nodes: 2 lack 4 cpus)"}},
		"room when the old one has gone": {all(stopFirst, reserves(3)), reserves(4), []string{"replace 1 n1>n1", "replace 2 n2>n2"}},
		"blue-green without room for both": {all(reserves(3)), all(image, strategy(warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN)), []string{
			"replace 1 n1 (no node fits: 2 nodes: 2 lack 3 cpus)", "replace 2 n2 (no node fits: 2 nodes: 2 lack 3 cpus)"}},
		"blue-green with room for one": {all(reserves(2)), all(reserves(1), strategy(warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN)), []string{
			"replace 1 n1>n1", "replace 2 n2>n2"}},
		"canary":     {all(reserves(2)), all(image, strategy(warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY), onePerNode), []string{"replace 1 n1>n1", "replace 2 n2>n2"}},
		"constraint": {all(), constrained("node.hostname == n1"), []string{"keep 1 n1", "replace 2 n2>n1"}},
		"constraint that nothing meets": {all(), constrained("node.hostname == n9"), []string{
			"replace 1 n1 (no node fits: 2 nodes: 2 do not meet node.hostname==n9)", "replace 2 n2 (no node fits: 2 nodes: 2 do not meet node.hostname==n9)"}},
		"room for what waits": {constrained("node.hostname == n9"), constrained("node.hostname == n2"), []string{"keep 1 >n2", "keep 2 >n2"}},
	} {
		t.Run(name, func(t *testing.T) {
			service := statetest.Replicated("web", 2, func(s *warrenv1.Service) { c.before(s.Spec) })
			r := newRig(t, t, statetest.Node("n1"), statetest.Node("n2"), service, statetest.Revision(service))
			r.settle()
			if got := words(planned(t, r.store.Snapshot(), "web", c.edit)); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestAPlanOfAGlobalServiceGoesByNode(t *testing.T) {
	service := statetest.Global("web")
	r := newRig(t, t, statetest.Node("n1"), statetest.Node("n2"), statetest.Node("n3"), service, statetest.Revision(service))
	r.settle()
	transaction := state.New(statetest.Epoch)
	state.Update(transaction, r.store.Snapshot().Node("n2"), func(n *warrenv1.Node) {
		n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE
	})
	r.commit(transaction)
	got := words(planned(t, r.store.Snapshot(), "web", func(s *warrenv1.ServiceSpec) {
		image(s)
		s.Placement = &warrenv1.Placement{Constraints: []string{"node.hostname != n3"}}
	}))
	if want := []string{"replace n1>n1", "replace n2 (node n2 is paused)", "stop n3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What a plan says comes true where nothing else happens.
func TestOnAQuietClusterAPlanComesTrue(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, rt, cluster(rt)...)
		r.settle()
		before := r.store.Snapshot()
		edit := drawEdit(rt)
		plan := planned(rt, before, "web", edit)
		r.commit(update(before, "web", edit))
		r.settle()
		check(rt, before, plan, r)
	})
}

// cluster draws nodes, a service that takes up some of their room, and the service that is to be updated.
func cluster(rt *rapid.T) []state.Object {
	var objects []state.Object
	for i := range rapid.IntRange(1, 6).Draw(rt, "nodes") {
		zone := rapid.SampledFrom([]string{"a", "b", ""}).Draw(rt, "zone")
		pause := rapid.IntRange(0, 9).Draw(rt, "paused") == 0
		objects = append(objects, statetest.Node(fmt.Sprintf("n%d", i+1), func(n *warrenv1.Node) {
			n.Spec.Labels = map[string]string{"zone": zone}
			if pause {
				n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE
			}
		}))
	}
	other := statetest.Replicated("other", rapid.Uint32Range(0, 5).Draw(rt, "others"), func(s *warrenv1.Service) { reserves(1)(s.Spec) })
	web := statetest.Replicated("web", rapid.Uint32Range(0, 7).Draw(rt, "replicas"))
	if rapid.IntRange(0, 4).Draw(rt, "global") == 0 {
		web = statetest.Global("web")
	}
	drawEdit(rt)(web.GetSpec())
	return append(objects, other, statetest.Revision(other), web, statetest.Revision(web))
}

// drawEdit draws a change of a spec.
func drawEdit(rt *rapid.T) func(*warrenv1.ServiceSpec) {
	some := func(name string) bool { return rapid.Bool().Draw(rt, name) }
	var edits []func(*warrenv1.ServiceSpec)
	if some("reserve") {
		edits = append(edits, reserves(rapid.Int64Range(0, 3).Draw(rt, "cpus")))
	}
	if some("image") {
		edits = append(edits, image)
	}
	if some("scale") {
		n := rapid.Uint32Range(0, 8).Draw(rt, "to")
		edits = append(edits, func(s *warrenv1.ServiceSpec) {
			if s.GetReplicated() != nil {
				scaled(n)(s)
			}
		})
	}
	if some("place") {
		p := &warrenv1.Placement{MaxReplicasPerNode: rapid.Uint32Range(0, 3).Draw(rt, "most")}
		p.Constraints = rapid.SampledFrom([][]string{nil, {"node.labels.zone == a"}, {"node.labels.zone != b"}}).Draw(rt, "constraint")
		if some("spread") {
			p.Spread = []string{"node.labels.zone"}
		}
		edits = append(edits, func(s *warrenv1.ServiceSpec) { s.Placement = p })
	}
	if some("policy") {
		p := &warrenv1.UpdatePolicy{
			Parallelism: rapid.Uint32Range(0, 4).Draw(rt, "parallelism"),
			Order:       warrenv1.UpdateOrder(rapid.IntRange(0, 2).Draw(rt, "order")),
			Monitor:     durationpb.New(0),
		}
		edits = append(edits, func(s *warrenv1.ServiceSpec) { s.Update = p })
	}
	return func(s *warrenv1.ServiceSpec) {
		for _, edit := range edits {
			edit(s)
		}
		// What fits nowhere waits until the end of the test.
		s.Update = cmp.Or(proto.CloneOf(s.GetUpdate()), &warrenv1.UpdatePolicy{})
		s.Update.ProgressDeadline, s.Update.FailureAction = durationpb.New(7*24*time.Hour), warrenv1.FailureAction_FAILURE_ACTION_PAUSE
	}
}

// check compares what has come of an update with the plan.
func check(rt *rapid.T, before state.Snapshot, plan *warrenv1.ServicePlan, r *rig) {
	rt.Helper()
	after := r.live("web")
	// Where something fits nowhere it may hold up the others, and what waited for a node may be given one before it is
	// replaced. Tasks that must leave their nodes and stay of their revision may leave them all at once or one by one; which of several
	// that are replaced at a time comes first is nobody's promise.
	was, now := before.Service("web"), r.store.Snapshot().Service("web")
	revised := was.GetRevision() != plan.GetRevision() && now.GetSpec().GetUpdate().GetParallelism() <= 1
	flows := !slices.ContainsFunc(plan.GetTasks(), func(t *warrenv1.PlannedTask) bool {
		return t.GetProblem() != "" || t.GetTaskId() != "" && t.GetNodeId() == ""
	})
	told := map[string]bool{}
	for _, p := range plan.GetTasks() {
		at := place(p.GetSlot(), p.GetNodeId())
		told[at] = true
		is := after[at]
		same := slices.ContainsFunc(is, func(t *warrenv1.Task) bool { return t.GetMeta().GetId() == p.GetTaskId() })
		switch p.GetAction() {
		case warrenv1.PlannedAction_PLANNED_ACTION_KEEP:
			if !same || len(is) != 1 || flows && is[0].GetNodeId() != p.GetNodeId()+p.GetNewNodeId() {
				rt.Fatalf("slot %s: was to be kept: %v: %v", at, p, is)
			}
		case warrenv1.PlannedAction_PLANNED_ACTION_STOP:
			if len(is) != 0 {
				rt.Fatalf("slot %s: was to be stopped: %v", at, is)
			}
		case warrenv1.PlannedAction_PLANNED_ACTION_CREATE:
			if len(is) != 1 || flows && is[0].GetNodeId() != p.GetNewNodeId() {
				rt.Fatalf("slot %s: was to be created on %s: %v", at, p.GetNewNodeId(), is)
			}
		case warrenv1.PlannedAction_PLANNED_ACTION_REPLACE:
			if flows && (same || len(is) != 1 || revised && is[0].GetNodeId() != p.GetNewNodeId()) {
				rt.Fatalf("slot %s: was to be replaced from %s to %s: %v", at, p.GetNodeId(), p.GetNewNodeId(), is)
			}
		}
	}
	for at, tasks := range after {
		if !told[at] {
			rt.Fatalf("slot %s is not in the plan: %v", at, tasks)
		}
	}
}
