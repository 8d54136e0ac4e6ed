package wireguard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// processSocket in the environment makes the test's program the process of a device of userspace.
const processSocket = "WARREN_TEST_WIREGUARD_SOCKET"

func TestMain(m *testing.M) {
	socket := os.Getenv(processSocket)
	if socket == "" {
		os.Exit(m.Run())
	}
	if err := serveProcess(socket); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveProcess(socket string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := Listen(ctx, socket)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return Serve(ctx, l, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

// atMost bounds every wait: WireGuard tries a handshake that was lost again after 5 seconds.
const atMost = 30 * time.Second

// host is a network namespace with a thread in it.
type host struct {
	t       *testing.T
	kind    Kind
	address netip.Addr // of the network below
	overlay netip.Addr
	private wgtypes.Key
	ns      netns.NsHandle
	calls   chan func()
	links   *netlink.Handle
	socket  string
	process *exec.Cmd // nil for a device of the kernel's
	said    *strings.Builder
}

// do runs f in the host's network namespace.
func (h *host) do(f func()) {
	h.t.Helper()
	done := make(chan struct{})
	h.calls <- func() { defer close(done); f() }
	<-done
}

func newHost(t *testing.T, kind Kind, number byte) *host {
	t.Helper()
	h := &host{
		t: t, kind: kind, calls: make(chan func()),
		address: netip.AddrFrom4([4]byte{192, 0, 2, number}), overlay: netip.AddrFrom4([4]byte{10, 99, 0, number}),
		private: newKey(t), socket: filepath.Join(t.TempDir(), "wireguard.sock"),
	}
	started := make(chan error)
	var ended sync.WaitGroup
	ended.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this, and the namespace with its last handle
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			h.ns, err = netns.Get()
		}
		if err == nil {
			h.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		}
		started <- err
		for f := range h.calls {
			f()
		}
	})
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(h.calls)
		ended.Wait()
		h.links.Close()
		h.ns.Close()
	})
	h.up("lo")
	if kind == Userspace {
		h.startProcess()
	}
	return h
}

func newKey(t *testing.T) wgtypes.Key {
	t.Helper()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (h *host) link(name string) netlink.Link {
	h.t.Helper()
	link, err := h.links.LinkByName(name)
	if err != nil {
		h.t.Fatalf("link %s: %v", name, err)
	}
	return link
}

func (h *host) up(name string) {
	h.t.Helper()
	if err := h.links.LinkSetUp(h.link(name)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) addAddress(link string, addr netip.Addr) {
	h.t.Helper()
	err := h.links.AddrAdd(h.link(link), &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(24, 32)}})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		h.t.Fatal(err)
	}
}

// join connects two hosts by a cable.
func join(t *testing.T, a, b *host) {
	t.Helper()
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(b.ns))}
	if err := a.links.LinkAdd(cable); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host{a, b} {
		h.addAddress("eth0", h.address)
		h.up("eth0")
	}
}

func (h *host) startProcess() {
	h.t.Helper()
	program, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	said := &strings.Builder{}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), processSocket+"="+h.socket)
	cmd.Stderr = said
	ready, err := cmd.StdoutPipe()
	if err == nil {
		h.do(func() { err = cmd.Start() })
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.process, h.said = cmd, said
	h.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			kill(cmd)
		}
		if h.t.Failed() {
			h.t.Logf("the process of %v said:\n%s", h.overlay, said)
		}
	})
	if line, err := bufio.NewReader(ready).ReadString('\n'); err != nil || line != "ready\n" {
		h.t.Fatalf("the process said %q, %v", line, err)
	}
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// open opens the host's device and gives it its address.
func (h *host) open() *Device {
	h.t.Helper()
	var d *Device
	var err error
	ctx, cancel := context.WithTimeout(h.t.Context(), atMost)
	defer cancel()
	h.do(func() {
		d, err = Open(ctx, Options{Name: "wg0", MTU: 1420, Socket: h.socket, Kind: h.kind})
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { d.Close() })
	h.addAddress("wg0", h.overlay)
	return d
}

// as is the host as a peer of others'.
func (h *host) as(port int) Peer {
	return Peer{
		PublicKey: h.private.PublicKey(), Endpoint: netip.AddrPortFrom(h.address, uint16(port)),
		AllowedIPs: []netip.Prefix{netip.PrefixFrom(h.overlay, 32)},
	}
}

func (h *host) apply(d *Device, port int, peers ...Peer) {
	h.t.Helper()
	if err := d.Apply(h.t.Context(), Config{PrivateKey: h.private, ListenPort: port, Peers: peers}); err != nil {
		h.t.Fatal(err)
	}
}

// peer is what a device knows of its peer of a host.
func peerOf(t *testing.T, d *Device, of *host) PeerStatus {
	t.Helper()
	all, err := d.Peers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.PublicKey == of.private.PublicKey() {
			return s
		}
	}
	t.Fatalf("no peer %v among %+v", of.overlay, all)
	return PeerStatus{}
}

