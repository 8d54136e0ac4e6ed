package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/cuemby/warren/internal/agent/facts"
	"github.com/cuemby/warren/internal/agent/prober"
	"github.com/cuemby/warren/internal/agent/runtime"
	"github.com/cuemby/warren/internal/agent/supervisor"
)

// containers gives the supervisor its view of the container runtime, which does not know it.
type containers struct{ *runtime.Runtime }

var (
	_ supervisor.Runtime = containers{}
	_ prober.Executor    = containers{}
)

// Pull implements supervisor.Runtime.
func (c containers) Pull(ctx context.Context, image string, progress func(string)) (supervisor.Image, error) {
	pulled, err := c.Runtime.Pull(ctx, image, progress)
	return supervisor.Image(pulled), passing(err, func(err error) bool { return brokenLine(err) || runtime.RegistryOverloaded(err) })
}

// Create implements supervisor.Runtime.
func (c containers) Create(ctx context.Context, container supervisor.Container) (supervisor.Process, error) {
	image := runtime.Image(container.Image)
	process, err := c.Runtime.Create(ctx, runtime.Container{
		ID:           container.ID,
		TaskID:       container.TaskID,
		TaskName:     container.TaskName,
		ServiceID:    container.ServiceID,
		ServiceName:  container.ServiceName,
		NodeID:       container.NodeID,
		NodeHostname: container.NodeHostname,
		Slot:         container.Slot,
		Attempt:      container.Attempt,
		Image:        image,
		Place:        runtime.Place(container.Place),
		Spec:         container.Spec,
	})
	return supervisor.Process(process), err
}

// Start implements supervisor.Runtime.
func (c containers) Start(ctx context.Context, id string) (supervisor.Process, error) {
	process, err := c.Runtime.Start(ctx, id)
	// A container that was made and is not there was lost with the runtime's process: it is made anew.
	return supervisor.Process(process), passing(err, notFound)
}

// List implements supervisor.Runtime.
func (c containers) List(ctx context.Context) ([]supervisor.Found, error) {
	list, err := c.Runtime.List(ctx)
	found := make([]supervisor.Found, 0, len(list))
	for _, f := range list {
		found = append(found, supervisor.Found{
			ID:          f.ID,
			TaskID:      f.TaskID,
			Attempt:     f.Attempt,
			Running:     f.State == runtime.StateRunning,
			Pid:         f.Pid,
			Exit:        exit(f.Exit),
			ImageDigest: f.ImageDigest,
			StartedAt:   f.StartedAt,
			Health:      f.Health,
		})
	}
	return found, err
}

// Events implements supervisor.Runtime.
func (c containers) Events(ctx context.Context, on func(supervisor.Event)) error {
	return c.Runtime.Events(ctx, func(e runtime.Event) {
		switch e := e.(type) {
		case runtime.Exit:
			on(*exit(&e))
		case runtime.Resync:
			on(supervisor.Resync{})
		}
	})
}

// Exec implements prober.Executor.
func (c containers) Exec(ctx context.Context, e prober.Exec, launched func()) (prober.Execution, error) {
	execution, err := c.Runtime.Exec(ctx, runtime.Exec(e), launched)
	return prober.Execution(execution), err
}

// Info is what the runtime says of itself.
func (c containers) Info(ctx context.Context) (facts.Engine, error) {
	info, err := c.Runtime.Info(ctx)
	return facts.Engine{
		ContainerdVersion: info.ContainerdVersion,
		RuncVersion:       info.RuncVersion,
		DiskBytes:         info.DiskBytes,
		DiskFreeBytes:     info.DiskFreeBytes,
	}, err
}

func exit(e *runtime.Exit) *supervisor.Exit {
	if e == nil {
		return nil
	}
	return &supervisor.Exit{ID: e.ID, Code: e.Code, OOMKilled: e.OOMKilled, At: e.At}
}

// passing marks an error as one after which the same call may succeed, where it is of that kind.
func passing(err error, kind func(error) bool) error {
	if err != nil && kind(err) {
		return supervisor.Transient(err)
	}
	return err
}

func notFound(err error) bool {
	var missing interface{ NotFound() }
	return errors.As(err, &missing)
}

// brokenLine tells whether the way to a registry failed, as opposed to the registry's refusing. A name
// that does not exist is as good as a refusal.
func brokenLine(err error) bool {
	if unknown := (*net.DNSError)(nil); errors.As(err, &unknown) && unknown.IsNotFound {
		return false
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPIPE)
}
