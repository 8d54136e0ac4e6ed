package rules

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// patience bounds every wait of these tests.
const patience = 5 * time.Second

// host is a network namespace that plays a machine or a container.
type host struct {
	t    testing.TB
	name string
	ns   netns.NsHandle
	link *netlink.Handle
}

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("makes network namespaces, which only root may")
	}
}

func newHost(t testing.TB, name string) *host {
	t.Helper()
	h := &host{t: t, name: name}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its namespace
		var err error
		h.ns, err = netns.New()
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	var err error
	if h.link, err = netlink.NewHandleAt(h.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.link.Close()
		h.ns.Close()
	})
	h.up("lo")
	return h
}

// do runs something in the host.
func (h *host) do(what func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(h.ns); err != nil {
			done <- err
			return
		}
		done <- what()
	}()
	return <-done
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
}

func (h *host) get(name string) netlink.Link {
	h.t.Helper()
	l, err := h.link.LinkByName(name)
	h.must(err)
	return l
}

func (h *host) up(name string) {
	h.t.Helper()
	h.must(h.link.LinkSetUp(h.get(name)))
}

func (h *host) addr(link, cidr string) {
	h.t.Helper()
	a, err := netlink.ParseAddr(cidr)
	h.must(err)
	h.must(h.link.AddrAdd(h.get(link), a))
}

// route adds a route to a range; by way of a gateway, if given, and from an address, if given.
func (h *host) route(to, link, via, src string) {
	h.t.Helper()
	_, dst, err := net.ParseCIDR(to)
	h.must(err)
	r := &netlink.Route{Dst: dst, LinkIndex: h.get(link).Attrs().Index, Scope: netlink.SCOPE_LINK}
	if via != "" {
		r.Gw, r.Scope = net.ParseIP(via), netlink.SCOPE_UNIVERSE
	}
	if src != "" {
		r.Src = net.ParseIP(src)
	}
	h.must(h.link.RouteAdd(r))
}

// cable joins two hosts by a pair of links.
func cable(a *host, aLink string, b *host, bLink string) {
	a.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = aLink
	a.must(a.link.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: bLink, PeerNamespace: netlink.NsFd(int(b.ns))}))
	a.up(aLink)
	b.up(bLink)
}

func (h *host) sysctl(name, value string) {
	h.t.Helper()
	h.must(h.do(func() error {
		err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
		if errors.Is(err, os.ErrNotExist) {
			return nil // bridge's, where the kernel has it not
		}
		return err
	}))
}

// run runs a command in the host and returns what it prints.
func (h *host) run(command ...string) string {
	h.t.Helper()
	var out string
	h.must(h.do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		text, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		out = string(text)
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, text)
		}
		return nil
	}))
	return out
}

// serve answers on TCP and UDP: who it is and whom it sees, and then for every line so again.
func (h *host) serve(port uint16) {
	h.t.Helper()
	at := fmt.Sprintf(":%d", port)
	var l net.Listener
	var p net.PacketConn
	h.must(h.do(func() (err error) {
		if l, err = net.Listen("tcp4", at); err != nil {
			return err
		}
		p, err = net.ListenPacket("udp4", at)
		return err
	}))
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				seen := c.RemoteAddr().(*net.TCPAddr).IP.String()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					fmt.Fprintf(c, "%s %s\n", h.name, seen)
				}
			}()
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for buf := make([]byte, 64); ; {
			_, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			fmt.Fprintf(packetTo{p, from}, "%s %s\n", h.name, from.(*net.UDPAddr).IP)
		}
	}()
	h.t.Cleanup(func() {
		l.Close()
		p.Close()
		<-done
		<-done
	})
}

type packetTo struct {
	net.PacketConn
	to net.Addr
}

func (p packetTo) Write(b []byte) (int, error) { return p.WriteTo(b, p.to) }

// dial connects from the host; UDP is connected too, so that it hears that nobody is there.
func (h *host) dial(network, to string) (net.Conn, error) {
	var c net.Conn
	err := h.do(func() (err error) {
		c, err = (&net.Dialer{Timeout: patience}).Dial(network, to)
		return err
	})
	return c, err
}

// say asks over a connection who is there.
func say(c net.Conn) (who, seen string, err error) {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return "", "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "", "", err
	}
	_, err = fmt.Sscan(line, &who, &seen)
	return who, seen, err
}

// ask connects, asks who is there and hangs up.
func (h *host) ask(network, to string) (who, seen string, err error) {
	c, err := h.dial(network, to)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	return say(c)
}

// tally asks so many times and counts who answers. It does so from one thread in the host: to enter it for every connection
// takes longer than the connection.
func (h *host) tally(network, to string, n int) map[string]int {
	h.t.Helper()
	got := map[string]int{}
	h.must(h.do(func() error {
		for range n {
			c, err := (&net.Dialer{Timeout: patience}).Dial(network, to)
			if err != nil {
				return err
			}
			who, _, err := say(c)
			if err := errors.Join(err, c.Close()); err != nil {
				return err
			}
			got[who]++
		}
		return nil
	}))
	return got
}

// reaches fails the test unless one of those named answers, seeing the client as told.
func (h *host) reaches(network, to, seen string, who ...string) {
	h.t.Helper()
	gotWho, gotSeen, err := h.ask(network, to)
	if err != nil {
		h.t.Errorf("%s to %s %s: %v", h.name, network, to, err)
		return
	}
	if !strings.Contains(" "+strings.Join(who, " ")+" ", " "+gotWho+" ") || gotSeen != seen {
		h.t.Errorf("%s to %s %s: answers %s seeing %s, want %s seeing %s", h.name, network, to, gotWho, gotSeen, who, seen)
	}
}

// refused fails the test unless nobody answers, and says so at once.
func (h *host) refused(network, to string) {
	h.t.Helper()
	start := time.Now()
	who, _, err := h.ask(network, to)
	if err == nil {
		h.t.Errorf("%s to %s %s: %s answers, want it refused", h.name, network, to, who)
		return
	}
	var slow net.Error
	if errors.As(err, &slow) && slow.Timeout() || time.Since(start) > patience/2 {
		h.t.Errorf("%s to %s %s: %v after %s, want it refused at once", h.name, network, to, err, time.Since(start))
	}
}

func mustAddr(cidr string) *netlink.Addr {
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		panic(err)
	}
	return a
}
