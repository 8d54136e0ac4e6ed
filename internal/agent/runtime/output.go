package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/cuemby/warren/internal/agent/logs"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// drainTime is how long an ended container's output is waited for. Its pipes end with its last
// process; only one that left the container's process namespace could keep them open.
const drainTime = 250 * time.Millisecond

// output is the reading of one container's pipes.
type output struct {
	stdout, stderr *os.File // stderr is nil for a terminal
	writer         *logs.Writer
	pumps          sync.WaitGroup
	ended          chan struct{} // closed when all was read and written
}

func (r *Runtime) pipePath(id, stream string) string { return r.containerPath(id, stream) }

// Keeper holds the reading ends of pipes while no agent is there to. Keeping, taking back and dropping
// go by names.
type Keeper interface {
	Keep(name string, file *os.File) error
	// Take returns what an earlier agent has kept; nil if nothing.
	Take(name string) *os.File
	Drop(name string) error
	// Inherited lists what an earlier agent has kept and nobody has taken or dropped.
	Inherited() []string
}

// keptNothing is the keeper of agents that have none.
type keptNothing struct{}

func (keptNothing) Keep(string, *os.File) error { return nil }
func (keptNothing) Take(string) *os.File        { return nil }
func (keptNothing) Drop(string) error           { return nil }
func (keptNothing) Inherited() []string         { return nil }

// The streams of a container, as its pipes are called.
const (
	stdout = "stdout"
	stderr = "stderr"
)

// keptName is what a container's pipe is kept as.
func keptName(id, stream string) string { return id + "." + stream }

func keptContainer(name string) string {
	return strings.TrimSuffix(strings.TrimSuffix(name, "."+stdout), "."+stderr)
}

// makeOutput makes a container's pipes.
func (r *Runtime) makeOutput(id string, terminal bool) (*output, error) {
	return openOutput(terminal, func(stream string) (*os.File, error) {
		pipe, err := logs.MakePipe(r.pipePath(id, stream))
		if err == nil {
			r.keep(id, stream, pipe)
		}
		return pipe, err
	})
}

// reopenOutput opens the pipes of a container that an earlier agent has made. kept says that they were
// kept: only then do they still hold what was written by a container that has ended.
func (r *Runtime) reopenOutput(id string) (o *output, kept bool, err error) {
	out := r.options.Keeper.Take(keptName(id, stdout))
	kept = out != nil
	_, err = os.Stat(r.pipePath(id, stderr))
	terminal := errors.Is(err, fs.ErrNotExist)
	errout := r.options.Keeper.Take(keptName(id, stderr))
	if errout != nil {
		terminal = false
	}
	o, err = openOutput(terminal, func(stream string) (*os.File, error) {
		pipe := out
		if stream == stderr {
			pipe = errout
		}
		if pipe != nil {
			return pipe, nil
		}
		pipe, err := logs.OpenPipe(r.pipePath(id, stream))
		if err == nil {
			r.keep(id, stream, pipe)
		}
		return pipe, err
	})
	return o, kept, err
}

func openOutput(terminal bool, open func(stream string) (*os.File, error)) (*output, error) {
	o := &output{ended: make(chan struct{})}
	var err error
	if o.stdout, err = open(stdout); err != nil {
		return nil, err
	}
	if terminal {
		return o, nil
	}
	if o.stderr, err = open(stderr); err != nil {
		o.stdout.Close()
		return nil, err
	}
	return o, nil
}

// keep has a pipe outlive this agent's process. Without that a container that ends before the next agent is
// there takes its last output along, which is no reason not to run it.
func (r *Runtime) keep(id, stream string, pipe *os.File) {
	if err := r.options.Keeper.Keep(keptName(id, stream), pipe); err != nil {
		r.logger.Warn("a container's output may be lost when the agent is away", "container", id, "error", err)
	}
}

