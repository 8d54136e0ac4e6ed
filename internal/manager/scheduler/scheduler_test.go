package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// harness is a state and a scheduler that is driven by hand.
type harness struct {
	t     testing.TB
	store *state.Store
	log   *statetest.Proposer
	feed  *state.Feed
	at    state.Snapshot
	s     *Scheduler
	now   time.Time
}

func start(t testing.TB, objects ...state.Object) *harness {
	h := &harness{t: t, store: statetest.New(t, objects...), s: New(), now: statetest.Epoch}
	h.log = statetest.NewProposer(h.store)
	h.at, h.feed = h.store.Watch()
	h.s.Reset(h.at)
	return h
}

// observe has the scheduler see what has happened.
func (h *harness) observe() {
	b := h.feed.Take()
	h.at = b.Snapshot
	if b.Reset {
		h.s.Reset(h.at)
	} else {
		h.s.Observe(h.at, b.Changes)
	}
}

// decide has the scheduler decide once, with other writes between its decision and its proposal.
func (h *harness) decide(meanwhile ...func()) loop.Decision {
	d := h.s.Decide(h.at, h.now)
	for _, f := range meanwhile {
		f()
	}
	transactions := make([]*state.Transaction, len(d.Proposals))
	for i, p := range d.Proposals {
		transactions[i] = p.Transaction
	}
	results, err := h.log.Propose(context.Background(), transactions...)
	if err != nil {
		h.t.Fatal(err)
	}
	for i, why := range results {
		if why != nil {
			h.s.Refused(d.Proposals[i])
		}
	}
	h.observe()
	return d
}

// settle has the scheduler decide until it has nothing more to say. Time stands still meanwhile.
func (h *harness) settle() {
	h.t.Helper()
	for range 10000 {
		if d := h.decide(); len(d.Proposals) == 0 && (d.Wake.IsZero() || d.Wake.After(h.now)) {
			return
		}
	}
	h.t.Fatal("the scheduler never comes to rest")
}

// put writes objects and has the scheduler see and settle them.
func (h *harness) put(objects ...state.Object) {
	h.t.Helper()
	statetest.Put(h.t, h.store, objects...)
	h.observe()
	h.settle()
}

func (h *harness) edit(id string, f func(*warrenv1.Task)) {
	h.t.Helper()
	tx := state.New(h.now)
	state.Update(tx, h.store.Snapshot().Task(id), f)
	statetest.Commit(h.t, h.log, tx)
	h.observe()
	h.settle()
}

func (h *harness) editNode(id string, f func(*warrenv1.Node)) {
	h.t.Helper()
	tx := state.New(h.now)
	state.Update(tx, h.store.Snapshot().Node(id), f)
	statetest.Commit(h.t, h.log, tx)
	h.observe()
	h.settle()
}

func (h *harness) editService(id string, f func(*warrenv1.Service)) {
	h.t.Helper()
	tx := state.New(h.now)
	state.Update(tx, h.store.Snapshot().Service(id), f)
	statetest.Commit(h.t, h.log, tx)
	h.observe()
	h.settle()
}

// where returns the number of a service's wanted tasks on each node; "" has those that wait.
func (h *harness) where(service string) map[string]int {
	counts := map[string]int{}
	for t := range h.at.TasksByService(service) {
		if t.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING && t.GetStatus().GetState() <= warrenv1.TaskState_TASK_STATE_RUNNING {
			counts[t.GetNodeId()]++
		}
	}
	return counts
}

func (h *harness) wantWhere(service, want string) {
	h.t.Helper()
	var parts []string
	counts := h.where(service)
	for _, n := range slices.Sorted(maps.Keys(counts)) {
		name := n
		if n == "" {
			name = "waiting"
		}
		parts = append(parts, fmt.Sprintf("%s %d", name, counts[n]))
	}
	if got := strings.Join(parts, ", "); got != want {
		h.t.Errorf("%s is at: %s; want %s", service, got, want)
	}
}

func (h *harness) wantReason(task, want string) {
	h.t.Helper()
	if got := h.at.Task(task).GetStatus().GetMessage(); got != want {
		h.t.Errorf("%s waits because %q; want %q", task, got, want)
	}
}

func pending(service string, slots ...int) []state.Object {
	var tasks []state.Object
	for _, i := range slots {
		tasks = append(tasks, statetest.Task(fmt.Sprintf("%s-%d", service, i), service, uint32(i), "", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)))
	}
	return tasks
}

