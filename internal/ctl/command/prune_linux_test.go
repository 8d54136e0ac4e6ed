package command

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/fakemanager"
	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// terminals returns the two ends of a terminal: what is written to the keyboard is read from the screen.
func terminals(t *testing.T) (keyboard, screen *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { keyboard.Close() })
	fd := int(keyboard.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if screen, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	return keyboard, screen
}

func TestPruneRemovesNothingUnlessItIsMeant(t *testing.T) {
	dir, err := os.MkdirTemp("", "p") //nolint:usetesting // short: it becomes a socket's path
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
	if _, err := c.Cluster.InitCluster(t.Context(), connect.NewRequest(&warrenv1.InitClusterRequest{})); err != nil {
		t.Fatal(err)
	}
	const nothing, none = "Nothing was removed.", "No image is unused."
	for _, step := range []struct {
		typed, form string
		out, said   string // what is on standard output, and how standard error ends
	}{
		{typed: "n\n", form: "table", said: nothing},
		{typed: "\n", form: "table", said: nothing},
		{typed: "yeah\n", form: "table", said: nothing},
		{typed: "\x04", form: "table", said: "[y/N] \n" + nothing}, // Ctrl-D
		{typed: "no\n", form: "json", said: nothing},
		{typed: " YES \n", form: "table", out: "freed.", said: "[y/N]"},
		{typed: "", form: "table", out: none}, // there is nothing to ask about
		{typed: "", form: "json", out: `"pruned": {}`},
	} {
		keyboard, screen := terminals(t)
		if _, err := keyboard.WriteString(step.typed); err != nil {
			t.Fatal(err)
		}
		var out, said bytes.Buffer
		s := &Session{Client: c, Streams: &output.Streams{In: screen, Out: output.Stream{Writer: &out}, Err: output.Stream{Writer: &said}, Now: time.Now}}
		if err := (&SystemPrune{Output: step.form}).Run(t.Context(), s); err != nil {
			t.Fatalf("answered %q: %v", step.typed, err)
		}
		if (out.Len() > 0) != (step.out != "") || !strings.Contains(out.String(), step.out) || !strings.HasSuffix(strings.TrimSpace(said.String()), step.said) {
			t.Errorf("answered %q, it shows\n%sand says\n%s", step.typed, out.String(), said.String())
		}
	}
}

func TestPruneDoesNotAskWhereNobodyCanAnswer(t *testing.T) {
	s := &Session{Streams: &output.Streams{In: strings.NewReader("y\n"), Now: time.Now}}
	err := (&SystemPrune{Output: "table"}).Run(t.Context(), s)
	if failure.ExitCode(err) != failure.Usage || !strings.Contains(err.Error(), "give --force") {
		t.Errorf("got %v", err)
	}
}

func TestAQuestionEndsWithCtrlC(t *testing.T) {
	_, screen := terminals(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var said bytes.Buffer
	s := &Session{Streams: &output.Streams{In: screen, Err: output.Stream{Writer: &said}, Now: time.Now}}
	if _, err := s.answer(ctx, "Remove them? [y/N]"); !errors.Is(err, failure.ErrInterrupted) {
		t.Errorf("got %v", err)
	}
}
