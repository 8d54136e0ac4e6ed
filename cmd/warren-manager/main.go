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

// unitUser is whom the unit in packages runs a manager as. What root checks, and says nothing of where it is, that user is to read.
const unitUser = "warren-manager"

func run(args []string, stdout, stderr io.Writer) int {
	args, check := daemonflags.TakeCheck(args)
	if check && len(args) == 0 {
		if err := daemonflags.As(unitUser); err != nil {
			fmt.Fprintf(stderr, "warren-manager: check as the unit would begin: %v\n", err)
			return exitFailed
		}
	}
	var f flags
	err := program().Parse(&f, args, stdout)
	if errors.Is(err, daemonflags.ErrHelp) {
		return exitDone
	}
	if err != nil {
		fmt.Fprintf(stderr, "warren-manager: %v\nSee warren-manager --help.\n", err)
		return exitUsage
	}
	if f.Version {
		fmt.Fprintln(stdout, version.String("warren-manager"))
		return exitDone
	}
	if check {
		fmt.Fprintln(stdout, f.Config.InOrder())
		return exitDone
	}

	settleMemory := tuneMemory()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	log, err := f.Log(stderr)
	if err != nil {
		fmt.Fprintf(stderr, "warren-manager: %v\n", err)
		return exitFailed
	}
	logger := log.Logger()
	defer daemonflags.Reloader{Running: &f, Parse: func() (any, daemonflags.Logging, error) { return reparse(args) }, Log: log}.Start(ctx)()
	defer stop()
	logger.Info("starting", "version", version.Version, "data_dir", f.DataDir)
	options := f.manager(logger)
	options.Status = func(status string) { notify(ctx, logger, status) }
	m, err := manager.New(ctx, options)
	if err == nil {
		settleMemory()
		watched := watch(ctx, f.Socket, logger)
		err = m.Run(ctx)
		stop()
		<-watched
	}
	if err != nil {
		logger.Error("the manager cannot run", "error", err)
		return exitFailed
	}
	logger.Info("stopped")
	return exitDone
}

// reparse reads the flags of a manager that is running, once more.
func reparse(args []string) (any, daemonflags.Logging, error) {
	var f flags
	err := program().Parse(&f, args, io.Discard)
	return &f, f.Logging, err
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

// tuneMemory paces the garbage collector, unless GOGC in the environment says how. What it returns is to be called when the
// start is done: it gives back what that took, above all to compile the rules of the API's fields, and needs no more.
func tuneMemory() (settle func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	return heap.Pace().Settle
}

// notify tells systemd, where it started us, how the manager stands. It is ready as soon as it stands
// anyhow: then it takes calls.
func notify(ctx context.Context, logger *slog.Logger, status string) {
	message := daemon.SdNotifyReady
	if ctx.Err() != nil {
		message = daemon.SdNotifyStopping
	}
	if _, err := daemon.SdNotify(false, message+"\nSTATUS="+status); err != nil {
		logger.Warn("cannot notify systemd", "error", err)
	}
}