func upTo(n int) []int {
	var all []int
	for i := range n {
		all = append(all, i+1)
	}
	return all
}

// web returns a service with its revision.
func web(edits ...func(*warrenv1.Service)) []state.Object {
	s := statetest.Replicated("web", 1, edits...)
	return []state.Object{s, statetest.Revision(s)}
}

func reserving(nanoCPUs, memory int64) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) {
		s.Spec.Task.Reservations = &warrenv1.Resources{NanoCpus: nanoCPUs, MemoryBytes: memory}
	}
}

func placed(p *warrenv1.Placement) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) { s.Spec.Placement = p }
}

func having(nanoCPUs, memory int64) func(*warrenv1.Node) {
	return func(n *warrenv1.Node) {
		n.Facts.Resources = &warrenv1.Resources{NanoCpus: nanoCPUs, MemoryBytes: memory}
	}
}

// publishing publishes ports of the node, written as 80 or 80/udp.
func publishing(ports ...string) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) {
		for _, p := range ports {
			number, protocol, _ := strings.Cut(p, "/")
			published, err := strconv.ParseUint(number, 10, 16)
			if err != nil {
				panic(err)
			}
			s.Spec.Task.HostPorts = append(s.Spec.Task.HostPorts, &warrenv1.PortSpec{
				Target: 80, Published: uint32(published),
				Protocol: map[string]warrenv1.Protocol{"tcp": warrenv1.Protocol_PROTOCOL_TCP, "udp": warrenv1.Protocol_PROTOCOL_UDP}[protocol],
			})
		}
	}
}

func onNetwork(m warrenv1.NetworkMode) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) { s.Spec.Task.Network = m }
}

func overlay(is warrenv1.OverlayState, why string) func(*warrenv1.Node) {
	return func(n *warrenv1.Node) { n.Status.Overlay = &warrenv1.OverlayStatus{State: is, Error: why} }
}

func subnetless(why string) func(*warrenv1.Node) {
	return func(n *warrenv1.Node) { n.Network = &warrenv1.NodeNetwork{Problem: why} }
}

func labelled(kv ...string) func(*warrenv1.Node) {
	return func(n *warrenv1.Node) {
		n.Spec.Labels = map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			n.Spec.Labels[kv[i]] = kv[i+1]
		}
	}
}

func available(a warrenv1.NodeAvailability) func(*warrenv1.Node) {
	return func(n *warrenv1.Node) { n.Spec.Availability = a }
}

func inState(s warrenv1.NodeState) func(*warrenv1.Node) {
	return func(n *warrenv1.Node) { n.Status.State = s }
}

const (
	drain = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
	pause = warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE
	down  = warrenv1.NodeState_NODE_STATE_DOWN
)

func TestAPendingTaskIsAssignedAndItsReasonToWaitIsForgotten(t *testing.T) {
	h := start(t, web()...)
	h.put(pending("web", 1)...)
	h.wantReason("web-1", "no node fits: the cluster has no nodes")
	h.now = h.now.Add(time.Minute)
	h.put(statetest.Node("n1"))
	got := h.at.Task("web-1")
	if got.GetNodeId() != "n1" || got.GetStatus().GetState() != warrenv1.TaskState_TASK_STATE_ASSIGNED ||
		got.GetStatus().GetMessage() != "" || !got.GetStatus().GetSince().AsTime().Equal(h.now) {
		t.Errorf("the task is %v", got)
	}
}

func TestTasksAreSpreadOverNodesEvenly(t *testing.T) {
	h := start(t, append(web(), statetest.Node("n1"), statetest.Node("n2"), statetest.Node("n3"))...)
	h.put(pending("web", upTo(7)...)...)
	h.wantWhere("web", "n1 3, n2 2, n3 2")
}

func TestAmongEqualsTheNodeWithFewestTasksThenTheEmptiestIsChosen(t *testing.T) {
	other := statetest.Replicated("other", 3, reserving(1e9, 1<<30))
	h := start(t, append(web(),
		statetest.Node("n1"), statetest.Node("n2"), statetest.Node("n3", having(16e9, 64<<30)), other, statetest.Revision(other),
		statetest.Task("o1", "other", 1, "n1"), statetest.Task("o2", "other", 2, "n1"),
		statetest.Task("o3", "other", 3, "n2"), statetest.Task("o4", "other", 4, "n3"))...)
	h.put(pending("web", 1)...)
	h.wantWhere("web", "n3 1") // as many tasks as n2, on a larger machine
}

