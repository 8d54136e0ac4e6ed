package traces_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	sdktest "go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	"github.com/cuemby/warren/internal/manager/traces"
	"github.com/cuemby/warren/internal/traceparent"
	"github.com/cuemby/warren/internal/tracing"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

	pending   = warrenv1.TaskState_TASK_STATE_PENDING
	assigned  = warrenv1.TaskState_TASK_STATE_ASSIGNED
	preparing = warrenv1.TaskState_TASK_STATE_PREPARING
	running   = warrenv1.TaskState_TASK_STATE_RUNNING
	rejected  = warrenv1.TaskState_TASK_STATE_REJECTED
	shutdown  = warrenv1.TaskState_TASK_STATE_SHUTDOWN
)

// rig is a manager's traces with a state of their own, which they follow.
type rig struct {
	*traces.Traces
	t      *testing.T
	spans  *sdktest.InMemoryExporter
	store  *state.Store
	leader bool
	since  time.Time // it leads
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, spans: sdktest.NewInMemoryExporter(), store: statetest.New(t, statetest.Node("n1")), leader: true}
	r.Traces = traces.New(tracing.New(tracing.Options{Sample: 1}, sdk.NewSimpleSpanProcessor(r.spans)), func() (time.Time, bool) { return r.since, r.leader })
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

// put writes a task that is at that state now, and returns when that has been seen.
func (r *rig) put(s warrenv1.TaskState, edits ...func(*warrenv1.Task)) *warrenv1.Task {
	r.t.Helper()
	node := "n1"
	if s == pending {
		node = ""
	}
	t := statetest.Task("t1", "web", 1, node, statetest.In(s), func(t *warrenv1.Task) {
		now := timestamppb.Now()
		t.Trace, t.Meta.CreatedAt, t.Meta.UpdatedAt, t.Status.Since = parent, r.store.Snapshot().Task("t1").GetMeta().GetCreatedAt(), now, now
		if t.Meta.CreatedAt == nil {
			t.Meta.CreatedAt = now
		}
	})
	for _, edit := range edits {
		edit(t)
	}
	statetest.Put(r.t, r.store, t)
	synctest.Wait()
	return r.store.Snapshot().Task("t1")
}

// expect fails the test where the spans told since the last time are not these, written as NAME LENGTH.
func (r *rig) expect(want ...string) sdktest.SpanStubs {
	r.t.Helper()
	synctest.Wait()
	spans := r.spans.GetSpans()
	r.spans.Reset()
	var got []string
	for _, s := range spans {
		got = append(got, s.Name+" "+s.EndTime.Sub(s.StartTime).String())
	}
	if !slices.Equal(got, want) {
		r.t.Errorf("told %q, want %q", got, want)
	}
	return spans
}

func TestTheWayOfATaskIsToldStepByStepBelowItsOwnSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.put(pending)
		r.expect()
		time.Sleep(2 * time.Second)
		task := r.put(assigned)
		spans := r.expect("schedule 2s")
		time.Sleep(time.Second)
		r.Sent(r.store.Snapshot(), &warrenv1.Assignments{Tasks: []*warrenv1.Assignment{{Task: task}}})
		spans = append(spans, r.expect("dispatch 1s")...)
		r.put(preparing)
		r.expect()
		r.put(running, statetest.NotServing, func(t *warrenv1.Task) {
			t.Status.Since = timestamppb.New(time.Now().Add(-time.Second)) // as the agent has seen it
		})
		spans = append(spans, r.expect("report 1s")...)
		time.Sleep(time.Minute)
		r.put(running)
		whole := r.expect("task 1m3s")
		if len(whole) != 1 || len(spans) != 3 {
			t.FailNow()
		}
		if got := whole[0]; got.SpanContext.TraceID().String() != traceparent.ID(parent) || got.Parent.SpanID().String() != parent[36:52] {
			t.Errorf("the task's span is %v, below %v", got.SpanContext, got.Parent)
		}
		for _, s := range spans {
			if s.Parent.SpanID() != whole[0].SpanContext.SpanID() {
				t.Errorf("%s is below %v", s.Name, s.Parent)
			}
		}
		told := map[string]string{}
		for _, a := range whole[0].Attributes {
			told[string(a.Key)] = a.Value.String()
		}
		if told["warren.task"] != "web.1" || told["warren.node"] != "n1" || told["warren.service"] != "web" || told["warren.task.id"] != "t1" {
			t.Errorf("it says %v", told)
		}
		// What happens to it later has to do with something else.
		r.put(running, statetest.NotServing)
		r.put(running)
		r.put(shutdown)
		r.expect()
	})
}

