// Command bench measures Warren on this machine, in one run with what it is compared to: the floor,
// which is containerd driven directly by a small client, and Docker Swarm where that is asked for.
//
// Every benchmark prints rows of a table and adds figures to a flat JSON object of name → number, by
// which runs are compared over time. Figures that end in _ratio are Warren's over the floor's, pair by pair,
// median: of times, so that less is better, or of rates, so that more is. It needs root, containerd and runc; it starts a containerd of its own and leaves
// nothing behind. `make bench RUN=regexp` is how it is called.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"
)

// benchmark is one measurement; it is run when its name matches.
type benchmark struct {
	name    string
	measure func(context.Context, *bench) error
}

var benchmarks = []benchmark{
	{"start", measureStart},
	{"start_host", measureStartHost},
	{"crash", measureCrash},
	{"api", measureAPI},
	{"scheduler", measureScheduler},
	{"simulation", measureSimulation},
	{"memory", measureMemory},
	{"load100k", measureLoad},
	{"failover", measureFailover},
	{"overlay", measureThroughput},
	{"vip", measureVIP},
	{"rule_change", measureRuleChange},
	{"endpoint_removed", measureEndpointRemoved},
	{"failed_requests", measureFailedRequests},
	{"rollout_50", measureRollout},
	{"rollout_failed", measureBadRelease},
	{"node_loss", measureNodeLoss},
	{"drain", measureDrain},
	{"probe", measureProbes},
	{"swarm_start", onSwarm(measureSwarmStart)},
	{"swarm_crash", onSwarm(measureSwarmCrash)},
	{"swarm_rollout_50", onSwarm(measureSwarmRollout)},
	{"swarm_rollout_failed", onSwarm(measureSwarmBadRelease)},
	{"swarm_node_loss", onSwarm(measureSwarmNodeLoss)},
	{"swarm_drain", onSwarm(measureSwarmDrain)},
	{"swarm_probe", onSwarm(measureSwarmProbes)},
}

// bench is what benchmarks share.
type bench struct {
	bin     string
	rounds  int
	load    time.Duration
	machine *host // made when first asked for
	figures map[string]float64

	// rolledAtOnce is how many tasks measureRollout has replaced at a time.
	rolledAtOnce int

	swarmRoot string // what Swarm's machines boot from; empty where Swarm is not asked for
	swarm     *swarm // made when first asked for
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A reader of the table that goes away is no reason to leave containers behind. To hear the signal will not do: a manager
	// that is killed while it is written to sends it, too.
	signal.Ignore(syscall.SIGPIPE)
	pattern := flag.String("run", "", "measure only what matches this regular expression")
	file := flag.String("json", "build/bench.json", "where the figures are written")
	bin := flag.String("bin", "bin", "folder of the binaries to measure")
	rounds := flag.Int("rounds", 5, "rounds of each timing; the median is quoted")
	load := flag.Duration("load", 15*time.Second, "how long each run of failed_requests lasts")
	swarmRoot := flag.String("swarm", "", "measure Docker Swarm as well, on machines with this root file system (swarmroot.sh)")
	flag.Parse()
	chosen, err := regexp.Compile(*pattern)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if os.Geteuid() != 0 {
		return errors.New("containers need root: run it as root")
	}
	b := &bench{bin: *bin, rounds: max(1, *rounds), load: *load, figures: map[string]float64{}, swarmRoot: *swarmRoot}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, m := range benchmarks {
		if !chosen.MatchString(m.name) {
			continue
		}
		fmt.Printf("\n%s\n", m.name)
		if err := m.measure(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return b.save(*file)
}

// row prints one figure and keeps it under its name.
func (b *bench) row(name string, value float64, unit, remark string) {
	b.figures[name] = value
	fmt.Printf("  %-28s %12.*f %-6s %s\n", name, digits(value), value, unit, remark)
}

func digits(v float64) int {
	switch {
	case v >= 1000:
		return 0
	case v >= 10:
		return 1
	}
	return 3
}

// save adds this run's figures to those of earlier runs in the file.
func (b *bench) save(path string) error {
	all := map[string]float64{}
	if old, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(old, &all); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	maps.Copy(all, b.figures)
	out, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(out, '\n'), 0o644)
}

func (b *bench) close() error {
	var errs []error
	if b.machine != nil {
		errs = append(errs, b.machine.close())
	}
	if b.swarm != nil {
		errs = append(errs, b.swarm.close())
	}
	return errors.Join(errs...)
}

func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
