package simulation

import (
	"testing"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// A rule that nothing can break would be of no use.
func TestEveryRuleOfACommitSeesWhatBreaksIt(t *testing.T) {
	web := statetest.Replicated("web", 2, func(s *warrenv1.Service) {
		s.Spec.Task.Reservations = &warrenv1.Resources{NanoCpus: 3e9}
		s.Endpoint = &warrenv1.ServiceEndpoint{Vip: "10.224.0.1", Ports: []*warrenv1.PublishedPort{{Published: 80}}}
	})
	host := statetest.Replicated("host", 2, func(s *warrenv1.Service) {
		s.Spec.Task.HostPorts = []*warrenv1.PortSpec{{Published: 53, Target: 53}}
	})
	task := func(id, service string, slot uint32, edits ...func(*warrenv1.Task)) *warrenv1.Task {
		return statetest.Task(id, service, slot, "n1", edits...)
	}
	at := func(address string) func(*warrenv1.Task) {
		return func(t *warrenv1.Task) { t.Status.Address = address }
	}
	endpoint := func(e *warrenv1.ServiceEndpoint) *warrenv1.Service {
		return statetest.Replicated("other", 1, func(s *warrenv1.Service) { s.Endpoint = e })
	}
	for name, c := range map[string]struct {
		rule   string
		there  []state.Object
		change state.Change // its later side is there as well
	}{
		"a task starts again":               {ruleMonotone, nil, state.Change{Before: task("b", "web", 2, statetest.In(warrenv1.TaskState_TASK_STATE_FAILED)), After: task("b", "web", 2)}},
		"three tasks are in a slot":         {ruleSlot, []state.Object{task("b", "web", 1), task("c", "web", 1)}, state.Change{After: task("d", "web", 1)}},
		"a node is full twice":              {ruleCapacity, []state.Object{task("b", "web", 1)}, state.Change{After: task("c", "web", 2)}},
		"a node's port is taken twice":      {ruleCapacity, []state.Object{task("b", "host", 1)}, state.Change{After: task("c", "host", 2)}},
		"two tasks have an address":         {ruleHeld, []state.Object{task("b", "other", 1, at("10.208.0.2")), endpoint(nil), statetest.Revision(endpoint(nil))}, state.Change{After: task("c", "other", 2, at("10.208.0.2"))}},
		"two nodes have a subnet":           {ruleHeld, nil, state.Change{After: statetest.Node("n2", func(n *warrenv1.Node) { n.Network = &warrenv1.NodeNetwork{Subnet: "10.208.0.0/24"} })}},
		"two services have an address":      {ruleHeld, []state.Object{statetest.Revision(endpoint(nil))}, state.Change{After: endpoint(&warrenv1.ServiceEndpoint{Vip: "10.224.0.1"})}},
		"two services publish a port":       {ruleHeld, []state.Object{statetest.Revision(endpoint(nil))}, state.Change{After: endpoint(&warrenv1.ServiceEndpoint{Ports: []*warrenv1.PublishedPort{{Published: 80, Protocol: warrenv1.Protocol_PROTOCOL_TCP}}})}},
		"a service's revision is gone":      {ruleRevisions, nil, state.Change{After: endpoint(nil)}},
		"a task that serves is not missed":  {ruleStrength, nil, state.Change{Before: task("b", "web", 1), After: task("b", "web", 1, statetest.Desired(warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN))}},
		"all is well with a task":           {"", nil, state.Change{After: task("b", "web", 1)}},
		"a port differs by its protocol":    {"", []state.Object{statetest.Revision(endpoint(nil))}, state.Change{After: endpoint(&warrenv1.ServiceEndpoint{Ports: []*warrenv1.PublishedPort{{Published: 80, Protocol: warrenv1.Protocol_PROTOCOL_UDP}}})}},
		"an ended task's address goes on":   {"", []state.Object{task("b", "other", 1, at("10.208.0.2"), statetest.In(warrenv1.TaskState_TASK_STATE_LOST)), endpoint(nil), statetest.Revision(endpoint(nil))}, state.Change{After: task("c", "other", 2, at("10.208.0.2"))}},
		"a task that serves has a stand-in": {"", []state.Object{endpoint(nil), statetest.Revision(endpoint(nil)), task("c", "other", 1)}, state.Change{Before: task("b", "other", 1), After: task("b", "other", 1, statetest.Desired(warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN))}},
	} {
		t.Run(name, func(t *testing.T) {
			node := statetest.Node("n1", func(n *warrenv1.Node) { n.Network = &warrenv1.NodeNetwork{Subnet: "10.208.0.0/24"} })
			objects := append([]state.Object{node, web, statetest.Revision(web), host, statetest.Revision(host), c.change.After}, c.there...)
			broken := ""
			if b := checkCommit(statetest.New(t, objects...).Snapshot(), []state.Change{c.change}); b != nil {
				broken = b.rule
			}
			if broken != c.rule {
				t.Errorf("broke %q instead of %q", broken, c.rule)
			}
		})
	}
}
