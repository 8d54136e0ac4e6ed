package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// churn is a cluster at which random things happen, and two schedulers that watch it; one of them acts.
type churn struct {
	*harness
	rt     *rapid.T
	twin   *Scheduler
	serial int
}

func (c *churn) observe() {
	b := c.feed.Take()
	c.at = b.Snapshot
	c.s.Observe(c.at, b.Changes)
	c.twin.Observe(c.at, b.Changes)
}

func (c *churn) write(edit func(*state.Transaction)) {
	tx := state.New(c.now)
	edit(tx)
	if tx.Len() > 0 {
		statetest.Commit(c.t, c.log, tx)
	}
}

func pick[T any](rt *rapid.T, label string, from []T) (T, bool) {
	if len(from) == 0 {
		var none T
		return none, false
	}
	return from[rapid.IntRange(0, len(from)-1).Draw(rt, label)], true
}

// happen makes one random change of the state.
func (c *churn) happen() {
	c.serial++
	rt, at := c.rt, c.store.Snapshot()
	nodes, services, tasks := slices.Collect(at.Nodes()), slices.Collect(at.Services()), slices.Collect(at.Tasks())
	c.write(func(tx *state.Transaction) {
		switch rapid.IntRange(0, 11).Draw(rt, "what") {
		case 0, 1:
			id := fmt.Sprintf("n%d", rapid.IntRange(0, 7).Draw(rt, "id"))
			if at.Node(id) == nil {
				tx.Create(statetest.Node(id, having(rapid.Int64Range(0, 4).Draw(rt, "cpus")*1e9, rapid.Int64Range(0, 4).Draw(rt, "memory")<<30),
					labelled("zone", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "zone"))))
			}
		case 2:
			if n, ok := pick(rt, "node", nodes); ok {
				state.Update(tx, n, func(n *warrenv1.Node) {
					n.Spec.Availability = warrenv1.NodeAvailability(rapid.IntRange(0, 3).Draw(rt, "availability"))
					n.Status.State = warrenv1.NodeState(rapid.SampledFrom([]int32{1, 1, 1, 2, 4}).Draw(rt, "state"))
					labelled("zone", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "zone"))(n)
					overlay(warrenv1.OverlayState(rapid.IntRange(0, 2).Draw(rt, "overlay")), "no device")(n)
					subnetless(rapid.SampledFrom([]string{"", "", "the range is used up"}).Draw(rt, "problem"))(n)
				})
			}
		case 3:
			if n, ok := pick(rt, "node", nodes); ok {
				tx.Delete(n)
			}
		case 4:
			s := statetest.Replicated(fmt.Sprintf("s%d", c.serial), 1,
				reserving(rapid.Int64Range(0, 2).Draw(rt, "cpus")*1e9, rapid.Int64Range(0, 2).Draw(rt, "memory")<<30), randomPlacement(rt),
				publishing(rapid.SampledFrom([][]string{nil, nil, {"80"}, {"80/udp", "81"}, {"81", "0"}}).Draw(rt, "ports")...),
				onNetwork(warrenv1.NetworkMode(rapid.IntRange(0, 3).Draw(rt, "network"))))
			tx.Create(s)
			tx.Create(statetest.Revision(s))
		case 5:
			if s, ok := pick(rt, "service", services); ok {
				state.Update(tx, s, func(s *warrenv1.Service) { randomPlacement(rt)(s) })
			}
		case 6, 7, 8:
			if s, ok := pick(rt, "service", services); ok {
				first := rapid.SampledFrom([]int{1, 1, 4, mostSingle - 2}).Draw(rt, "first slot")
				for i := range rapid.IntRange(1, 6).Draw(rt, "tasks") {
					tx.Create(statetest.Task(fmt.Sprintf("t%d.%d", c.serial, i), s.GetMeta().GetId(), uint32(first+i), "",
						statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)))
				}
			}
		case 9:
			s, one := pick(rt, "service", services)
			n, two := pick(rt, "node", nodes)
			if one && two {
				tx.Create(statetest.Task(fmt.Sprintf("b%d", c.serial), s.GetMeta().GetId(), 0, n.GetMeta().GetId(),
					statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)))
			}
		case 10, 11:
			for range rapid.IntRange(1, 4).Draw(rt, "endings") {
				t, ok := pick(rt, "task", tasks)
				if !ok {
					return
				}
				tasks = slices.DeleteFunc(tasks, func(other *warrenv1.Task) bool { return other == t })
				switch rapid.IntRange(0, 4).Draw(rt, "how") {
				case 0:
					state.Update(tx, t, func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN })
				case 1:
					tx.Delete(t)
				case 2:
					state.Update(tx, t, func(t *warrenv1.Task) {
						if t.GetNodeId() != "" {
							t.Status.State = max(t.Status.State, warrenv1.TaskState_TASK_STATE_RUNNING)
						}
					})
				default:
					state.Update(tx, t, func(t *warrenv1.Task) {
						t.Status.State, t.Status.Since = warrenv1.TaskState_TASK_STATE_FAILED, timestamppb.New(c.now)
					})
				}
			}
		}
	})
}

