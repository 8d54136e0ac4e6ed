package supervisor

import (
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Tracer is told of the steps by which tasks that are part of a trace come to run for the first time, each when it is over;
// it must be quick.
type Tracer interface {
	// Step is told of a step, and why it failed; nil where it did not. The assignment must not be changed.
	Step(a *warrenv1.Assignment, step string, began, ended time.Time, err error)
}

// Steps, in the order in which they happen. One that fails for a reason that may pass is tried again, and told again.
const (
	// StepReceive is from where the assignment has come to where its task is begun with.
	StepReceive = "receive assignment"
	StepPull    = "pull image"
	StepAttach  = "attach to network"
	StepTurn    = "wait for turn"
	StepCreate  = "create container"
	StepStart   = "start container"
	// StepServe is from where the program runs to where it is sent connections.
	StepServe = "become ready"
)

// step tells of a step of an attempt that has just ended. Only the first attempt is on the way of which a trace tells.
func (t *task) step(c *container, a *warrenv1.Assignment, step string, began time.Time, err error) {
	if t.Tracer == nil || c.attempt != 1 || a.GetTask().GetTrace() == "" {
		return
	}
	t.Tracer.Step(a, step, began, time.Now(), err)
}