func TestPreferencesAreSpreadOverBeforeNodes(t *testing.T) {
	h := start(t, append(web(placed(&warrenv1.Placement{Spread: []string{"node.labels.zone", "node.labels.rack"}})),
		statetest.Node("a1", labelled("zone", "a", "rack", "1")), statetest.Node("a2", labelled("zone", "a", "rack", "1")),
		statetest.Node("a3", labelled("zone", "a", "rack", "2")), statetest.Node("a4", labelled("zone", "a", "rack", "2")),
		statetest.Node("b1", labelled("zone", "b", "rack", "1")))...)
	h.put(pending("web", upTo(8)...)...)
	h.wantWhere("web", "a1 1, a2 1, a3 1, a4 1, b1 4")
}

func TestAZoneWithoutRoomLeavesItsShareToTheOthers(t *testing.T) {
	h := start(t, append(web(placed(&warrenv1.Placement{Spread: []string{"node.labels.zone"}}), reserving(0, 1<<30)),
		statetest.Node("a1", labelled("zone", "a"), having(4e9, 1<<30)),
		statetest.Node("b1", labelled("zone", "b")), statetest.Node("none"))...)
	h.put(pending("web", upTo(7)...)...)
	h.wantWhere("web", "a1 1, b1 3, none 3")
}

func TestWhatFitsNowhereSaysWhy(t *testing.T) {
	dns := statetest.Replicated("dns", 2, publishing("53/udp", "8080/tcp"))
	failed := warrenv1.OverlayState_OVERLAY_STATE_FAILED
	for name, c := range map[string]struct {
		service func(*warrenv1.Service)
		nodes   []state.Object
		want    string
	}{
		"no nodes": {reserving(0, 0), nil, "no node fits: the cluster has no nodes"},
		"memory and drain": {reserving(0, 512<<20), []state.Object{
			statetest.Node("n1", having(4e9, 256<<20)), statetest.Node("n2", having(4e9, 1<<20)), statetest.Node("n3", available(drain)),
		}, "no node fits: 3 nodes: 1 is drained, 2 lack 512 MiB memory"},
		"cpus": {reserving(1.5e9, 0), []state.Object{statetest.Node("n1", having(1e9, 1<<30))}, "no node fits: 1 node: 1 lacks 1.5 cpus"},
		"down and paused": {reserving(0, 0), []state.Object{statetest.Node("n1", inState(down)), statetest.Node("n2", available(pause))},
			"no node fits: 2 nodes: 1 is not ready, 1 is paused"},
		"a port": {publishing("8080"), []state.Object{
			statetest.Node("n1"), statetest.Node("n2"), statetest.Node("n3", available(drain)),
			dns, statetest.Revision(dns), statetest.Task("d1", "dns", 1, "n1"), statetest.Task("d2", "dns", 2, "n2"),
		}, "no node fits: 3 nodes: 1 is drained, 2 have port 8080/tcp taken by another task"},
		"one of several ports": {func(s *warrenv1.Service) {
			publishing("8080/udp", "53/udp")(s)
			placed(&warrenv1.Placement{Constraints: []string{"node.hostname != n2"}})(s)
		}, []state.Object{statetest.Node("n1"), statetest.Node("n2"), dns, statetest.Revision(dns), statetest.Task("d1", "dns", 1, "n1")},
			"no node fits: 2 nodes: 1 does not meet node.hostname!=n2, 1 has port 53/udp taken by another task"},
		"an overlay": {onNetwork(warrenv1.NetworkMode_NETWORK_MODE_OVERLAY), []state.Object{statetest.Node("n1", overlay(failed, "no /dev/net/tun\nand so on"))},
			"no node fits: 1 node: 1 has an overlay network that has failed (no /dev/net/tun)"},
		"overlays and subnets": {onNetwork(0), []state.Object{
			statetest.Node("n1", overlay(failed, "no /dev/net/tun")), statetest.Node("n2", overlay(failed, "no memory")), statetest.Node("n3", subnetless("all are given")),
		}, "no node fits: 3 nodes: 1 lacks a subnet of the overlay (all are given), 2 have an overlay network that has failed (n1: no /dev/net/tun)"},
		"platform": {placed(&warrenv1.Placement{Platforms: []string{"linux/arm64", "linux/riscv64"}}), []state.Object{statetest.Node("n1"), statetest.Node("n2")},
			"no node fits: 2 nodes: 2 are not of linux/arm64 or linux/riscv64"},
		"constraints": {placed(&warrenv1.Placement{Constraints: []string{"node.hostname != n1", "node.labels.zone==east"}}),
			[]state.Object{statetest.Node("n1"), statetest.Node("n2"), statetest.Node("n3")},
			"no node fits: 3 nodes: 1 does not meet node.hostname!=n1, 2 do not meet node.labels.zone==east"},
		"unreadable": {placed(&warrenv1.Placement{Constraints: []string{"zone"}}), []state.Object{statetest.Node("n1")},
			`constraint "zone": no == or != in it: write it as node.labels.zone==east or node.hostname!=web-1`},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, append(web(c.service), c.nodes...)...)
			h.put(pending("web", 1)...)
			h.wantReason("web-1", c.want)
		})
	}
}

func TestAPortIsTakenFromAssignmentUntilItsTaskHasEnded(t *testing.T) {
	h := start(t, append(web(publishing("80", "0")), statetest.Node("n1"), statetest.Node("n2"))...)
	h.put(pending("web", upTo(3)...)...)
	h.wantWhere("web", "waiting 1, n1 1, n2 1")
	h.edit("web-1", func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN })
	h.wantReason("web-3", "no node fits: 2 nodes: 2 have port 80/tcp taken by another task")
	h.edit("web-1", func(t *warrenv1.Task) { t.Status.State = warrenv1.TaskState_TASK_STATE_SHUTDOWN })
	h.wantWhere("web", "n1 1, n2 1")
}

func TestAPortIsTakenByItsProtocolAndWhateverPortIsFreeByNobody(t *testing.T) {
	h := start(t, statetest.Node("n1"))
	for name, ports := range map[string][]string{"tcp": {"53"}, "udp": {"53/udp"}, "any": {"0", "0/udp"}, "none": nil} {
		s := statetest.Replicated(name, 1, publishing(ports...))
		h.put(s, statetest.Revision(s))
		h.put(pending(name, 1)...)
		h.wantWhere(name, "n1 1")
	}
	h.put(pending("any", 2)...)
	h.wantWhere("any", "n1 2")
}

func TestAGlobalTaskSaysWhoseOverlayHasFailed(t *testing.T) {
	agent := statetest.Global("agent")
	h := start(t, agent, statetest.Revision(agent), statetest.Node("n1", overlay(warrenv1.OverlayState_OVERLAY_STATE_FAILED, "no /dev/net/tun")))
	h.put(statetest.Task("a", "agent", 0, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)))
	h.wantReason("a", "node n1 has an overlay network that has failed (no /dev/net/tun)")
	h.editNode("n1", overlay(warrenv1.OverlayState_OVERLAY_STATE_UP, ""))
	if got := h.at.Task("a").GetStatus().GetState(); got != warrenv1.TaskState_TASK_STATE_ASSIGNED {
		t.Errorf("the task is %v although the overlay is up again", got)
	}
}

func TestOnlyTasksOnTheOverlayNeedIt(t *testing.T) {
	for name, c := range map[string]struct {
		network warrenv1.NetworkMode
		node    func(*warrenv1.Node)
		want    string
	}{
		"none":                {warrenv1.NetworkMode_NETWORK_MODE_NONE, overlay(warrenv1.OverlayState_OVERLAY_STATE_FAILED, "no device"), "n1 1"},
		"host":                {warrenv1.NetworkMode_NETWORK_MODE_HOST, subnetless("all are given"), "n1 1"},
		"overlay":             {warrenv1.NetworkMode_NETWORK_MODE_OVERLAY, subnetless("all are given"), "waiting 1"},
		"unspecified":         {0, overlay(warrenv1.OverlayState_OVERLAY_STATE_FAILED, ""), "waiting 1"},
		"overlay not up yet":  {0, overlay(0, ""), "n1 1"},
		"overlay without one": {0, func(*warrenv1.Node) {}, "n1 1"},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, append(web(onNetwork(c.network)), statetest.Node("n1", c.node))...)
			h.put(pending("web", 1)...)
			h.wantWhere("web", c.want)
		})
	}
}

func TestAReasonIsWrittenOnceAndToEveryTask(t *testing.T) {
	h := start(t, append(web(reserving(0, 64<<30)), statetest.Node("n1"))...)
	statetest.Put(t, h.store, pending("web", upTo(1500)...)...)
	h.observe()
	writes := 0
	for range 5 {
		d := h.decide()
		writes += len(d.Proposals)
		if len(d.Proposals) > loop.MaxOperations {
			t.Errorf("a decision writes %d tasks", len(d.Proposals))
		}
	}
	if writes != 1500 {
		t.Errorf("%d writes for 1,500 tasks", writes)
	}
	h.put(pending("web", 1501)...)
	h.wantReason("web-1501", "no node fits: 1 node: 1 lacks 64 GiB memory")
}