func randomPlacement(rt *rapid.T) func(*warrenv1.Service) {
	return placed(&warrenv1.Placement{
		Constraints:        rapid.SampledFrom([][]string{nil, nil, {"node.labels.zone!=a"}, {"node.labels.zone==b"}}).Draw(rt, "constraints"),
		Spread:             rapid.SampledFrom([][]string{nil, {"node.labels.zone"}}).Draw(rt, "spread"),
		MaxReplicasPerNode: rapid.SampledFrom([]uint32{0, 0, 1, 2}).Draw(rt, "bound"),
	})
}

func TestWhateverHappensTheSchedulerKeepsItsLaws(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := &churn{harness: start(t), rt: rt, twin: New()}
		c.twin.Reset(c.at)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			for range rapid.IntRange(0, 3).Draw(rt, "events") {
				c.happen()
			}
			c.now = c.now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(rt, "ms")) * time.Millisecond)
			c.observe()
			c.step()
		}
		for range 1000 {
			if c.step() {
				c.nothingFits()
				return
			}
		}
		rt.Fatal("the scheduler never comes to rest")
	})
}

// step has both schedulers decide, lets something happen, writes the decision, and checks the laws. It
// tells whether there was nothing to decide.
func (c *churn) step() (rest bool) {
	d, same := c.s.Decide(c.at, c.now), c.twin.Decide(c.at, c.now)
	if len(d.Proposals) != len(same.Proposals) || !d.Wake.Equal(same.Wake) {
		c.rt.Fatalf("two schedulers decide differently: %v, %v", d, same)
	}
	for i, p := range d.Proposals {
		if !proto.Equal(p.Transaction.Message(), same.Proposals[i].Transaction.Message()) {
			c.rt.Fatalf("two schedulers decide differently: %v, %v", p.Transaction.Message(), same.Proposals[i].Transaction.Message())
		}
	}
	meanwhile := len(d.Proposals) > 0 && rapid.IntRange(0, 3).Draw(c.rt, "meanwhile") == 0
	if meanwhile {
		c.happen()
	}
	before := c.store.Snapshot()
	for _, p := range d.Proposals {
		results, err := c.log.Propose(c.t.Context(), p.Transaction)
		if err != nil {
			c.rt.Fatal(err)
		}
		if results != nil {
			c.s.Refused(p)
			c.twin.Refused(p)
		}
	}
	if !meanwhile {
		c.lawful(before, c.store.Snapshot())
	}
	c.observe()
	c.viewIsTrue()
	return len(d.Proposals) == 0 && (d.Wake.IsZero() || d.Wake.After(c.now))
}

