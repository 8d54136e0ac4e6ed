package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cuemby/warren/internal/agent/runtime/ocispec"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Container is one attempt of one task.
type Container struct {
	// ID is TASKID-ATTEMPT.
	ID                     string
	TaskID, TaskName       string
	ServiceID, ServiceName string
	NodeID, NodeHostname   string
	Slot, Attempt          uint32
	// Image is what Pull returned.
	Image Image
	// Place is where it is on the overlay; zero on another network.
	Place Place
	Spec  *warrenv1.TaskSpec
}

// Place is a task's place on the overlay, made before any container of the task and there after it.
type Place struct {
	// Namespace is the path of the network namespace, whose links are up, loopback with them.
	Namespace string
	Address   netip.Addr
	// ResolvConf is the content of /etc/resolv.conf; the image's own is left where there is none.
	ResolvConf []byte
}

// Process is a container's first process, in the node's process namespace.
type Process struct {
	Pid uint32
}

// Create makes a container and its first process, ready to be started. Where a container of
// the id exists it is removed first. Where Create fails nothing is left; its errors are made for the
// task's owner to read.
func (r *Runtime) Create(ctx context.Context, c Container) (Process, error) {
	var process Process
	err := r.do(ctx, func(ctx context.Context) (err error) {
		// Code that is not ours reads here what users and images say: its fault must cost one task, not the
		// agent, which would meet it again after each restart and hand it on to the next node.
		defer r.outlive(&err, c)
		process, err = r.create(ctx, c)
		return err
	})
	if err != nil {
		return Process{}, fmt.Errorf("create container %s: %w", c.ID, plain(err))
	}
	return process, nil
}

// outlive makes an error of a panic.
func (r *Runtime) outlive(err *error, c Container) {
	if panicked := recover(); panicked != nil {
		r.logger.Error("creating a container panicked", "task", c.TaskID, "attempt", c.Attempt, "panic", panicked, "stack", string(debug.Stack()))
		*err = errors.New("a fault of the agent; its log says more")
	}
}

func (r *Runtime) create(ctx context.Context, c Container) (Process, error) {
	config, err := r.imageConfig(ctx, c.Image)
	if err != nil {
		return Process{}, err
	}
	process, err := r.createFrom(ctx, c, config)
	if errdefs.IsAlreadyExists(err) {
		// Left over from a call that did not come to its end.
		if err := r.remove(ctx, c.ID); err != nil {
			return Process{}, fmt.Errorf("remove what is left of an earlier attempt: %w", err)
		}
		process, err = r.createFrom(ctx, c, config)
	}
	if err == nil {
		return process, nil
	}
	if errdefs.IsUnavailable(err) {
		return Process{}, err // nothing can be cleaned up now; the next try does
	}
	if errdefs.IsNotFound(err) {
		r.images.forget(c.Image.Digest) // the image's layers may be what is missing
	}
	if removeErr := r.remove(context.WithoutCancel(ctx), c.ID); removeErr != nil {
		r.logger.Warn("a container that could not be created could not be removed either",
			"task", c.TaskID, "attempt", c.Attempt, "error", removeErr)
	}
	r.expectAny(c.ID)
	return Process{}, err
}

// createFrom makes, in this order: the container's record, which names the snapshot and keeps
// containerd's garbage collector away from it; the snapshot; the pipes; the process. Whatever of it
// exists after a crash is found by the record's labels.
func (r *Runtime) createFrom(ctx context.Context, c Container, config *imageConfig) (Process, error) {
	stopSignal, err := chooseStopSignal(c.Spec.GetContainer(), config.StopSignal)
	if err != nil {
		return Process{}, err
	}
	labels, err := containerLabels(c, stopSignal)
	if err != nil {
		return Process{}, err
	}
	in := ocispec.Input{
		ID: c.ID,
		Names: ocispec.Names{
			ServiceName: c.ServiceName, TaskID: c.TaskID, Slot: c.Slot,
			NodeID: c.NodeID, NodeHostname: c.NodeHostname,
		},
		Spec: c.Spec, Image: config.ImageConfig, Host: r.host, CgroupParent: r.options.CgroupParent,
		NetworkNamespace: c.Place.Namespace,
	}
	if c.Spec.GetContainer().GetInit() {
		in.Files.Init = r.options.InitBinary
	}
	if in.User, err = r.resolveUser(ctx, c, config); err != nil {
		return Process{}, err
	}
	if in.Files, err = r.writeFiles(in, c.Place); err != nil {
		return Process{}, err
	}
	spec, err := ocispec.Build(in)
	if err != nil {
		return Process{}, err
	}
	if err := checkSources(spec); err != nil {
		return Process{}, err
	}
	if c.Spec.GetContainer().GetSeccomp() != warrenv1.SeccompProfile_SECCOMP_PROFILE_UNCONFINED {
		spec.Linux.Seccomp = defaultSeccomp(spec, config.runsNarrow())
	}
	encoded, err := typeurl.MarshalAny(spec)
	if err != nil {
		return Process{}, fmt.Errorf("encode spec: %w", err)
	}
	extensions, err := healthExtensions(c.Image.Health)
	if err != nil {
		return Process{}, fmt.Errorf("encode health check: %w", err)
	}
	if _, err := r.client.ContainerService().Create(ctx, containers.Container{
		ID:          c.ID,
		Labels:      labels,
		Image:       c.Image.Name,
		Runtime:     containers.RuntimeInfo{Name: shim},
		Spec:        encoded,
		SnapshotKey: c.ID,
		Snapshotter: r.options.Snapshotter,
		Extensions:  extensions,
	}); err != nil {
		return Process{}, err
	}
	rootfs, err := r.client.SnapshotService(r.options.Snapshotter).Prepare(ctx, c.ID, config.chainID)
	if err != nil {
		return Process{}, fmt.Errorf("prepare root file system: %w", err)
	}
	return r.createProcess(ctx, c, spec, rootfs)
}

