package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cuemby/warren/internal/agent/supervisor"
	"github.com/cuemby/warren/internal/agent/traffic"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// containers collects how the node's tasks stand, and what their containers use. Counters begin anew with each
// attempt, as the containers do.
type containers struct{ Sources }

var (
	tasks         = desc("warren_agent_tasks", "Tasks of the service on this node, by state; ended ones as long as their output is kept.", "service", "state")
	restarts      = desc("warren_agent_task_restarts_total", "Starts of the task's program after its first one.", "service", "task", "id")
	cpu           = desc("warren_container_cpu_seconds_total", "Processor time that the container's attempt has used.", "service", "task", "id")
	throttled     = desc("warren_container_cpu_throttled_seconds_total", "For how long the container's limit of processor time has held it back.", "service", "task", "id")
	memory        = desc("warren_container_memory_bytes", "Memory that the container uses, without pages of files that could be had back at once.", "service", "task", "id")
	memoryLimit   = desc("warren_container_memory_limit_bytes", "How much memory the container may use; none where there is no limit.", "service", "task", "id")
	memoryKills   = desc("warren_container_memory_kills_total", "Processes of the container that the kernel killed for want of memory.", "service", "task", "id")
	netReceived   = desc("warren_container_network_received_bytes_total", "Bytes that the container has received, loopback left out; none of one on the node's network.", "service", "task", "id")
	netSent       = desc("warren_container_network_sent_bytes_total", "Bytes that the container has sent, loopback left out; none of one on the node's network.", "service", "task", "id")
	netDropped    = desc("warren_container_network_dropped_packets_total", "Packets that the container's link has dropped.", "service", "task", "id", "direction")
	containerDesc = []*prometheus.Desc{tasks, restarts, cpu, throttled, memory, memoryLimit, memoryKills, netReceived, netSent, netDropped}
)

// Describe implements prometheus.Collector.
func (*containers) Describe(to chan<- *prometheus.Desc) {
	for _, d := range containerDesc {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *containers) Collect(to chan<- prometheus.Metric) {
	type kind struct {
		service string
		state   warrenv1.TaskState
	}
	kinds := map[kind]int{}
	for _, t := range c.Tasks() {
		kinds[kind{t.Service, t.Status.GetState()}]++
		if attempt := t.Status.GetAttempt(); attempt > 0 {
			count(to, restarts, uint64(attempt-1), t.Service, t.Name, t.ID)
		}
		if t.Status.GetPid() != 0 {
			c.usage(to, t)
		}
	}
	for k, n := range kinds {
		state := strings.ToLower(strings.TrimPrefix(k.state.String(), "TASK_STATE_"))
		to <- prometheus.MustNewConstMetric(tasks, prometheus.GaugeValue, float64(n), k.service, state)
	}
}

// usage collects what a running container uses. One that has just ended tells nothing any more.
func (c *containers) usage(to chan<- prometheus.Metric, t supervisor.Look) {
	labels := []string{t.Service, t.Name, t.ID}
	if u, err := c.Usage(t.Status.GetContainerId()); err == nil {
		to <- prometheus.MustNewConstMetric(cpu, prometheus.CounterValue, u.CPU.Seconds(), labels...)
		to <- prometheus.MustNewConstMetric(throttled, prometheus.CounterValue, u.Throttled.Seconds(), labels...)
		to <- prometheus.MustNewConstMetric(memory, prometheus.GaugeValue, float64(u.Memory), labels...)
		if u.MemoryLimit > 0 {
			to <- prometheus.MustNewConstMetric(memoryLimit, prometheus.GaugeValue, float64(u.MemoryLimit), labels...)
		}
		count(to, memoryKills, u.MemoryKills, labels...)
	}
	if !t.OwnNetwork {
		return
	}
	sum, err := traffic.OfProgram(t.Status.GetPid())
	if err != nil {
		return
	}
	count(to, netReceived, sum.Received, labels...)
	count(to, netSent, sum.Sent, labels...)
	count(to, netDropped, sum.ReceivedDropped, append(labels, "received")...)
	count(to, netDropped, sum.SentDropped, append(labels, "sent")...)
}
