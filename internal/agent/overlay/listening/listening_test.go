package listening

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var taskAddress = netip.MustParseAddr("10.208.3.7")

// TestMain is also the program that listens, when it is started as one.
func TestMain(m *testing.M) {
	if os.Getenv("WARREN_TEST_PROGRAM") != "" {
		if err := listenAsTold(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// listenAsTold gives its namespace the task's address and opens what each line of its input names,
// such as "tcp4 0.0.0.0:80", until its input ends.
func listenAsTold() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: taskAddress.AsSlice(), Mask: net.CIDRMask(32, 32)}}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	fmt.Println("ready")
	var held []io.Closer // as long as the program runs
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		network, address, _ := strings.Cut(lines.Text(), " ")
		opened, err := listen(network, address)
		if err != nil {
			return err
		}
		held = append(held, opened)
		fmt.Println("listens")
	}
	for _, c := range held {
		c.Close()
	}
	return nil
}

func listen(network, address string) (io.Closer, error) {
	network, onDevice := strings.CutSuffix(network, "@lo")
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if onDevice {
			_ = c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "lo") })
		}
		return err
	}}
	switch {
	case strings.HasPrefix(network, "connected"):
		return net.Dial("udp4", address)
	case strings.HasPrefix(network, "udp"):
		return config.ListenPacket(context.Background(), network, address)
	default:
		return config.Listen(context.Background(), network, address)
	}
}

// program runs in a network namespace of its own and listens when told.
type program struct {
	t     *testing.T
	pid   int
	tell  io.WriteCloser
	heard *bufio.Scanner
}

func start(t *testing.T) *program {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("makes a network namespace: needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "WARREN_TEST_PROGRAM=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	p := &program{t, cmd.Process.Pid, in, bufio.NewScanner(out)}
	p.hear("ready")
	return p
}

func (p *program) hear(want string) {
	p.t.Helper()
	if !p.heard.Scan() || p.heard.Text() != want {
		p.t.Fatalf("program says %q, want %q", p.heard.Text(), want)
	}
}

func (p *program) listen(how string) {
	p.t.Helper()
	if _, err := io.WriteString(p.tell, how+"\n"); err != nil {
		p.t.Fatal(err)
	}
	p.hear("listens")
}

func (p *program) place() Place {
	return Place{Namespace: "/proc/" + strconv.Itoa(p.pid) + "/ns/net", Address: taskAddress}
}

func TestWhatCountsAsListening(t *testing.T) {
	t.Parallel()
	p := start(t)
	cases := []struct {
		how  string
		port Port
		want bool
	}{
		{"tcp4 0.0.0.0:1001", Port{TCP, 1001}, true},
		{"tcp [::]:1002", Port{TCP, 1002}, true},
		{"tcp4 10.208.3.7:1003", Port{TCP, 1003}, true},
		{"tcp6 [::]:1004", Port{TCP, 1004}, false}, // Go asks for IPv6 alone with tcp6
		{"tcp4 127.0.0.1:1005", Port{TCP, 1005}, false},
		{"tcp6 [::1]:1006", Port{TCP, 1006}, false},
		{"tcp4@lo 0.0.0.0:1007", Port{TCP, 1007}, false},
		{"udp4 0.0.0.0:2001", Port{UDP, 2001}, true},
		{"udp [::]:2002", Port{UDP, 2002}, true},
		{"udp4 10.208.3.7:2003", Port{UDP, 2003}, true},
		{"udp6 [::]:2004", Port{UDP, 2004}, false},
		{"udp4 127.0.0.1:2005", Port{UDP, 2005}, false},
		{"connected 10.208.3.7:2006", Port{UDP, 2006}, false},
		{"udp4 0.0.0.0:3001", Port{TCP, 3001}, false},
		{"tcp4 0.0.0.0:3002", Port{UDP, 3002}, false},
	}
	for _, c := range cases {
		before, err := Missing(p.place(), []Port{c.port})
		if err != nil || len(before) != 1 {
			t.Fatalf("%s before it listens: missing %v, %v", c.port, before, err)
		}
		p.listen(c.how)
		after, err := Missing(p.place(), []Port{c.port})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(after) == 0; got != c.want {
			t.Errorf("%s: %s counts as listening: %v, want %v", c.how, c.port, got, c.want)
		}
	}
}

func TestAwaitReturnsWhenTheLastPortListens(t *testing.T) {
	t.Parallel()
	p := start(t)
	ports := []Port{{TCP, 80}, {UDP, 53}, {TCP, 443}}
	returned := make(chan error, 1)
	go func() { returned <- Await(t.Context(), p.place(), ports) }()

	p.listen("tcp4 0.0.0.0:80")
	p.listen("udp [::]:53")
	if missing, err := Missing(p.place(), ports); err != nil || !slices.Equal(missing, ports[2:]) {
		t.Fatalf("missing %v, %v, want %v", missing, err, ports[2:])
	}
	select {
	case err := <-returned:
		t.Fatalf("returned before 443 listens: %v", err)
	default:
	}
	p.listen("tcp [::]:443")
	begun := time.Now()
	if err := <-returned; err != nil {
		t.Fatal(err)
	}
	t.Logf("seen after %v", time.Since(begun))
}

func TestAwaitNamesThePortsThatDoNotListen(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.listen("tcp4 0.0.0.0:80")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	err := Await(ctx, p.place(), []Port{{TCP, 80}, {TCP, 81}, {UDP, 82}})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "nothing listens on 81/tcp, 82/udp") {
		t.Fatal(err)
	}
}

