package rules

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
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
		text, err := commandContext(ctx, command...).CombinedOutput()
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

// The network of most tests.
//
//	outside 198.51.100.2 ── node 198.51.100.1 ── (warren-wg) ── other
//	                          │ warren0 10.208.3.1               │ warren0 10.208.4.1
//	                          a .3.10  b .3.11  c .3.12          d .4.10  e .4.11
type world struct {
	t              testing.TB
	node, other    *host
	outside        *host
	a, b, c, d, e  *host
	rules, remote  *Rules
	variant        variant
	nodeIs, farsIs Node
}

const (
	aAddr = "10.208.3.10"
	bAddr = "10.208.3.11"
	cAddr = "10.208.3.12"
	dAddr = "10.208.4.10"
	eAddr = "10.208.4.11"
	vip1  = "10.224.0.1"
	vip2  = "10.224.7.2"
	near  = "198.51.100.1"
	far   = "198.51.100.2"
)

// variant is a backend on a kind of host.
type variant struct {
	name    string
	backend Backend
	program string
}

var variants = []variant{
	{"nftables beside iptables-nft", Nftables, "iptables-nft"},
	{"nftables beside iptables-legacy", Nftables, "iptables-legacy"},
	{"iptables-nft", IPTables, "iptables-nft"},
	{"iptables-legacy", IPTables, "iptables-legacy"},
}

// everywhere runs a test in a world of its own for every variant.
func everywhere(t *testing.T, test func(*testing.T, *world)) {
	t.Helper()
	needsRoot(t)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, v))
		})
	}
}

func aNode(third byte) Node {
	return Node{
		Bridge: "warren0", Device: "warren-wg",
		Addr:      netip.AddrFrom4([4]byte{10, 208, third, 1}),
		Subnet:    netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 208, third, 0}), 24),
		NodeRange: netip.MustParsePrefix("10.208.0.0/12"),
		VIPRange:  netip.MustParsePrefix("10.224.0.0/16"),
	}
}

func newWorld(t testing.TB, v variant) *world {
	t.Helper()
	w := &world{t: t, variant: v, nodeIs: aNode(3), farsIs: aNode(4)}
	w.node, w.other = newNodeHost(t, "node", w.nodeIs), newNodeHost(t, "other", w.farsIs)
	cable(w.node, "warren-wg", w.other, "warren-wg")
	w.node.addr("warren-wg", "192.0.2.3/24")
	w.other.addr("warren-wg", "192.0.2.4/24")
	w.node.route("10.208.4.0/24", "warren-wg", "192.0.2.4", "10.208.3.1")
	w.other.route("10.208.3.0/24", "warren-wg", "192.0.2.3", "10.208.4.1")
	for _, h := range []*host{w.node, w.other} {
		h.sysctl("ipv4/conf/warren-wg/route_localnet", "1")
	}
	w.outside = newHost(t, "outside")
	cable(w.node, "eth0", w.outside, "eth0")
	w.node.addr("eth0", near+"/24")
	w.outside.addr("eth0", far+"/24")

	w.a, w.b, w.c = w.task(w.node, "a", aAddr), w.task(w.node, "b", bAddr), w.task(w.node, "c", cAddr)
	w.d, w.e = w.task(w.other, "d", dAddr), w.task(w.other, "e", eAddr)
	w.rules, w.remote = w.open(w.node, w.nodeIs), w.open(w.other, w.farsIs)
	return w
}

// newNodeHost makes a host wired as Node says.
func newNodeHost(t testing.TB, name string, n Node) *host {
	t.Helper()
	h := newHost(t, name)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.Bridge
	attrs.HardwareAddr = net.HardwareAddr{0x02, 0, 0, 0, 0, 1}
	h.must(h.link.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	h.up(n.Bridge)
	h.addr(n.Bridge, n.Addr.String()+"/24")
	h.route(n.VIPRange.String(), n.Bridge, "", n.Addr.String())
	h.sysctl("ipv4/ip_forward", "1")
	h.sysctl("bridge/bridge-nf-call-iptables", "0")
	h.sysctl("ipv4/conf/all/send_redirects", "0")
	h.sysctl("ipv4/conf/"+n.Bridge+"/send_redirects", "0")
	h.sysctl("ipv4/conf/"+n.Bridge+"/route_localnet", "1")
	return h
}

// task makes a host that plays a task, with a server on port 80.
func (w *world) task(node *host, name, addr string) *host {
	w.t.Helper()
	h := newHost(w.t, name)
	cable(node, "veth-"+name, h, "eth0")
	node.must(node.link.LinkSetMaster(node.get("veth-"+name), node.get("warren0")))
	gateway := addr[:strings.LastIndex(addr, ".")] + ".1"
	h.addr("eth0", addr+"/32")
	h.route(gateway+"/32", "eth0", "", "")
	h.route("0.0.0.0/0", "eth0", gateway, "")
	h.serve(80)
	return h
}

// open opens a node's rules in its namespace.
func (w *world) open(h *host, n Node) *Rules {
	w.t.Helper()
	var r *Rules
	h.must(h.do(func() (err error) {
		r, err = Open(context.Background(), n, Options{Backend: w.variant.backend, Program: w.variant.program, Recheck: 50 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
		return err
	}))
	w.t.Cleanup(func() { r.Close() })
	return r
}

// everyTask is all five tasks in one network, as one of the nodes sees them.
func everyTask(n Node) []Task {
	var all []Task
	for _, addr := range []string{aAddr, bAddr, cAddr, dAddr, eAddr} {
		all = append(all, taskOf(n, addr, "default"))
	}
	return all
}

func taskOf(n Node, addr string, networks ...string) Task {
	a := netip.MustParseAddr(addr)
	return Task{Addr: a, Local: n.Subnet.Contains(a), Networks: networks}
}

func addrs(all ...string) []netip.Addr {
	var parsed []netip.Addr
	for _, one := range all {
		parsed = append(parsed, netip.MustParseAddr(one))
	}
	return parsed
}

func service(id, vip string, endpoints ...string) Service {
	return Service{ID: id, VIP: netip.MustParseAddr(vip), Endpoints: addrs(endpoints...)}
}

// replace puts services in force on both nodes, with every task in one network.
func (w *world) replace(services ...Service) {
	w.t.Helper()
	w.node.must(w.rules.Replace(context.Background(), Set{services, everyTask(w.nodeIs)}))
	w.other.must(w.remote.Replace(context.Background(), Set{services, everyTask(w.farsIs)}))
	w.settle()
}

// apply makes a change on both nodes that is the same for both.
func (w *world) apply(change Change) {
	w.t.Helper()
	w.node.must(w.rules.Apply(context.Background(), change))
	w.other.must(w.remote.Apply(context.Background(), change))
	w.settle()
}

func (w *world) settle() {
	w.t.Helper()
	w.node.must(w.rules.Settle(context.Background()))
	w.other.must(w.remote.Settle(context.Background()))
}

func mustAddr(cidr string) *netlink.Addr {
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		panic(err)
	}
	return a
}

// hammer connects again and again from the calling thread's namespace.
func hammer(b *testing.B, to string) error {
	addr := netip.MustParseAddrPort(to)
	for b.Loop() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		// Closing sends a reset, or ports run out.
		err = errors.Join(
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
			unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}),
			unix.Close(fd))
		if err != nil {
			return err
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "connections/s")
	return nil
}
