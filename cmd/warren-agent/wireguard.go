package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/cuemby/warren/internal/agent/overlay/wireguard"
	"github.com/cuemby/warren/internal/daemonflags"
)

// wireguardCommand is the word after the program's name that makes it the process of the WireGuard device.
const wireguardCommand = "wireguard"

// wireguardFlags are all that this process can be told. They are apart from the agent's, of which none
// mean anything to it.
type wireguardFlags struct {
	Socket      string `placeholder:"PATH" env:"-" help:"Listen on this unix socket, for root alone. Without it, the one that systemd hands over (warren-wireguard.socket) is used."`
	MemoryLimit size   `default:"150m" placeholder:"SIZE" help:"Memory to stay below, at the cost of speed."`

	daemonflags.Logging
}

func wireguardProgram() daemonflags.Program {
	return daemonflags.Program{
		Name:        "warren-agent " + wireguardCommand,
		Description: "The process in which the agent's WireGuard device lives where the kernel has none, so that traffic between nodes goes on while the agent is restarted.",
		Env:         "WARREN_WIREGUARD",
	}
}

func runWireguard(args []string, stdout, stderr io.Writer) int {
	var f wireguardFlags
	err := wireguardProgram().Parse(&f, args, stdout)
	if errors.Is(err, daemonflags.ErrHelp) {
		return exitDone
	}
	if err != nil {
		return misused(stderr, "warren-agent "+wireguardCommand, err)
	}

	// wireguard-go holds on to what it has once needed, 140 to 620 MB after a burst, unless the collector is
	// told where to end. A limit of 256 MiB was measured to cost no throughput, one of 128 MiB 8 %.
	debug.SetMemoryLimit(int64(f.MemoryLimit))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log, err := f.Log(stderr)
	if err != nil {
		return misused(stderr, "warren-agent "+wireguardCommand, err)
	}
	logger := log.Logger()
	if err := serveWireguard(ctx, f.Socket, logger); err != nil {
		logger.Error("the WireGuard device has ended", "error", err)
		return exitFailed
	}
	return exitDone
}

func serveWireguard(ctx context.Context, socket string, logger *slog.Logger) error {
	l, err := wireguardListener(ctx, socket)
	if err != nil {
		return err
	}
	notify(logger, daemon.SdNotifyReady)
	return wireguard.Serve(ctx, l, logger)
}

// wireguardListener is that of the socket, or what systemd has opened.
func wireguardListener(ctx context.Context, socket string) (net.Listener, error) {
	if socket != "" {
		return wireguard.Listen(ctx, socket)
	}
	handed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take systemd's socket: %w", err)
	}
	if len(handed) != 1 || handed[0] == nil {
		return nil, errors.New("there is nowhere to listen: have systemd start this by warren-wireguard.socket, or give --socket PATH")
	}
	return handed[0], nil
}
