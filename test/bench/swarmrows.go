package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// measureSwarmStart is measureStart's and measureStartHost's: from the creation of a service to all replicas running.
func measureSwarmStart(ctx context.Context, b *bench, s *swarm) error {
	for _, kind := range []string{"swarm_start", "swarm_start_host"} {
		for _, n := range []int{1, 20, 50} {
			var times []time.Duration
			for range roundsOf(n, b.rounds) {
				spec := s.spec("start", n, "sleep").on(1)
				if kind == "swarm_start_host" {
					spec.TaskTemplate.Networks = []swarmTarget{{"host"}}
				}
				begin := time.Now()
				if _, err := s.begin(ctx, spec); err != nil {
					return err
				}
				times = append(times, time.Since(begin))
				if err := s.remove(ctx, spec.Name); err != nil {
					return err
				}
			}
			b.row(fmt.Sprintf("%s_%d_ms", kind, n), milliseconds(median(times)), "ms", "Docker Swarm, the same service on one node")
		}
	}
	return nil
}

// measureSwarmCrash is measureCrash's.
func measureSwarmCrash(ctx context.Context, b *bench, s *swarm) error {
	for _, run := range []struct {
		name, remark string
		restart      *swarmRestart
	}{
		{"swarm_crash_replace_ms", "with Swarm's default, which waits 5 s before it starts the next", nil},
		{"swarm_crash_replace_nodelay_ms", "with --restart-delay 0s", &swarmRestart{Condition: "any"}},
	} {
		var times []time.Duration
		for range b.rounds {
			spec := s.spec("crash", 1, "sleep").on(1)
			spec.TaskTemplate.RestartPolicy = run.restart
			tasks, err := s.begin(ctx, spec)
			if err != nil {
				return err
			}
			begin := time.Now()
			if _, err := s.machines[0].Run(ctx, "kill", "-9", strconv.Itoa(tasks[0].Status.ContainerStatus.PID)); err != nil {
				return err
			}
			if _, err := s.runs(ctx, "crash", 1, func(t swarmTask) bool { return t.ID != tasks[0].ID }); err != nil {
				return err
			}
			times = append(times, time.Since(begin))
			if err := s.remove(ctx, "crash"); err != nil {
				return err
			}
		}
		b.row(run.name, milliseconds(median(times)), "ms", run.remark)
	}
	return nil
}

// measureSwarmNodeLoss is measureNodeLoss's.
func measureSwarmNodeLoss(ctx context.Context, b *bench, s *swarm) error {
	victim := s.machines[len(s.machines)-1]
	node, err := s.node(ctx, victim.Name())
	if err != nil {
		return err
	}
	var times []time.Duration
	for range 3 {
		if _, err := s.begin(ctx, s.spec("lost", lossReplicas, "sleep")); err != nil {
			return err
		}
		begin := time.Now()
		if err := errors.Join(victim.Partition(), victim.Kill()); err != nil {
			return err
		}
		if _, err := s.runs(ctx, "lost", lossReplicas, func(t swarmTask) bool { return t.NodeID != node.ID }); err != nil {
			return err
		}
		times = append(times, time.Since(begin))
		if err := errors.Join(victim.PowerOn(ctx), s.ready(ctx), s.remove(ctx, "lost")); err != nil {
			return err
		}
	}
	b.row("swarm_node_loss_ms", milliseconds(median(times)), "ms", fmt.Sprintf("of %d: a node's plug pulled until its %d tasks run elsewhere, at Swarm's default heartbeat", len(times), lossReplicas/maxNodes))
	b.row("swarm_node_loss_worst_ms", milliseconds(slices.Max(times)), "ms", fmt.Sprintf("the worst of %d", len(times)))
	return nil
}