func TestATaskThatNeverServesIsToldWithWhatWentWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.put(assigned)
		r.put(rejected, func(t *warrenv1.Task) { t.Status.Error = "no such image" })
		if spans := r.expect("task 0s"); len(spans) == 1 && spans[0].Status.Description != "no such image" {
			t.Errorf("it says %v", spans[0].Status)
		}
	})
}

func TestOneManagerTellsAndWhoComesToLeadKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.leader = false
		r.put(pending)
		time.Sleep(time.Second)
		r.put(assigned)
		r.expect()
		r.leader = true
		r.put(running)
		r.expect("report 0s", "task 1s")
	})
}

func TestWhatAManagerSeesAgainWhenItIsStartedIsNotToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.since = statetest.Epoch.Add(time.Hour) // what is put bears that time
		r.put(pending)
		r.put(assigned)
		r.put(running)
		r.expect()
	})
}

func TestATaskWithoutATraceIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		untraced := func(t *warrenv1.Task) { t.Trace = "" }
		r.put(pending, untraced)
		task := r.put(assigned, untraced)
		r.Sent(r.store.Snapshot(), &warrenv1.Assignments{Tasks: []*warrenv1.Assignment{{Task: task}}})
		r.put(running, untraced)
		r.expect()
	})
}

func TestACallGoesOnWithItsCallersTraceAndWhatItWritesIsPartOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		header := http.Header{}
		header.Set("traceparent", parent)
		ctx, ended := r.Call(t.Context(), "/warren.v1.ServiceService/CreateService", header)
		if traceparent.ID(traceparent.From(ctx)) != traceparent.ID(parent) {
			t.Errorf("it is part of %q", traceparent.From(ctx))
		}
		write := state.New(time.Now())
		write.Create(statetest.Replicated("web", 1))
		if _, err := r.Writing("api", statetest.NewProposer(r.store)).Propose(ctx, write); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		ended(nil)
		spans := r.expect("write 0s", "ServiceService/CreateService 1s")
		if len(spans) == 2 && (spans[0].Parent.SpanID() != spans[1].SpanContext.SpanID() || spans[1].Parent.SpanID().String() != parent[36:52]) {
			t.Errorf("the write is below %v, the call below %v", spans[0].Parent, spans[1].Parent)
		}
		for code, failed := range map[connect.Code]bool{connect.CodeNotFound: false, connect.CodeUnavailable: true} {
			_, ended := r.Call(t.Context(), "/warren.v1.TaskService/GetTask", http.Header{})
			ended(connect.NewError(code, errors.New("no")))
			if spans := r.expect("TaskService/GetTask 0s"); len(spans) == 1 && (spans[0].Status.Description != "") != failed {
				t.Errorf("%v: it is a failure: %v", code, spans[0].Status)
			}
		}
	})
}

func TestWritesOfLoopsArePartOfTheTracesOfTheTasksThatTheyStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		loop := r.Writing("replicas", statetest.NewProposer(r.store))
		write := func(tasks ...*warrenv1.Task) {
			t.Helper()
			w := state.New(time.Now())
			for _, task := range tasks {
				w.Create(task)
			}
			if _, err := loop.Propose(t.Context(), w); err != nil {
				t.Fatal(err)
			}
		}
		of := func(trace string) func(*warrenv1.Task) { return func(t *warrenv1.Task) { t.Trace = trace } }
		other := strings.Replace(parent, "4bf9", "5cf9", 1)
		write(statetest.Task("a", "web", 1, "", statetest.In(pending), of(parent)), statetest.Task("b", "web", 2, "", statetest.In(pending), of(parent)),
			statetest.Task("c", "db", 1, "", statetest.In(pending), of(other)), statetest.Task("d", "log", 1, "", statetest.In(pending)))
		r.expect("write 0s", "write 0s")
		write(statetest.Task("e", "web", 3, "", statetest.In(pending)))
		r.expect()
	})
}

func TestWhatIsPassedOnIsPartOfTheSpanThatTellsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		header := httptest.NewRequest(http.MethodPost, "/", nil).Header
		header.Set(traceparent.Header, parent)
		ended := r.Passing("/warren.v1.ServiceService/CreateService", "m1", header)
		passed := header.Get(traceparent.Header)
		ended(errors.New("out of reach"))
		spans := r.expect("pass on to leader 0s")
		if len(spans) == 1 && (spans[0].SpanContext.SpanID().String() != passed[36:52] || traceparent.ID(passed) != traceparent.ID(parent) || spans[0].Status.Description != "out of reach") {
			t.Errorf("passed on with %q; told %+v", passed, spans[0])
		}
	})
}