func TestOneNamespaceSeesNothingOfAnother(t *testing.T) {
	t.Parallel()
	one, other := start(t), start(t)
	one.listen("tcp4 0.0.0.0:80")
	if missing, err := Missing(other.place(), []Port{{TCP, 80}}); err != nil || len(missing) != 1 {
		t.Fatalf("missing %v, %v", missing, err)
	}
}

func TestWithoutPortsNothingIsLookedAt(t *testing.T) {
	t.Parallel()
	nowhere := Place{Namespace: "/nowhere"}
	if err := Await(t.Context(), nowhere, nil); err != nil {
		t.Fatal(err)
	}
	if missing, err := Missing(nowhere, nil); err != nil || missing != nil {
		t.Fatal(missing, err)
	}
}

func TestBadPlacesAndPortsAreToldApart(t *testing.T) {
	t.Parallel()
	cases := []struct {
		at   Place
		port Port
		want string
	}{
		{Place{"/proc/self/ns/net", netip.Addr{}}, Port{TCP, 80}, "the task's address is missing"},
		{Place{"/proc/self/ns/net", taskAddress}, Port{"sctp", 80}, "80/sctp: protocol must be tcp or udp"},
		{Place{"/nowhere", taskAddress}, Port{TCP, 80}, "/nowhere: no such file"},
		{Place{"/dev/null", taskAddress}, Port{TCP, 80}, "/dev/null"},
	}
	for _, c := range cases {
		if _, err := Missing(c.at, []Port{c.port}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %v: error %v, want %q", c.at, c.port, err, c.want)
		}
	}
}

func TestShortAnswersAreNoSockets(t *testing.T) {
	t.Parallel()
	for n := range answerSize {
		if _, ok := parse(make([]byte, n)); ok {
			t.Errorf("%d bytes are a socket", n)
		}
	}
	if _, ok := parse(append([]byte{unix.AF_INET6}, make([]byte, answerSize+2)...)); ok {
		t.Error("a cut attribute is taken")
	}
}

func BenchmarkMissing(b *testing.B) {
	at := Place{"/proc/self/ns/net", taskAddress}
	ports := []Port{{TCP, 1}, {UDP, 1}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Missing(at, ports); err != nil {
			b.Fatal(err)
		}
	}
}