// measureSwarmDrain is measureDrain's.
func measureSwarmDrain(ctx context.Context, b *bench, s *swarm) error {
	const drained = 1 // swarm2
	node, err := s.node(ctx, s.machines[drained].Name())
	if err != nil {
		return err
	}
	others := func(availability string) error {
		return errors.Join(s.makeAvailable(ctx, "swarm1", availability), s.makeAvailable(ctx, "swarm3", availability))
	}
	var times []time.Duration
	for range 3 {
		if err := others("pause"); err != nil {
			return err
		}
		if _, err := s.begin(ctx, s.spec("web", drainReplicas, "sleep")); err != nil {
			return err
		}
		if err := others("active"); err != nil {
			return err
		}
		begin := time.Now()
		if err := s.makeAvailable(ctx, "swarm2", "drain"); err != nil {
			return err
		}
		if _, err := s.runs(ctx, "web", drainReplicas, func(t swarmTask) bool { return t.NodeID != node.ID }); err != nil {
			return err
		}
		err := s.until(ctx, "nothing runs on swarm2", func() (bool, error) {
			tasks, err := s.tasks(ctx, "web")
			return !slices.ContainsFunc(tasks, func(t swarmTask) bool { return t.NodeID == node.ID }), err
		})
		if err != nil {
			return err
		}
		times = append(times, time.Since(begin))
		if err := errors.Join(s.makeAvailable(ctx, "swarm2", "active"), s.remove(ctx, "web")); err != nil {
			return err
		}
	}
	b.row(fmt.Sprintf("swarm_drain_%d_ms", drainReplicas), milliseconds(median(times)), "ms", "Swarm stops all tasks at once and starts them elsewhere: none is left meanwhile")
	return nil
}

// measureSwarmRollout is measureRollout's.
func measureSwarmRollout(ctx context.Context, b *bench, s *swarm) error {
	parallel := cmp.Or(b.rolledAtOnce, 8)
	spec := s.spec("rolled", rolled, "sleep").on(1)
	spec.UpdateConfig.Parallelism = parallel
	if _, err := s.begin(ctx, spec); err != nil {
		return err
	}
	var times []time.Duration
	for range max(3, b.rounds/2) {
		spec.TaskTemplate.ForceUpdate++
		begin := time.Now()
		if err := s.update(ctx, spec); err != nil {
			return err
		}
		if err := s.updated(ctx, "rolled", "completed"); err != nil {
			return err
		}
		err := s.until(ctx, "the old tasks are gone", func() (bool, error) {
			tasks, err := s.tasks(ctx, "rolled")
			return len(tasks) == rolled, err
		})
		if err != nil {
			return err
		}
		times = append(times, time.Since(begin))
	}
	b.row(fmt.Sprintf("swarm_rollout_%d_ms", rolled), milliseconds(median(times)), "ms", fmt.Sprintf("the same, new ones first, %d at a time", parallel))
	return s.remove(ctx, "rolled")
}