func TestAChangedReasonIsWrittenAtMostOnceASecond(t *testing.T) {
	h := start(t, append(web(reserving(0, 64<<30)), statetest.Node("n1"))...)
	h.put(pending("web", 1)...)
	h.put(statetest.Node("n2"))
	h.wantReason("web-1", "no node fits: 1 node: 1 lacks 64 GiB memory")
	d := h.decide()
	if want := h.now.Add(reasonLasts); !d.Wake.Equal(want) {
		t.Errorf("wakes at %v, want %v", d.Wake, want)
	}
	h.now = d.Wake
	h.settle()
	h.wantReason("web-1", "no node fits: 2 nodes: 2 lack 64 GiB memory")
	if d := h.decide(); !d.Wake.IsZero() {
		t.Errorf("wakes at %v although nothing has changed", d.Wake)
	}
}

func TestWhatWaitsIsPlacedWhenANodeBecomesBetter(t *testing.T) {
	for name, change := range map[string]func(*harness){
		"a node comes":        func(h *harness) { h.put(statetest.Node("n2")) },
		"a node is activated": func(h *harness) { h.editNode("drained", func(n *warrenv1.Node) { n.Spec.Availability = 0 }) },
		"a node grows":        func(h *harness) { h.editNode("n1", having(4e9, 4<<30)) },
		"a task ends": func(h *harness) {
			h.edit("old", func(t *warrenv1.Task) { t.Status.State = warrenv1.TaskState_TASK_STATE_FAILED })
		},
		"a task is removed": func(h *harness) {
			statetest.Remove(h.t, h.store, state.KeyOf(h.at.Task("old")))
			h.observe()
			h.settle()
		},
		"the rules change": func(h *harness) {
			h.editService("web", func(s *warrenv1.Service) { s.Spec.Placement = nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			objects := append(web(reserving(0, 1<<30), placed(&warrenv1.Placement{Constraints: []string{"node.hostname!=roomy"}})),
				statetest.Node("n1", having(4e9, 1<<30)), statetest.Node("drained", available(drain)), statetest.Node("roomy"),
				statetest.Task("old", "web", 9, "n1"))
			h := start(t, objects...)
			h.put(pending("web", 1)...)
			if h.at.Task("web-1").GetNodeId() != "" {
				t.Fatal("the task did not wait")
			}
			change(h)
			if h.at.Task("web-1").GetNodeId() == "" {
				t.Error("the task still waits")
			}
		})
	}
}

func TestATaskThatIsStoppingStillHoldsItsReservations(t *testing.T) {
	h := start(t, append(web(reserving(0, 1<<30)), statetest.Node("n1", having(4e9, 1<<30)),
		statetest.Task("old", "web", 1, "n1", statetest.Desired(warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN)))...)
	h.put(pending("web", 2)...)
	h.wantWhere("web", "waiting 1")
	h.edit("old", func(t *warrenv1.Task) { t.Status.State = warrenv1.TaskState_TASK_STATE_SHUTDOWN })
	h.wantWhere("web", "n1 1")
}

func TestATaskThatIsNotWantedIsNotPlaced(t *testing.T) {
	h := start(t, append(web(), statetest.Node("n1"))...)
	h.put(statetest.Task("web-1", "web", 1, "", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING),
		statetest.Desired(warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN)))
	if got := h.at.Task("web-1"); got.GetNodeId() != "" {
		t.Errorf("the task is %v", got)
	}
}

func TestATaskBoundToANodeGoesThereOrWaits(t *testing.T) {
	h := start(t, append(web(reserving(0, 1<<30)), statetest.Node("n1", available(drain)), statetest.Node("n2"))...)
	h.put(statetest.Task("web-1", "web", 0, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)))
	h.wantReason("web-1", "node n1 is drained")
	h.editNode("n1", having(1e9, 1<<20))
	h.editNode("n1", func(n *warrenv1.Node) { n.Spec.Availability = 0 })
	h.wantReason("web-1", "node n1 lacks 1 GiB memory")
	h.editNode("n1", having(1e9, 1<<30))
	if got := h.at.Task("web-1"); got.GetStatus().GetState() != warrenv1.TaskState_TASK_STATE_ASSIGNED || got.GetNodeId() != "n1" {
		t.Errorf("the task is %v", got)
	}
}

