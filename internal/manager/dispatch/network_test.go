package dispatch

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	someKey  = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	otherKey = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="
)

// overlaid is a node that takes part in the overlay.
func overlaid(id, subnet, addr string) *warrenv1.Node {
	return statetest.Node(id, func(n *warrenv1.Node) {
		n.Network = &warrenv1.NodeNetwork{Subnet: subnet}
		n.Status.Addr, n.Facts.Addresses = addr, []string{addr}
		n.Status.Overlay = &warrenv1.OverlayStatus{PublicKey: someKey, ListenPort: 7421}
	})
}

// open is a task that takes connections.
func open(id, service string, slot uint32, node string) *warrenv1.Task {
	return statetest.Task(id, service, slot, node, statetest.In(warrenv1.TaskState_TASK_STATE_RUNNING), func(t *warrenv1.Task) {
		t.Status.Address, t.Status.Serving = "10.208.0."+id[1:], true
	})
}

// known is what an agent has been told of the network.
type known struct {
	config  *warrenv1.NetworkConfig
	peers   map[string]string // endpoint by node
	fronts  map[string]string // address by service
	tasks   map[string]bool   // whether it serves, by task
	version uint64
}

// learn reads all that has been sent of the network.
func (a *agent) learn(k *known) {
	a.t.Helper()
	synctest.Wait()
	for len(a.network) > 0 {
		m := <-a.network
		if m.GetNetwork() != nil {
			k.config = m.GetNetwork()
		}
		if p := m.GetPeers(); p != nil {
			if p.GetFull() {
				k.peers = map[string]string{}
			}
			for _, peer := range p.GetPeers() {
				k.peers[peer.GetNodeId()] = peer.GetEndpoint()
			}
			for _, id := range p.GetRemoved() {
				delete(k.peers, id)
			}
		}
		if e := m.GetEndpoints(); e != nil {
			if e.GetFull() {
				k.fronts, k.tasks = map[string]string{}, map[string]bool{}
			}
			for _, f := range e.GetServices() {
				k.fronts[f.GetServiceId()] = f.GetVip()
			}
			for _, id := range e.GetRemovedServices() {
				delete(k.fronts, id)
			}
			for _, t := range e.GetTasks() {
				k.tasks[t.GetTaskId()] = t.GetServing()
			}
			for _, id := range e.GetRemovedTasks() {
				delete(k.tasks, id)
			}
			k.version = e.GetVersion()
		}
	}
}

func (a *agent) acknowledge(k *known) {
	a.t.Helper()
	a.learn(k)
	a.say(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_InForce{InForce: &warrenv1.EndpointsInForce{Version: k.version}}})
}

func TestAnAgentIsToldOfTheNetworkAndOfWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := statetest.Replicated("web", 1)
		r := newRig(t, overlaid("n1", "10.208.0.0/24", "192.0.2.1"), overlaid("n2", "10.208.1.0/24", "192.0.2.2"), web, statetest.Revision(web), open("t1", "web", 1, "n2"))
		a := r.dial("n1")
		var k known
		a.learn(&k)
		if k.config.GetSubnet() != "10.208.0.0/24" || k.config.GetNodeRange() != "10.208.0.0/12" || k.config.GetWireguardPort() != 7421 {
			t.Errorf("config %v", k.config)
		}
		if !maps.Equal(k.peers, map[string]string{"n2": "192.0.2.2:7421"}) || !maps.Equal(k.tasks, map[string]bool{"t1": true}) {
			t.Errorf("peers %v, tasks %v", k.peers, k.tasks)
		}

		change := state.New(time.Now())
		s := r.store.Snapshot()
		state.Update(change, s.Node("n2"), func(n *warrenv1.Node) { n.Spec.WireguardEndpoint = "198.51.100.7:1234" })
		state.Update(change, s.Service("web"), func(s *warrenv1.Service) { s.Endpoint = &warrenv1.ServiceEndpoint{Vip: "10.224.0.1"} })
		state.Update(change, s.Task("t1"), func(t *warrenv1.Task) { t.Status.Serving = false })
		change.Create(open("t2", "web", 2, "n1"))
		statetest.Commit(t, r.proposer, change)
		a.learn(&k)
		if !maps.Equal(k.peers, map[string]string{"n2": "198.51.100.7:1234"}) || k.fronts["web"] != "10.224.0.1" || !maps.Equal(k.tasks, map[string]bool{"t1": false, "t2": true}) {
			t.Errorf("peers %v, services %v, tasks %v", k.peers, k.fronts, k.tasks)
		}

		change = state.New(time.Now())
		s = r.store.Snapshot()
		change.Delete(s.Node("n2"))
		change.Delete(s.Service("web"))
		change.Delete(s.Task("t1"))
		statetest.Commit(t, r.proposer, change)
		a.learn(&k)
		if len(k.peers) != 0 || len(k.fronts) != 0 || !slices.Equal(slices.Collect(maps.Keys(k.tasks)), []string{"t2"}) {
			t.Errorf("peers %v, services %v, tasks %v", k.peers, k.fronts, k.tasks)
		}
	})
}

