package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/state"
	shared "github.com/cuemby/warren/internal/metrics"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// course measures the ways of tasks by the changes of the state.
type course struct {
	placing, starting prometheus.Histogram
	created, restarts prometheus.Counter
	ended             *prometheus.CounterVec
}

func newCourse() course {
	return course{
		placing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "warren_task_scheduling_seconds", Help: "How long tasks that were given a node had waited for one since they were created.", Buckets: shared.Slow(),
		}),
		starting: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "warren_task_start_seconds", Help: "How long tasks that came to run for the first time had taken since they were created.", Buckets: shared.Slow(),
		}),
		created: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "warren_tasks_created_total", Help: "Tasks that were created.",
		}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "warren_task_restarts_total", Help: "Starts of tasks' programs after their first one, on the same node.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "warren_tasks_ended_total", Help: "Tasks that ended, by how.",
		}, []string{"state"}),
	}
}

func (c course) all() []prometheus.Collector {
	return []prometheus.Collector{c.placing, c.starting, c.created, c.restarts, c.ended}
}

// see takes one change into account.
func (c course) see(change state.Change, now time.Time) {
	after, is := change.After.(*warrenv1.Task)
	if !is {
		return
	}
	before, _ := change.Before.(*warrenv1.Task)
	if before == nil {
		c.created.Inc()
	}
	was, is2 := before.GetStatus(), after.GetStatus()
	age := func() float64 { return max(0, now.Sub(after.GetMeta().GetCreatedAt().AsTime()).Seconds()) }
	if before.GetNodeId() == "" && after.GetNodeId() != "" {
		c.placing.Observe(age())
	}
	if running := warrenv1.TaskState_TASK_STATE_RUNNING; is2.GetState() == running && is2.GetAttempt() <= 1 && was.GetState() < running {
		c.starting.Observe(age())
	}
	if again := is2.GetAttempt(); again > 1 && again > was.GetAttempt() {
		c.restarts.Add(float64(again - max(1, was.GetAttempt())))
	}
	if lifecycle.Ended(is2.GetState()) && !lifecycle.Ended(was.GetState()) {
		c.ended.WithLabelValues(taskState(is2.GetState())).Inc()
	}
}
