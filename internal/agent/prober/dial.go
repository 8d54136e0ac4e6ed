package prober

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Target is where a program is to be found.
type Target struct {
	// Container is the one it runs in.
	Container string
	// Namespace is the path of its network namespace; empty for the node's own.
	Namespace string
	// Addresses are those it may listen on, in the order in which they are tried where a connection is refused.
	Addresses []netip.Addr
}

// errHere is in the chain of an error that says nothing of the program: the node could not try.
var errHere = errors.New("cannot probe")

// dial connects to a port of a program from within its network namespace.
func (p *Prober) dial(ctx context.Context, at Target, port uint16) (net.Conn, error) {
	if len(at.Addresses) == 0 {
		return nil, fmt.Errorf("%w: the program has no address", errHere)
	}
	var refused error
	for _, address := range at.Addresses {
		conn, err := p.dialOne(ctx, at.Namespace, netip.AddrPortFrom(address, port))
		switch {
		case err == nil:
			// What a program does not answer ends with the probe, and so does what it answers without end.
			if deadline, ok := ctx.Deadline(); ok {
				err = conn.SetDeadline(deadline)
			}
			if err != nil {
				conn.Close()
				return nil, err
			}
			return conn, nil
		case !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EADDRNOTAVAIL): // the latter without IPv6
			return nil, err
		case refused == nil:
			refused = err
		}
	}
	return nil, refused
}

// dialOne opens the socket in the namespace and connects it from there: a socket belongs to the namespace in which
// it was opened, whoever uses it. So the thread is back home before the connection is waited for.
func (p *Prober) dialOne(ctx context.Context, namespace string, to netip.AddrPort) (net.Conn, error) {
	// A connection as short as these needs no keep-alive, nor the four system calls that set it up.
	dialer := net.Dialer{KeepAlive: -1}
	if namespace == "" {
		return dialer.DialContext(ctx, "tcp", to.String())
	}
	home, err := p.enter(namespace)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errHere, err)
	}
	dialer.ControlContext = func(context.Context, string, string, syscall.RawConn) error { return home() }
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	if stray := home(); stray != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, stray
	}
	return conn, err
}

// enter takes this goroutine's thread into a network namespace, until the function it returns is first called. A
// thread that does not find back stays with its goroutine and ends with it, instead of serving others.
func (p *Prober) enter(namespace string) (home func() error, err error) {
	fd, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", namespace, err)
	}
	defer unix.Close(fd)
	runtime.LockOSThread()
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter network namespace %s: %w", namespace, err)
	}
	away := true
	return func() error {
		if !away {
			return nil
		}
		if err := unix.Setns(p.home, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("%w: leave network namespace %s: %w", errHere, namespace, err)
		}
		away = false
		runtime.UnlockOSThread()
		return nil
	}, nil
}

// tcpProbe succeeds when the program takes a connection.
type tcpProbe struct{ port uint16 }

func (tcpProbe) kind() string { return "tcp" }

func (t tcpProbe) run(ctx context.Context, p *Prober, at Target, timeout time.Duration, _ func()) Result {
	conn, err := p.dial(ctx, at, t.port)
	if err != nil {
		return unreached(fmt.Sprintf("connect to %s", at.where(t.port)), err, timeout)
	}
	conn.Close()
	return Succeeded()
}

// unreached is the result of a probe that did not come to its answer.
func unreached(what string, err error, timeout time.Duration) Result {
	if errors.Is(err, errHere) || exhausted(err) {
		return Unknown(err.Error())
	}
	return Failed(what + ": " + plain(err, timeout))
}

// exhausted tells whether the node has run out of something.
func exhausted(err error) bool {
	for _, errno := range []syscall.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// where is what people are told of a port of the program.
func (t Target) where(port uint16) string {
	if len(t.Addresses) == 0 {
		return fmt.Sprintf("port %d", port)
	}
	return netip.AddrPortFrom(t.Addresses[0], port).String()
}