// lawful checks what the scheduler has just placed: on nodes that were open and admit it, within capacity
// and bound, on no port that another has, and on no overlay that is not there.
func (c *churn) lawful(before, after state.Snapshot) {
	noPortHasTwoTasks(c.rt, before, after)
	reserved := map[string]amount{}
	for t := range after.Tasks() {
		if occupies(t) {
			r := after.Revision(t.GetServiceId(), t.GetRevision()).GetTask().GetReservations()
			sum := reserved[t.GetNodeId()]
			reserved[t.GetNodeId()] = amount{sum.cpus + r.GetNanoCpus(), sum.memory + r.GetMemoryBytes()}
		}
	}
	for t := range after.Tasks() {
		if !occupies(t) || occupies(before.Task(t.GetMeta().GetId())) {
			continue
		}
		n, s := after.Node(t.GetNodeId()), after.Service(t.GetServiceId())
		template := after.Revision(t.GetServiceId(), 1).GetTask()
		r, sum := template.GetReservations(), reserved[t.GetNodeId()]
		switch {
		case !placement.Open(n) || !placement.Admits(s.GetSpec().GetPlacement(), n):
			c.rt.Fatalf("task %v was placed on node %v", t, n)
		case r.GetNanoCpus() > 0 && sum.cpus > n.GetFacts().GetResources().GetNanoCpus(),
			r.GetMemoryBytes() > 0 && sum.memory > n.GetFacts().GetResources().GetMemoryBytes():
			c.rt.Fatalf("node %v has %v reserved", n, sum)
		}
		if lacking := n.GetNetwork().GetProblem() != "" || n.GetStatus().GetOverlay().GetState() == warrenv1.OverlayState_OVERLAY_STATE_FAILED; lacking &&
			template.GetNetwork() != warrenv1.NetworkMode_NETWORK_MODE_NONE && template.GetNetwork() != warrenv1.NetworkMode_NETWORK_MODE_HOST {
			c.rt.Fatalf("task %v was placed on node %v, which has no overlay", t, n)
		}
		if bound := s.GetSpec().GetPlacement().GetMaxReplicasPerNode(); bound > 0 {
			// Where updates start first, those in one slot count once, and what is bound to the node is what fills its slot there.
			there, slots := uint32(0), map[uint32]bool{}
			for other := range after.TasksByNode(n.GetMeta().GetId()) {
				if other.GetServiceId() == t.GetServiceId() && occupies(other) {
					there++
					slots[other.GetSlot()] = true
				}
			}
			if !slot.StopFirst(s) {
				delete(slots, 0)
				there = uint32(len(slots))
			}
			if there > bound {
				c.rt.Fatalf("node %s has %d tasks of %s", n.GetMeta().GetId(), there, t.GetServiceId())
			}
		}
	}
}

// noPortHasTwoTasks checks that what was placed meets no task on a port of its node, whosever it is.
func noPortHasTwoTasks(rt *rapid.T, before, after state.Snapshot) {
	type place struct {
		node     string
		port     uint32
		protocol string
	}
	has := map[place]*warrenv1.Task{}
	isNew := func(t *warrenv1.Task) bool { return !occupies(before.Task(t.GetMeta().GetId())) }
	for t := range after.Tasks() {
		if !occupies(t) {
			continue
		}
		for _, p := range after.Revision(t.GetServiceId(), t.GetRevision()).GetTask().GetHostPorts() {
			at := place{t.GetNodeId(), p.GetPublished(), "tcp"}
			if p.GetProtocol() == warrenv1.Protocol_PROTOCOL_UDP {
				at.protocol = "udp"
			}
			if other := has[at]; other != nil && at.port != 0 && (isNew(other) || isNew(t)) {
				rt.Fatalf("tasks %v and %v have %v", other, t, at)
			}
			has[at] = t
		}
	}
}

// viewIsTrue checks that the views are what the state says, whatever way they came to be.
func (c *churn) viewIsTrue() {
	fresh := newView()
	fresh.load(c.at)
	want := digest(fresh)
	for _, s := range []*Scheduler{c.s, c.twin} {
		for _, id := range s.overtaken {
			s.view.reread(c.at, id)
		}
		s.overtaken = nil
		if got := digest(s.view); got != want {
			c.rt.Fatalf("the view is\n%s\nand should be\n%s", got, want)
		}
		if s.view.order == nil {
			continue
		}
		for i, n := range s.view.order.nodes {
			if n.rank != i || s.view.order.keys[i] != n.key() {
				c.rt.Fatalf("node %s stands at a wrong place in the order", n.id)
			}
			for key, t := range s.view.terrains {
				leaf := t.leaves[i]
				if key != "" && leaf.value != n.object.GetSpec().GetLabels()["zone"] || leaf.nodes[t.places[i]] != n || leaf.order.keys[t.places[i]] != n.key() {
					c.rt.Fatalf("node %s stands at a wrong place in the terrain of %q", n.id, key)
				}
			}
		}
	}
}

// digest is what a view knows of the state, without what it has concluded.
func digest(v *view) string {
	var b strings.Builder
	fmt.Fprintln(&b, "claims", len(v.claims))
	for _, id := range slices.Sorted(maps.Keys(v.nodes)) {
		n := v.nodes[id]
		fmt.Fprintln(&b, "node", id, n.object.GetMeta().GetVersion(), n.open, n.capacity, n.reserved, n.ports, n.offOverlay, n.tasks, slices.Sorted(maps.Keys(n.waiting)))
	}
	for _, id := range slices.Sorted(maps.Keys(v.services)) {
		s := v.services[id]
		fmt.Fprintln(&b, "service", id, s.object.GetMeta().GetVersion(), byName(s.wanted), inSlots(s))
		for _, g := range s.inOrder() {
			queued := slices.DeleteFunc(slices.Clone(g.queue), func(id string) bool { return g.pending[id] == nil })
			fmt.Fprintln(&b, "  group", g.revision, g.need, g.ports, g.overlay, g.template, g.tasks, byName(g.present),
				slices.Sorted(maps.Keys(g.pending)), slices.Sorted(maps.Keys(g.bound)), len(queued) == len(g.pending),
				len(g.pending) == 0 || g.queued != g.blocked)
		}
	}
	return b.String()
}