// unkeep lets a container's pipes go.
func (r *Runtime) unkeep(id string) {
	for _, stream := range []string{stdout, stderr} {
		if err := r.options.Keeper.Drop(keptName(id, stream)); err != nil {
			r.logger.Warn("a pipe of a removed container stays open", "container", id, "error", err)
		}
	}
}

// unkeepStrays lets the pipes of containers go that were removed by an agent which had no time to.
func (r *Runtime) unkeepStrays(there func(id string) bool) {
	for _, name := range r.options.Keeper.Inherited() {
		if id := keptContainer(name); !there(id) {
			r.unkeep(id)
		}
	}
}

// start begins to read. From then on close ends it.
func (o *output) start(r *Runtime, id, taskID string, options *warrenv1.LogOptions) error {
	writer, err := r.options.Logs.Writer(taskID, options)
	if err != nil {
		return err
	}
	o.writer = writer
	pump := func(stream warrenv1.OutputStream, pipe *os.File) {
		if err := writer.Pump(stream, pipe); err != nil {
			r.logger.Warn("a container's output cannot be read any more", "task", taskID, "container", id, "error", err)
		}
	}
	o.pumps.Go(func() { pump(warrenv1.OutputStream_OUTPUT_STREAM_STDOUT, o.stdout) })
	if o.stderr != nil {
		o.pumps.Go(func() { pump(warrenv1.OutputStream_OUTPUT_STREAM_STDERR, o.stderr) })
	}
	go func() {
		o.pumps.Wait()
		writer.Close()
		close(o.ended)
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.containers[id] = o
	return nil
}

// close stops reading and waits until what was read is written.
func (o *output) close() {
	o.discard()
	<-o.ended
}

// discard closes the pipes. Without start there is nothing else to undo.
func (o *output) discard() {
	o.stdout.Close()
	if o.stderr != nil {
		o.stderr.Close()
	}
}

// drain waits until an ended container's output is in its log, within a bound.
func (r *Runtime) drain(ctx context.Context, id string) {
	r.mu.Lock()
	o := r.containers[id]
	r.mu.Unlock()
	if o == nil {
		return
	}
	bound := time.NewTimer(drainTime)
	defer bound.Stop()
	select {
	case <-o.ended:
	case <-bound.C:
	case <-ctx.Done():
	}
}

// dropOutput stops reading a container's output for good.
func (r *Runtime) dropOutput(id string) {
	r.mu.Lock()
	o := r.containers[id]
	delete(r.containers, id)
	r.mu.Unlock()
	if o != nil {
		o.close()
	}
}

// Reattach reads the output of a container that List has found, until it ends; what waits in the
// pipes first. Of one that has ended it returns when all that was kept is in the log. It does nothing where
// the output is being read already, or the container never had a process.
func (r *Runtime) Reattach(ctx context.Context, id string) error {
	r.mu.Lock()
	attached := r.containers[id] != nil
	r.mu.Unlock()
	if attached {
		return nil
	}
	ended, err := r.reattach(ctx, id)
	if err != nil {
		return fmt.Errorf("reattach to container %s: %w", id, err)
	}
	if ended {
		r.drain(ctx, id)
	}
	return nil
}

// reattach tells whether the container has ended with something to read.
func (r *Runtime) reattach(ctx context.Context, id string) (ended bool, err error) {
	var labels map[string]string
	err = r.do(ctx, func(ctx context.Context) error {
		container, err := r.client.ContainerService().Get(ctx, id)
		labels = container.Labels
		return err
	})
	if err != nil {
		return false, err
	}
	o, kept, err := r.reopenOutput(id)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := o.start(r, id, labels[labelTask], logOptions(labels)); err != nil {
		o.discard()
		return false, err
	}
	if !kept {
		return false, nil
	}
	err = r.do(ctx, func(ctx context.Context) error {
		state, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
		err = errgrpc.ToNative(err)
		ended = errdefs.IsNotFound(err) || processState(state.GetProcess().GetStatus()) == StateStopped
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	})
	return ended, err
}
