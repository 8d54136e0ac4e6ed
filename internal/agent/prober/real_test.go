package prober

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var taskAddress = netip.MustParseAddr("10.208.3.7")

// namespace is a network namespace with a task's address, held by a thread.
type namespace struct {
	t    testing.TB
	path string
	do   chan func()
}

func makeNamespace(t testing.TB) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("makes a network namespace: needs root")
	}
	n := &namespace{t: t, do: make(chan func())}
	made, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = setUp()
		}
		n.path = fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		made <- err
		for f := range n.do {
			f()
		}
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(n.do)
		<-ended
	})
	return n
}

func setUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: taskAddress.AsSlice(), Mask: net.CIDRMask(32, 32)}}), netlink.LinkSetUp(lo))
}

// listen opens a port in the namespace.
func (n *namespace) listen(address string) (net.Listener, uint32) {
	n.t.Helper()
	var l net.Listener
	var err error
	done := make(chan struct{})
	n.do <- func() {
		defer close(done)
		l, err = net.Listen("tcp", address)
	}
	<-done
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { l.Close() })
	return l, uint32(l.Addr().(*net.TCPAddr).Port)
}

func (n *namespace) serve(address string, h http.Handler) uint32 {
	n.t.Helper()
	l, port := n.listen(address)
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	server.Start()
	n.t.Cleanup(server.Close)
	return port
}

func (n *namespace) target() Target {
	return Target{Namespace: n.path, Addresses: []netip.Addr{taskAddress}}
}

// try makes one probe.
func try(t *testing.T, at Target, check *warrenv1.HealthCheck, timeout time.Duration) Result {
	t.Helper()
	p := newProber(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return mustCompile(t, check).probe.run(ctx, p, at, timeout, func() {})
}

const patience = 20 * time.Second

func expect(t *testing.T, what string, got Result, outcome outcome, words ...string) {
	t.Helper()
	if got.outcome != outcome {
		t.Errorf("%s: %+v", what, got)
		return
	}
	for _, word := range words {
		if !strings.Contains(got.output, word) {
			t.Errorf("%s: %q does not say %q", what, got.output, word)
		}
	}
}

func page(h *warrenv1.HttpProbe) *warrenv1.HealthCheck {
	return &warrenv1.HealthCheck{Probe: &warrenv1.HealthCheck_Http{Http: h}}
}

func TestHTTPProbes(t *testing.T) {
	t.Parallel()
	n := makeNamespace(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s host=%s agent=%s x=%q", r.Method, r.URL, r.Host, r.UserAgent(), r.Header.Values("X-Probe"))
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, "the disk is full\x1b[31m\n")
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/broken", http.StatusFound) })
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		fmt.Fprint(w, "after hints")
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 400 {
			w.Header().Add("X-"+strconv.Itoa(i), strings.Repeat("x", 1000))
		}
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, "begun")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Repeat(".", bodyLimit-4)+"here")
		fmt.Fprint(w, "beyond")
	})
	mux.HandleFunc("/hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	port := n.serve(":0", mux)
	at := n.target()
	where := "http://10.208.3.7:" + strconv.Itoa(int(port))
	for _, c := range []struct {
		probe   *warrenv1.HttpProbe
		outcome outcome
		words   []string
	}{
		{&warrenv1.HttpProbe{Path: "/ok"}, succeeded, nil},
		{&warrenv1.HttpProbe{Path: "/ok?a=b", Body: `^GET /ok\?a=b host=10\.208\.3\.7:\d+ agent=warren-agent x=\[\]$`}, succeeded, nil},
		{&warrenv1.HttpProbe{
			Path: "/ok", Method: "POST", Headers: []string{"host: app.example", "X-Probe: 1", "x-probe:2", "User-Agent: me"},
			Body: `^POST /ok host=app\.example agent=me x=\["1" "2"\]$`,
		}, succeeded, nil},
		{&warrenv1.HttpProbe{Path: "/ok", Method: "HEAD"}, succeeded, nil},
		{&warrenv1.HttpProbe{Path: "/ok", Body: "no such thing"}, failed, []string{"GET " + where + "/ok: status 200, but its body does not match no such thing: GET /ok"}},
		{&warrenv1.HttpProbe{}, failed, []string{where + "/: status 404"}},
		{&warrenv1.HttpProbe{Status: "200,404"}, succeeded, nil},
		{&warrenv1.HttpProbe{Path: "/broken"}, failed, []string{"GET " + where + "/broken: status 503: the disk is full"}},
		{&warrenv1.HttpProbe{Path: "/moved"}, succeeded, nil},
		{&warrenv1.HttpProbe{Path: "/moved", Status: "200-299"}, failed, []string{"status 302"}},
		{&warrenv1.HttpProbe{Path: "/early", Body: "after hints"}, succeeded, nil},
		{&warrenv1.HttpProbe{Path: "/endless"}, succeeded, nil},
		{&warrenv1.HttpProbe{Path: "/endless", Body: "x"}, failed, []string{"does not match x"}},
		{&warrenv1.HttpProbe{Path: "/headers"}, failed, []string{"headers are longer than 128 KiB"}},
		{&warrenv1.HttpProbe{Path: "/cut"}, failed, []string{"status 200, but its body does not come to an end"}},
		{&warrenv1.HttpProbe{Path: "/late", Body: "here$"}, succeeded, nil},
		{&warrenv1.HttpProbe{Path: "/late", Body: "beyond"}, failed, []string{"does not match"}},
	} {
		c.probe.Port = port
		expect(t, c.probe.String(), try(t, at, page(c.probe), patience), c.outcome, c.words...)
	}
	begun := time.Now()
	expect(t, "one that hangs", try(t, at, page(&warrenv1.HttpProbe{Port: port, Path: "/hangs"}), 300*time.Millisecond), failed, "no answer within 300ms")
	if took := time.Since(begun); took > patience/2 {
		t.Errorf("it took %v", took)
	}
	expect(t, "a port that nothing listens on", try(t, at, page(&warrenv1.HttpProbe{Port: 1}), patience), failed, "connection refused")
}

