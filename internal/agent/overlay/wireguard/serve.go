package wireguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"

	"github.com/cuemby/warren/internal/unixsocket"
)

// A connection's first line, and the answer to it. Agents speak to processes that older and newer agents
// have started: these lines do not change.
//
//	open NAMESPACE NAME MTU    the device of that name, made where there is none; its MTU is that one from here on
//	remove NAMESPACE NAME      end the process, and its device with it
//
//	ok                         done
//	error WHY                  not done
//
// NAMESPACE is the network namespace in which the agent wants the device. A process that lives in another
// is one that the agent should not have found.
func openLine(namespace, name string, mtu int) string {
	return fmt.Sprintf("open %s %s %d\n", namespace, name, mtu)
}

func removeLine(namespace, name string) string { return fmt.Sprintf("remove %s %s\n", namespace, name) }

func answerLine(err error) string {
	if err != nil {
		return "error " + strings.ReplaceAll(err.Error(), "\n", "; ") + "\n"
	}
	return "ok\n"
}

// readAnswer returns the error that an answer is, if it is one.
func readAnswer(line string) error {
	what, why, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	switch what {
	case "ok":
		return nil
	case "error":
		return errors.New(why)
	}
	return fmt.Errorf("it answers %q: does another program listen there?", line)
}

// namespace identifies the network namespace of the current thread.
func namespace() (string, error) {
	const path = "/proc/thread-self/ns/net"
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fmt.Sprintf("%d:%d", s.Dev, s.Ino), nil
}

// Listen listens on a socket as systemd does for warren-wireguard.socket: for root alone.
func Listen(ctx context.Context, socket string) (net.Listener, error) {
	l, err := unixsocket.Listen(ctx, socket, "warren-agent wireguard")
	if err != nil {
		return nil, err
	}
	// Whoever came before this is asked for credentials.
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// errRemoved is how serving ends when it was asked to.
var errRemoved = errors.New("the device was removed")

// firstLineWithin is how long a connection may take to say what it is for.
const firstLineWithin = 10 * time.Second

// Serve is the process of a device of userspace: it makes the device, in the network namespace of the
// process, when it is first asked for, and lets those who connect configure it. It closes l and returns
// when the device was removed, or ctx ends, which are no errors, or when somebody else deleted the link.
// The device ends with it.
func Serve(ctx context.Context, l net.Listener, logger *slog.Logger) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	s := &server{ctx: ctx, end: end, logger: logger}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	s.accept(l)
	s.takeDown()
	s.running.Wait()
	cause := context.Cause(ctx)
	if errors.Is(cause, errRemoved) || errors.Is(cause, context.Canceled) {
		return nil
	}
	return cause
}

type server struct {
	ctx     context.Context
	end     context.CancelCauseFunc
	logger  *slog.Logger
	running sync.WaitGroup

	mu      sync.Mutex
	removed bool // and so about to end
	name    string
	tun     *tunDevice     // nil until the device is asked for
	device  *device.Device // likewise
}

func (s *server) accept(l net.Listener) {
	for s.ctx.Err() == nil {
		c, err := l.Accept()
		if err == nil {
			s.running.Go(func() { s.attend(c) })
			continue
		}
		if s.ctx.Err() != nil {
			return
		}
		if errors.Is(err, net.ErrClosed) {
			s.end(fmt.Errorf("listen for agents: %w", err))
			return
		}
		// The device is to live on whatever this machine is short of.
		s.logger.Warn("cannot accept a connection", "error", err)
		select {
		case <-time.After(time.Second):
		case <-s.ctx.Done():
		}
	}
}

// attend serves one connection.
func (s *server) attend(c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(s.ctx, func() { c.Close() })
	defer stop()
	if err := checkRoot(c); err != nil {
		s.logger.Warn("refused a connection", "error", err)
		return
	}
	line, err := readFirstLine(c)
	if err != nil {
		s.logger.Debug("a connection ended before it said what for", "error", err)
		return
	}
	opened, err := s.obey(line)
	if err != nil {
		s.logger.Warn("cannot do what was asked", "asked", strings.TrimSpace(line), "error", err)
	}
	if _, gone := c.Write([]byte(answerLine(err))); gone != nil {
		s.logger.Debug("nobody waits for an answer", "error", gone)
	}
	switch {
	case err != nil:
	case opened != nil:
		opened.IpcHandle(c)
	default:
		s.end(errRemoved)
	}
}

