package daemonflags

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

type someFlags struct {
	Config  ConfigFile `default:"/nowhere" placeholder:"FILE"`
	DataDir string     `default:"/var/lib/x"`
	Label   map[string]string
	Logging
}

func TestAReloadChangesHowTheDaemonLogsAndTellsWhatItDoesNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.yaml")
	parse := func() (any, Logging, error) {
		var f someFlags
		err := Program{Name: "daemon", Env: "WARREN_TEST_RELOAD"}.Parse(&f, []string{"--config", path}, io.Discard)
		return &f, f.Logging, err
	}
	configure := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure("log-level: warn\n")
	running, flags, err := parse()
	if err != nil {
		t.Fatal(err)
	}
	var out buffer
	log, err := flags.Log(&out)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	wait := Reloader{Running: running, Parse: parse, Log: log}.Start(ctx)
	defer wait()
	defer cancel()

	for _, step := range []struct {
		file  string
		wants []string
	}{
		{"log-level: debug\n", []string{"configuration read anew", "log_level=debug"}},
		{"log-level: info\nlog-format: json\ndata-dir: /elsewhere\nlabel: {zone: a}\n", []string{`"log_format":"json"`, `"keys":["data-dir","label"]`}},
		{"log-level: loud\n", []string{"all stays as it was", "loud"}},
	} {
		configure(step.file)
		out.take()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for _, want := range step.wants {
			out.await(t, want)
		}
	}
}

// buffer is what a log has written so far.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) take() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Reset()
}

func (b *buffer) await(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		b.mu.Lock()
		got := b.text.String()
		b.mu.Unlock()
		if strings.Contains(got, want) {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("waited in vain for %q in %s", want, got)
		}
	}
}
