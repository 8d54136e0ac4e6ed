package manager_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager"
	"github.com/cuemby/warren/internal/traceparent"
	"github.com/cuemby/warren/internal/tracing"
	"github.com/cuemby/warren/internal/tracing/tracetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// parent is a trace that a caller has begun.
const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// createTraced creates a service as part of a trace and waits until its tasks have looked for a node.
func createTraced(t *testing.T, r *running, name string) (*warrenv1.Service, *warrenv1.Task) {
	t.Helper()
	request := create(name, 1)
	request.Header().Set(traceparent.Header, parent)
	created, err := r.services.CreateService(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := r.services.WatchService(t.Context(), connect.NewRequest(&warrenv1.WatchServiceRequest{Ref: name}))
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	for watch.Receive() {
		tasks, err := r.tasks.ListTasks(t.Context(), connect.NewRequest(&warrenv1.ListTasksRequest{Service: name}))
		if err != nil {
			t.Fatal(err)
		}
		if entries := tasks.Msg.GetTasks(); len(entries) > 0 && entries[0].GetTask().GetStatus().GetMessage() != "" {
			return created.Msg.GetService(), entries[0].GetTask()
		}
	}
	t.Fatal(watch.Err())
	return nil, nil
}

func TestWhatFollowsFromACallIsPartOfItsTrace(t *testing.T) {
	receiver := tracetest.NewReceiver()
	server := httptest.NewServer(receiver)
	defer server.Close()
	r := start(t, t.TempDir(), func(o *manager.Options) {
		o.Tracing = tracing.Options{Endpoint: server.URL, Sample: 0, Service: "warren-manager", Host: "m1"}
	})
	r.init(t)
	service, task := createTraced(t, r, "web")
	if task.GetTrace() == "" || task.GetTrace() != service.GetTrace() || traceparent.ID(task.GetTrace()) != traceparent.ID(parent) {
		t.Errorf("service %q, task %q", service.GetTrace(), task.GetTrace())
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	spans, _ := receiver.Await(ctx, func(spans []tracetest.Span) bool {
		told := tracetest.Tell(spans)
		return strings.Contains(told, "write of scheduler") && strings.Contains(told, "CreateService")
	})
	for _, want := range []string{"\n  ServiceService/CreateService (", "\n    write of api (", "\n    write of replicas (", "\n    write of scheduler ("} {
		if told := tracetest.Tell(spans); !strings.Contains(told, want) {
			t.Errorf("%q is not told:\n%s", want, told)
		}
	}
	// A change that is no part of a trace ends what the earlier one began.
	scaled, err := r.services.ScaleService(t.Context(), connect.NewRequest(&warrenv1.ScaleServiceRequest{Ref: "web", Replicas: 2}))
	if err != nil || scaled.Msg.GetService().GetTrace() != "" {
		t.Errorf("%v, %v", scaled, err)
	}
	for _, s := range receiver.Spans() {
		if s.Trace != traceparent.ID(parent) {
			t.Errorf("a trace that nobody wanted: %+v", s)
		}
	}
}

func TestWithoutAnEndpointNothingIsTraced(t *testing.T) {
	r := start(t, t.TempDir())
	r.init(t)
	if service, task := createTraced(t, r, "web"); service.GetTrace() != "" || task.GetTrace() != "" {
		t.Errorf("service %q, task %q", service.GetTrace(), task.GetTrace())
	}
}