func TestWhatAnAgentSaysOfItsOverlayIsWrittenAndToldToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n2 := overlaid("n2", "10.208.1.0/24", "192.0.2.1")
		n2.Status.Overlay = nil
		r := newRig(t, overlaid("n1", "10.208.0.0/24", "192.0.2.9"), n2)
		a, b := r.dial("n1"), r.dial("n2", func(h *warrenv1.Hello) { h.Facts.Addresses = []string{"192.0.2.1"} })
		var k known
		if a.learn(&k); len(k.peers) != 0 {
			t.Fatalf("peers %v before n2 has a key", k.peers)
		}
		b.say(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Overlay{Overlay: &warrenv1.OverlayStatus{PublicKey: otherKey, ListenPort: 99}}})
		if a.learn(&k); !maps.Equal(k.peers, map[string]string{"n2": "192.0.2.1:99"}) {
			t.Errorf("peers %v", k.peers)
		}
	})
}

// withdrawing is serving's rig where t1 is then to stop.
func withdrawing(t *testing.T) (r *rig, a, b *agent, ka, kb *known) {
	r, a, b, ka, kb = serving(t)
	r.edit("t1", func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN })
	return r, a, b, ka, kb
}

// serving is a rig where t1 of node n1 is served by n1 and n2, whose agents have all in force.
func serving(t *testing.T) (r *rig, a, b *agent, ka, kb *known) {
	web := statetest.Replicated("web", 1)
	r = newRig(t, overlaid("n1", "10.208.0.0/24", "192.0.2.1"), overlaid("n2", "10.208.1.0/24", "192.0.2.1"), web, statetest.Revision(web), open("t1", "web", 1, "n1"))
	a, b, ka, kb = r.dial("n1"), r.dial("n2"), &known{}, &known{}
	a.welcome()
	a.assignments()
	b.welcome()
	b.assignments()
	a.acknowledge(ka)
	b.acknowledge(kb)
	return r, a, b, ka, kb
}

func (a *agent) hearsToStop(task string) {
	a.t.Helper()
	synctest.Wait()
	if tasks := a.assignments().GetTasks(); len(tasks) != 1 || tasks[0].GetTask().GetMeta().GetId() != task || tasks[0].GetTask().GetDesired() != warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN {
		a.t.Errorf("got %v instead of word to stop %s", tasks, task)
	}
}

func TestATaskIsToldToStopWhenEveryNodeHasCeasedToSendItConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, ka, kb := withdrawing(t)
		a.hearsNothing()
		a.acknowledge(ka)
		a.hearsNothing()
		b.acknowledge(kb)
		a.hearsToStop("t1")
		if ka.tasks["t1"] || kb.tasks["t1"] {
			t.Errorf("told that it serves: %v, %v", ka.tasks, kb.tasks)
		}
	})
}

// An agent that goes leaves its node's rules in force: they send connections to the task until it is back.
func TestANodeWhoseAgentComesBackIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, b, ka, _ := withdrawing(t)
		a.acknowledge(ka)
		b.hangUp()
		a.hearsNothing()
		b = r.dial("n2")
		a.hearsNothing()
		b.acknowledge(&known{})
		a.hearsToStop("t1")
	})
}

func TestATaskThatIsToStopWhileAnAgentIsAwayWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, b, ka, kb := serving(t)
		b.hangUp()
		r.edit("t1", func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN })
		a.acknowledge(ka)
		a.hearsNothing()
		b = r.dial("n2")
		b.acknowledge(kb)
		a.hearsToStop("t1")
	})
}

func TestANodeThatGoesAwayHoldsUpATasksStopForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, ka, _ := withdrawing(t)
		a.acknowledge(ka)
		b.hangUp()
		time.Sleep(withdrawalTimeout / 2)
		a.heartbeat()
		a.hear()
		time.Sleep(withdrawalTimeout/2 - time.Millisecond)
		a.hearsNothing()
		time.Sleep(time.Millisecond)
		a.hearsToStop("t1")
	})
}

func TestANodeThatSaysNothingHoldsUpATasksStopForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, ka, _ := withdrawing(t)
		a.acknowledge(ka)
		time.Sleep(withdrawalTimeout / 2)
		a.heartbeat()
		b.heartbeat()
		a.hear()
		time.Sleep(withdrawalTimeout/2 - time.Millisecond)
		a.hearsNothing()
		time.Sleep(time.Millisecond)
		a.hearsToStop("t1")
	})
}

