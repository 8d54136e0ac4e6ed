package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// settle is how long a daemon is left alone before its memory is read.
const settle = 3 * time.Second

// measureMemory reads the resident memory of both daemons idle, and of the agent with 100 tasks.
func measureMemory(ctx context.Context, b *bench) (err error) {
	c, err := b.startCluster(ctx, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	time.Sleep(settle)
	manager, err := c.manager.residentMB()
	if err != nil {
		return err
	}
	idle, err := c.agents[0].process.residentMB()
	if err != nil {
		return err
	}
	wireguard, err := c.agents[0].wireguard.residentMB()
	if err != nil {
		return err
	}
	b.row("manager_rss_mb", manager, "MB", "idle, one node")
	b.row("agent_rss_mb", idle, "MB", "idle, with its overlay up")
	b.row("wireguard_rss_mb", wireguard, "MB", "idle: the process of the WireGuard device, for kernels that have none")
	const tasks = 100
	if err := c.create(ctx, spec("memory", b.machine.image, tasks)); err != nil {
		return err
	}
	if err := c.watch(ctx, "memory", func(p *warrenv1.ServiceProgress) bool { return p.GetRunning() == tasks }); err != nil {
		return err
	}
	time.Sleep(settle)
	loaded, err := c.agents[0].process.residentMB()
	if err != nil {
		return err
	}
	b.row("agent_rss_100_tasks_mb", loaded, "MB", "each with an address on the overlay")
	b.row("agent_kb_per_task", (loaded-idle)*1000/tasks, "kB", fmt.Sprintf("over %d running tasks", tasks))
	if err := c.remove(ctx, "memory"); err != nil {
		return err
	}
	return b.machine.quiet(ctx, warrenNamespace(1))
}