// createProcess starts the shim, which opens the pipes, and has runc make the process.
func (r *Runtime) createProcess(ctx context.Context, c Container, spec *specs.Spec, rootfs []mount.Mount) (Process, error) {
	out, err := r.makeOutput(c.ID, spec.Process.Terminal)
	if err != nil {
		return Process{}, err
	}
	request := &tasks.CreateTaskRequest{
		ContainerID: c.ID,
		Terminal:    spec.Process.Terminal,
		Stdout:      r.pipePath(c.ID, stdout),
	}
	if !spec.Process.Terminal {
		request.Stderr = r.pipePath(c.ID, stderr)
	}
	for _, m := range rootfs {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	response, err := r.client.TaskService().Create(ctx, request)
	if err != nil {
		out.discard()
		return Process{}, errgrpc.ToNative(err)
	}
	r.expect(c.ID, response.GetPid())
	if err := out.start(r, c.ID, c.TaskID, c.Spec.GetLog()); err != nil {
		out.discard()
		return Process{}, err
	}
	return Process{Pid: response.GetPid()}, nil
}

// Start runs the program of a created container. Starting it again is no error.
func (r *Runtime) Start(ctx context.Context, id string) (Process, error) {
	var process Process
	err := r.do(ctx, func(ctx context.Context) error {
		response, err := r.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: id})
		if err = errgrpc.ToNative(err); err == nil {
			process.Pid = response.GetPid()
			return nil
		}
		if errdefs.IsUnavailable(err) || errdefs.IsNotFound(err) {
			return err
		}
		// The answer to an earlier call may have been lost.
		state, stateErr := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
		if stateErr != nil || processState(state.GetProcess().GetStatus()) != StateRunning {
			return err
		}
		process.Pid = state.GetProcess().GetPid()
		return nil
	})
	if err != nil {
		return Process{}, fmt.Errorf("start container %s: %w", id, plain(err))
	}
	r.markStarted(id)
	return process, nil
}

// checkSources refuses mounts of what is not there: runc's words for it are hard to understand.
func checkSources(spec *specs.Spec) error {
	for _, m := range spec.Mounts {
		if m.Type != "bind" {
			continue
		}
		if _, err := os.Stat(m.Source); err != nil {
			return fmt.Errorf("mount %s: %s does not exist on this node: create it there, or correct the mount's source", m.Destination, m.Source)
		}
	}
	return nil
}

// markStarted remembers when a container was started, for after a restart of the agent.
func (r *Runtime) markStarted(id string) {
	// What is lost without the file is a time shown to people.
	if err := os.WriteFile(r.containerPath(id, "started"), nil, 0o600); err != nil {
		r.logger.Debug("a container's start could not be noted", "container", id, "error", err)
	}
}

func (r *Runtime) startedAt(id string) time.Time {
	info, err := os.Stat(r.containerPath(id, "started"))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// containerPath is where the files of a container are.
func (r *Runtime) containerPath(id string, name ...string) string {
	return filepath.Join(append([]string{r.options.StateDir, "containers", id}, name...)...)
}

// plain takes the names of the programs that handed an error on out of it.
func plain(err error) error {
	text := err.Error()
	short := strings.TrimSuffix(text, ": unknown")
	for _, noise := range []string{
		"failed to create shim task: ", "OCI runtime create failed: ", "OCI runtime start failed: ",
		"runc create failed: ", "runc start failed: ", "unable to start container process: ",
	} {
		short = strings.ReplaceAll(short, noise, "")
	}
	if short == text {
		return err
	}
	return &plainError{text: short, err: err}
}

type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }
