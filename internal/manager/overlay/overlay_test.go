package overlay

import (
	"slices"
	"testing"

	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const someKey = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

// node is a node whose session comes from seen, and which has the addresses own.
func node(id, seen string, own ...string) *warrenv1.Node {
	return statetest.Node(id, func(n *warrenv1.Node) {
		n.Network = &warrenv1.NodeNetwork{Subnet: "10.208.0.0/24"}
		n.Status.Addr, n.Facts.Addresses = seen, own
		n.Status.Overlay = &warrenv1.OverlayStatus{PublicKey: someKey, ListenPort: 7421}
	})
}

// placed is a node whose operator has said where others find it.
func placed(n *warrenv1.Node, endpoint string) *warrenv1.Node {
	n.Spec.WireguardEndpoint = endpoint
	return n
}

func TestWhereAPeerIsFound(t *testing.T) {
	plain := node("a", "192.0.2.1", "192.0.2.1")
	for _, c := range []struct {
		what      string
		to, other *warrenv1.Node
		endpoint  string
		local     []string
		keepalive bool
	}{
		{"a plain node", plain, node("b", "192.0.2.2", "10.0.0.2", "192.0.2.2"), "192.0.2.2:7421", nil, false},
		{"one on IPv6", plain, node("b", "2001:db8::2", "2001:db8::2"), "[2001:db8::2]:7421", nil, false},
		{"one behind a translation", plain, node("b", "203.0.113.5", "192.168.1.2"), "203.0.113.5:7421", nil, true},
		{"one seen from behind a translation", node("a", "203.0.113.5", "192.168.1.2"), node("b", "192.0.2.2", "192.0.2.2"), "192.0.2.2:7421", nil, true},
		{"both behind the same translation", node("a", "203.0.113.5", "192.168.1.2"), node("b", "203.0.113.5", "192.168.1.3"), "203.0.113.5:7421", []string{"192.168.1.3:7421"}, true},
		{"one beside a manager", plain, node("b", "127.0.0.1", "192.0.2.3"), "192.0.2.3:7421", nil, false},
		{"one whose operator has said where", plain, placed(node("b", "203.0.113.5", "192.168.1.2"), "198.51.100.1:99"), "198.51.100.1:99", nil, false},
	} {
		p := Peer(c.to, c.other)
		if p.GetEndpoint() != c.endpoint || !slices.Equal(p.GetLocalEndpoints(), c.local) || p.GetKeepalive() != c.keepalive {
			t.Errorf("%s: %v", c.what, p)
		}
	}
}

func TestWhoIsNobodysPeer(t *testing.T) {
	to := node("a", "192.0.2.1")
	for what, change := range map[string]func(*warrenv1.Node){
		"itself":           func(n *warrenv1.Node) { n.Meta.Id = "a" },
		"without a subnet": func(n *warrenv1.Node) { n.Network = nil },
		"without a key":    func(n *warrenv1.Node) { n.Status.Overlay = nil },
		"with a bad key":   func(n *warrenv1.Node) { n.Status.Overlay.PublicKey = "AAAA" },
	} {
		other := node("b", "192.0.2.2")
		change(other)
		if p := Peer(to, other); p != nil {
			t.Errorf("%s: %v", what, p)
		}
	}
}

func TestWhatIsNewsOfATask(t *testing.T) {
	up := statetest.Task("t", "web", 1, "n", statetest.In(warrenv1.TaskState_TASK_STATE_RUNNING), func(t *warrenv1.Task) {
		t.Status.Address, t.Status.Serving = "10.208.0.2", true
	})
	for _, c := range []struct {
		what string
		edit func(*warrenv1.Task)
		news bool
	}{
		{"a message", func(t *warrenv1.Task) { t.Status.Message = "x" }, false},
		{"it does not serve any more", func(t *warrenv1.Task) { t.Status.Serving = false }, true},
		{"it is to stop", func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN }, true},
		{"it restarts", func(t *warrenv1.Task) { t.Status.State = warrenv1.TaskState_TASK_STATE_STARTING }, true},
		{"it has ended", func(t *warrenv1.Task) { t.Status.State = warrenv1.TaskState_TASK_STATE_FAILED }, true},
		{"another address", func(t *warrenv1.Task) { t.Status.Address = "10.208.0.3" }, true},
	} {
		after := statetest.Task("t", "web", 1, "n", statetest.In(warrenv1.TaskState_TASK_STATE_RUNNING), func(t *warrenv1.Task) {
			t.Status.Address, t.Status.Serving = "10.208.0.2", true
		}, c.edit)
		if got := EndpointNews(up, after); got != c.news {
			t.Errorf("%s: news %v", c.what, got)
		}
	}
	if !EndpointNews(nil, up) || !EndpointNews(up, nil) {
		t.Error("that a task comes or goes is no news")
	}
}

func TestWhatIsNewsOfAService(t *testing.T) {
	canary := func(edits ...func(*warrenv1.Service)) *warrenv1.Service {
		return statetest.Replicated("web", 3, append([]func(*warrenv1.Service){func(s *warrenv1.Service) {
			s.Spec.Update = &warrenv1.UpdatePolicy{Strategy: warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY}
			s.Rollout = &warrenv1.Rollout{From: 1, To: 2, State: warrenv1.RolloutState_ROLLOUT_STATE_RUNNING, Weight: 10}
		}}, edits...)...)
	}
	if got := Front(canary()).GetShares(); len(got) != 2 || got[1].GetRevision() != 2 || got[1].GetPercent() != 10 {
		t.Errorf("shares %v", got)
	}
	for what, c := range map[string]struct {
		edit func(*warrenv1.Service)
		news bool
	}{
		"nothing":        {func(*warrenv1.Service) {}, false},
		"a label":        {func(s *warrenv1.Service) { s.Spec.Labels = map[string]string{"a": "b"} }, false},
		"a task is good": {func(s *warrenv1.Service) { s.Rollout.Message = "1 of 3" }, false},
		"the next step":  {func(s *warrenv1.Service) { s.Rollout.Weight = 50 }, true},
		"its end":        {func(s *warrenv1.Service) { s.Rollout.State = warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE }, true},
		"its address":    {func(s *warrenv1.Service) { s.Endpoint = &warrenv1.ServiceEndpoint{Vip: "10.224.0.1"} }, true},
		"a port of its tasks' nodes": {func(s *warrenv1.Service) {
			s.Spec.Task.HostPorts = []*warrenv1.PortSpec{{Name: "http", Target: 80}}
		}, true},
		"a network": {func(s *warrenv1.Service) { s.Spec.Networks = []*warrenv1.NetworkAttachment{{Network: "back"}} }, true},
	} {
		if got := FrontNews(canary(), canary(c.edit)); got != c.news {
			t.Errorf("%s: news %v", what, got)
		}
	}
}

func TestAFrontTellsOfPortsThatAreOpenOnTheTasksNodesAlone(t *testing.T) {
	web := statetest.Replicated("web", 3, func(s *warrenv1.Service) {
		s.Spec.Task.HostPorts = []*warrenv1.PortSpec{{Name: "http", Target: 80, Published: 8080}}
	})
	if got := Front(web).GetHostPorts(); len(got) != 1 || got[0].GetName() != "http" || got[0].GetTarget() != 80 {
		t.Errorf("got %v", got)
	}
}

func TestATasksEndpointNamesItsRevision(t *testing.T) {
	up := statetest.Task("t", "web", 1, "n", statetest.Of(7), func(t *warrenv1.Task) { t.Status.Address = "10.208.0.2" })
	if got := Endpoint(up).GetRevision(); got != 7 {
		t.Errorf("revision %d", got)
	}
	lost := statetest.Task("t", "web", 1, "n", statetest.Of(7), statetest.In(warrenv1.TaskState_TASK_STATE_LOST))
	if e := Lost(lost); e.GetRevision() != 7 || !e.GetWithdrawn() || e.GetServing() || Endpoint(lost) != nil || Lost(up) != nil {
		t.Errorf("told of a lost one: %v", e)
	}
}
