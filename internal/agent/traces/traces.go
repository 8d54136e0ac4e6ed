package traces

import (
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/cuemby/warren/internal/agent/supervisor"
	"github.com/cuemby/warren/internal/traceparent"
	"github.com/cuemby/warren/internal/tracing"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// mostWords is how many bytes are told of why a step failed.
const mostWords = 4 << 10

// Traces are an agent's. It is safe for concurrent use.
type Traces struct {
	tracer   *tracing.Tracer
	hostname string
}

var _ supervisor.Tracer = (*Traces)(nil)

// New returns the traces of the agent of the machine of that name.
func New(tracer *tracing.Tracer, hostname string) *Traces { return &Traces{tracer, hostname} }

// Step implements supervisor.Tracer. The span is part of that of the task, which the managers tell.
func (t *Traces) Step(a *warrenv1.Assignment, step string, began, ended time.Time, err error) {
	task := a.GetTask()
	parent := traceparent.Below(task.GetTrace(), task.GetMeta().GetId())
	if parent == "" {
		return
	}
	s := tracing.Span{Parent: parent, Name: step, Began: began, Ended: ended, Attributes: tracing.Task(task, t.hostname)}
	if step == supervisor.StepPull {
		s.Attributes = append(s.Attributes, attribute.String("warren.image", a.GetSpec().GetContainer().GetImage()))
	}
	if err != nil {
		// It may quote an image or a registry, and no span can be sent with one that holds what is no text.
		s.Failed = strings.ToValidUTF8(err.Error()[:min(len(err.Error()), mostWords)], "\uFFFD")
	}
	t.tracer.Record(s)
}
