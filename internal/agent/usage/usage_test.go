package usage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cuemby/warren/internal/agent/runtime"
	"github.com/cuemby/warren/internal/agent/supervisor"
	"github.com/cuemby/warren/internal/agent/traffic"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// meter is one of a machine where a second keeps one processor of four half busy, and each container a quarter of one.
func meter(began time.Time) *Meter {
	task := func(id, service string, own bool) supervisor.Look {
		return supervisor.Look{
			ID: id, Name: service + ".1", Service: service, ServiceID: service + "-id", OwnNetwork: own, LimitNanoCPUs: 2e9,
			Status: &warrenv1.TaskStatus{ContainerId: id + "-1", Pid: 7},
		}
	}
	return New(Sources{
		Tasks: func() []supervisor.Look {
			ended := task("ended", "web", true)
			ended.Status.Pid = 0
			return []supervisor.Look{task("t2", "web", true), task("t1", "db", false), task("gone", "web", true), ended}
		},
		Container: func(id string) (runtime.Usage, error) {
			if id == "gone-1" {
				return runtime.Usage{}, errors.New("no such group")
			}
			return runtime.Usage{CPU: time.Since(began) / 4, Memory: 64 << 20, MemoryLimit: 128 << 20}, nil
		},
		Program: func(uint32) (traffic.Traffic, error) {
			return traffic.Traffic{Received: uint64(time.Since(began).Seconds() * 1000)}, nil
		},
		Machine: func() (Machine, error) {
			ticks := uint64(time.Since(began).Milliseconds()) * 4
			return Machine{Ticks: ticks, Idle: ticks / 8 * 7, CPUs: 4, Memory: 2 << 30, TotalMemory: 8 << 30, Sent: uint64(time.Since(began).Seconds() * 500)}, nil
		},
	})
}

func TestUsageIsToldSoonAndThenEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		var last *warrenv1.NodeUsage
		enough := errors.New("enough")
		err := meter(began).Watch(t.Context(), 2*time.Second, "", func(u *warrenv1.NodeUsage) error {
			at, last = append(at, time.Since(began)), u
			if len(at) == 3 {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) || !slices.Equal(at, []time.Duration{firstLook, firstLook + 2*time.Second, firstLook + 4*time.Second}) {
			t.Fatalf("told at %v, %v", at, err)
		}
		if last.GetNanoCpus() != 5e8 || last.GetTotalNanoCpus() != 4e9 || last.GetMemoryBytes() != 2<<30 || last.GetSentPerSecond() != 500 {
			t.Errorf("the node: %v", last)
		}
		if len(last.GetTasks()) != 2 {
			t.Fatalf("tasks: %v", last.GetTasks())
		}
		db, web := last.GetTasks()[0], last.GetTasks()[1]
		if db.GetTaskId() != "t1" || db.GetNanoCpus() != 25e7 || db.GetMemoryBytes() != 64<<20 || db.GetLimitMemoryBytes() != 128<<20 || db.GetLimitNanoCpus() != 2e9 || db.ReceivedPerSecond != nil {
			t.Errorf("db: %v", db)
		}
		if web.GetTaskId() != "t2" || web.GetReceivedPerSecond() != 1000 || web.SentPerSecond == nil {
			t.Errorf("web: %v", web)
		}
	})
}

func TestOnlyTheTasksOfAServiceAreToldWhereOneIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		err := meter(time.Now()).Watch(ctx, 0, "web-id", func(u *warrenv1.NodeUsage) error {
			if len(u.GetTasks()) != 1 || u.GetTasks()[0].GetServiceName() != "web" {
				t.Errorf("tasks: %v", u.GetTasks())
			}
			cancel()
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestCountersThatBeginAnewTellNoNonsense(t *testing.T) {
	t.Parallel()
	if got := rate(1000, 10, time.Second); got != 10 {
		t.Errorf("rate %d", got)
	}
	if got := rate(0, 10, 0); got != 0 {
		t.Errorf("rate %d in no time", got)
	}
	if got := busy(Machine{Ticks: 100, Idle: 90, CPUs: 1}, Machine{Ticks: 110, Idle: 80, CPUs: 1}); got != 0 {
		t.Errorf("busy %d", got)
	}
}

func TestThisMachineIsRead(t *testing.T) {
	t.Parallel()
	m, err := readMachine()
	if err != nil || m.CPUs == 0 || m.Ticks == 0 || m.Memory == 0 || m.TotalMemory < m.Memory {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestWhatTheKernelTellsOfProcessorsAndMemoryIsReadAsItIsWritten(t *testing.T) {
	t.Parallel()
	var m Machine
	if err := m.parseStat("cpu  10 2 3 50 5 1 1 3 100 100\ncpu0 5 1 1 25 2 0 1 1 0 0\ncpu1 5 1 2 25 3 1 0 2 0 0\nintr 5\n"); err != nil || m.Ticks != 75 || m.Idle != 55 || m.CPUs != 2 {
		t.Errorf("%+v, %v", m, err)
	}
	if err := m.parseMemory("MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:    400 kB\n"); err != nil || m.TotalMemory != 1000<<10 || m.Memory != 600<<10 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, wrong := range []string{"", "cpu a b c d e f\n"} {
		if err := new(Machine).parseStat(wrong); err == nil {
			t.Errorf("%q is taken for processors", wrong)
		}
	}
	if err := new(Machine).parseMemory("MemTotal: 5 kB\n"); err == nil {
		t.Error("half of it is taken for memory")
	}
}

func TestNothingThatGoesThroughALinkToTheOutsideCountsTwice(t *testing.T) {
	t.Parallel()
	sys := t.TempDir()
	links := map[string]traffic.Traffic{}
	for _, link := range []string{"lo/", "eth0/device", "br0/bridge", "veth1/master", "warren-wg/tun_flags", "wg1/", "host0/"} {
		name, mark := filepath.Split(link)
		links[filepath.Clean(name)] = traffic.Traffic{}
		if err := os.MkdirAll(filepath.Join(sys, name, mark), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(sys, "wg1", "uevent"), []byte("DEVTYPE=wireguard\nINTERFACE=wg1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := outer(links, sys); !slices.Equal(got, []string{"eth0"}) {
		t.Errorf("outer links are %v", got)
	}
	delete(links, "eth0")
	if got := outer(links, sys); !slices.Equal(got, []string{"host0"}) {
		t.Errorf("outer links are %v", got)
	}
}