// checkRoot makes sure of what the socket's mode says.
func checkRoot(c net.Conn) error {
	local, ok := c.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("a connection by %s: it must be a unix socket's", c.LocalAddr().Network())
	}
	raw, err := local.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("find out who connects: %w", err)
	}
	if peer.Uid != 0 {
		return fmt.Errorf("user %d is not root", peer.Uid)
	}
	return nil
}

// readFirstLine reads no more than the line.
func readFirstLine(c net.Conn) (string, error) {
	if err := c.SetReadDeadline(time.Now().Add(firstLineWithin)); err != nil {
		return "", err
	}
	line, next := make([]byte, 0, 128), make([]byte, 1)
	for len(line) < cap(line) {
		if _, err := c.Read(next); err != nil {
			return "", err
		}
		if line = append(line, next[0]); next[0] == '\n' {
			return string(line), c.SetReadDeadline(time.Time{})
		}
	}
	return "", errors.New("the first line is too long")
}

// obey does what a first line asks. It returns the device that is open now, if it is.
func (s *server) obey(line string) (*device.Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	words := strings.Fields(line)
	switch {
	case len(words) == 4 && words[0] == "open":
		mtu, err := strconv.Atoi(words[3])
		if err != nil {
			return nil, fmt.Errorf("MTU %q: it must be a number", words[3])
		}
		o := Options{Name: words[2], MTU: mtu}
		if err := errors.Join(o.check(), checkNamespace(words[1]), s.checkName(o.Name)); err != nil {
			return nil, err
		}
		return s.open(o.Name, o.MTU)
	case len(words) == 3 && words[0] == "remove":
		if err := errors.Join(checkNamespace(words[1]), s.checkName(words[2])); err != nil {
			return nil, err
		}
		s.removed = true
		s.close()
		return nil, nil
	}
	return nil, fmt.Errorf("%q is not understood", strings.TrimSpace(line))
}

func checkNamespace(wanted string) error {
	here, err := namespace()
	if err == nil && here != wanted {
		err = errors.New("this process lives in another network namespace: each needs a process, and a socket, of its own")
	}
	return err
}

func (s *server) checkName(name string) error {
	if s.device != nil && s.name != name {
		return fmt.Errorf("this process has device %s: %s needs a process, and a socket, of its own", s.name, name)
	}
	return nil
}

// open sees to it that the device is there. The caller holds s.mu.
func (s *server) open(name string, mtu int) (*device.Device, error) {
	if s.removed || s.ctx.Err() != nil {
		return nil, errors.New("this process is about to end: ask again")
	}
	if s.device != nil {
		have, err := s.tun.MTU()
		if err == nil && have != mtu {
			err = s.tun.setMTU(mtu)
		}
		return s.device, err
	}
	tun, err := openTUN(name, mtu)
	if err != nil {
		return nil, err
	}
	made := device.NewDevice(tun, conn.NewDefaultBind(), s.deviceLogger())
	if err := made.Up(); err != nil {
		made.Close()
		return nil, fmt.Errorf("take up the device: %w", err)
	}
	s.name, s.tun, s.device = name, tun, made
	s.running.Go(func() {
		<-made.Wait()
		if s.mu.Lock(); !s.removed {
			s.end(errors.New("the link is gone: somebody deleted it"))
		}
		s.mu.Unlock()
	})
	s.logger.Info("the device is up", "device", name, "mtu", mtu)
	return made, nil
}

// close ends the device, if there is one. The caller holds s.mu.
func (s *server) close() {
	if s.device != nil {
		s.device.Close()
	}
}

// takeDown ends the device when serving does.
func (s *server) takeDown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close()
}

// deviceLogger has the device say to debug what it says: what it calls an error is for the most part a
// packet that could not be sent, to a peer that is not there.
func (s *server) deviceLogger() *device.Logger {
	logf := func(format string, args ...any) {
		if s.logger.Enabled(s.ctx, slog.LevelDebug) {
			s.logger.Debug("wireguard-go", "says", fmt.Sprintf(format, args...))
		}
	}
	return &device.Logger{Verbosef: device.DiscardLogf, Errorf: logf}
}