// measureSwarmBadRelease is measureBadRelease's. Swarm has no virtual addresses here, so each connection is made to an address
// that its DNS has just given; and no probe over HTTP, so the release that is never healthy has a program that says so.
func measureSwarmBadRelease(ctx context.Context, b *bench, s *swarm) (err error) {
	callers, err := s.begin(ctx, s.spec("caller", 1, "sleep").on(3))
	if err != nil {
		return err
	}
	from, err := s.namespace(2, callers[0].Status.ContainerStatus.PID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	web := func() *swarmSpec {
		spec := s.spec("web", replicas, "serve")
		spec.TaskTemplate.Placement.Constraints = []string{"node.hostname!=swarm3"}
		spec.UpdateConfig.Monitor = 2 * time.Second
		return spec
	}
	if _, err := s.begin(ctx, web()); err != nil {
		return err
	}
	healthy := &swarmHealth{Test: []string{"CMD", "/hello", "healthy"}, Interval: time.Second, Retries: 2}
	for i, run := range []struct {
		name, remark string
		health       *swarmHealth
	}{
		{"swarm_rollout_failed_requests", "no health check, as in Warren's row", nil},
		{"swarm_rollout_failed_requests_checked", "with a health check", healthy},
	} {
		good := web()
		good.TaskTemplate.ContainerSpec.Healthcheck, good.TaskTemplate.ForceUpdate = run.health, i+1
		if err := s.update(ctx, good); err != nil {
			return err
		}
		if err := s.updated(ctx, "web", "completed"); err != nil {
			return err
		}
		bad := []func(*swarmSpec){
			func(spec *swarmSpec) { spec.TaskTemplate.ContainerSpec.Args = []string{"crash", "1s"} },
			func(spec *swarmSpec) {
				spec.TaskTemplate.ContainerSpec.Healthcheck = &swarmHealth{Test: []string{"CMD", "/hello", "exit", "1"}, Interval: time.Second, Retries: 2}
			},
			func(spec *swarmSpec) { spec.TaskTemplate.ContainerSpec.Image = s.lab.Registry() + "/nothing:1" },
		}
		turn := 0
		l := &load{url: fmt.Sprintf("http://tasks.web:%d/quiet", webPort), from: from, resolver: &net.Resolver{
			PreferGo: true,
			Dial: func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
				err = within(from, func() error {
					conn, err = new(net.Dialer).DialContext(ctx, network, "127.0.0.11:53")
					return err
				})
				return conn, err
			},
		}}
		changes, err := l.during(ctx, max(b.load, 30*time.Second), func(ctx context.Context) error {
			turn++
			spec := *good
			bad[turn%len(bad)](&spec)
			if err := s.update(ctx, &spec); err != nil {
				return err
			}
			return s.updated(ctx, "web", "rollback_completed")
		})
		if err != nil {
			return err
		}
		for _, f := range l.failures {
			fmt.Println("    ", f)
		}
		b.row(run.name, float64(l.failed.Load()), "", fmt.Sprintf("of %d while %d bad releases were shipped and went back by themselves; %s", l.asked.Load(), changes, run.remark))
	}
	return errors.Join(s.remove(ctx, "web"), s.remove(ctx, "caller"))
}

// measureSwarmProbes is measureProbes's. The engine knows no probe but to run a program in the container, which is not the
// engine's own work alone; so the whole machine is measured, and with no probes as well.
func measureSwarmProbes(ctx context.Context, b *bench, s *swarm) error {
	idle, err := s.probing(ctx, nil)
	if err != nil {
		return err
	}
	share, err := s.probing(ctx, &swarmHealth{Test: []string{"CMD", "/hello", "healthy"}, Interval: 10 * time.Second})
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("swarm_probe_%d_cpu_percent", probed), share, "%", fmt.Sprintf("of a processor, in the whole machine: %d tasks on its network, in each of which a program is run every 10 s; %.2f %% with no probes", probed, idle))
	return nil
}

// probing runs tasks on the second machine, which is no manager, and returns the machine's share of a processor, in percent.
func (s *swarm) probing(ctx context.Context, health *swarmHealth) (float64, error) {
	spec := s.spec("probed", probed, "sleep").on(2)
	spec.TaskTemplate.Networks = []swarmTarget{{"host"}} // on the overlay they take minutes to start, and are asked in the same way
	spec.TaskTemplate.ContainerSpec.Healthcheck = health
	if _, err := s.begin(ctx, spec); err != nil {
		return 0, err
	}
	before, err := s.cpu(ctx, 1)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	select {
	case <-time.After(probesTimed):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := s.cpu(ctx, 1)
	if err != nil {
		return 0, err
	}
	share := 100 * float64(after-before) / float64(time.Since(begin))
	return share, s.remove(ctx, "probed")
}

// cpu returns the processor time that a machine has used, by its control group.
func (s *swarm) cpu(ctx context.Context, engine int) (time.Duration, error) {
	const script = `cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || awk '$1 == "usage_usec" { print $2 "000" }' /sys/fs/cgroup/cpu.stat`
	used, err := s.machines[engine].Run(ctx, "sh", "-c", script)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(used), 10, 64)
	return time.Duration(n), err
}