func TestANodeTakesNoMoreReplicasThanAllowed(t *testing.T) {
	h := start(t, append(web(placed(&warrenv1.Placement{MaxReplicasPerNode: 2})), statetest.Node("n1"), statetest.Node("n2"))...)
	h.put(pending("web", upTo(5)...)...)
	h.wantWhere("web", "waiting 1, n1 2, n2 2")
	h.wantReason("web-5", "no node fits: 2 nodes: 2 already run 2 tasks, the most per node")
}

func TestAnUpdateThatStartsFirstIsNotHeldUpByTheReplicasItReplaces(t *testing.T) {
	for order, want := range map[warrenv1.UpdateOrder]string{
		warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST: "n1 2",
		warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST:  "waiting 1, n1 1",
	} {
		service := statetest.Replicated("web", 1, placed(&warrenv1.Placement{MaxReplicasPerNode: 1}), func(s *warrenv1.Service) {
			s.Spec.Update = &warrenv1.UpdatePolicy{Order: order}
			s.Revision = 2
		})
		h := start(t, service, statetest.Revision(service), statetest.Node("n1"), statetest.Task("old", "web", 1, "n1"))
		h.put(statetest.Task("new", "web", 1, "", statetest.Of(2), statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)))
		h.wantWhere("web", want)
	}
}

// replaced has a service's tasks, one in each slot, replaced by others of a revision, so many at a time.
func (h *harness) replaced(service string, by uint64, together int) {
	old := slices.SortedFunc(h.at.TasksByService(service), func(a, b *warrenv1.Task) int { return int(a.GetSlot()) - int(b.GetSlot()) })
	for some := range slices.Chunk(old, together) {
		var fresh []state.Object
		for _, t := range some {
			fresh = append(fresh, statetest.Task(t.GetMeta().GetId()+"-new", service, t.GetSlot(), "", statetest.Of(by),
				statetest.In(warrenv1.TaskState_TASK_STATE_PENDING), statetest.Created(h.now.Add(time.Second))))
		}
		h.put(fresh...)
		for _, t := range some {
			h.edit(t.GetMeta().GetId(), func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN })
			h.edit(t.GetMeta().GetId(), func(t *warrenv1.Task) { t.Status.State = warrenv1.TaskState_TASK_STATE_SHUTDOWN })
		}
	}
}

func TestWhatATaskReplacesDoesNotCount(t *testing.T) {
	zones := map[string]string{"a1": "a", "a2": "a", "b1": "b", "c1": "c", "c2": "c"}
	zone := []string{"node.labels.zone"}
	for name, c := range map[string]struct {
		spread   []string
		on       string // the nodes of the old tasks, slot by slot
		together int
		want     string
	}{
		"two on two nodes":                 {nil, "n1 n2", 1, "n1 1, n2 1"},
		"both at once":                     {nil, "n1 n2", 2, "n1 1, n2 1"},
		"three on two":                     {nil, "n1 n2 n1", 1, "n1 1, n2 2"},
		"four on three, all at once":       {nil, "n1 n2 n3 n1", 4, "n1 1, n2 2, n3 1"},
		"what is uneven is evened out":     {nil, "n1 n1 n1 n2", 1, "n1 2, n2 2"},
		"three zones":                      {zone, "a1 b1 c1", 1, "a2 1, b1 1, c2 1"},
		"three zones with two nodes":       {zone, "a1 b1 c1 a2 c2", 1, "a1 1, a2 1, b1 1, c1 1, c2 1"},
		"three zones, all at once":         {zone, "a1 b1 c1 a2 c2", 5, "a1 1, a2 1, b1 1, c1 1, c2 1"},
		"its own zone where all are equal": {zone, "c1 b1 a1 c2", 1, "a2 1, b1 1, c1 1, c2 1"},
		"uneven zones are evened out":      {zone, "a1 a1 a2", 3, "a2 1, b1 1, c1 1"},
		"two preferences":                  {append(zone, "node.labels.rack"), "c2 a2 b1 c1 a1", 1, "a1 1, a2 1, b1 1, c1 1, c2 1"},
	} {
		for revision, how := range map[uint64]string{1: "moved", 2: "updated"} {
			t.Run(name+", "+how, func(t *testing.T) {
				service := statetest.Replicated("web", 1, placed(&warrenv1.Placement{Spread: c.spread}))
				next := statetest.Replicated("web", 1, func(s *warrenv1.Service) { s.Revision = 2 })
				objects := []state.Object{service, statetest.Revision(service), statetest.Revision(next)}
				nodes := map[string]bool{}
				for i, node := range strings.Fields(c.on) {
					nodes[node] = true
					objects = append(objects, statetest.Task(fmt.Sprint("web-", i+1), "web", uint32(i+1), node))
				}
				if c.spread != nil {
					nodes = map[string]bool{"a1": true, "a2": true, "b1": true, "c1": true, "c2": true}
				}
				for node := range nodes {
					objects = append(objects, statetest.Node(node, labelled("zone", zones[node], "rack", node)))
				}
				h := start(t, objects...)
				h.replaced("web", revision, c.together)
				h.wantWhere("web", c.want)
			})
		}
	}
}

