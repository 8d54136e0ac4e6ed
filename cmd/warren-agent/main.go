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

	"github.com/alecthomas/kong"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/cuemby/warren/internal/agent"
	"github.com/cuemby/warren/internal/agent/initproc"
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

func main() {
	if initproc.Invoked(os.Args) { // in a container, where this program is process 1
		os.Exit(initproc.Run(os.Args[1:]))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == wireguardCommand {
		return runWireguard(args[1:], stdout, stderr)
	}
	disconnect := len(args) > 0 && args[0] == disconnectCommand
	if disconnect {
		args = args[1:]
	}
	var f flags
	exit := -1 // set when parsing itself was all there is to do, as with --help
	parser, err := newParser(&f, stdout, stderr, func(code int) { exit = code })
	if err == nil {
		_, err = parser.Parse(args)
	}
	if exit >= 0 {
		return exit
	}
	if f.Version {
		fmt.Fprintln(stdout, version.String("warren-agent"))
		return exitDone
	}
	if err != nil {
		return misused(stderr, "warren-agent", err)
	}

	tuneMemory()
	if disconnect {
		return runDisconnect(f.agent(f.Logger(stderr)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	logger := f.Logger(stderr)
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

// disconnectCommand is the word after the program's name that has it take down what agents have left up in the network,
// as before the package is removed for good. It takes the agent's flags.
const disconnectCommand = "disconnect"

func runDisconnect(c agent.Config) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := agent.Disconnect(ctx, c); err != nil {
		c.Logger.Error("this machine is not disconnected from the cluster's network", "error", err)
		return exitFailed
	}
	return exitDone
}

// misused says what is wrong with how a command was called.
func misused(stderr io.Writer, command string, err error) int {
	fmt.Fprintf(stderr, "%s: %v\n", command, err)
	if _, usage := errors.AsType[*kong.ParseError](err); usage {
		fmt.Fprintf(stderr, "See %s --help.\n", command)
	}
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
