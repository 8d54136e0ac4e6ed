package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

const (
	// socketGroup may use the unix socket, beside root, where the group exists.
	socketGroup = "warren"
	// headerTimeout ends connections that do not come to the point; idleTimeout those that no longer say
	// anything. Open streams are not idle.
	headerTimeout = 10 * time.Second
	idleTimeout   = 3 * time.Minute
	// maxStreams is how many calls one connection may carry at once: a user's program may watch many
	// things, a proxy may carry many users.
	maxStreams = 10_000
)

// listener is a place where calls come in.
type listener struct {
	net.Listener
	server *http.Server
}

// listen opens the listeners that the options ask for, or none.
func listen(ctx context.Context, o Options) ([]*listener, error) {
	socket, err := listenUnix(ctx, o.Socket)
	if err != nil {
		return nil, err
	}
	if o.ListenAddr == "" {
		return []*listener{{Listener: socket}}, nil
	}
	tcp, err := new(net.ListenConfig).Listen(ctx, "tcp", o.ListenAddr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for agents: %w: choose another address with --listen-addr", err), socket.Close())
	}
	return []*listener{{Listener: socket}, {Listener: tcp}}, nil
}

// serve makes the listener's server: HTTP/1.1 for curl, HTTP/2 for everyone else, on one port.
func (l *listener) serve(handler http.Handler, logger *slog.Logger) {
	if l.Addr().Network() == "unix" {
		handler = withProfiles(handler)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	l.server = &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// withProfiles adds Go's profiles, which only those who administer the machine may see.
func withProfiles(handler http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", handler)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// mayListen refuses addresses that others can reach, unless the operator insists.
func mayListen(addr string, insecure bool) error {
	if addr == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--listen-addr %s: it must be HOST:PORT, such as 127.0.0.1:7420", addr)
	}
	if ip, err := netip.ParseAddr(host); insecure || host == "localhost" || err == nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("--listen-addr %s: other machines can reach it, and nothing is encrypted or checked yet: if everyone on that network is trusted, give --insecure", addr)
}

// listenUnix listens on a unix socket for root and the group warren. One that a manager left behind
// is taken over; one on which somebody answers is not.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen on the unix socket: %w", err)
	}
	if err := removeStale(ctx, path); err != nil {
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

func removeStale(ctx context.Context, path string) error {
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
		return fmt.Errorf("%s: another program answers there: is another warren-manager running?", path)
	}
	return os.Remove(path)
}

// admit lets root and the group warren use a socket.
func admit(path string) error {
	if group, err := user.LookupGroup(socketGroup); err == nil {
		gid, err := strconv.Atoi(group.Gid)
		if err != nil {
			return fmt.Errorf("group %s: %w", socketGroup, err)
		}
		// Without the right to, the socket stays with this user's own group.
		if err := os.Chown(path, -1, gid); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return os.Chmod(path, 0o660)
}

// advertised returns under which host:port agents reach a listener; empty where there is none. An address
// that stands for all of the machine's own is replaced by the first that others may reach.
func advertised(configured string, addr net.Addr) string {
	if configured != "" || addr == nil {
		return configured
	}
	listening, err := netip.ParseAddrPort(addr.String())
	if err != nil || !listening.Addr().IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort(cmp.Or(reachable(), "127.0.0.1"), strconv.Itoa(int(listening.Port())))
}

// reachable returns this machine's first address that is not of loopback or one link alone, IPv4 before
// IPv6.
func reachable() string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	var six string
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil || !prefix.Addr().IsGlobalUnicast() {
			continue
		}
		if prefix.Addr().Is4() {
			return prefix.Addr().String()
		}
		six = cmp.Or(six, prefix.Addr().String())
	}
	return six
}
