package names

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/cuemby/warren/internal/agent/overlay/port"
)

// Bounds of connections over TCP. A client needs one; some open one per question.
const (
	maxConnections          = 256
	maxConnectionsPerClient = 32
	writeTimeout            = 2 * time.Second // for an answer that nobody reads
)

// door lets connections in, from whom it may and as many as it may. One too many is closed, which the
// client sees at once, and does not keep others waiting.
type door struct {
	net.Listener
	admits func(netip.Addr) bool
	inside *load
}

func newDoor(l net.Listener, admits func(netip.Addr) bool) *door {
	return &door{l, admits, newLoad(maxConnections, maxConnectionsPerClient)}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if d.admits(client) && d.inside.enter(client) {
			d.share(c)
			return &guest{Conn: c, leave: sync.OnceFunc(func() { d.inside.leave(client) })}, nil
		}
		c.Close()
	}
}

// share has a connection not stand in the way of its port's reservation, as the kernel takes one that is accepted for
// another user's. One that does is no harm: the reservation is tried again.
func (d *door) share(c net.Conn) {
	if d.Addr().(*net.TCPAddr).Port != port.Names {
		return
	}
	if raw, err := c.(*net.TCPConn).SyscallConn(); err == nil {
		_ = port.BesideNames("", "", raw)
	}
}

// guest is a connection that was let in.
type guest struct {
	net.Conn
	leave func()
}

func (g *guest) Write(p []byte) (int, error) {
	if err := g.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return g.Conn.Write(p)
}

func (g *guest) Close() error {
	g.leave()
	return g.Conn.Close()
}

// load counts what is under way, in all and for each client. Who is beyond a bound is turned away and
// never queued.
type load struct {
	most, mostEach int

	mu   sync.Mutex
	all  int
	each map[netip.Addr]int
}

func newLoad(most, mostEach int) *load {
	return &load{most: most, mostEach: mostEach, each: map[netip.Addr]int{}}
}

func (l *load) enter(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.most || l.each[client] >= l.mostEach {
		return false
	}
	l.all++
	l.each[client]++
	return true
}

func (l *load) leave(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.each[client]--; l.each[client] == 0 {
		delete(l.each, client)
	}
}
