package port

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inWorld tells the test process that it runs in a network namespace of its own, where all ports are free.
const inWorld = "WARREN_TEST_IN_NAMESPACE"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // each test says what it misses
	}
	if os.Getenv(inWorld) != "" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "bring lo up: %v: %s\n", err, out)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // Pdeathsig is about this thread
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), inWorld+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := again.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "run the tests in a network namespace of their own:", err)
		os.Exit(1)
	}
}

func keeper(t *testing.T) *Keeper {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	k := New(slog.New(slog.DiscardHandler))
	t.Cleanup(k.Close)
	return k
}

func set(t *testing.T, k *Keeper, wanted ...Port) {
	t.Helper()
	if err := k.Set(wanted); err != nil {
		t.Fatal(err)
	}
}

// addresses are those that a program may bind.
var addresses = []string{"0.0.0.0", "127.0.0.1", "127.0.0.9", "[::]", "[::1]"}

// open binds as a program would, with the given socket options on.
func open(p Port, address string, options ...int) (func() error, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		control := c.Control(func(fd uintptr) {
			// Go sets SO_REUSEADDR for listeners by itself.
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
			for _, o := range options {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 1))
			}
		})
		return errors.Join(control, err)
	}}
	address = fmt.Sprintf("%s:%d", address, p.Number)
	if p.Protocol == UDP {
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

func TestNobodyElseCanHaveAPortThatIsKept(t *testing.T) {
	k := keeper(t)
	ports := []Port{{TCP, 1001}, {UDP, 1001}, {UDP, 1002}}
	set(t, k, ports...)
	if got := k.Taken(); len(got) > 0 {
		t.Fatalf("taken: %v", got)
	}
	for _, p := range ports {
		for _, address := range addresses {
			for name, options := range map[string][]int{
				"plain": nil, "SO_REUSEADDR": {unix.SO_REUSEADDR}, "SO_REUSEPORT": {unix.SO_REUSEPORT},
				"both": {unix.SO_REUSEADDR, unix.SO_REUSEPORT},
			} {
				release, err := open(p, address, options...)
				if !errors.Is(err, unix.EADDRINUSE) {
					t.Errorf("%s at %s, %s: %v", p, address, name, err)
				}
				if err == nil {
					release()
				}
			}
		}
	}
	// What is not kept is free, and what is kept no longer too.
	set(t, k, ports[:1]...)
	for _, p := range []Port{{TCP, 1002}, {UDP, 1001}, {UDP, 1002}} {
		release, err := open(p, "0.0.0.0")
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		release()
	}
	k.Close()
	k.Close()
	release, err := open(ports[0], "[::]")
	if err != nil {
		t.Fatal(err)
	}
	release()
	if err := k.Set(nil); err == nil {
		t.Error("a closed keeper took an order")
	}
}

func TestConnectionsToAKeptPortAreRefusedAndDatagramsDropped(t *testing.T) {
	k := keeper(t)
	set(t, k, Port{TCP, 1011}, Port{UDP, 1011})
	for _, address := range []string{"127.0.0.1:1011", "[::1]:1011"} {
		if _, err := net.DialTimeout("tcp", address, time.Second); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: %v", address, err)
		}
		c, err := net.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(make([]byte, 1000)); err != nil {
			t.Errorf("%s: %v", address, err)
		}
		c.Close()
	}
	for _, family := range []string{"udp", "udp6"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + family)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if s, ok := parse(line); ok && s.port == 1011 && !strings.Contains(line, "00000000:00000000") {
				t.Errorf("something waits to be read:\n%s", line)
			}
		}
	}
}

