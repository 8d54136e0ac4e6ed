package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	probed      = 200
	probesTimed = 20 * time.Second
	// ticks is how many of /proc's units of processor time make a second: USER_HZ, 100 wherever Linux runs Go.
	ticks = 100
)

// measureProbes runs tasks that are probed over HTTP and tells what part of one processor their node's agent uses.
func measureProbes(ctx context.Context, b *bench) (err error) {
	c, err := b.startCluster(ctx, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	idle, err := c.probing(ctx, b, nil)
	if err != nil {
		return err
	}
	for _, run := range []struct {
		name     string
		interval time.Duration
	}{{"probe_%d_cpu_percent", 10 * time.Second}, {"probe_%d_1s_cpu_percent", time.Second}} {
		share, err := c.probing(ctx, b, &warrenv1.HealthCheck{
			Probe:    &warrenv1.HealthCheck_Http{Http: &warrenv1.HttpProbe{Port: webPort, Path: "/quiet"}},
			Interval: durationpb.New(run.interval),
		})
		if err != nil {
			return err
		}
		b.row(fmt.Sprintf(run.name, probed), share, "%", fmt.Sprintf("of a processor, in the agent: %d tasks asked over HTTP every %v; %.2f %% with no probes", probed, run.interval, idle))
	}
	return nil
}

// probing runs tasks that are probed so, and returns the agent's share of a processor, in percent.
func (c *cluster) probing(ctx context.Context, b *bench, health *warrenv1.HealthCheck) (share float64, err error) {
	s := served("probed", b.machine.image)
	s.Mode = &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: probed}}
	s.Placement, s.Task.Health = nil, health
	if err := c.create(ctx, s); err != nil {
		return 0, err
	}
	if err := c.converged(ctx, "probed"); err != nil {
		return 0, err
	}
	agent := c.agents[0].process
	before, err := agent.cpu()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	select {
	case <-time.After(probesTimed):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := agent.cpu()
	if err != nil {
		return 0, err
	}
	share = 100 * float64(after-before) / float64(time.Since(begin))
	return share, c.clean(ctx, "probed")
}

// cpu returns the processor time that the program has used.
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid()))
	if err != nil {
		return 0, err
	}
	// Behind the program's name, which may hold anything: state is field 3, utime 14 and stime 15 (proc(5)).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var used int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		used += n
	}
	return time.Duration(used) * time.Second / ticks, nil
}
