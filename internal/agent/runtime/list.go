package runtime

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// State is what a container's first process is at.
type State string

const (
	// StateCreated waits to be started.
	StateCreated State = "created"
	StateRunning State = "running"
	// StateStopped has ended, or is gone.
	StateStopped State = "stopped"
)

// Found is a container that exists.
type Found struct {
	ID, TaskID string
	Attempt    uint32
	State      State
	// Pid is 0 where no process is.
	Pid uint32
	// Exit tells how a stopped container ended; nil where nobody knows, as after a reboot.
	Exit *Exit
	// ImageDigest is what its image's name meant when it was created.
	ImageDigest string
	// StartedAt is zero where that is not known.
	StartedAt time.Time
	// Health is its image's own HEALTHCHECK; nil where that has none.
	Health *warrenv1.HealthCheck
}

// List returns our containers as they are now.
func (r *Runtime) List(ctx context.Context) ([]Found, error) {
	var list []Found
	err := r.do(ctx, func(ctx context.Context) (err error) {
		list, err = r.list(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return list, nil
}

func (r *Runtime) list(ctx context.Context) ([]Found, error) {
	records, err := r.client.ContainerService().List(ctx, `labels."`+labelTask+`"`)
	if err != nil {
		return nil, err
	}
	response, err := r.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	processes := make(map[string]*task.Process, len(response.GetTasks()))
	for _, p := range response.GetTasks() {
		processes[p.GetID()] = p
	}
	r.unkeepStrays(func(id string) bool {
		return slices.ContainsFunc(records, func(record containers.Container) bool { return record.ID == id })
	})
	list := make([]Found, 0, len(records))
	for _, record := range records {
		// A label that does not parse was not written by us; 0 is no attempt.
		attempt, _ := strconv.ParseUint(record.Labels[labelAttempt], 10, 32)
		found := Found{
			ID:          record.ID,
			TaskID:      record.Labels[labelTask],
			Attempt:     uint32(attempt),
			State:       StateStopped,
			ImageDigest: record.Labels[labelDigest],
			StartedAt:   r.startedAt(record.ID),
			Health:      recordedHealth(record.Extensions),
		}
		p := processes[record.ID]
		if p == nil || p.GetStatus() == task.Status_UNKNOWN {
			found.State, found.Pid = r.behindShim(ctx, record.ID)
		} else if found.State = processState(p.GetStatus()); found.State == StateStopped {
			exit := r.exit(record.ID, p.GetExitStatus(), p.GetExitedAt().AsTime())
			found.Exit = &exit
		} else {
			found.Pid = p.GetPid()
		}
		list = append(list, found)
	}
	return list, nil
}

// behindShim is the state of a container of whose process containerd tells nothing: there is none, or its shim does not answer
// within the two seconds for which containerd waits for it. The kernel knows the process then; how it ended, if it did, nobody does.
func (r *Runtime) behindShim(ctx context.Context, id string) (State, uint32) {
	first, starts := firstProcess(r.cgroups, r.cgroup(id))
	if first == 0 {
		return StateStopped, 0
	}
	_, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if errdefs.IsNotFound(errgrpc.ToNative(err)) {
		return StateStopped, 0 // no shim keeps it
	}
	if starts {
		return StateCreated, first
	}
	return StateRunning, first
}

// cgroup is the control group of a container.
func (r *Runtime) cgroup(id string) string { return path.Join("/", r.options.CgroupParent, id) }

func processState(status task.Status) State {
	switch status {
	case task.Status_CREATED:
		return StateCreated
	case task.Status_STOPPED, task.Status_UNKNOWN:
		return StateStopped
	default: // running, paused and what is between them
		return StateRunning
	}
}

// exit puts together how a container ended. The kernel's count of kills says more than containerd's
// event of one, which may come after the exit, and it stays until the container is removed.
func (r *Runtime) exit(id string, code uint32, at time.Time) Exit {
	const killed = 128 + uint32(syscall.SIGKILL)
	return Exit{
		ID:        id,
		Code:      code,
		At:        at,
		OOMKilled: code == killed && memoryKills(r.cgroups, r.cgroup(id)) > 0,
	}
}
