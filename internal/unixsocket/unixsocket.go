// Package unixsocket opens the sockets by which those who administer a machine reach its daemons.
//
// Start with Listen. Who is at the other end of a connection is package caller's to find out; the mode of
// the socket keeps everybody else away before that.
package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cuemby/warren/internal/caller"
)

// Listen listens on a unix socket for root and the group warren. One that a daemon left behind is taken
// over; one on which somebody answers is not. The daemon's name is for what is said to people.
func Listen(ctx context.Context, path, daemon string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen on the unix socket: %w", err)
	}
	if err := removeStale(ctx, path, daemon); err != nil {
		return nil, fmt.Errorf("listen on the unix socket: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the unix socket: %w: choose another path with --socket", err)
	}
	// Until here the umask lets nobody else write to it, which is what connecting takes.
	if err := admit(path); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on the unix socket: %w", err), l.Close())
	}
	return l, nil
}

func removeStale(ctx context.Context, path, daemon string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is no socket: remove it, or choose another path with --socket", path)
	}
	if c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); err == nil {
		c.Close()
		return fmt.Errorf("%s: another program answers there: is another %s running?", path, daemon)
	}
	return os.Remove(path)
}

// admit lets root and the group warren use a socket.
func admit(path string) error {
	if group, err := user.LookupGroup(caller.SocketGroup); err == nil {
		gid, err := strconv.Atoi(group.Gid)
		if err != nil {
			return fmt.Errorf("group %s: %w", caller.SocketGroup, err)
		}
		// Without the right to, the socket stays with this user's own group.
		if err := os.Chown(path, -1, gid); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return os.Chmod(path, 0o660)
}
