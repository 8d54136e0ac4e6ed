package runtime

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
)

// Remove deletes a container with everything that belongs to it but its log, killing it first if it
// runs: an end that Remove brings about is no Exit. It succeeds where there is none.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	err := r.do(ctx, func(ctx context.Context) error { return r.remove(ctx, id) })
	if err != nil {
		return fmt.Errorf("remove container %s: %w", id, plain(err))
	}
	r.expectAny(id)
	r.collector.poke()
	return nil
}

// remove goes from the process down to the record, by which List finds what a crash leaves half done.
func (r *Runtime) remove(ctx context.Context, id string) error {
	r.expect(id, 0)
	if err := r.removeProcess(ctx, id); err != nil {
		return err
	}
	r.drain(ctx, id)
	r.dropOutput(id)
	r.unkeep(id)
	if err := r.client.SnapshotService(r.options.Snapshotter).Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete root file system: %w", err)
	}
	if err := os.RemoveAll(r.containerPath(id)); err != nil {
		return fmt.Errorf("delete files: %w", err)
	}
	if err := r.client.ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete record: %w", err)
	}
	return nil
}

// cleanupTime is how long containerd may take to notice that a shim has died and to clean up after it.
const cleanupTime = 5 * time.Second

// removeProcess ends and deletes a container's process, if it has one. A shim that has just died is met
// as a connection that closed; once containerd has cleaned up after it, there is no process.
func (r *Runtime) removeProcess(ctx context.Context, id string) error {
	deadline := time.Now().Add(cleanupTime)
	for {
		err := r.endProcess(ctx, id)
		if err == nil || !shimGone(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// shimGone says whether containerd failed to reach a shim. It hands the error of its own client on as
// text, without a code.
func shimGone(err error) bool { return strings.Contains(err.Error(), ttrpc.ErrClosed.Error()) }

// deathTime is how long a process may take to die of SIGKILL, and its shim to see to that. One that waits for a disk or a file
// server does not die before that answers; whoever removes it is told, and tries again.
const deathTime = 10 * time.Second

// endProcess kills first in any case: deleting a process that was created and not started makes the
// shim wait two seconds for output that cannot come.
func (r *Runtime) endProcess(ctx context.Context, id string) error {
	service := r.client.TaskService()
	dying, cancel := context.WithTimeout(ctx, deathTime)
	defer cancel()
	_, err := service.Kill(dying, &tasks.KillRequest{ContainerID: id, Signal: uint32(syscall.SIGKILL)})
	// One that has just ended cannot be killed, nor deleted before its shim has seen its end.
	if err = errgrpc.ToNative(err); err == nil || errdefs.IsNotFound(err) {
		_, err = service.Wait(dying, &tasks.WaitRequest{ContainerID: id})
		err = errgrpc.ToNative(err)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("kill process: %w", err)
	}
	_, err = service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete process: %w", err)
	}
	return nil
}
