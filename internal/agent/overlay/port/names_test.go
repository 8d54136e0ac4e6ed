package port_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/agent/overlay/names"
	"github.com/cuemby/warren/internal/agent/overlay/port"
)

// own is the node's address, as the one that the agent answers names on.
var own = netip.MustParseAddrPort("127.0.0.5:53")

var both = []port.Port{{Protocol: port.TCP, Number: port.Names}, {Protocol: port.UDP, Number: port.Names}}

// empty is a cluster without services.
type empty struct{}

func (empty) Service(string, netip.Addr) (names.Service, bool) { return names.Service{}, false }
func (empty) Name(_, _ netip.Addr) (string, bool)              { return "", false }

// shelf keeps the sockets of names over the agent's life, as systemd does.
type shelf map[string]int

func (s shelf) Keep(name string, file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(from uintptr) { s[name], err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }), err)
}

func (s shelf) Take(name string) *os.File {
	held, ok := s[name]
	if !ok {
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(held), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}

func (s shelf) Drop(name string) error {
	if held, ok := s[name]; ok {
		unix.Close(held)
	}
	delete(s, name)
	return nil
}

// answerNames serves names until the function it returns is called.
func answerNames(t *testing.T, sockets *names.Sockets) (stop func()) {
	t.Helper()
	s, err := names.Listen(t.Context(), names.Options{Addr: own, Directory: empty{}, Sockets: sockets, ResolvConf: os.DevNull})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	return func() {
		end()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

// mustAnswer asks for a name over UDP and TCP, as often as it takes to tell that no other socket has a part of the packets.
// It returns the last connection, which stays open.
func mustAnswer(t *testing.T) net.Conn {
	t.Helper()
	ask := func(ctx context.Context, network, name string) error {
		resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, own.String())
		}}
		_, err := resolver.LookupNetIP(ctx, "ip4", name)
		return err
	}
	for i := range 50 {
		for _, network := range []string{"udp", "tcp"} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if err := ask(ctx, network, "ns.dns.warren.internal."); err != nil {
				t.Fatalf("question %d over %s: %v", i, network, err)
			}
			cancel()
		}
	}
	c, err := net.Dial("tcp", own.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	// A whole question (of the root's name servers), so that it has been accepted when it is answered.
	question := []byte{0, 17, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1}
	if _, err := c.Write(question); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	return c
}

// intruders tells which ways other programs, of root and of others, have into the port. At the agent's own address there is
// none even while it is not reserved.
func intruders(t *testing.T, addresses ...string) {
	t.Helper()
	for _, p := range both {
		for _, address := range addresses {
			for what, options := range map[string][]int{
				"plain": nil, "SO_REUSEADDR": {unix.SO_REUSEADDR}, "SO_REUSEPORT": {unix.SO_REUSEPORT}, "both": {unix.SO_REUSEADDR, unix.SO_REUSEPORT},
			} {
				for _, user := range []int{0, 65534} {
					closer, err := openAs(user, p, address, options...)
					if !errors.Is(err, unix.EADDRINUSE) {
						t.Errorf("%s at %s, %s, of user %d: %v", p, address, what, user, err)
					}
					if err == nil {
						closer()
					}
				}
			}
		}
	}
}

func openAs(user int, p port.Port, address string, options ...int) (func() error, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	config.Control = func(_, _ string, c syscall.RawConn) error {
		var err error
		control := c.Control(func(fd uintptr) {
			err = errors.Join(unix.Fchown(int(fd), user, -1), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 0))
			for _, o := range options {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 1))
			}
		})
		return errors.Join(control, err)
	}
	address = fmt.Sprintf("%s:%d", address, p.Number)
	if p.Protocol == port.UDP {
		c, err := config.ListenPacket(context.Background(), "udp", address)
		if err != nil {
			return nil, err
		}
		return c.Close, nil
	}
	l, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return l.Close, nil
}

func reserve(t *testing.T) *port.Keeper {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	k := port.New(slog.New(slog.DiscardHandler))
	t.Cleanup(k.Close)
	return k
}

func mustReserve(t *testing.T, k *port.Keeper, ports ...port.Port) {
	t.Helper()
	if err := k.Set(ports); err != nil {
		t.Fatal(err)
	}
	if got := k.Taken(); len(got) > 0 {
		t.Fatalf("taken: %v", got)
	}
}

func TestThePortOfNamesIsReservedBesideTheAgentsOwnSockets(t *testing.T) {
	k := reserve(t)
	sockets := names.Recall(shelf{}, slog.New(slog.DiscardHandler))
	defer sockets.Drop()

	stop := answerNames(t, sockets)
	intruders(t, own.Addr().String())
	mustAnswer(t) // and leaves remains, and a connection that is open
	mustReserve(t, k, both...)
	mustAnswer(t)
	intruders(t, own.Addr().String(), "0.0.0.0", "127.0.0.1", "127.0.0.9", "[::]", "[::1]")
	if _, err := net.DialTimeout("tcp", "127.0.0.1:53", time.Second); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("at another address: %v", err)
	}
	stop()

	// Names may come to be answered when the port is reserved already, and be answered for longer than it is.
	sockets.Drop()
	stop = answerNames(t, sockets)
	mustAnswer(t)
	mustReserve(t, k)
	mustAnswer(t)
	intruders(t, own.Addr().String())
	mustReserve(t, k, both...)
	stop()
}

func TestThePortOfNamesStaysReservedWhileTheAgentRestarts(t *testing.T) {
	k := reserve(t)
	kept := shelf{}
	first := names.Recall(kept, slog.New(slog.DiscardHandler))
	answerNames(t, first)()
	first.Close()

	mustReserve(t, k, both...)
	second := names.Recall(kept, slog.New(slog.DiscardHandler))
	defer second.Drop()
	stop := answerNames(t, second)
	defer stop()
	mustAnswer(t)
	mustReserve(t, k)
	mustReserve(t, k, both...)
}

func TestSocketsOfAnAgentThatDidNotShareThePortOfNamesAreReplaced(t *testing.T) {
	k := reserve(t)
	kept := shelf{}
	packets, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(own))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(own))
	if err != nil {
		t.Fatal(err)
	}
	for name, socket := range map[string]interface{ File() (*os.File, error) }{"names.udp": packets, "names.tcp": listener} {
		file, err := socket.File()
		if err != nil {
			t.Fatal(err)
		}
		if err := kept.Keep(name, file); err != nil {
			t.Fatal(err)
		}
		file.Close()
	}
	packets.Close()
	listener.Close()

	sockets := names.Recall(kept, slog.New(slog.DiscardHandler))
	defer sockets.Drop()
	if len(kept) > 0 {
		t.Errorf("kept: %v", kept)
	}
	defer answerNames(t, sockets)()
	mustReserve(t, k, both...)
	mustAnswer(t)
}

func TestWhoHasThePortOfNamesIsToldAsOfAnyOther(t *testing.T) {
	k := reserve(t)
	sockets := names.Recall(shelf{}, slog.New(slog.DiscardHandler))
	defer sockets.Drop()
	defer answerNames(t, sockets)()
	release, err := openAs(0, both[1], "127.0.0.53")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := k.Set(both); err != nil {
		t.Fatal(err)
	}
	got := k.Taken()
	if len(got) != 1 || got[0].Port != both[1] || got[0].By == "" || got[0].Err != nil {
		t.Fatalf("taken: %v", got)
	}
	mustAnswer(t)
}
