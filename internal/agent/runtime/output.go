package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

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

// makeOutput makes a container's pipes.
func (r *Runtime) makeOutput(id string, terminal bool) (*output, error) {
	return openOutput(r.pipePath(id, "stdout"), r.pipePath(id, "stderr"), terminal, logs.MakePipe)
}

func openOutput(stdout, stderr string, terminal bool, open func(string) (*os.File, error)) (*output, error) {
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
// pipes first. Of one that ended before, nothing waits: its shim was the last to hold the pipes. It does nothing where the output is being read already, or the container has no process.
func (r *Runtime) Reattach(ctx context.Context, id string) error {
	r.mu.Lock()
	attached := r.containers[id] != nil
	r.mu.Unlock()
	if attached {
		return nil
	}
	var labels map[string]string
	err := r.do(ctx, func(ctx context.Context) error {
		container, err := r.client.ContainerService().Get(ctx, id)
		labels = container.Labels
		return err
	})
	if err != nil {
		return fmt.Errorf("reattach to container %s: %w", id, err)
	}
	stderr := r.pipePath(id, "stderr")
	_, err = os.Stat(stderr)
	terminal := errors.Is(err, fs.ErrNotExist)
	o, err := openOutput(r.pipePath(id, "stdout"), stderr, terminal, logs.OpenPipe)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // never came as far as a process
	}
	if err == nil {
		if err = o.start(r, id, labels[labelTask], logOptions(labels)); err != nil {
			o.discard()
		}
	}
	if err != nil {
		return fmt.Errorf("reattach to container %s: %w", id, err)
	}
	return nil
}
