package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/agent/logs"
)

const (
	// launchTime bounds how long launching a program may take, on a machine that is busy.
	launchTime = 30 * time.Second
	// burialTime bounds how long ending one and removing what it has may take.
	burialTime = 10 * time.Second
	// execOutput is how much of a program's output is kept: the last of it.
	execOutput = 4 << 10
)

// Exec is a program to be run in a container beside its first process.
type Exec struct {
	Container string
	// Name tells it from others in the container. One of a name runs at a time: what an agent has left that was killed
	// meanwhile is ended by the next of the same name.
	Name    string
	Command []string
	// Timeout is when it is killed, from when it runs.
	Timeout time.Duration
}

// Execution is what became of an Exec.
type Execution struct {
	Code     uint32
	TimedOut bool
	// Problem says why it could not be launched, where that lies with the command or the container.
	Problem string
	// Output is the last 4 KiB of what it printed, stdout and stderr together.
	Output string
}

// Exec runs a program as the container's first one runs: its user, environment, folder, limits. It returns when that
// has ended, was killed because it took too long or ctx ended, whose error is returned then. With any error it is not known what
// the program would have said. launched is called when it runs. Nothing is left of it, but what it has itself
// sent away into the container.
func (r *Runtime) Exec(ctx context.Context, e Exec, launched func()) (Execution, error) {
	result, err := r.exec(r.context(ctx), e, launched)
	if err != nil {
		return Execution{}, fmt.Errorf("run %s in container %s: %w", e.Name, e.Container, plain(err))
	}
	return result, nil
}

func (r *Runtime) exec(ctx context.Context, e Exec, launched func()) (result Execution, err error) {
	launching, cancel := context.WithTimeout(ctx, launchTime)
	defer cancel()
	process, err := r.execProcess(launching, e)
	if err != nil {
		return Execution{}, err
	}
	x := &execution{Runtime: r, Exec: e}
	// A pipe of its own: one that is left of an earlier agent may hold what that one's program printed. The folder is
	// the container's, which is not made anew for one that is being removed.
	if err := errors.Join(x.removePipe(), unix.Mkfifo(x.pipe(), 0o600)); err != nil {
		return Execution{}, fmt.Errorf("make output pipe %s: %w", x.pipe(), err)
	}
	pipe, err := logs.OpenPipe(x.pipe())
	if err != nil {
		return Execution{}, err
	}
	defer func() {
		pipe.Close()
		if removeErr := x.removePipe(); err == nil {
			err = removeErr
		}
	}()
	err = x.prepare(launching, process)
	if errdefs.IsAlreadyExists(err) {
		x.bury(launching)
		err = x.prepare(launching, process)
	}
	if err != nil {
		return Execution{}, err
	}
	defer x.bury(ctx)
	_, err = r.client.TaskService().Start(launching, &tasks.StartRequest{ContainerID: e.Container, ExecID: e.Name})
	if err = errgrpc.ToNative(err); err != nil {
		if launching.Err() == nil && !errdefs.IsUnavailable(err) && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
			return Execution{Problem: plain(err).Error()}, nil
		}
		return Execution{}, err
	}
	launched()
	return x.await(ctx, pipe)
}

// execution is one program on its way.
type execution struct {
	*Runtime
	Exec
}

func (x *execution) pipe() string { return x.containerPath(x.Container, "exec-"+x.Name) }

func (x *execution) removePipe() error {
	if err := os.Remove(x.pipe()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove output pipe: %w", err)
	}
	return nil
}

// execProcess is what is to be run, after the container's first process.
func (r *Runtime) execProcess(ctx context.Context, e Exec) (*specs.Process, error) {
	container, err := r.client.ContainerService().Get(ctx, e.Container)
	if err != nil {
		return nil, err
	}
	decoded, err := typeurl.UnmarshalAny(container.Spec)
	if err != nil {
		return nil, fmt.Errorf("decode spec: %w", err)
	}
	spec, ok := decoded.(*specs.Spec)
	if !ok || spec.Process == nil {
		return nil, errors.New("decode spec: it has no process")
	}
	process := spec.Process
	process.Args, process.CommandLine, process.Terminal, process.ConsoleSize = e.Command, "", false, nil
	return process, nil
}