func TestATaskGoesToAFullNodeInPlaceOfAnother(t *testing.T) {
	again := func(id string, slot uint32) *warrenv1.Task {
		return statetest.Task(id, "web", slot, "", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING), statetest.Created(statetest.Epoch.Add(time.Second)))
	}
	fails := func(t *warrenv1.Task) { t.Status.State = warrenv1.TaskState_TASK_STATE_FAILED }
	h := start(t, append(web(placed(&warrenv1.Placement{MaxReplicasPerNode: 1})), statetest.Node("n1"), statetest.Node("n2"),
		statetest.Task("old-1", "web", 1, "n1"), statetest.Task("old-2", "web", 2, "n2"))...)
	h.put(append(pending("web", 3), again("new-1", 1))...)
	h.wantWhere("web", "waiting 1, n1 2, n2 1")
	h.wantReason("web-3", "no node fits: 2 nodes: 2 already run 1 task, the most per node")
	h.put(again("new-2", 2)) // although what waits is known to fit nowhere
	h.wantWhere("web", "waiting 1, n1 2, n2 2")
	h.editNode("n1", available(drain))
	h.edit("new-1", fails)
	h.put(again("newer-1", 1))
	h.wantWhere("web", "waiting 2, n1 1, n2 2")
	h.editNode("n1", available(0))
	h.wantWhere("web", "waiting 1, n1 2, n2 2")
}

func TestANodesOwnTaskIsReplacedThereHoweverFewItMayHave(t *testing.T) {
	agent := statetest.Global("agent", placed(&warrenv1.Placement{MaxReplicasPerNode: 1}))
	h := start(t, agent, statetest.Revision(agent), statetest.Node("n1"), statetest.Task("old", "agent", 0, "n1"))
	h.put(statetest.Task("new", "agent", 0, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)))
	h.wantWhere("agent", "n1 2")
}

func TestANodeOnWhichAServiceKeepsFailingIsChosenLast(t *testing.T) {
	h := start(t, append(append(web(), statetest.Node("bad"), statetest.Node("good")), failures("bad")...)...)
	h.now = h.now.Add(time.Minute)
	h.put(pending("web", 1, 2, 3)...)
	h.wantWhere("web", "good 3")
	h.editNode("good", available(drain))
	h.put(pending("web", 4)...)
	h.wantWhere("web", "bad 1, good 3")
	h.wantReason("web-4", "no other node fits than bad, where the service failed 5 times in the last 1m0s")
	h.editNode("good", available(0))
	h.now = h.now.Add(failuresRemain)
	h.put(pending("web", 5)...)
	h.wantWhere("web", "bad 2, good 3")
}

// failures are as many failed tasks of web on a node as are not tolerated.
func failures(node string) []state.Object {
	var tasks []state.Object
	for i := range failuresTolerated {
		tasks = append(tasks, statetest.Task(fmt.Sprintf("f%d", i), "web", 1, node, statetest.In(warrenv1.TaskState_TASK_STATE_FAILED),
			func(t *warrenv1.Task) {
				t.Status.Since = timestamppb.New(statetest.Epoch.Add(time.Duration(i) * time.Second))
			}))
	}
	return tasks
}

func TestWhatHasWaitedAlsoShunsANodeOnWhichItKeepsFailing(t *testing.T) {
	h := start(t, append(append(web(), statetest.Node("bad", available(drain)), statetest.Node("good", available(drain))), failures("bad")...)...)
	h.now = h.now.Add(time.Minute)
	h.put(pending("web", 1)...)
	tx := state.New(h.now)
	for n := range h.at.Nodes() {
		state.Update(tx, n, available(0))
	}
	statetest.Commit(t, h.log, tx)
	h.observe()
	h.settle()
	h.wantWhere("web", "good 1")
}

