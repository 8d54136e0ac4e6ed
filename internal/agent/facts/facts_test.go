package facts

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func machine(t *testing.T, o Options) *Machine {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	if o.Engine == nil {
		o.Engine = func(context.Context) (Engine, error) { return Engine{ContainerdVersion: "1"}, nil }
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestWhatIsKeptBackIsNotOffered(t *testing.T) {
	all := machine(t, Options{}).Collect(t.Context()).GetResources()
	less := machine(t, Options{ReserveCPUs: 0.25, ReserveMemory: 1 << 20}).Collect(t.Context()).GetResources()
	if all.GetNanoCpus() != int64(runtime.NumCPU())*1e9 || all.GetNanoCpus()-less.GetNanoCpus() != 250e6 {
		t.Errorf("%d of %d billionths of a processor are offered", less.GetNanoCpus(), all.GetNanoCpus())
	}
	if all.GetMemoryBytes()-less.GetMemoryBytes() != 1<<20 {
		t.Errorf("%d of %d bytes are offered", less.GetMemoryBytes(), all.GetMemoryBytes())
	}
}

func TestMoreThanThereIsCannotBeKeptBack(t *testing.T) {
	for flag, o := range map[string]Options{
		"--reserve-cpu 1e+06": {ReserveCPUs: 1e6}, "--reserve-cpu NaN": {ReserveCPUs: math.NaN()}, "--reserve-memory": {ReserveMemory: 1 << 60},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: got %v", flag, err)
		}
	}
}

func TestARuntimeThatDoesNotAnswerIsDescribedAsLastHeard(t *testing.T) {
	var err error
	m := machine(t, Options{Hostname: "h", Labels: map[string]string{"k": "v"}, Engine: func(context.Context) (Engine, error) {
		return Engine{ContainerdVersion: "1.6"}, err
	}})
	m.Collect(t.Context())
	err = errors.New("down")
	got := m.Collect(t.Context())
	if got.GetContainerdVersion() != "1.6" || got.GetHostname() != "h" || got.GetEngineLabels()["k"] != "v" ||
		got.GetKernel() == "" || got.GetCgroupVersion() == 0 {
		t.Errorf("collected %v", got)
	}
}

func TestTheDistributionIsReadFromTheFirstFileThereIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "os-release")
	if err := os.WriteFile(path, []byte("NAME=x\n# no\nPRETTY_NAME=\"Some Linux 1\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := osName("/nowhere/os-release", path); got != "Some Linux 1" {
		t.Errorf("got %q", got)
	}
	if err := os.WriteFile(path, []byte("PRETTY_NAME='Linux fran\xe7ais'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := osName(path); got != "Linux fran\uFFFDais" {
		t.Errorf("of an older encoding: got %q", got)
	}
}

func TestWatchingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := machine(t, Options{}).Watch(ctx); err != nil {
		t.Error(err)
	}
}
