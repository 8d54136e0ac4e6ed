package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/metrics"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	"github.com/cuemby/warren/internal/metrics/metricstest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// rig is a manager's metrics with a state of their own, which they follow.
type rig struct {
	*metrics.Metrics
	store   *state.Store
	figures consensus.Figures
	locked  bool
}

func newRig(t *testing.T) *rig {
	r := &rig{store: state.NewStore()}
	r.Metrics = metrics.New(metrics.Sources{
		Snapshot: r.store.Snapshot, Sessions: func() int { return 3 },
		Raft:               func() (consensus.Figures, bool) { return r.figures, !r.locked },
		CertificateExpires: func() time.Time { return time.Unix(1000, 0) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	_, feed := r.store.Watch()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Follow(ctx, feed)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return r
}

// put writes objects, and returns when they have been seen.
func (r *rig) put(t *testing.T, objects ...state.Object) {
	t.Helper()
	statetest.Put(t, r.store, objects...)
	synctest.Wait()
}

// expect fails the test where a metric, written as NAME{LABEL="VALUE"}, is not that. Of a histogram it is the count.
func (r *rig) expect(t *testing.T, want map[string]float64) {
	t.Helper()
	got := map[string]float64{}
	for name, family := range metricstest.Families(t, r.Gatherer()) {
		for _, m := range family.GetMetric() {
			got[name+labels(m)] = value(m)
		}
	}
	for series, value := range want {
		if have, there := got[series]; !there || have != value {
			t.Errorf("%s is %v (%t), want %v", series, have, there, value)
		}
	}
}

func labels(m *dto.Metric) string {
	if len(m.GetLabel()) == 0 {
		return ""
	}
	var all []string
	for _, l := range m.GetLabel() {
		all = append(all, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	return "{" + strings.Join(all, ",") + "}"
}

func value(m *dto.Metric) float64 {
	switch {
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	default:
		return float64(m.GetHistogram().GetSampleCount())
	}
}

func TestEveryMetricIsFoundGoodAndDescribed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		web := statetest.Replicated("web", 1)
		web.Rollout = &warrenv1.Rollout{State: warrenv1.RolloutState_ROLLOUT_STATE_PAUSED}
		r.put(t, statetest.Cluster(), statetest.Node("n1"), web, statetest.Task("t1", "web", 1, "n1"))
		r.put(t, statetest.Task("t1", "web", 1, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_FAILED)))
		r.Called("/warren.v1.ServiceService/CreateService", "ok", time.Millisecond)
		r.Streaming("/warren.v1.ServiceService/WatchService")
		r.Round("scheduler", loop.Round{Changes: 1, Applied: 1})
		r.Wrote(2, 1, time.Millisecond, nil)
		registry := r.Gatherer().(*prometheus.Registry)
		metricstest.Check(t, registry, "warren-manager", func(name string) bool { return name != "warren_build_info" })
		metricstest.Check(t, registry, "Both", func(name string) bool { return name == "warren_build_info" })
	})
}

func TestTheStateIsCountedAsItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		web := statetest.Replicated("web", 3)
		web.Endpoint = &warrenv1.ServiceEndpoint{Vip: "10.224.0.1", Ports: []*warrenv1.PublishedPort{{}, {}}}
		lacking := statetest.Replicated("lacking", 0)
		lacking.Endpoint = &warrenv1.ServiceEndpoint{Problems: []string{"no address is left"}}
		drained := statetest.Node("n2")
		drained.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
		drained.Network = &warrenv1.NodeNetwork{Subnet: "10.208.1.0/24"}
		ailing := statetest.Task("t2", "web", 2, "n1")
		ailing.Status.Health = &warrenv1.TaskHealth{State: warrenv1.HealthState_HEALTH_STATE_UNHEALTHY}
		ailing.Status.Serving = false
		r.put(t, web, lacking, statetest.Node("n1"), drained, statetest.Task("t1", "web", 1, "n1"), ailing,
			statetest.Task("t3", "web", 3, "", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)),
			statetest.Task("t0", "web", 1, "n1", statetest.Ended(warrenv1.TaskState_TASK_STATE_FAILED, statetest.Epoch), statetest.Desired(warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN)))
		r.expect(t, map[string]float64{
			`warren_tasks{service="web",state="running"}`:      2,
			`warren_tasks{service="web",state="pending"}`:      1,
			`warren_tasks{service="web",state="failed"}`:       1,
			`warren_tasks_wanted{service="web"}`:               3,
			`warren_tasks_wanted{service="lacking"}`:           0,
			`warren_tasks_serving{service="web"}`:              1,
			`warren_tasks_unhealthy{service="web"}`:            1,
			`warren_services`:                                  2,
			`warren_services_without_endpoint`:                 1,
			`warren_virtual_addresses`:                         1,
			`warren_published_ports`:                           2,
			`warren_node_subnets`:                              1,
			`warren_nodes{availability="drain",state="ready"}`: 1,
			`warren_sessions`:                                  3,
			`warren_certificate_expiry_timestamp_seconds`:      1000,
			`warren_tasks_created_total`:                       4,
		})
	})
}

func TestWhatBecomesOfTasksIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		created := statetest.Created(time.Now())
		r.put(t, statetest.Replicated("web", 1), statetest.Node("n1"))
		r.put(t, statetest.Task("t1", "web", 1, "", created, statetest.In(warrenv1.TaskState_TASK_STATE_PENDING), attempt(0)))
		time.Sleep(2 * time.Second)
		r.put(t, statetest.Task("t1", "web", 1, "n1", created, statetest.In(warrenv1.TaskState_TASK_STATE_ASSIGNED), attempt(0)))
		r.put(t, statetest.Task("t1", "web", 1, "n1", created, statetest.In(warrenv1.TaskState_TASK_STATE_PREPARING)))
		time.Sleep(time.Second)
		r.put(t, statetest.Task("t1", "web", 1, "n1", created))
		r.put(t, statetest.Task("t1", "web", 1, "n1", created, statetest.NotServing)) // news, but none that counts
		r.put(t, statetest.Task("t1", "web", 1, "n1", created, statetest.In(warrenv1.TaskState_TASK_STATE_STARTING), attempt(2)))
		r.put(t, statetest.Task("t1", "web", 1, "n1", created, attempt(2)))
		r.put(t, statetest.Task("t1", "web", 1, "n1", created, attempt(4)))
		r.put(t, statetest.Task("t1", "web", 1, "n1", created, statetest.In(warrenv1.TaskState_TASK_STATE_LOST), attempt(4)))
		r.expect(t, map[string]float64{
			"warren_tasks_created_total":             1,
			"warren_task_scheduling_seconds":         1,
			"warren_task_start_seconds":              1,
			"warren_task_restarts_total":             3,
			`warren_tasks_ended_total{state="lost"}`: 1,
		})
		families := metricstest.Families(t, r.Gatherer())
		for name, want := range map[string]float64{"warren_task_scheduling_seconds": 2, "warren_task_start_seconds": 3} {
			if got := families[name].GetMetric()[0].GetHistogram().GetSampleSum(); got != want {
				t.Errorf("%s: %v seconds, want %v", name, got, want)
			}
		}
	})
}

// A manager that is started reads its log again, and with it what became of tasks hours ago.
func TestWhatBecameOfTasksBeforeIsNotMeasuredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour)
		r := newRig(t)
		r.put(t, statetest.Replicated("web", 1), statetest.Node("n1"))
		r.put(t, statetest.Task("t1", "web", 1, "", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING), attempt(0)))
		r.put(t, statetest.Task("t1", "web", 1, "n1", attempt(2)))
		r.put(t, statetest.Task("t1", "web", 1, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_LOST), attempt(2)))
		r.expect(t, map[string]float64{
			"warren_tasks_created_total":     0,
			"warren_task_scheduling_seconds": 0,
			"warren_task_restarts_total":     0,
		})
	})
}

func attempt(n uint32) func(*warrenv1.Task) {
	return func(t *warrenv1.Task) { t.Status.Attempt = n }
}

