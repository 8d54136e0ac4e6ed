package prober

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// What a check means where it says nothing.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
)

// Check says how and when to probe a program.
type Check struct {
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries, SuccessThreshold                     uint32
	// Restarts says that a program which is unhealthy is to be restarted. Else it is left running.
	Restarts bool

	probe probe
}

// probe is one way to ask a program.
type probe interface {
	// run asks it once. One that needs more of the node than a connection says when that is over: launched may be
	// called or not.
	run(ctx context.Context, p *Prober, at Target, timeout time.Duration, launched func()) Result
	// kind is what it is called where probes are counted.
	kind() string
}

// Merge says how a task is to be probed, by its template and by its image's own HEALTHCHECK, each nil where there
// is none: nil if it is not. What the template sets takes precedence.
func Merge(template, image *warrenv1.HealthCheck) *warrenv1.HealthCheck {
	switch {
	case template.GetDisabled() || template.GetProbe() == nil && image.GetProbe() == nil:
		return nil
	case template.GetProbe() != nil:
		return template
	}
	merged := proto.CloneOf(image)
	template.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		merged.ProtoReflect().Set(field, value)
		return true
	})
	return merged
}

// Compile makes sense of a health check that names a probe. Its errors name the field, for the task's owner to read.
func Compile(h *warrenv1.HealthCheck) (*Check, error) {
	c := &Check{
		Interval:         orDefault(h.GetInterval(), defaultInterval),
		Timeout:          orDefault(h.GetTimeout(), defaultTimeout),
		StartPeriod:      max(0, h.GetStartPeriod().AsDuration()),
		Retries:          cmp.Or(h.GetRetries(), defaultRetries),
		SuccessThreshold: cmp.Or(h.GetSuccessThreshold(), 1),
		Restarts:         h.GetOnFailure() != warrenv1.UnhealthyAction_UNHEALTHY_ACTION_WITHDRAW,
	}
	c.StartInterval = orDefault(h.GetStartInterval(), min(defaultStartInterval, c.Interval))
	var err error
	switch {
	case h.GetHttp() != nil:
		c.probe, err = compileHTTP(h.GetHttp())
	case h.GetTcp() != nil:
		c.probe = tcpProbe{port: uint16(h.GetTcp().GetPort())}
	case h.GetGrpc() != nil:
		c.probe = newGRPC(h.GetGrpc())
	case h.GetExec() != nil:
		c.probe, err = compileExec(h.GetExec())
	default:
		err = errors.New("health: it names no probe")
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func orDefault(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d := d.AsDuration(); d > 0 {
		return d
	}
	return otherwise
}
