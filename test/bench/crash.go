package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"connectrpc.com/connect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// measureCrash times from a container's violent end to its replacement running.
func measureCrash(ctx context.Context, b *bench) (err error) {
	c, err := b.startCluster(ctx, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	var times []time.Duration
	for round := range 2 * b.rounds {
		took, err := c.crash(ctx, b.machine, fmt.Sprintf("crash-%d", round))
		if err != nil {
			return err
		}
		times = append(times, took)
	}
	b.row("crash_replace_ms", milliseconds(median(times)), "ms", "kill -9 of the container's program until the next one runs")
	return nil
}

// crash runs one replica, kills its program and returns how long it takes until it runs again.
func (c *cluster) crash(ctx context.Context, h *host, name string) (time.Duration, error) {
	if err := c.create(ctx, spec(name, h.image, 1)); err != nil {
		return 0, err
	}
	if err := c.watch(ctx, name, func(p *warrenv1.ServiceProgress) bool { return p.GetRunning() == 1 }); err != nil {
		return 0, err
	}
	tasks, err := c.tasks.ListTasks(ctx, connect.NewRequest(&warrenv1.ListTasksRequest{Service: name, RunningOnly: true}))
	if err != nil {
		return 0, err
	}
	if len(tasks.Msg.GetTasks()) != 1 {
		return 0, errors.New("not exactly one task runs")
	}
	victim := tasks.Msg.GetTasks()[0].GetTask()
	begin := time.Now()
	if err := syscall.Kill(int(victim.GetStatus().GetPid()), syscall.SIGKILL); err != nil {
		return 0, err
	}
	err = c.watch(ctx, name, func(p *warrenv1.ServiceProgress) bool {
		if len(p.GetSlots()) != 1 || p.GetRunning() != 1 {
			return false
		}
		slot := p.GetSlots()[0]
		return slot.GetTaskId() != victim.GetMeta().GetId() || slot.GetAttempt() > victim.GetStatus().GetAttempt()
	})
	took := time.Since(begin)
	return took, errors.Join(err, c.remove(ctx, name), h.quiet(ctx, warrenNamespace(1)))
}
