package tracing

import (
	"go.opentelemetry.io/otel/attribute"

	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Task says which task a span is about, on the node of that name. Managers and agents say it alike.
func Task(t *warrenv1.Task, hostname string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("warren.service", t.GetServiceName()),
		attribute.String("warren.task", lifecycle.Name(t, hostname)),
		attribute.String("warren.task.id", t.GetMeta().GetId()),
		attribute.Int64("warren.revision", int64(t.GetRevision())),
		attribute.String("warren.node", hostname),
	}
}