func TestCallsLoopsAndWritesAreCountedByHowTheyEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.figures = consensus.Figures{Leading: true, Voters: 3, Members: 4, Term: 7, LastIndex: 30, CommitIndex: 20, AppliedIndex: 10, Waiting: 5, Silence: 2 * time.Second}
		r.Called("/warren.v1.NodeService/ListNodes", "ok", time.Millisecond)
		r.Called("/warren.v1.NodeService/ListNodes", "unavailable", time.Millisecond)
		ended := r.Streaming("/warren.v1.LogService/ReadLogs")
		r.expect(t, map[string]float64{`warren_api_streams{rpc="LogService/ReadLogs"}`: 1})
		ended("canceled")
		r.Round("replicas", loop.Round{Changes: 12, Applied: 3, Overtaken: 2, Malformed: 1})
		r.Wrote(10, 3, time.Millisecond, nil)
		r.Wrote(4, 0, time.Second, errors.New("the lead was lost"))
		r.expect(t, map[string]float64{
			`warren_api_calls_total{code="ok",rpc="NodeService/ListNodes"}`:          1,
			`warren_api_calls_total{code="unavailable",rpc="NodeService/ListNodes"}`: 1,
			`warren_api_calls_total{code="canceled",rpc="LogService/ReadLogs"}`:      1,
			`warren_api_call_seconds{rpc="NodeService/ListNodes"}`:                   2,
			`warren_api_streams{rpc="LogService/ReadLogs"}`:                          0,
			`warren_loop_round_seconds{loop="replicas"}`:                             1,
			`warren_loop_proposals_total{loop="replicas",outcome="applied"}`:         3,
			`warren_loop_proposals_total{loop="replicas",outcome="overtaken"}`:       2,
			`warren_loop_proposals_total{loop="replicas",outcome="malformed"}`:       1,
			`warren_raft_transactions_total{outcome="applied"}`:                      7,
			`warren_raft_transactions_total{outcome="refused"}`:                      3,
			`warren_raft_transactions_total{outcome="failed"}`:                       4,
			`warren_raft_commit_seconds`:                                             1,
			`warren_raft_leading`:                                                    1,
			`warren_raft_managers{vote="yes"}`:                                       3,
			`warren_raft_managers{vote="no"}`:                                        1,
			`warren_raft_term`:                                                       7,
			`warren_raft_last_index`:                                                 30,
			`warren_raft_commit_index`:                                               20,
			`warren_raft_applied_index`:                                              10,
			`warren_raft_waiting_proposals`:                                          5,
			`warren_raft_leader_silence_seconds`:                                     2,
		})
		r.locked = true
		r.expect(t, map[string]float64{`warren_raft_leading`: 0})
	})
}

// BenchmarkWhatACreatedServiceCosts is all that metrics add to the creation of a service with one task, until that runs.
func BenchmarkWhatACreatedServiceCosts(b *testing.B) {
	store := state.NewStore()
	m := metrics.New(metrics.Sources{Snapshot: store.Snapshot})
	_, feed := store.Watch()
	statetest.Put(b, store, statetest.Replicated("web", 1), statetest.Node("n1"),
		statetest.Task("t1", "web", 1, "", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)),
		statetest.Task("t1", "web", 1, "n1"))
	changes := feed.Take().Changes
	b.ReportAllocs()
	for b.Loop() {
		m.Called("/warren.v1.ServiceService/CreateService", "ok", time.Millisecond)
		for range 7 * 4 { // each loop is woken by the service, its task, that it is assigned, and that it runs
			m.Round("scheduler", loop.Round{Changes: 1, Applied: 1})
		}
		for range 4 {
			m.Wrote(1, 0, time.Millisecond, nil)
		}
		m.See(changes, time.Time{})
	}
}

// BenchmarkScrape is one scrape of a manager of a hundred services with a hundred tasks each.
func BenchmarkScrape(b *testing.B) {
	store := state.NewStore()
	m := metrics.New(metrics.Sources{
		Snapshot: store.Snapshot, Sessions: func() int { return 0 },
		Raft:               func() (consensus.Figures, bool) { return consensus.Figures{}, true },
		CertificateExpires: func() time.Time { return time.Time{} },
	})
	for s := range 100 {
		name := fmt.Sprint("s", s)
		objects := []state.Object{statetest.Replicated(name, 100)}
		for n := range uint32(100) {
			objects = append(objects, statetest.Task(fmt.Sprint(name, "t", n), name, n+1, "n1"))
		}
		statetest.Put(b, store, objects...)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Gatherer().Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
