// Command warren-agent is a node's daemon: it runs the containers the managers assign to this machine.
//
// Everything is in package internal/agent; here are flags, logging, signals and the exit code. As
// "warren-agent wireguard" it is the process of the node's WireGuard device instead: see wireguard.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/cuemby/warren/internal/agent"
	"github.com/cuemby/warren/internal/daemonflags"
	"github.com/cuemby/warren/internal/version"
	"github.com/cuemby/warren/internal/watchdog"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == wireguardCommand {
		return runWireguard(args[1:], stdout, stderr)
	}
	disconnect := len(args) > 0 && args[0] == disconnectCommand
	endTasks := len(args) > 0 && args[0] == endTasksCommand
	if disconnect || endTasks {
		args = args[1:]
	}
	args, check := daemonflags.TakeCheck(args)
	var f flags
	err := program().Parse(&f, args, stdout)
	if errors.Is(err, daemonflags.ErrHelp) {
		return exitDone
	}
	if err != nil {
		return misused(stderr, "warren-agent", err)
	}
	if f.Version {
		fmt.Fprintln(stdout, version.String("warren-agent"))
		return exitDone
	}
	if check {
		fmt.Fprintln(stdout, f.Config.InOrder())
		return exitDone
	}

	tuneMemory()
	log, err := f.Log(stderr)
	if err != nil {
		return misused(stderr, "warren-agent", err)
	}
	logger := log.Logger()
	if disconnect {
		return runOnce(f.agent(logger), agent.Disconnect)
	}
	if endTasks {
		return runOnce(f.agent(logger), agent.EndTasks)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer daemonflags.Reloader{Running: &f, Parse: func() (any, daemonflags.Logging, error) { return reparse(args) }, Log: log}.Start(ctx)()
	defer stop()
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends the process at once
		notify(logger, daemon.SdNotifyStopping)
	})
	config := f.agent(logger)
	config.Status = func(status string) { notify(logger, "STATUS="+status) }
	var watching sync.WaitGroup
	err = agent.Run(ctx, config, func() {
		notify(logger, daemon.SdNotifyReady)
		watching.Go(func() { watchdog.Keep(ctx, f.Socket, warrenv1connect.AgentServiceGetAgentProcedure, logger) })
	})
	stop()
	watching.Wait()
	if err != nil {
		logger.Error("the agent cannot run", "error", err)
		return exitFailed
	}
	return exitDone
}

// reparse reads the flags of an agent that is running, once more.
func reparse(args []string) (any, daemonflags.Logging, error) {
	var f flags
	err := program().Parse(&f, args, io.Discard)
	return &f, f.Logging, err
}

// The words after the program's name that have it take down, with the agent stopped, what agents have left up: in the
// network, and of containers. They take the agent's flags. Packages do both before they are removed.
const (
	disconnectCommand = "disconnect"
	endTasksCommand   = "end-tasks"
)

func runOnce(c agent.Config, do func(context.Context, agent.Config) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := do(ctx, c); err != nil {
		c.Logger.Error("something is left on this machine", "error", err)
		return exitFailed
	}
	return exitDone
}

// misused says what is wrong with how a command was called.
func misused(stderr io.Writer, command string, err error) int {
	fmt.Fprintf(stderr, "%s: %v\nSee %s --help.\n", command, err, command)
	return exitUsage
}

// tuneMemory trades a little processor time for memory: an agent is idle most of its life, and the
// machine is there for the containers. GOGC in the environment overrides it.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// notify tells systemd, where it started us.
func notify(logger *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		logger.Warn("cannot notify systemd", "error", err)
	}
}