func TestHTTPProbesSpeakTLS(t *testing.T) {
	t.Parallel()
	n := makeNamespace(t)
	l, port := n.listen(":0")
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "sni=%s", r.TLS.ServerName)
	}), ErrorLog: nil}}
	server.Config.ErrorLog = quietLog()
	server.StartTLS()
	t.Cleanup(server.Close)
	at := n.target()
	expect(t, "any certificate", try(t, at, page(&warrenv1.HttpProbe{Port: port, Tls: true, TlsSkipVerify: true, ServerName: "app.example", Body: "^sni=app.example$"}), patience), succeeded)
	expect(t, "the Host header", try(t, at, page(&warrenv1.HttpProbe{Port: port, Tls: true, TlsSkipVerify: true, Headers: []string{"Host: web.example:443"}, Body: "^sni=web.example$"}), patience), succeeded)
	expect(t, "a good certificate", try(t, at, page(&warrenv1.HttpProbe{Port: port, Tls: true}), patience), failed, "https://10.208.3.7:", "TLS handshake: ", "certificate")
	plain := n.serve(":0", http.NotFoundHandler())
	expect(t, "a server without TLS", try(t, at, page(&warrenv1.HttpProbe{Port: plain, Tls: true}), patience), failed, "TLS handshake: ")
}

func TestTCPProbesReachWhatOthersWouldReach(t *testing.T) {
	t.Parallel()
	n, other := makeNamespace(t), makeNamespace(t)
	_, everywhere := n.listen("0.0.0.0:0")
	_, inside := n.listen("127.0.0.1:0")
	_, six := n.listen("[::1]:0")
	_, elsewhere := other.listen(":0")
	at := n.target()
	expect(t, "every address", try(t, at, tcpOn(everywhere), patience), succeeded)
	expect(t, "loopback alone", try(t, at, tcpOn(inside), patience), failed, "connect to 10.208.3.7:", "connection refused")
	if elsewhere != everywhere {
		expect(t, "another namespace", try(t, at, tcpOn(elsewhere), patience), failed, "connection refused")
	}
	// Without an address of its own a program is looked for on loopback.
	loopback := Target{Namespace: n.path, Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}}
	expect(t, "IPv4 loopback", try(t, loopback, tcpOn(inside), patience), succeeded)
	expect(t, "IPv6 loopback", try(t, loopback, tcpOn(six), patience), succeeded)
	expect(t, "neither", try(t, loopback, tcpOn(1), patience), failed, "connect to 127.0.0.1:1: connection refused")
}

func TestOnTheHostsNetworkTheNodeIsProbed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := Target{Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	expect(t, "it", try(t, at, tcpOn(uint32(l.Addr().(*net.TCPAddr).Port)), patience), succeeded)
}

func TestWhatLiesWithTheNodeIsNoFailure(t *testing.T) {
	t.Parallel()
	address := []netip.Addr{taskAddress}
	for name, at := range map[string]Target{
		"a namespace that is gone":    {Namespace: "/nowhere", Addresses: address},
		"a path that is no namespace": {Namespace: "/dev/null", Addresses: address},
		"no address yet":              {Namespace: "/proc/self/ns/net"},
	} {
		if os.Geteuid() != 0 && name != "no address yet" {
			continue
		}
		expect(t, name, try(t, at, tcpOn(80), patience), unknown, "cannot probe")
		expect(t, name, try(t, at, page(&warrenv1.HttpProbe{Port: 80}), patience), unknown, "cannot probe")
	}
}