// echo answers everything that is sent to the host's port 7, over its device or not.
func (h *host) echo() {
	h.t.Helper()
	var conn *net.UDPConn
	var err error
	h.do(func() { conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 7}) })
	if err != nil {
		h.t.Fatal(err)
	}
	var ended sync.WaitGroup
	ended.Go(func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(buffer[:n], from) // the device may be away
		}
	})
	h.t.Cleanup(func() {
		conn.Close()
		ended.Wait()
	})
}

// reach sends datagrams to another host's echo until one comes back, and returns how long that took.
func (h *host) reach(other *host) time.Duration {
	h.t.Helper()
	began := time.Now()
	var conn *net.UDPConn
	for time.Since(began) < atMost {
		var err error
		if conn == nil {
			h.do(func() {
				conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(other.overlay, 7)))
			})
			if err != nil {
				h.t.Fatal(err)
			}
			defer conn.Close()
		}
		if exchange(conn, 20*time.Millisecond) == nil {
			return time.Since(began)
		}
	}
	h.t.Fatalf("%v does not reach %v within %v", h.overlay, other.overlay, atMost)
	return 0
}

// exchange sends a datagram and waits for its echo.
func exchange(conn *net.UDPConn, within time.Duration) error {
	word := strconv.FormatInt(time.Now().UnixNano(), 10)
	until := time.Now().Add(within)
	if err := conn.SetDeadline(until); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, word); err != nil {
		<-time.After(time.Until(until)) // the device is not there: at the pace of an answer that does not come
		return err
	}
	buffer := make([]byte, 2048)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return err
		}
		if string(buffer[:n]) == word {
			return nil
		}
	}
}

// stream exchanges datagrams until it is stopped, which returns the longest time that none came back.
func (h *host) stream(other *host) (stop func() (exchanges int, gap time.Duration)) {
	h.t.Helper()
	var conn *net.UDPConn
	var err error
	h.do(func() {
		conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(other.overlay, 7)))
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	var exchanges int
	var gap time.Duration
	var ended sync.WaitGroup
	first := make(chan struct{})
	ended.Go(func() {
		defer conn.Close()
		last := time.Now()
		for ctx.Err() == nil {
			if exchange(conn, 50*time.Millisecond) != nil {
				continue
			}
			if exchanges++; exchanges == 1 {
				close(first)
			}
			gap = max(gap, time.Since(last))
			last = time.Now()
			<-time.After(time.Millisecond)
		}
		gap = max(gap, time.Since(last))
	})
	stop = sync.OnceValues(func() (int, time.Duration) {
		cancel()
		ended.Wait()
		return exchanges, gap
	})
	h.t.Cleanup(func() { stop() })
	select {
	case <-first:
	case <-time.After(atMost):
		h.t.Fatal("no traffic to begin with")
	}
	return stop
}

// pair is two hosts with their devices, which know each other.
type pair struct {
	a, b         *host
	aDevice      *Device
	bDevice      *Device
	aPort, bPort int
}

func newPair(t *testing.T, kind Kind) *pair {
	t.Helper()
	p := &pair{a: newHost(t, kind, 1), b: newHost(t, kind, 2), aPort: 51820, bPort: 51821}
	join(t, p.a, p.b)
	p.aDevice, p.bDevice = p.a.open(), p.b.open()
	p.b.apply(p.bDevice, p.bPort, p.a.as(p.aPort))
	p.a.apply(p.aDevice, p.aPort, p.b.as(p.bPort))
	p.a.echo()
	p.b.echo()
	p.a.reach(p.b)
	return p
}

// forKinds runs a test with the implementations that there are on this machine.
func forKinds(t *testing.T, test func(t *testing.T, kind Kind)) {
	if os.Geteuid() != 0 {
		t.Skip("it makes network namespaces, for which it must be root")
	}
	for _, kind := range []Kind{Kernel, Userspace} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			if kind == Kernel {
				skipWithoutKernel(t)
			}
			test(t, kind)
		})
	}
}

func skipWithoutKernel(t *testing.T) {
	t.Helper()
	h := newHost(t, Kernel, 1)
	if err := h.links.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "wg0"}}); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel has no WireGuard")
	} else if err != nil {
		t.Fatal(err)
	}
}

// within waits for an event.
func within(t *testing.T, what string, event <-chan struct{}) {
	t.Helper()
	select {
	case <-event:
	case <-time.After(atMost):
		t.Fatalf("no sign of it after %v: %s", atMost, what)
	}
}