func byName(counts map[*node]int) []string {
	var all []string
	for n, count := range counts {
		all = append(all, fmt.Sprint(n.id, ":", count))
	}
	slices.Sort(all)
	return all
}

// inSlots names the tasks in a service's slots.
func inSlots(s *service) []string {
	var all []string
	note := func(places []place) {
		for _, p := range places {
			all = append(all, fmt.Sprint(p.task.GetSlot(), ":", p.task.GetMeta().GetId(), "@", p.node.id, " ", lifecycle.Wanted(p.task)))
		}
	}
	for i, p := range s.slots.single {
		if p.task != nil {
			note(s.slots.single[i : i+1])
		}
	}
	for _, places := range s.slots.several {
		note(places)
	}
	slices.Sort(all)
	return all
}

// nothingFits checks that what waits, when the scheduler rests, fits nowhere and says so.
func (c *churn) nothingFits() {
	fresh := newView()
	fresh.load(c.at)
	for t := range c.at.Tasks() {
		if !waits(t) {
			continue
		}
		g := fresh.groupOf(c.at, t)
		for _, n := range fresh.nodes {
			if t.GetNodeId() == "" && (g.judge(n) == fits || g.beside(t.GetSlot()) != nil) || t.GetNodeId() == n.id && g.judgeBound(n) == fits {
				c.rt.Fatalf("task %v waits although node %v fits", t, n.object)
			}
		}
		if t.GetStatus().GetMessage() == "" {
			c.rt.Fatalf("task %v waits and does not say why", t)
		}
	}
}

func TestTwoTasksWithOneHostPortAreNeverOnOneNode(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := start(t)
		nodes := rapid.IntRange(1, 5).Draw(rt, "nodes")
		for i := range nodes {
			h.put(statetest.Node(fmt.Sprintf("n%d", i)))
		}
		for i := range 4 {
			s := statetest.Replicated(fmt.Sprintf("s%d", i), 1, publishing(rapid.SampledFrom([]string{"80", "80/udp", "80/tcp", "81"}).Draw(rt, "port")))
			h.put(s, statetest.Revision(s))
		}
		for step := range rapid.IntRange(1, 20).Draw(rt, "steps") {
			before := h.at
			if running := slices.DeleteFunc(slices.Collect(h.at.Tasks()), func(t *warrenv1.Task) bool { return !occupies(t) }); len(running) > 0 && rapid.Bool().Draw(rt, "end") {
				ends, _ := pick(rt, "task", running)
				// A task that is not wanted keeps its port until it has ended.
				h.edit(ends.GetMeta().GetId(), func(t *warrenv1.Task) {
					if t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN; rapid.Bool().Draw(rt, "ended") {
						t.Status.State = warrenv1.TaskState_TASK_STATE_SHUTDOWN
					}
				})
			} else {
				h.put(pending(fmt.Sprintf("s%d", rapid.IntRange(0, 3).Draw(rt, "service")), 100+step)...)
			}
			noPortHasTwoTasks(rt, before, h.at)
		}
		// What waits does so because every node's port is taken.
		for waiting := range h.at.Tasks() {
			if !waits(waiting) {
				continue
			}
			mine := portsOf(h.at.Revision(waiting.GetServiceId(), 1).GetTask())[0]
			taken := map[string]bool{}
			for other := range h.at.Tasks() {
				if occupies(other) && portsOf(h.at.Revision(other.GetServiceId(), 1).GetTask())[0] == mine {
					taken[other.GetNodeId()] = true
				}
			}
			if len(taken) < nodes {
				rt.Fatalf("task %v waits although %v is free on %d of %d nodes", waiting, mine, nodes-len(taken), nodes)
			}
		}
	})
}