func TestGRPCProbes(t *testing.T) {
	t.Parallel()
	n := makeNamespace(t)
	l, port := n.listen(":0")
	states := health.NewServer()
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, states)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	bare, barePort := n.listen(":0")
	bareServer := grpc.NewServer()
	go func() { served <- bareServer.Serve(bare) }()
	t.Cleanup(func() {
		server.Stop()
		bareServer.Stop()
		<-served
		<-served
	})
	at := n.target()
	ask := func(port uint32, service string) *warrenv1.HealthCheck {
		return &warrenv1.HealthCheck{Probe: &warrenv1.HealthCheck_Grpc{Grpc: &warrenv1.GrpcProbe{Port: port, Service: service}}}
	}
	expect(t, "the server", try(t, at, ask(port, ""), patience), succeeded)
	expect(t, "a service that nobody knows", try(t, at, ask(port, "shop.Cart"), patience), failed, "service shop.Cart: the server does not know this service")
	states.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	expect(t, "a service that does not serve", try(t, at, ask(port, "shop.Cart"), patience), failed, "NOT_SERVING")
	states.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_SERVING)
	expect(t, "a service that serves", try(t, at, ask(port, "shop.Cart"), patience), succeeded)
	expect(t, "a server without health", try(t, at, ask(barePort, ""), patience), failed, "does not have grpc.health.v1.Health")
	web := n.serve(":0", http.NotFoundHandler())
	expect(t, "a server of HTTP", try(t, at, ask(web, ""), 2*time.Second), failed, "gRPC health of 10.208.3.7:")
	silent, silentPort := n.listen(":0")
	go func() {
		if conn, err := silent.Accept(); err == nil {
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	expect(t, "one that says nothing", try(t, at, ask(silentPort, ""), 300*time.Millisecond), failed, "no answer within 300ms")
	expect(t, "nobody", try(t, at, ask(1, ""), patience), failed, "connection refused")
}

// A thread that has been in a namespace must not serve others there.
func TestNoThreadStaysInANamespace(t *testing.T) {
	t.Parallel()
	n := makeNamespace(t)
	port := n.serve(":0", http.NotFoundHandler())
	for range 50 {
		try(t, n.target(), page(&warrenv1.HttpProbe{Port: port}), patience)
		try(t, n.target(), tcpOn(1), patience)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		p := newProber(t, Options{})
		_, _ = p.dial(ctx, n.target(), 80) // fails before there is a socket
	}
	held, err := os.Readlink(n.path)
	if err != nil {
		t.Fatal(err)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	there := 0
	for _, thread := range threads {
		if where, err := os.Readlink("/proc/self/task/" + thread.Name() + "/ns/net"); err == nil && where == held {
			there++
		}
	}
	if there != 1 { // the one that holds it
		t.Errorf("%d threads are in the namespace", there)
	}
}

// fakeExecutor is a container runtime without containers.
type fakeExecutor func(Exec) (Execution, error)

func (f fakeExecutor) Exec(_ context.Context, e Exec, launched func()) (Execution, error) {
	launched()
	return f(e)
}

func TestExecProbes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		execution Execution
		err       error
		outcome   outcome
		words     string
	}{
		{Execution{}, nil, succeeded, ""},
		{Execution{Code: 3, Output: "no database\n"}, nil, failed, "check: exit code 3: no database"},
		{Execution{Code: 1}, nil, failed, "check: exit code 1"},
		{Execution{TimedOut: true, Output: "waiting"}, nil, failed, "check did not end within 20s: waiting"},
		{Execution{Problem: `exec: "check": executable file not found in $PATH`}, nil, failed, `exec: "check": executable file not found in $PATH`},
		{Execution{}, errors.New("containerd is away"), unknown, "cannot probe: containerd is away"},
	} {
		var asked Exec
		p := newProber(t, Options{Executor: fakeExecutor(func(e Exec) (Execution, error) {
			asked = e
			return c.execution, c.err
		})})
		check := mustCompile(t, &warrenv1.HealthCheck{Probe: &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{Command: []string{"check"}, Shell: true}}})
		got := check.probe.run(t.Context(), p, Target{Container: "a-1"}, patience, func() {})
		if got != (Result{c.outcome, c.words}) {
			t.Errorf("%+v: %+v", c.execution, got)
		}
		if asked.Container != "a-1" || strings.Join(asked.Command, " ") != "/bin/sh -c check" || asked.Timeout != patience {
			t.Errorf("asked for %+v", asked)
		}
	}
	long := strings.Repeat("x", 5000) + "the end"
	p := newProber(t, Options{Executor: fakeExecutor(func(Exec) (Execution, error) { return Execution{Code: 1, Output: long}, nil })})
	got := execProbe{[]string{"a"}, "a"}.run(t.Context(), p, Target{}, patience, func() {})
	if len(got.output) > outputLimit || !strings.HasSuffix(got.output, "xthe end") {
		t.Errorf("%q", got.output)
	}
}
