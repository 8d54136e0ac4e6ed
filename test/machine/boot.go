//go:build linux

package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// bootListener receives what systemd-nspawn tells of a machine's boot, in the protocol of
// sd_notify(3): which process leads it, and when it has started everything.
type bootListener struct {
	path string
	conn *net.UnixConn
}

func listenForBoot(path string) (*bootListener, error) {
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return &bootListener{path: path, conn: conn}, nil
}

// wait returns the machine's leader once the boot is done. It gives up when ctx ends or off is closed.
func (b *bootListener) wait(ctx context.Context, off <-chan struct{}) (leader int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-off:
			cancel(errors.New("it switched itself off while booting"))
		case <-ctx.Done():
		}
		b.conn.Close() // ends the read below
	}()
	defer func() { <-stopped }()
	defer cancel(nil)

	message := make([]byte, 4096)
	for {
		n, err := b.conn.Read(message)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return 0, fmt.Errorf("wait for its boot: %w", err)
		}
		for line := range strings.Lines(string(message[:n])) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch {
			case key == "X_NSPAWN_LEADER_PID":
				if leader, err = strconv.Atoi(value); err != nil {
					return 0, fmt.Errorf("wait for its boot: %w", err)
				}
			case key == "READY" && value == "1" && leader != 0:
				return leader, nil
			}
		}
	}
}

func (b *bootListener) close() {
	b.conn.Close()
	_ = os.Remove(b.path)
}
