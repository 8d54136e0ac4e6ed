package prober

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }

// TestMain is also the program that is probed, when it is started as one.
func TestMain(m *testing.M) {
	if os.Getenv("WARREN_TEST_PROGRAM") != "" {
		beProbed()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// beProbed serves in the namespace it was started in, until its input ends.
func beProbed() {
	if err := setUp(); err != nil {
		fmt.Println(err)
		return
	}
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })}
	go server.Serve(l)
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// BenchmarkWatching measures what 200 tasks cost that are probed, as a share of one processor, without what the probed
// program takes, which is another process. One run watches for as long as it takes, whatever b.N is.
func BenchmarkWatching(b *testing.B) {
	const tasks = 200
	if os.Geteuid() != 0 {
		b.Skip("makes a network namespace: needs root")
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	program := exec.Command(self)
	program.Env = append(os.Environ(), "WARREN_TEST_PROGRAM=1")
	program.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	in, err := program.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := program.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := program.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = program.Wait()
	})
	if heard := bufio.NewScanner(out); !heard.Scan() || heard.Text() != "ready" {
		b.Fatal(heard.Text())
	}
	at := Target{Namespace: "/proc/" + strconv.Itoa(program.Process.Pid) + "/ns/net", Addresses: []netip.Addr{taskAddress}}
	checks := map[string]*warrenv1.HealthCheck{"http": page(&warrenv1.HttpProbe{Port: 80}), "tcp": tcpOn(80)}
	for _, kind := range []string{"http", "tcp"} {
		for _, interval := range []time.Duration{time.Second, 10 * time.Second} {
			b.Run(kind+"/"+strings.TrimSuffix(interval.String(), "s")+"s", func(b *testing.B) {
				p, err := New(Options{})
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				check := mustCompile(b, checks[kind])
				check.Interval = interval
				ctx, cancel := context.WithCancel(b.Context())
				var watching sync.WaitGroup
				heap, probes := heapBytes(), countingTarget{at: at}
				for range tasks {
					watching.Add(1)
					p.Watch(ctx, Subject{
						Check: check, Target: probes.target, Started: time.Now(), Before: Health{State: healthy, Since: time.Now()},
						Tell:  func(h Health) { b.Errorf("%+v", h) },
						Ended: watching.Done,
					})
				}
				<-time.After(interval) // all have begun
				probes.reset()
				b.ReportMetric(float64(heapBytes()-heap)/tasks, "heap-B/task")
				before, begun := processorTime(), time.Now()
				<-time.After(max(5*time.Second, interval))
				used, took := processorTime()-before, time.Since(begun)
				b.ReportMetric(100*float64(used)/float64(took), "%cpu")
				b.ReportMetric(float64(used.Microseconds())/float64(probes.count()), "µs/probe")
				b.ReportMetric(0, "ns/op")
				cancel()
				watching.Wait()
			})
		}
	}
}

type countingTarget struct {
	at Target
	mu sync.Mutex
	n  int
}

func (c *countingTarget) target() Target {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.at
}

func (c *countingTarget) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *countingTarget) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n = 0
}

func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
