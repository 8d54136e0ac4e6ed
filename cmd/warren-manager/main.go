// Command warren-manager is the control plane's daemon: replicated state, API, scheduling and the
// agents' sessions.
//
// Everything is in package internal/manager; here are flags, logging, signals and the exit code.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/cuemby/warren/internal/daemonflags"
	"github.com/cuemby/warren/internal/manager"
	"github.com/cuemby/warren/internal/manager/heap"
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
	args, check := daemonflags.TakeCheck(args)
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
		fmt.Fprintln(stdout, version.String("warren-manager"))
		return exitDone
	}
	if err != nil {
		fmt.Fprintf(stderr, "warren-manager: %v\n", err)
		if _, usage := errors.AsType[*kong.ParseError](err); usage {
			fmt.Fprintln(stderr, "See warren-manager --help.")
		}
		return exitUsage
	}
	if check {
		fmt.Fprintln(stdout, f.Config.InOrder())
		return exitDone
	}

	tuneMemory()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	logger := f.Logger(stderr)
	logger.Info("starting", "version", version.Version, "data_dir", f.DataDir)
	options := f.manager(logger)
	options.Status = func(status string) { notify(ctx, logger, status) }
	m, err := manager.New(ctx, options)
	if err == nil {
		watched := watch(ctx, f.Socket, logger)
		err = m.Run(ctx)
		stop()
		<-watched
	}
	if err != nil {
		logger.Error("the manager cannot run", "err", err)
		return exitFailed
	}
	logger.Info("stopped")
	return exitDone
}

// watch has systemd know that the manager is alive as long as it answers on its socket.
func watch(ctx context.Context, socket string, logger *slog.Logger) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		watchdog.Keep(ctx, socket, warrenv1connect.ManagerServiceGetManagerProcedure, logger)
	}()
	return done
}

// tuneMemory paces the garbage collector, unless GOGC in the environment says how.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		heap.Pace()
	}
}

// notify tells systemd, where it started us, how the manager stands. It is ready as soon as it stands
// anyhow: then it takes calls.
func notify(ctx context.Context, logger *slog.Logger, status string) {
	message := daemon.SdNotifyReady
	if ctx.Err() != nil {
		message = daemon.SdNotifyStopping
	}
	if _, err := daemon.SdNotify(false, message+"\nSTATUS="+status); err != nil {
		logger.Warn("cannot notify systemd", "err", err)
	}
}