func TestATaskThatTakesNoConnectionsIsToldToStopAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := statetest.Replicated("web", 1)
		r := newRig(t, overlaid("n1", "10.208.0.0/24", "192.0.2.1"), web, statetest.Revision(web), statetest.Task("t1", "web", 1, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_RUNNING)))
		a := r.join("n1")
		r.edit("t1", func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN })
		a.hearsToStop("t1")
	})
}

// Else its program, which the agent starts again, would run for ever: nobody would tell the agent any more.
func TestATaskThatCeasesToServeWhileItsStopIsHeldUpIsToldToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, _, _, _ := withdrawing(t)
		a.hearsNothing()
		r.edit("t1", func(t *warrenv1.Task) {
			t.Status.State, t.Status.Attempt, t.Status.Serving = warrenv1.TaskState_TASK_STATE_PREPARING, 2, false
		})
		a.hearsToStop("t1")
	})
}

func TestATaskThatHasCeasedToServeSinceItWasLookedAtIsToldToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, append(web(), statetest.Node("n1"), statetest.Node("n2"), statetest.Task("t1", "web", 1, "n1",
			func(t *warrenv1.Task) { t.Status.Address = "10.208.0.2" }))...)
		r.dial("n1")
		r.dial("n2")
		term, _ := r.d.current()
		r.edit("t1", func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN })
		before := r.store.Snapshot()
		r.edit("t1", func(t *warrenv1.Task) { t.Status.Serving = false })
		synctest.Wait()
		if !term.withdrawals.mayStop(before, before.Task("t1")) {
			t.Error("it is held up")
		}
		term.mu.Lock()
		defer term.mu.Unlock()
		if len(term.withdrawals.tasks) > 0 {
			t.Errorf("%d tasks are remembered for ever", len(term.withdrawals.tasks))
		}
	})
}

func TestANewLeaderWaitsForEveryNodeItExpects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, b, _, _ := withdrawing(t)
		_ = r.stop()
		<-a.done
		<-b.done
		r.lead()
		a = r.dial("n1")
		a.welcome()
		if tasks := a.assignments().GetTasks(); len(tasks) != 1 || tasks[0].GetTask().GetDesired() != warrenv1.DesiredState_DESIRED_STATE_RUNNING {
			t.Fatalf("the new leader sent %v", tasks)
		}
		a.acknowledge(&known{})
		a.hearsNothing()
		b = r.dial("n2")
		a.hearsNothing()
		b.acknowledge(&known{})
		a.hearsToStop("t1")
	})
}

func TestPeersAndEndpointsComeInPiecesOfBoundedSize(t *testing.T) {
	web := statetest.Replicated("web", 1)
	objects := []state.Object{statetest.Cluster(), web}
	for i := range 30 {
		id := "t" + strings.Repeat("x", 100<<10) + string(rune('a'+i))
		objects = append(objects, statetest.Task(id, "web", uint32(i), "n1", statetest.In(warrenv1.TaskState_TASK_STATE_RUNNING), func(t *warrenv1.Task) {
			t.Status.Address = "10.208.0.9"
		}))
	}
	s := statetest.New(t, objects...).Snapshot()
	tasks, pieces := 0, 0
	for piece := range tellEndpoints(s, "n1", allNews()) {
		pieces++
		tasks += len(piece.GetTasks())
		if piece.GetFull() != (pieces == 1) || piece.GetMore() != (tasks < 30) || piece.GetVersion() != s.Index() {
			t.Errorf("piece %d: full %v, more %v, version %d", pieces, piece.GetFull(), piece.GetMore(), piece.GetVersion())
		}
	}
	if tasks != 30 || pieces < 3 {
		t.Errorf("%d tasks in %d pieces", tasks, pieces)
	}
}

func TestAKeyIsOneNodesAlone(t *testing.T) {
	s := statetest.New(t, statetest.Cluster(), overlaid("n1", "10.208.0.0/24", "192.0.2.1"), statetest.Node("n2")).Snapshot()
	said := &warrenv1.OverlayStatus{State: warrenv1.OverlayState_OVERLAY_STATE_UP, PublicKey: someKey}
	if got := ownKey(s, "n1", said); got != said {
		t.Errorf("of its own key became %v", got)
	}
	if got := ownKey(s, "n2", said); got.GetPublicKey() != "" || got.GetState() != warrenv1.OverlayState_OVERLAY_STATE_FAILED {
		t.Errorf("of another's key became %v", got)
	}
}

func TestAVersionThatIsYetToComeIsNoAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, ka, _ := withdrawing(t)
		a.acknowledge(ka)
		b.say(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_InForce{InForce: &warrenv1.EndpointsInForce{Version: 1 << 40}}})
		a.hearsNothing()
	})
}
