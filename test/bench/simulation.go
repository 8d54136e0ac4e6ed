package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

const (
	simulatedSeed   = 1
	simulatedWorlds = 200
)

// simulatedRate is how the test of small worlds says how many it has lived through in a second.
var simulatedRate = regexp.MustCompile(`(\d+) worlds with .*: ([0-9.]+) worlds per second`)

// measureSimulation counts the schedules of faults that the simulated control plane goes through in a second, on all
// processors: the same ones every time. Only the test itself is timed, not its compilation.
func measureSimulation(ctx context.Context, b *bench) (err error) {
	dir, err := os.MkdirTemp("", "warren-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program := filepath.Join(dir, "simulation.test")
	if _, err := output(ctx, "go", "test", "-c", "-o", program, "./internal/manager/simulation"); err != nil {
		return err
	}
	var rates []float64
	for range b.rounds {
		out, err := output(ctx, program, "-test.run", "TestSmallWorlds", "-test.v", "-test.timeout", (10 * time.Minute).String(),
			"-seed", strconv.Itoa(simulatedSeed), "-worlds", strconv.Itoa(simulatedWorlds))
		if err != nil {
			return err
		}
		found := simulatedRate.FindSubmatch(out)
		if found == nil {
			return fmt.Errorf("the simulation does not say how fast it was: %s", out)
		}
		if lived, _ := strconv.Atoi(string(found[1])); lived != simulatedWorlds {
			return fmt.Errorf("the simulation lived through %d of %d schedules", lived, simulatedWorlds)
		}
		rate, err := strconv.ParseFloat(string(found[2]), 64)
		if err != nil {
			return err
		}
		rates = append(rates, rate)
	}
	b.row("simulated_schedules_per_s", median(rates), "/s", fmt.Sprintf("%d of 2 to 7 nodes, the rules checked at every commit", simulatedWorlds))
	return nil
}

// output runs a program and returns what it says, which is in the error where it fails.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	command := exec.CommandContext(ctx, name, args...)
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("%s %v: %w\n%s", name, args, err, out.Bytes())
	}
	return out.Bytes(), nil
}
