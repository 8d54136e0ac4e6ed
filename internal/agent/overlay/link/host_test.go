package link

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inWorld tells the test process that it runs in network and mount namespaces of its own, which take with
// them whatever a test that is killed leaves behind.
const inWorld = "WARREN_TEST_IN_NAMESPACES"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // each test says what it misses
	}
	if os.Getenv(inWorld) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, "make mounts private:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // Pdeathsig is about this thread
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), inWorld+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := again.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own:", err)
		os.Exit(1)
	}
}

var (
	nodes = netip.MustParsePrefix("10.208.0.0/12")
	vips  = netip.MustParsePrefix("10.224.0.0/16")
)

const (
	mtu    = 1420
	bridge = "warren0"
	device = "warren-wg"
)

// host is a machine: a network namespace of its own.
type host struct {
	t     *testing.T
	ns    netns.NsHandle
	dir   string
	node  Node
	wires *Wires
}

// newHost makes the machine with the given number. It does not forward, and nothing is up but lo.
func newHost(t *testing.T, number byte) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	h := &host{t: t, dir: filepath.Join(t.TempDir(), "netns"), node: Node{
		Addr:      netip.AddrFrom4([4]byte{10, 208, number, 1}),
		Subnet:    netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 208, number, 0}), 24),
		NodeRange: nodes, VIPRange: vips, MTU: mtu,
	}}
	h.must(borrowThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		h.ns, err = netns.Get()
		return err
	}))
	t.Cleanup(func() { h.ns.Close() })
	h.inside(h.ns, func() error {
		return apply(setting{forwardSetting, "0"}, setting{"bridge/bridge-nf-call-iptables", "0"})
	})
	h.sh("ip link set lo up")
	h.wires = h.open()
	t.Cleanup(func() {
		if err := h.wires.Down(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		mounted, _ := filepath.Glob(filepath.Join(h.dir, "*"))
		for _, m := range mounted {
			unix.Unmount(m, unix.MNT_DETACH)
		}
	})
	return h
}

// open is what an agent that starts does.
func (h *host) open() *Wires {
	h.t.Helper()
	var w *Wires
	h.inside(h.ns, func() (err error) {
		w, err = Open(Options{Bridge: bridge, Device: device, NamespaceDir: h.dir, Logger: slog.New(slog.DiscardHandler)})
		return err
	})
	h.t.Cleanup(func() { w.Close() })
	return w
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) inside(ns netns.NsHandle, f func() error) {
	h.t.Helper()
	h.must((&Wires{}).within(ns, f))
}

// sh runs commands on the host, one a line.
func (h *host) sh(commands string) string {
	h.t.Helper()
	return h.shIn(h.ns, commands)
}

func (h *host) shIn(ns netns.NsHandle, commands string) string {
	h.t.Helper()
	var out []byte
	h.inside(ns, func() error {
		for line := range strings.Lines(commands) {
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			o, err := exec.Command(words[0], words[1:]...).Output() // without ip's warnings
			if err != nil {
				if exit, ok := errors.AsType[*exec.ExitError](err); ok {
					o = exit.Stderr
				}
				return fmt.Errorf("%s: %w: %s", strings.TrimSpace(line), err, o)
			}
			out = append(out, o...)
		}
		return nil
	})
	return string(out)
}

func (h *host) up() {
	h.t.Helper()
	h.must(h.wires.Up(h.t.Context(), h.node))
}

// addr is an address of the host's subnet.
func (h *host) addr(last byte) netip.Addr {
	a := h.node.Addr.As4()
	a[3] = last
	return netip.AddrFrom4(a)
}

// task is an attached task: its namespace and address.
type task struct {
	host *host
	ns   netns.NsHandle
	addr netip.Addr
}

func (h *host) attach(id string, last byte) *task {
	h.t.Helper()
	path, err := h.wires.Attach(h.t.Context(), id, h.addr(last))
	h.must(err)
	return h.task(path, last)
}

func (h *host) task(path string, last byte) *task {
	h.t.Helper()
	ns, err := netns.GetFromPath(path)
	h.must(err)
	h.t.Cleanup(func() { ns.Close() })
	return &task{host: h, ns: ns, addr: h.addr(last)}
}

// itself is the host as one that calls.
func (h *host) itself() *task { return &task{host: h, ns: h.ns, addr: h.node.Addr} }

const port = 80

// serve has the task answer on its port with its own address and its caller's.
func (k *task) serve() {
	k.host.t.Helper()
	var listener net.Listener
	k.host.inside(k.ns, func() (err error) {
		listener, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		return err
	})
	k.host.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			caller := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
			fmt.Fprintf(conn, "%s hears %s", k.addr, caller)
			conn.Close()
		}
	}()
}

// call connects to an address and returns what it answers.
func (k *task) call(to netip.Addr) (string, error) {
	var answer []byte
	err := (&Wires{}).within(k.ns, func() error {
		conn, err := net.DialTimeout("tcp4", netip.AddrPortFrom(to, port).String(), 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		answer, err = io.ReadAll(conn)
		return err
	})
	return string(answer), err
}

// hears checks that k reaches one task at an address, and that this one sees k's own.
func (k *task) hears(at netip.Addr, one *task) {
	k.host.t.Helper()
	got, err := k.call(at)
	if want := fmt.Sprintf("%s hears %s", one.addr, k.addr); err != nil || got != want {
		k.host.t.Errorf("%s calls %s: got %q, %v; want %q", k.addr, at, got, err, want)
	}
}

// join connects two hosts by what stands in for WireGuard: a pair of links that ask for no neighbours.
func join(a, b *host) {
	a.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = device, mtu
	attrs.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	a.must(a.wires.kernel.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: device, PeerHardwareAddr: attrs.HardwareAddr, PeerNamespace: netlink.NsFd(b.ns),
	}))
	for _, h := range []*host{a, b} {
		h.sh("ip link set " + device + " arp off up")
	}
	for _, h := range []*host{a, b} {
		h.must(settle(h.t.Context(), h.wires.kernel, device))
	}
}

// state is all that is to be as before when Warren is gone.
func (h *host) state() string {
	h.t.Helper()
	var settings strings.Builder
	h.inside(h.ns, func() error {
		return filepath.WalkDir("/proc/sys/net", func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.Contains(path, "stat_refresh") || strings.Contains(path, "conntrack_count") {
				return err
			}
			if text, err := os.ReadFile(path); err == nil {
				fmt.Fprintf(&settings, "%s = %s\n", path, strings.TrimSpace(string(text)))
			}
			return nil
		})
	})
	mounts, err := os.ReadFile("/proc/self/mounts")
	h.must(err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, h.dir) {
			settings.WriteString(line)
		}
	}
	return timers.ReplaceAllString(h.sh("ip -d link\nip addr\nip -4 route show table all\nip rule\nip neigh\nbridge fdb")+settings.String(), "")
}

// timers are what a bridge tells of its clocks.
var timers = regexp.MustCompile(`\w+_timer +[0-9.]+`)

// differ returns the lines that are in one text only.
func differ(before, after string) string {
	var out strings.Builder
	in := func(text string) map[string]bool {
		lines := map[string]bool{}
		for l := range strings.Lines(text) {
			lines[l] = true
		}
		return lines
	}
	was, is := in(before), in(after)
	for l := range strings.Lines(before) {
		if !is[l] {
			out.WriteString("- " + l)
		}
	}
	for l := range strings.Lines(after) {
		if !was[l] {
			out.WriteString("+ " + l)
		}
	}
	return out.String()
}