func TestEqualNodesDifferByOneTaskAtMost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := start(t, web(reserving(1e6, 1<<20))...)
		nodes := rapid.IntRange(1, 9).Draw(rt, "nodes")
		for i := range nodes {
			h.put(statetest.Node(fmt.Sprintf("n%d", i)))
		}
		slot := 0
		for range rapid.IntRange(1, 5).Draw(rt, "rounds") {
			var slots []int
			for range rapid.IntRange(1, 12).Draw(rt, "tasks") {
				slot++
				slots = append(slots, slot)
			}
			h.put(pending("web", slots...)...)
			counts := slices.Collect(maps.Values(h.where("web")))
			if least := slices.Min(counts); slices.Max(counts)-least > 1 || len(counts) < nodes && least > 1 {
				rt.Fatalf("%d tasks on %d nodes: %v", slot, nodes, h.where("web"))
			}
		}
	})
}

// A trial looks for each replacement anew, which the scheduler does not where there are many.
func TestManyReplacementsArePlacedAsOneAfterTheOther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		service := statetest.Replicated("web", 1, reserving(1e9, 0), placed(&warrenv1.Placement{
			Spread: rapid.SampledFrom([][]string{nil, {"node.labels.zone"}, {"node.labels.zone", "node.labels.rack"}}).Draw(rt, "spread"),
		}))
		next := statetest.Replicated("web", 1, reserving(rapid.SampledFrom([]int64{0, 1e9}).Draw(rt, "cpus"), 0), func(s *warrenv1.Service) { s.Revision = 2 })
		objects := []state.Object{service, statetest.Revision(service), statetest.Revision(next)}
		nodes := rapid.IntRange(1, 8).Draw(rt, "nodes")
		for i := range nodes {
			objects = append(objects, statetest.Node(fmt.Sprintf("n%d", i), having(rapid.Int64Range(4, 20).Draw(rt, "cpus")*1e9, 64<<30),
				labelled("zone", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "zone"), "rack", rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "rack")),
				available(rapid.SampledFrom([]warrenv1.NodeAvailability{0, 0, 0, drain}).Draw(rt, "availability"))))
		}
		var waiting []*warrenv1.Task
		for i := range rapid.IntRange(0, 20).Draw(rt, "slots") {
			if rapid.IntRange(0, 9).Draw(rt, "replaces") > 0 {
				objects = append(objects, statetest.Task(fmt.Sprintf("old%02d", i), "web", uint32(i+1), fmt.Sprintf("n%d", rapid.IntRange(0, nodes-1).Draw(rt, "on")),
					statetest.Desired(rapid.SampledFrom([]warrenv1.DesiredState{1, 1, 1, 2}).Draw(rt, "desired"))))
			}
			if rapid.IntRange(0, 3).Draw(rt, "replaced") > 0 {
				waiting = append(waiting, statetest.Task(fmt.Sprintf("t%02d", i), "web", uint32(i+1), "", statetest.Of(2),
					statetest.In(warrenv1.TaskState_TASK_STATE_PENDING), statetest.Created(statetest.Epoch.Add(time.Second))))
			}
		}
		for _, task := range waiting {
			objects = append(objects, task)
		}
		h := start(t, objects...)
		trial := NewTrial(h.at, h.now)
		h.settle()
		for _, task := range waiting {
			want, _ := trial.Place(service, 2, slot.KeyOf(task))
			if got := h.at.Task(task.GetMeta().GetId()).GetNodeId(); got != want {
				rt.Fatalf("%s is on %q, and tried by itself would be on %q", task.GetMeta().GetId(), got, want)
			}
		}
	})
}

func TestAWalkVisitsTheOpenNodesInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		nodes := make([]*node, rapid.IntRange(0, 20).Draw(rt, "nodes"))
		for i := range nodes {
			nodes[i] = &node{id: fmt.Sprintf("n%02d", i), open: true}
		}
		o := newOrder(nodes)
		for range rapid.IntRange(0, 40).Draw(rt, "changes") {
			if n, ok := pick(rt, "node", nodes); ok {
				n.open, n.tasks = rapid.IntRange(0, 4).Draw(rt, "open") > 0, rapid.IntRange(0, 4).Draw(rt, "tasks")
				o.set(slices.Index(nodes, n), n.key())
			}
		}
		var want, got []*node
		for _, n := range nodes {
			if n.open {
				want = append(want, n)
			}
		}
		slices.SortStableFunc(want, func(a, b *node) int { return a.tasks - b.tasks })
		w := o.walk()
		for n := w.next(); n != nil; n = w.next() {
			got = append(got, n)
			n.tasks += 10
			o.set(slices.Index(nodes, n), n.key())
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("walked %v, want %v", got, want)
		}
	})
}
