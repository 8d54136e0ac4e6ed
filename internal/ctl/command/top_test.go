package command

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/fakemanager"
	"github.com/cuemby/warren/internal/ctl/output"
)

// tty is a terminal of which the test sees what is written.
type tty struct {
	mu      sync.Mutex
	written bytes.Buffer
}

func (t *tty) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.written.Write(p)
}

func (t *tty) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.written.String()
}

// await waits until what is written satisfies a condition.
func (t *tty) await(tb testing.TB, what string, is func(string) bool) {
	tb.Helper()
	deadline := time.After(20 * time.Second)
	for !is(t.text()) {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			tb.Fatalf("%s: in vain; written is %q", what, t.text())
		}
	}
}

func TestTopIsDrawnInPlaceUntilItIsInterrupted(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "top") //nolint:usetesting // short: it becomes a socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "m.sock")
	m, err := fakemanager.Start(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	c, err := client.New(client.Options{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	screen := &tty{}
	s := &Session{Client: c, Streams: &output.Streams{
		Out: output.Stream{Writer: screen, Terminal: true, Colour: true}, Err: output.Stream{Writer: screen}, Now: time.Now,
	}}
	if err := (&ClusterInit{}).Run(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&Top{Sort: "cpu", Interval: leastInterval, Output: "table", What: "all"}).Run(ctx, s) }()
	screen.await(t, "three frames", func(text string) bool { return strings.Count(text, "2 nodes, 0 tasks") >= 3 })
	m.BreakStreams()
	drawn := strings.Count(screen.text(), "2 nodes, 0 tasks")
	screen.await(t, "frames of another stream", func(text string) bool { return strings.Count(text, "2 nodes, 0 tasks") >= drawn+3 })
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
	// Every frame but the first begins by going up to where the one before it began.
	if text := screen.text(); strings.Count(text, "\x1b[7A") < 5 || !strings.HasSuffix(text, "\x1b[J") {
		t.Errorf("written is %q", text)
	}
}