func TestPortsThatAProgramHasAreReportedWithItsNameAndKeptWhenTheyAreFree(t *testing.T) {
	k := keeper(t)
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	by := fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(name)), os.Getpid())
	var ports []Port
	var want []Taken
	var releases []func() error
	for i, address := range addresses {
		for _, protocol := range []Protocol{TCP, UDP} {
			p := Port{protocol, uint16(1021 + i)}
			release, err := open(p, address)
			if err != nil {
				t.Fatal(err)
			}
			ports, want, releases = append(ports, p), append(want, Taken{Port: p, By: by}), append(releases, release)
		}
	}
	set(t, k, ports...)
	await(t, k)
	got := k.Taken()
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if text, want := got[0].String(), "port 1021/tcp of this host is in use by "+by+": stop that, or publish another port"; text != want {
		t.Errorf("got %q", text)
	}
	for _, release := range releases {
		release()
	}
	for len(k.Taken()) > 0 {
		await(t, k)
	}
	for i, p := range ports {
		if _, err := open(p, addresses[i/2]); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s is not reserved: %v", p, err)
		}
	}
}

func TestATakenPortThatIsNoLongerWantedIsForgotten(t *testing.T) {
	k := keeper(t)
	p := Port{TCP, 1031}
	release, err := open(p, "0.0.0.0")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	set(t, k, p, Port{UDP, 1031})
	await(t, k)
	set(t, k, Port{UDP, 1031})
	await(t, k)
	if got := k.Taken(); len(got) > 0 {
		t.Errorf("got %v", got)
	}
	set(t, k, Port{UDP, 1031})
	select {
	case <-k.Changed():
		t.Error("nothing has changed")
	default:
	}
}

func TestTwoKeepersDoNotShareAPort(t *testing.T) {
	first, second := keeper(t), keeper(t)
	set(t, first, Port{TCP, 1041})
	set(t, second, Port{TCP, 1041})
	if got := second.Taken(); len(got) != 1 || got[0].By != somebody {
		t.Errorf("got %v", got)
	}
	first.Close()
	await(t, second) // that it was taken
	if len(second.Taken()) > 0 {
		await(t, second)
	}
	if got := second.Taken(); len(got) > 0 {
		t.Errorf("got %v", got)
	}
}

func TestThePortOfAConnectionThatIsClosingIsReportedAsSuch(t *testing.T) {
	k := keeper(t)
	listener, err := net.Listen("tcp4", "127.0.0.1:0") // another each time, as the remains stay for a minute
	if err != nil {
		t.Fatal(err)
	}
	p := Port{TCP, uint16(listener.Addr().(*net.TCPAddr).Port)}
	client, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	server.Close() // who closes first keeps the remains
	client.Read(make([]byte, 1))
	client.Close()
	// The client's answer to that is on its way when Close returns; its remains are there when it came.
	for deadline := time.Now().Add(5 * time.Second); ; {
		if _, ends := sockets(p); ends {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no connection is closing")
		}
		runtime.Gosched()
	}
	set(t, k, p)
	if got := k.Taken(); len(got) != 1 || got[0].By != closing {
		t.Errorf("got %v", got)
	}
}

func TestWhatCannotBeAPortIsRefusedAndChangesNothing(t *testing.T) {
	k := keeper(t)
	set(t, k, Port{TCP, 1061})
	for _, bad := range []Port{{TCP, 0}, {"sctp", 1}, {"", 1}} {
		if err := k.Set([]Port{{TCP, 1062}, bad}); err == nil || !strings.Contains(err.Error(), bad.String()) {
			t.Errorf("%s: got %v", bad, err)
		}
	}
	if _, err := open(Port{TCP, 1061}, "0.0.0.0"); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("what was kept is not: %v", err)
	}
}

func TestTriesAreASecondApartAndThirtyInTheEnd(t *testing.T) {
	var got []time.Duration
	for tries := range 8 {
		got = append(got, retryDelay(tries+1)/time.Second)
	}
	if want := []time.Duration{1, 2, 4, 8, 16, 30, 30, 30}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func await(t *testing.T, k *Keeper) {
	t.Helper()
	select {
	case <-k.Changed():
	case <-time.After(10 * time.Second):
		t.Fatal("nothing has changed")
	}
}
