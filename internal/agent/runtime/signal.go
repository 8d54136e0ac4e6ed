package runtime

import (
	"context"
	"fmt"
	"syscall"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/moby/sys/signal"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Signal sends a signal to a container's first process. It is no error if that has ended, or
// there is no such container.
func (r *Runtime) Signal(ctx context.Context, id string, signal syscall.Signal) error {
	err := r.do(ctx, func(ctx context.Context) error {
		_, err := r.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(signal)})
		return errgrpc.ToNative(err)
	})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("signal container %s with %d: %w", id, signal, plain(err))
	}
	return nil
}

// StopSignal returns the signal that asks a container to end: its template's, else its image's, else
// SIGTERM.
func (r *Runtime) StopSignal(ctx context.Context, id string) (syscall.Signal, error) {
	var name string
	err := r.do(ctx, func(ctx context.Context) error {
		container, err := r.client.ContainerService().Get(ctx, id)
		name = container.Labels[labelStopSignal]
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("stop signal of container %s: %w", id, err)
	}
	return signal.ParseSignal(name)
}

// lastSignal is SIGRTMAX.
const lastSignal = 64

// chooseStopSignal returns the signal's name after checking that it is one. An image that says
// nonsense is not the user's fault.
func chooseStopSignal(container *warrenv1.ContainerSpec, image string) (string, error) {
	if name := container.GetStopSignal(); name != "" {
		if number, err := signal.ParseSignal(name); err != nil || number < 1 || number > lastSignal {
			return "", fmt.Errorf("stop_signal: %q is not a signal; signal(7) lists them", name)
		}
		return name, nil
	}
	if number, err := signal.ParseSignal(image); err == nil && number >= 1 && number <= lastSignal {
		return image, nil
	}
	return "SIGTERM", nil
}
