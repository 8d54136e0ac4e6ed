//go:build linux

// Package cluster runs Warren's daemons on the machines of a lab, as services of their systemd, with
// the flags that a cluster of machines needs which trust each other's network.
//
// It knows the daemons by their command line alone. Start reading at [Start].
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cuemby/warren/test/machine"
)

// The daemons' units on a machine.
const (
	ManagerUnit = "warren-manager"
	AgentUnit   = "warren-agent"
)

// Programs are the names of Warren's programs.
var Programs = []string{"warren-manager", "warren-agent", "warrenctl"}

const managerPort = "7420"

const (
	awaitAtMost = time.Minute
	askAgain    = 20 * time.Millisecond
)

// ManagerCommand is the command line of the manager on a machine.
func ManagerCommand(m *machine.Machine) []string {
	return []string{
		"warren-manager",
		"--listen-addr", net.JoinHostPort(m.IP().String(), managerPort),
		"--insecure",
	}
}

// AgentCommand is the command line of an agent that belongs to a manager and may pull from a registry
// that speaks plain HTTP.
func AgentCommand(manager *machine.Machine, registry string) []string {
	return []string{
		"warren-agent",
		"--manager", net.JoinHostPort(manager.IP().String(), managerPort),
		"--insecure-registry", registry,
		"--insecure",
	}
}

// CheckBinaries says what to do where the programs that machines find in binDir have not been built.
func CheckBinaries(binDir string) error {
	for _, name := range Programs {
		if _, err := os.Stat(filepath.Join(binDir, name)); err != nil {
			return fmt.Errorf("run \"make build\" first: %w", err)
		}
	}
	return nil
}

// Start makes a cluster of machines: the manager on the first, initialised with those flags, and an
// agent on each. It returns when every node is ready.
func Start(ctx context.Context, registry string, initFlags []string, machines ...*machine.Machine) error {
	manager := machines[0]
	if err := StartManager(ctx, manager); err != nil {
		return err
	}
	initialise := append([]string{"warrenctl", "cluster", "init"}, initFlags...)
	if _, err := manager.Run(ctx, initialise...); err != nil {
		return err
	}
	if err := StartAgents(ctx, registry, manager, machines...); err != nil {
		return err
	}
	return AwaitNodes(ctx, manager, len(machines))
}

// StartAgents starts an agent on each of the machines. They may not have reached the manager when it
// returns.
func StartAgents(ctx context.Context, registry string, manager *machine.Machine, machines ...*machine.Machine) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range machines {
		group.Go(func() error { return StartAgent(ctx, m, manager, registry) })
	}
	return group.Wait()
}

// StartManager starts the manager on a machine. It returns when it takes calls.
func StartManager(ctx context.Context, m *machine.Machine) error {
	return m.StartUnit(ctx, machine.Unit{Name: ManagerUnit, Type: "notify", Command: ManagerCommand(m)})
}

// StartAgent starts the agent on a machine. It may not have reached the manager when it returns.
func StartAgent(ctx context.Context, m, manager *machine.Machine, registry string) error {
	return m.StartUnit(ctx, machine.Unit{Name: AgentUnit, Type: "notify", Command: AgentCommand(manager, registry)})
}

// AwaitNodes returns when that many nodes are ready.
func AwaitNodes(ctx context.Context, manager *machine.Machine, count int) error {
	return Await(ctx, fmt.Sprintf("%d ready nodes", count), func(ctx context.Context) error {
		nodes, err := manager.Run(ctx, "warrenctl", "node", "ls")
		if err == nil && countFields(nodes, "ready") < count {
			err = errors.New(nodes)
		}
		return err
	})
}

// countFields counts the lines of a table that have a field with that text, in whatever case.
func countFields(table, text string) int {
	count := 0
	for line := range strings.Lines(table) {
		for field := range strings.FieldsSeq(line) {
			if strings.EqualFold(field, text) {
				count++
				break
			}
		}
	}
	return count
}

// Await asks again and again, as a user would who presses the arrow key, until there is no error. It
// gives up, with the last error, when that takes far longer than anything in a test should.
func Await(ctx context.Context, what string, ask func(context.Context) error) error {
	return AwaitWithin(ctx, awaitAtMost, what, ask)
}

// AwaitWithin is Await for what must not take longer than a given time.
func AwaitWithin(ctx context.Context, atMost time.Duration, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	last := errors.New("no answer")
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil { // else it was cut short, and what it says means nothing
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %v in vain for %s: %w", atMost, what, last)
		case <-time.After(askAgain):
		}
	}
}
