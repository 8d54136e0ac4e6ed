package traces_test

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	sdktest "go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/cuemby/warren/internal/agent/supervisor"
	"github.com/cuemby/warren/internal/agent/traces"
	"github.com/cuemby/warren/internal/traceparent"
	"github.com/cuemby/warren/internal/tracing"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestAStepIsASpanBelowThatOfItsTask(t *testing.T) {
	spans := sdktest.NewInMemoryExporter()
	of := traces.New(tracing.New(tracing.Options{}, sdk.NewSimpleSpanProcessor(spans)), "n1")
	began := time.Unix(1000, 0)
	a := &warrenv1.Assignment{
		Task: &warrenv1.Task{Meta: &warrenv1.Meta{Id: "t1"}, ServiceName: "web", Slot: 2, Trace: parent},
		Spec: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "hello:1"}},
	}
	of.Step(a, supervisor.StepPull, began, began.Add(time.Second), errors.New("unauthorized: \xff"+strings.Repeat("é", 5000)))
	a.Task.Trace = "rubbish"
	of.Step(a, supervisor.StepStart, began, began, nil)
	all := spans.GetSpans()
	if len(all) != 1 {
		t.Fatalf("told %d spans", len(all))
	}
	s, told := all[0], map[string]string{}
	for _, a := range s.Attributes {
		told[string(a.Key)] = a.Value.String()
	}
	if s.Name != "pull image" || s.Parent.SpanID().String() != traceparent.Below(parent, "t1")[36:52] || !strings.HasPrefix(s.Status.Description, "unauthorized: \uFFFDéé") ||
		!utf8.ValidString(s.Status.Description) || len(s.Status.Description) > 5000 ||
		s.EndTime.Sub(s.StartTime) != time.Second || told["warren.task"] != "web.2" || told["warren.node"] != "n1" || told["warren.image"] != "hello:1" {
		t.Errorf("told %+v with %v", s, told)
	}
}