// prepare makes the program known to the container's shim.
func (x *execution) prepare(ctx context.Context, process *specs.Process) error {
	encoded, err := typeurl.MarshalAnyToProto(process)
	if err != nil {
		return fmt.Errorf("encode process: %w", err)
	}
	_, err = x.client.TaskService().Exec(ctx, &tasks.ExecProcessRequest{
		ContainerID: x.Container, ExecID: x.Name, Spec: encoded, Stdout: x.pipe(), Stderr: x.pipe(),
	})
	return errgrpc.ToNative(err)
}

// await waits for the program's end while it reads what that prints.
func (x *execution) await(ctx context.Context, pipe *os.File) (Execution, error) {
	var output tail
	var reading sync.WaitGroup
	read := make(chan struct{})
	reading.Go(func() {
		defer close(read)
		_, _ = io.Copy(&output, pipe) // ends with the program, or with the pipe
	})
	defer reading.Wait()
	defer pipe.Close()

	running, cancel := context.WithTimeout(ctx, x.Timeout)
	defer cancel()
	response, err := x.client.TaskService().Wait(running, &tasks.WaitRequest{ContainerID: x.Container, ExecID: x.Name})
	err = errgrpc.ToNative(err)
	switch {
	case err == nil:
		// What it has printed may be on its way; a child that it has left behind may keep the pipe open.
		bound := time.NewTimer(drainTime)
		defer bound.Stop()
		select {
		case <-read:
		case <-bound.C:
		}
		return Execution{Code: response.GetExitStatus(), Output: output.String()}, nil
	case ctx.Err() != nil:
		return Execution{}, ctx.Err()
	case running.Err() != nil, errdefs.IsDeadlineExceeded(err): // containerd's clock may be the first to say so
		return Execution{TimedOut: true, Output: output.String()}, nil
	}
	return Execution{}, err
}

// bury ends the program if it runs, with the children that it has not sent away, and has its shim forget it. What
// containerd does not do now it does for the next of the same name, or with the container.
func (x *execution) bury(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), burialTime)
	defer cancel()
	service := x.client.TaskService()
	remove := func() error {
		_, err := service.DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: x.Container, ExecID: x.Name})
		return errgrpc.ToNative(err)
	}
	err := remove()
	if err == nil || errdefs.IsNotFound(err) {
		return
	}
	x.killGroup(ctx)
	_, err = service.Kill(ctx, &tasks.KillRequest{ContainerID: x.Container, ExecID: x.Name, Signal: uint32(syscall.SIGKILL)})
	if err = errgrpc.ToNative(err); err == nil {
		_, err = service.Wait(ctx, &tasks.WaitRequest{ContainerID: x.Container, ExecID: x.Name})
		err = errgrpc.ToNative(err)
	}
	if err == nil || errdefs.IsNotFound(err) {
		err = remove()
	}
	if err != nil && !errdefs.IsNotFound(err) {
		x.logger.Warn("a program that was run in a container could not be removed", "container", x.Container, "name", x.Name, "error", err)
	}
}

// killGroup ends the program and the children that share its process group: it leads one of its own. Without its
// children nothing would be left of a probe that a shell runs but the program that hangs.
func (x *execution) killGroup(ctx context.Context) {
	response, err := x.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: x.Container, ExecID: x.Name})
	if err != nil || processState(response.GetProcess().GetStatus()) != StateRunning {
		return
	}
	pid := int(response.GetProcess().GetPid())
	if group, err := unix.Getpgid(pid); err != nil || group != pid {
		return
	}
	if err := unix.Kill(-pid, unix.SIGKILL); err != nil {
		x.logger.Debug("the children of a program that was run in a container could not be killed", "container", x.Container, "error", err)
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p[max(0, len(p)-execOutput):]...)
	if surplus := len(t.kept) - execOutput; surplus > 0 {
		t.kept = append(t.kept[:0], t.kept[surplus:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
