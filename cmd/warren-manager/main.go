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
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
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

	tuneMemory()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	log, err := f.Log(stderr)
	if err != nil {
		fmt.Fprintf(stderr, "warren-manager: %v\n", err)
		return exitFailed
	}
	logger := log.Logger()
	defer daemonflags.Reloader{Running: parser, Parse: func() (*kong.Kong, daemonflags.Logging, error) { return reparse(args) }, Log: log}.Start(ctx)()
	defer stop()
	logger.Info("starting", "version", version.Version, "data_dir", f.DataDir)
	options := f.manager(logger)
	options.Status = func(status string) { notify(ctx, logger, status) }
	m, err := manager.New(ctx, options)
	if err == nil {
		err = m.Run(ctx)
	}
	if err != nil {
		logger.Error("the manager cannot run", "err", err)
		return exitFailed
	}
	logger.Info("stopped")
	return exitDone
}

// reparse reads the flags of a manager that is running, once more.
func reparse(args []string) (*kong.Kong, daemonflags.Logging, error) {
	var f flags
	parser, err := newParser(&f, io.Discard, io.Discard, func(int) {})
	if err == nil {
		_, err = parser.Parse(args)
	}
	return parser, f.Logging, err
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
