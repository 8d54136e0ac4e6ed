package prober

import (
	"context"
	"errors"
	"fmt"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// execName is what the program of a probe is called beside the container's own. There is one at a time.
const execName = "health"

// Executor runs programs in containers; the container runtime is one.
type Executor interface {
	// Exec runs a program in a container, beside the one it was made for, and returns when it has ended: by
	// itself, or because it took longer than the timeout, or ctx ended, whose error is returned then. launched is
	// called when it runs. Any error says that the program did not run, for a reason that lies with the node.
	Exec(ctx context.Context, e Exec, launched func()) (Execution, error)
}

// Exec is a program to be run.
type Exec struct {
	Container string
	// Name tells it from others in the same container: no two of a name run at once.
	Name    string
	Command []string
	Timeout time.Duration
}

// Execution is what became of it.
type Execution struct {
	Code     uint32
	TimedOut bool
	// Problem says why it could not be launched, where that lies with the command or the container.
	Problem string
	// Output is the last of what it printed.
	Output string
}

// execProbe succeeds when a program in the container ends with exit code 0.
type execProbe struct {
	command []string
	name    string // as people know it
}

func compileExec(e *warrenv1.ExecProbe) (execProbe, error) {
	const nameLimit = 64
	command := e.GetCommand()
	if len(command) == 0 {
		return execProbe{}, errors.New("health.exec.command: it is empty")
	}
	name := cut(clean(command[0]), nameLimit)
	if e.GetShell() {
		command = []string{"/bin/sh", "-c", command[0]}
	}
	return execProbe{command, name}, nil
}

func (execProbe) kind() string { return "exec" }

func (e execProbe) run(ctx context.Context, p *Prober, at Target, timeout time.Duration, launched func()) Result {
	ran, err := p.options.Executor.Exec(ctx, Exec{Container: at.Container, Name: execName, Command: e.command, Timeout: timeout}, launched)
	printed := cutFront(clean(ran.Output), outputLimit-128)
	switch {
	case err != nil:
		return Unknown("cannot probe: " + err.Error())
	case ran.Problem != "":
		return Failed(ran.Problem)
	case ran.TimedOut:
		return Failed(joined(fmt.Sprintf("%s did not end within %s", e.name, timeout), printed))
	case ran.Code != 0:
		return Failed(joined(fmt.Sprintf("%s: exit code %d", e.name, ran.Code), printed))
	}
	return Succeeded()
}
