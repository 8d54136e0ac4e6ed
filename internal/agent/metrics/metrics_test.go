package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cuemby/warren/internal/agent/metrics"
	"github.com/cuemby/warren/internal/agent/overlay"
	"github.com/cuemby/warren/internal/agent/runtime"
	"github.com/cuemby/warren/internal/agent/supervisor"
	"github.com/cuemby/warren/internal/agent/traffic"
	"github.com/cuemby/warren/internal/metrics/metricstest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func look(name string, state warrenv1.TaskState, attempt uint32) supervisor.Look {
	l := supervisor.Look{ID: "id-" + name, Name: name, Service: "web", OwnNetwork: true, Status: &warrenv1.TaskStatus{State: state, Attempt: attempt}}
	if state == warrenv1.TaskState_TASK_STATE_RUNNING {
		l.Status.ContainerId, l.Status.Pid = fmt.Sprintf("%s-%d", l.ID, attempt), uint32(os.Getpid())
	}
	return l
}

func sources(tasks ...supervisor.Look) metrics.Sources {
	return metrics.Sources{
		Tasks: func() []supervisor.Look { return tasks },
		Usage: func(container string) (runtime.Usage, error) {
			if container != "id-web.1-3" {
				return runtime.Usage{}, errors.New("it has just ended")
			}
			return runtime.Usage{CPU: 1500 * time.Millisecond, Throttled: time.Second, Memory: 1000, MemoryLimit: 2000, MemoryKills: 1}, nil
		},
		Overlay: func(context.Context) (overlay.Figures, error) {
			return overlay.Figures{Up: true, VIPs: 2, Tasks: 5, TakenPorts: 1, Peers: map[overlay.Handshake]int{overlay.HandshakeRecent: 4, overlay.HandshakeNever: 1}}, nil
		},
		Connected:          func() bool { return true },
		CertificateExpires: func() time.Time { return time.Unix(1000, 0) },
	}
}

// inOverlay are metrics of the link to other nodes, which this machine need not have.
var inOverlay = []string{"warren_agent_overlay_received_bytes_total", "warren_agent_overlay_sent_bytes_total", "warren_agent_overlay_dropped_packets_total"}

func TestEveryMetricIsFoundGoodAndDescribed(t *testing.T) {
	m := metrics.New()
	s := sources(look("web.1", warrenv1.TaskState_TASK_STATE_RUNNING, 3))
	s.Links = func() (map[string]traffic.Traffic, error) {
		return map[string]traffic.Traffic{overlay.Device: {Received: 1, Sent: 2, ReceivedDropped: 3, SentDropped: 4}}, nil
	}
	m.Ask(s)
	m.Started(time.Second)
	m.Rejected()
	m.Ended("oom", true)
	m.Probed("http", "succeeded", time.Millisecond)
	registry := m.Gatherer().(*prometheus.Registry)
	metricstest.Check(t, registry, "warren-agent", func(name string) bool { return name != "warren_build_info" })
	families := metricstest.Families(t, registry)
	for i, name := range inOverlay[:2] {
		if got := families[name].GetMetric()[0].GetCounter().GetValue(); got != float64(i+1) {
			t.Errorf("%s is %v", name, got)
		}
	}
}

func TestTasksAndWhatTheirContainersUseAreTold(t *testing.T) {
	onTheNodes := look("web.3", warrenv1.TaskState_TASK_STATE_RUNNING, 1)
	onTheNodes.OwnNetwork = false
	m := metrics.New()
	m.Ask(sources(
		look("web.1", warrenv1.TaskState_TASK_STATE_RUNNING, 3),
		look("web.2", warrenv1.TaskState_TASK_STATE_FAILED, 2),
		onTheNodes,
		look("web.4", warrenv1.TaskState_TASK_STATE_PREPARING, 0),
	))
	families := metricstest.Families(t, m.Gatherer())
	for name, want := range map[string]int{
		"warren_agent_tasks":                            3, // running, failed, preparing
		"warren_agent_task_restarts_total":              3, // of all that have begun
		"warren_container_memory_bytes":                 1, // of the only one that still is there
		"warren_container_network_received_bytes_total": 1, // of the only one with a network of its own
	} {
		if got := len(families[name].GetMetric()); got != want {
			t.Errorf("%s has %d series, want %d", name, got, want)
		}
	}
	for name, want := range map[string]float64{
		"warren_container_cpu_seconds_total":           1.5,
		"warren_container_cpu_throttled_seconds_total": 1,
		"warren_container_memory_kills_total":          1,
	} {
		if got := families[name].GetMetric()[0].GetCounter().GetValue(); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestAScrapeGoesOnWithoutWhatCannotBeAsked(t *testing.T) {
	m := metrics.New()
	s := sources()
	s.Overlay = func(context.Context) (overlay.Figures, error) {
		return overlay.Figures{Up: true}, errors.New("WireGuard does not answer")
	}
	s.Links = func() (map[string]traffic.Traffic, error) { return nil, errors.New("there is no /proc") }
	m.Ask(s)
	all, err := m.Gatherer().Gather()
	if err == nil {
		t.Error("nothing is said of what is missing")
	}
	told := map[string]bool{}
	for _, f := range all {
		told[f.GetName()] = true
	}
	if !told["warren_agent_connected"] || !told["warren_agent_overlay_up"] || told["warren_agent_overlay_peers"] {
		t.Errorf("told %v", told)
	}
}

// BenchmarkStart is all that metrics add to the start of a program.
func BenchmarkStart(b *testing.B) {
	m := metrics.New()
	for b.Loop() {
		m.Started(time.Second)
	}
}

// BenchmarkScrape is one scrape of an agent with a hundred running tasks, but for what control groups cost.
func BenchmarkScrape(b *testing.B) {
	var tasks []supervisor.Look
	for i := range 100 {
		tasks = append(tasks, look(fmt.Sprint("web.", i), warrenv1.TaskState_TASK_STATE_RUNNING, 1))
	}
	m := metrics.New()
	s := sources(tasks...)
	s.Usage = func(string) (runtime.Usage, error) { return runtime.Usage{Memory: 1}, nil }
	m.Ask(s)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Gatherer().Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
