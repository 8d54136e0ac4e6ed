// Package watchdog has systemd end a daemon that hangs, where its unit says WatchdogSec.
//
// A ping says that the daemon has answered a call as it would anybody's: that it takes connections, that the calls come
// through, and that nobody holds on to what has to be locked for an answer. A timer of its own would ping for ever beside
// a daemon that is dead to all others. Start with Keep.
package watchdog

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Keep pings systemd until ctx ends, as often as its unit demands, each time that the daemon has answered a call of a
// procedure, which takes an empty request, on its unix socket. It returns at once where no watchdog is wanted.
func Keep(ctx context.Context, socket, procedure string, logger *slog.Logger) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		logger.Warn("cannot make out how often systemd wants to be pinged", "error", err)
	}
	if within <= 0 {
		return
	}
	ask := func(ctx context.Context) error { return call(ctx, socket, procedure) }
	ping := func() {
		if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
			logger.Warn("cannot ping systemd", "error", err)
		}
	}
	keep(ctx, within/tries, ask, ping, logger)
}

// tries are how many calls there are before systemd ends the daemon. Each may take as long as all of them: where a machine is so
// busy that every answer is late, late answers tell that the daemon lives.
const tries = 3

func keep(ctx context.Context, every time.Duration, ask func(context.Context) error, ping func(), logger *slog.Logger) {
	var asking sync.WaitGroup
	defer asking.Wait()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		asking.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, tries*every)
			defer cancel()
			if err := ask(bounded); err == nil {
				ping()
			} else if ctx.Err() == nil {
				logger.Warn("no answer to a call of my own; systemd's watchdog ends what hangs", "error", err)
			}
		})
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// call calls a procedure and returns once there is an answer, whatever it says: a refusal is one, too. It speaks HTTP by
// itself: an HTTP client, of which nothing else is needed here, adds 200 KB to a daemon.
func call(ctx context.Context, socket, procedure string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", procedure); err != nil {
		return fmt.Errorf("call %s: %w", procedure, err)
	}
	status, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("call %s: %w", procedure, err)
	}
	if !strings.HasPrefix(status, "HTTP/") {
		return fmt.Errorf("call %s: %q is no answer", procedure, status)
	}
	return nil
}
