package names

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// shelf is a keeper as systemd is one: it has files of its own for what it is given.
type shelf struct {
	t    *testing.T
	held map[string]*os.File
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{t, map[string]*os.File{}}
	t.Cleanup(func() {
		for _, file := range s.held {
			file.Close()
		}
	})
	return s
}

func (s *shelf) duplicate(file *os.File) *os.File {
	s.t.Helper()
	raw, err := file.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	var fd int
	if err := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		s.t.Fatal(err)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), file.Name())
}

func (s *shelf) Keep(name string, file *os.File) error {
	s.held[name] = s.duplicate(file)
	return nil
}

func (s *shelf) Take(name string) *os.File {
	if s.held[name] == nil {
		return nil
	}
	return s.duplicate(s.held[name])
}

func (s *shelf) Drop(name string) error {
	if file := s.held[name]; file != nil {
		file.Close()
	}
	delete(s.held, name)
	return nil
}

// serveOn serves on the sockets until the function it returns is called.
func serveOn(t *testing.T, sockets *Sockets, addr netip.AddrPort) (*Server, func()) {
	t.Helper()
	var s *Server
	for s == nil {
		var err error
		s, err = Listen(t.Context(), Options{Addr: addr, Directory: cluster(), Ranges: clusterRanges, Sockets: sockets, ResolvConf: os.DevNull})
		if err != nil && (addr.Port() != 0 || !errors.Is(err, unix.EADDRINUSE)) {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	return s, func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

func TestAQueryThatComesWhileNoAgentIsThereIsAnsweredByTheNext(t *testing.T) {
	t.Parallel()
	kept := newShelf(t)
	first := Recall(kept, slog.New(slog.DiscardHandler))
	s, stop := serveOn(t, first, netip.MustParseAddrPort("127.0.0.6:0"))
	addr := s.Addr()
	stop()
	first.Close()

	var asking []*dns.Conn
	for _, transport := range []string{"udp", "tcp"} {
		c, err := dns.DialTimeout(transport, addr.String(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.WriteMsg(query("web", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		asking = append(asking, c)
	}

	second := Recall(kept, slog.New(slog.DiscardHandler))
	defer second.Close()
	for range 2 { // the network may be brought up anew in one agent's life
		_, stop := serveOn(t, second, addr)
		for _, c := range asking {
			if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if m, err := c.ReadMsg(); err != nil || len(m.Answer) != 1 {
				t.Errorf("over %s: %v, %v", c.RemoteAddr().Network(), m, err)
			}
		}
		stop()
		for i, c := range asking {
			if i > 0 { // a connection ends with its server
				again, err := dns.DialTimeout("tcp", addr.String(), 10*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				defer again.Close()
				c, asking[i] = again, again
			}
			if err := c.WriteMsg(query("web", dns.TypeA)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestSocketsOfAnotherAddressAreLetGo(t *testing.T) {
	t.Parallel()
	kept := newShelf(t)
	sockets := Recall(kept, slog.New(slog.DiscardHandler))
	s, stop := serveOn(t, sockets, netip.MustParseAddrPort("127.0.0.7:0"))
	before := s.Addr()
	stop()
	s, stop = serveOn(t, sockets, netip.MustParseAddrPort("127.0.0.8:0"))
	stop()
	sockets.Drop()
	if len(kept.held) > 0 {
		t.Errorf("kept %v", kept.held)
	}
	for _, addr := range []netip.AddrPort{before, s.Addr()} {
		again, err := Listen(t.Context(), Options{Addr: addr, Directory: cluster()})
		if err != nil {
			t.Errorf("the address is not given back: %v", err)
			continue
		}
		again.udp.Close()
		again.tcp.Close()
	}
}

func TestKeptSocketsThatAreOfNoUseAreReplaced(t *testing.T) {
	t.Parallel()
	kept := newShelf(t)
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.9:0")))
	if err != nil {
		t.Fatal(err)
	}
	file, err := udp.File()
	if err != nil {
		t.Fatal(err)
	}
	udp.Close()
	defer file.Close()
	for name, files := range map[string][2]*os.File{"one of two": {file, nil}, "no listener": {file, file}} {
		for i, f := range files {
			if f != nil {
				_ = kept.Keep([]string{udpSocket, tcpSocket}[i], f)
			}
		}
		sockets := Recall(kept, slog.New(slog.DiscardHandler))
		if len(kept.held) > 0 {
			t.Errorf("%s: kept %v", name, kept.held)
		}
		_, stop := serveOn(t, sockets, netip.MustParseAddrPort("127.0.0.10:0"))
		stop()
		sockets.Drop()
	}
}
