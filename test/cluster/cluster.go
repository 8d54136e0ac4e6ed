//go:build linux

// Package cluster runs Warren's daemons on the machines of a lab, as services of their systemd, and makes
// a cluster of them as a user would.
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

	"github.com/cuemby/warren/systemd"
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

// ManagerCommand is the command line of a manager.
func ManagerCommand() []string { return []string{"warren-manager"} }

// AgentCommand is the command line of an agent that may pull from a registry that speaks plain HTTP.
func AgentCommand(registry string) []string {
	return []string{"warren-agent", "--insecure-registry", registry}
}

// Addr is where the manager on a machine is reached.
func Addr(manager *machine.Machine) string {
	return net.JoinHostPort(manager.IP().String(), managerPort)
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

// StartAgents starts an agent on each of the machines and has it join the manager's cluster.
func StartAgents(ctx context.Context, registry string, manager *machine.Machine, machines ...*machine.Machine) error {
	token, err := JoinToken(ctx, manager, "worker")
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range machines {
		group.Go(func() error {
			if err := StartAgent(ctx, m, registry); err != nil {
				return err
			}
			_, err := m.Run(ctx, "warrenctl", "cluster", "join", "--token", token, Addr(manager))
			return err
		})
	}
	return group.Wait()
}

// JoinToken returns the join token of a role, worker or manager.
func JoinToken(ctx context.Context, manager *machine.Machine, role string) (string, error) {
	token, err := manager.Run(ctx, "warrenctl", "cluster", "join-token", "--quiet", role)
	return strings.TrimSpace(token), err
}

// JoinManager starts a manager on a machine and has it join another's cluster. It returns when it votes.
func JoinManager(ctx context.Context, m, manager *machine.Machine) error {
	token, err := JoinToken(ctx, manager, "manager")
	if err != nil {
		return err
	}
	if err := StartManager(ctx, m); err != nil {
		return err
	}
	_, err = m.Run(ctx, "warrenctl", "cluster", "join", "--token", token, Addr(manager))
	return err
}

// StartManager starts the manager on a machine. It returns when it takes calls.
func StartManager(ctx context.Context, m *machine.Machine) error {
	if err := install(ctx, m, ManagerUnit, "warren-manager.service"); err != nil {
		return err
	}
	return m.StartInstalled(ctx, ManagerUnit, ManagerCommand())
}

// StartAgent starts the agent on a machine. It waits to join a cluster, unless flags say which.
func StartAgent(ctx context.Context, m *machine.Machine, registry string, flags ...string) error {
	if err := install(ctx, m, AgentUnit, "warren-agent.service", "warren-wireguard.service", "warren-wireguard.socket"); err != nil {
		return err
	}
	return m.StartInstalled(ctx, AgentUnit, append(AgentCommand(registry), flags...))
}

// install puts units on a machine as the daemon's package does, with the account and the folders that they need.
func install(ctx context.Context, m *machine.Machine, daemon string, units ...string) error {
	files := map[string]string{}
	for _, name := range append([]string{daemon + ".sysusers", daemon + ".tmpfiles"}, units...) {
		file, err := systemd.Files.ReadFile(name)
		if err != nil {
			return err
		}
		files[name] = string(file)
	}
	if err := m.InstallAccounts(ctx, daemon, files[daemon+".sysusers"], files[daemon+".tmpfiles"]); err != nil {
		return err
	}
	for _, name := range units {
		if err := m.InstallUnit(ctx, name, files[name]); err != nil {
			return err
		}
	}
	return nil
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
