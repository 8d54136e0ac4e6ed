package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// contents collects what is in the cluster's state, by going through a snapshot. Every manager has the
// same, as far as it has followed.
type contents struct{ Sources }

var (
	tasks       = desc("warren_tasks", "Tasks of the service, by state; ended ones as long as they are remembered.", "service", "state")
	tasksWanted = desc("warren_tasks_wanted", "Tasks of the service that should run.", "service")
	tasksServe  = desc("warren_tasks_serving", "Tasks of the service that connections are sent to.", "service")
	tasksAil    = desc("warren_tasks_unhealthy", "Running tasks of the service that their probes found unhealthy.", "service")
	services    = desc("warren_services", "Services.")
	rollouts    = desc("warren_rollouts", "Services by how their last rollout stands; those that had none are left out.", "state")
	nodes       = desc("warren_nodes", "Nodes, by state and by whether they take tasks.", "state", "availability")
	networks    = desc("warren_networks", "Networks.")
	addresses   = desc("warren_virtual_addresses", "Virtual addresses that services have.")
	published   = desc("warren_published_ports", "Ports that are published on every node.")
	problems    = desc("warren_services_without_endpoint", "Services that could not be given an address or a port that they want.")
	subnets     = desc("warren_node_subnets", "Nodes that have a part of the overlay network.")
)

// Describe implements prometheus.Collector.
func (*contents) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{tasks, tasksWanted, tasksServe, tasksAil, services, rollouts, nodes, networks, addresses, published, problems, subnets} {
		to <- d
	}
}

// tally is what is counted of one service's tasks.
type tally struct {
	states                  map[warrenv1.TaskState]int
	wanted, serving, ailing int
}

// Collect implements prometheus.Collector.
func (c *contents) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	snapshot := c.Snapshot()

	counted := map[string]*tally{}
	rolling := map[warrenv1.RolloutState]int{}
	var addressed, ports, lacking int
	for s := range snapshot.Services() {
		counted[s.GetMeta().GetId()] = &tally{states: map[warrenv1.TaskState]int{}}
		if r := s.GetRollout().GetState(); r != warrenv1.RolloutState_ROLLOUT_STATE_UNSPECIFIED {
			rolling[r]++
		}
		if s.GetEndpoint().GetVip() != "" {
			addressed++
		}
		ports += len(s.GetEndpoint().GetPorts())
		if len(s.GetEndpoint().GetProblems()) > 0 {
			lacking++
		}
	}
	for t := range snapshot.Tasks() {
		of := counted[t.GetServiceId()]
		if of == nil {
			continue // its service is deleted in the same breath
		}
		of.states[t.GetStatus().GetState()]++
		if lifecycle.Wanted(t) {
			of.wanted++
		}
		if t.GetStatus().GetServing() {
			of.serving++
		}
		if t.GetStatus().GetHealth().GetState() == warrenv1.HealthState_HEALTH_STATE_UNHEALTHY {
			of.ailing++
		}
	}
	for s := range snapshot.Services() {
		of, name := counted[s.GetMeta().GetId()], s.GetSpec().GetName()
		for state, n := range of.states {
			gauge(tasks, n, name, taskState(state))
		}
		gauge(tasksWanted, of.wanted, name)
		gauge(tasksServe, of.serving, name)
		gauge(tasksAil, of.ailing, name)
	}
	gauge(services, len(counted))
	for state, n := range rolling {
		gauge(rollouts, n, word(state.String(), "ROLLOUT_STATE_"))
	}

	type nodeKind struct{ state, availability string }
	kinds, withSubnet := map[nodeKind]int{}, 0
	for n := range snapshot.Nodes() {
		kinds[nodeKind{
			word(n.GetStatus().GetState().String(), "NODE_STATE_"),
			word(n.GetSpec().GetAvailability().String(), "NODE_AVAILABILITY_"),
		}]++
		if n.GetNetwork().GetSubnet() != "" {
			withSubnet++
		}
	}
	for kind, n := range kinds {
		gauge(nodes, n, kind.state, kind.availability)
	}
	known := 0
	for range snapshot.Networks() {
		known++
	}
	gauge(networks, known)
	gauge(addresses, addressed)
	gauge(published, ports)
	gauge(problems, lacking)
	gauge(subnets, withSubnet)
}

func taskState(s warrenv1.TaskState) string { return word(s.String(), "TASK_STATE_") }

// word makes running of TASK_STATE_RUNNING.
func word(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }
