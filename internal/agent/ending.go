package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cuemby/warren/internal/agent/logs"
	"github.com/cuemby/warren/internal/agent/runtime"
	"github.com/cuemby/warren/internal/agent/store"
)

// A program that is told to end when its agent is removed has this long, and is looked at this often. A containerd that
// does not answer is not waited for longer.
const (
	answerWithin = 10 * time.Second
	endWithin    = 10 * time.Second
	lookAfter    = 100 * time.Millisecond
)

// EndTasks ends and removes all containers of this machine's tasks, as before the agent is removed. It fails where
// an agent runs. What is recorded of them stays: an agent that comes back goes on with its assignments.
func EndTasks(ctx context.Context, c Config) (err error) {
	state, err := store.Open(c.DataDir, c.Logger)
	if err != nil {
		return err
	}
	defer closing(&err, state.Close)
	output, err := logs.Open(filepath.Join(c.DataDir, "logs"))
	if err != nil {
		return fmt.Errorf("open the tasks' output: %w", err)
	}
	containers, err := runtime.Open(ctx, c.runtime(output))
	if err != nil {
		return err
	}
	defer closing(&err, containers.Close)
	asking, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	all, err := containers.List(asking)
	if err != nil {
		return fmt.Errorf("end the tasks: %w", err)
	}
	for _, found := range all {
		if found.State != runtime.StateRunning {
			continue
		}
		signal, err := containers.StopSignal(ctx, found.ID)
		if err != nil {
			signal = syscall.SIGTERM
		}
		if err := containers.Signal(ctx, found.ID, signal); err != nil {
			c.Logger.Warn("a container that is to end was not told", "container", found.ID, "error", err)
		}
	}
	if err := awaitEnds(ctx, containers); err != nil {
		return err
	}
	for _, found := range all {
		if err := containers.Remove(ctx, found.ID); err != nil {
			return fmt.Errorf("remove container %s: %w", found.ID, err)
		}
	}
	if err := containers.RemoveCgroupParent(); err != nil {
		c.Logger.Warn("the control group of containers is left, without any", "error", err)
	}
	return nil
}

// awaitEnds returns when no container runs, or when they have had their time.
func awaitEnds(ctx context.Context, containers *runtime.Runtime) error {
	patience := time.NewTimer(endWithin)
	defer patience.Stop()
	look := time.NewTicker(lookAfter)
	defer look.Stop()
	for {
		all, err := containers.List(ctx)
		if err != nil {
			return err
		}
		running := 0
		for _, found := range all {
			if found.State == runtime.StateRunning {
				running++
			}
		}
		if running == 0 {
			return nil
		}
		select {
		case <-look.C:
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