func TestATaskThatANodeCouldNotStartIsReplacedElsewhereFirst(t *testing.T) {
	rejected := func(of uint64) state.Object {
		return statetest.Task("r", "web", 1, "bad", statetest.In(warrenv1.TaskState_TASK_STATE_REJECTED), statetest.Of(of))
	}
	two := func(s *warrenv1.Service) { s.Revision = 2 }
	waits := func(id string, of uint64) state.Object {
		return statetest.Task(id, "web", 1, "", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING), statetest.Of(of))
	}
	t.Run("as long as another fits", func(t *testing.T) {
		h := start(t, append(web(), statetest.Node("bad"), statetest.Node("good"))...)
		h.now = h.now.Add(time.Minute)
		h.put(rejected(1))
		h.put(waits("a", 1), waits("b", 1))
		h.wantWhere("web", "good 2")
		h.editNode("good", available(drain))
		h.put(waits("c", 1))
		h.wantWhere("web", "bad 1, good 2")
		h.wantReason("c", "no other node fits than bad, which could not start it 1m0s ago")
	})
	t.Run("but for another revision, which may mend it", func(t *testing.T) {
		h := start(t, append(web(two), statetest.Node("bad"), statetest.Node("good"))...)
		h.put(rejected(1))
		h.put(waits("a", 2), waits("b", 2))
		h.wantWhere("web", "bad 1, good 1")
	})
	t.Run("and not for ever", func(t *testing.T) {
		h := start(t, append(web(), statetest.Node("bad"), statetest.Node("good"))...)
		h.put(rejected(1))
		h.now = h.now.Add(failuresRemain)
		h.put(waits("a", 1), waits("b", 1))
		h.wantWhere("web", "bad 1, good 1")
	})
	t.Run("also after a change of leaders", func(t *testing.T) {
		h := start(t, append(web(), statetest.Node("bad"), statetest.Node("good"), rejected(1), waits("a", 1), waits("b", 1))...)
		h.settle()
		h.wantWhere("web", "good 2")
	})
}

func TestSpreadCountsWhatIsAlreadyThere(t *testing.T) {
	h := start(t, append(web(placed(&warrenv1.Placement{Spread: []string{"node.labels.zone"}})),
		statetest.Node("a1", labelled("zone", "a"), available(pause)), statetest.Node("a2", labelled("zone", "a")),
		statetest.Node("b1", labelled("zone", "b")), statetest.Task("old1", "web", 1, "a1"), statetest.Task("old2", "web", 2, "a1"))...)
	h.put(pending("web", 3, 4)...)
	h.wantWhere("web", "a1 2, b1 2")
	h.editNode("a2", labelled("zone", "c"))
	h.put(pending("web", 5)...)
	h.wantWhere("web", "a1 2, a2 1, b1 2")
}

func TestATaskThatChangedMeanwhileIsLookedAtAnew(t *testing.T) {
	h := start(t, append(web(reserving(0, 8<<30)), statetest.Node("n1"))...)
	statetest.Put(t, h.store, pending("web", 1, 2)...)
	h.observe()
	h.decide(func() {
		tx := state.New(h.now)
		state.Update(tx, h.store.Snapshot().Task("web-1"), func(t *warrenv1.Task) {
			t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN
		})
		statetest.Commit(t, h.log, tx)
	})
	h.settle()
	if got := h.at.Task("web-2").GetNodeId(); got != "n1" {
		t.Errorf("what the refused task left free was not used: web-2 is on %q", got)
	}
}

func TestTheLoopPlacesAThousandTasksAndComesToRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := statetest.New(t, append(web(), statetest.Node("n1"), statetest.Node("n2"))...)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- loop.Run(ctx, store, statetest.NewProposer(store), New(), slog.New(slog.DiscardHandler))
		}()
		statetest.Put(t, store, pending("web", 1)...)
		synctest.Wait()
		if store.Snapshot().Task("web-1").GetNodeId() == "" {
			t.Error("a task was not placed at once")
		}
		cancel()
		<-done
		statetest.Put(t, store, pending("web", upTo(2500)[1:]...)...)
		ctx, cancel = context.WithCancel(t.Context())
		go func() {
			done <- loop.Run(ctx, store, statetest.NewProposer(store), New(), slog.New(slog.DiscardHandler))
		}()
		synctest.Wait()
		counts := map[string]int{}
		for task := range store.Snapshot().Tasks() {
			counts[task.GetNodeId()]++
		}
		if counts["n1"] != 1250 || counts["n2"] != 1250 {
			t.Errorf("placed as %v", counts)
		}
		cancel()
		<-done
	})
}
