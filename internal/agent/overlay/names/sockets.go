package names

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/cuemby/warren/internal/agent/overlay/port"
)

// The names under which the sockets are kept.
const (
	udpSocket = "names.udp"
	tcpSocket = "names.tcp"
)

// Keeper holds files while no agent is there to: a query that comes meanwhile waits in its socket.
type Keeper interface {
	Keep(name string, file *os.File) error
	// Take returns what an earlier agent has kept; nil if nothing.
	Take(name string) *os.File
	Drop(name string) error
}

// Sockets are those that names are asked for on. They stay open for longer than a server is there, and than the agent
// is, and are taken away by Drop alone. Their methods may be called at the same time.
//
// A server gets duplicates, and closes them: the keeper has the address bound all the time, so that nobody could bind it
// anew.
type Sockets struct {
	keeper Keeper
	log    *slog.Logger

	mu       sync.Mutex
	addr     netip.AddrPort // what both are bound to; the zero AddrPort where there are none
	udp, tcp *os.File
}

// Recall returns the sockets that an earlier agent has kept, if any.
func Recall(keeper Keeper, logger *slog.Logger) *Sockets {
	s := &Sockets{keeper: keeper, log: logger, udp: keeper.Take(udpSocket), tcp: keeper.Take(tcpSocket)}
	if s.udp == nil && s.tcp == nil {
		return s
	}
	var err error
	if s.addr, err = s.bound(); err != nil {
		logger.Warn("the sockets that were kept for names are of no use; new ones are made", "error", err)
		s.drop()
	}
	return s
}

// bound is the address of both.
func (s *Sockets) bound() (netip.AddrPort, error) {
	packets, listener, err := s.duplicate()
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer packets.Close()
	defer listener.Close()
	addr := packets.LocalAddr().(*net.UDPAddr).AddrPort()
	if listener.Addr().(*net.TCPAddr).AddrPort() != addr {
		return addr, fmt.Errorf("they are bound to %s over UDP and %s over TCP", addr, listener.Addr())
	}
	if addr.Port() == port.Names && (!port.SharesNames(packets) || !port.SharesNames(listener)) {
		return addr, fmt.Errorf("an earlier agent made them, whose port %d could not be published", addr.Port())
	}
	return addr, nil
}

// listen returns sockets at the address: those that are there, or new ones, which are kept from then on.
func (s *Sockets) listen(ctx context.Context, addr netip.AddrPort) (net.PacketConn, net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addr != addr {
		s.drop()
		if err := s.bind(ctx, addr); err != nil {
			return nil, nil, err
		}
	}
	packets, listener, err := s.duplicate()
	if err != nil {
		return nil, nil, fmt.Errorf("serve names on %s: %w", addr, err)
	}
	return packets, listener, nil
}

// bind makes the sockets. The caller holds s.mu.
func (s *Sockets) bind(ctx context.Context, addr netip.AddrPort) error {
	packets, listener, err := bind(ctx, addr)
	if err != nil {
		return err
	}
	defer packets.Close()
	defer listener.Close()
	if s.udp, err = packets.(*net.UDPConn).File(); err == nil {
		s.tcp, err = listener.(*net.TCPListener).File()
	}
	if err != nil {
		s.close()
		return fmt.Errorf("serve names on %s: %w", addr, err)
	}
	s.addr = packets.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := errors.Join(s.keeper.Keep(udpSocket, s.udp), s.keeper.Keep(tcpSocket, s.tcp)); err != nil {
		s.log.Warn("names are not answered while the agent restarts", "error", err)
	}
	return nil
}

// bind binds both at the address; with port 0 both at the same. The port of names itself they share with its reservation,
// as it may be published.
func bind(ctx context.Context, addr netip.AddrPort) (net.PacketConn, net.Listener, error) {
	var config net.ListenConfig
	if addr.Port() == port.Names {
		config.Control = port.BesideNames
		config.SetMultipathTCP(false) // of which the socket that has the port is an inner one, out of reach
	}
	packets, err := config.ListenPacket(ctx, "udp", addr.String())
	if err != nil {
		return nil, nil, listenError(addr, "UDP", err)
	}
	addr = packets.LocalAddr().(*net.UDPAddr).AddrPort()
	listener, err := config.Listen(ctx, "tcp", addr.String())
	if err != nil {
		packets.Close()
		return nil, nil, listenError(addr, "TCP", err)
	}
	return packets, listener, nil
}

func (s *Sockets) duplicate() (*net.UDPConn, *net.TCPListener, error) {
	if s.udp == nil || s.tcp == nil {
		return nil, nil, errors.New("one of two is missing")
	}
	packets, err := net.FilePacketConn(s.udp)
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.FileListener(s.tcp)
	if err != nil {
		return nil, nil, errors.Join(err, packets.Close())
	}
	udp, isUDP := packets.(*net.UDPConn)
	tcp, isTCP := listener.(*net.TCPListener)
	if !isUDP || !isTCP {
		return nil, nil, errors.Join(fmt.Errorf("they are of %s and %s", packets.LocalAddr().Network(), listener.Addr().Network()), packets.Close(), listener.Close())
	}
	return udp, tcp, nil
}

// Drop closes the sockets for good, wherever they are kept. A server that has some closes its own.
func (s *Sockets) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
}

func (s *Sockets) drop() {
	if s.udp == nil && s.tcp == nil {
		return
	}
	s.close()
	s.addr = netip.AddrPort{}
	if err := errors.Join(s.keeper.Drop(udpSocket), s.keeper.Drop(tcpSocket)); err != nil {
		s.log.Warn("sockets that were kept for names stay open", "error", err)
	}
}

// Close closes the sockets here. They stay open where they are kept.
func (s *Sockets) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close()
	s.addr = netip.AddrPort{}
}

func (s *Sockets) close() {
	for _, file := range []*os.File{s.udp, s.tcp} {
		if file != nil {
			file.Close()
		}
	}
	s.udp, s.tcp = nil, nil
}
