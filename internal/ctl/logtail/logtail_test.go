package logtail

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/fakemanager"
	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var epoch = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

const (
	stdout = warrenv1.OutputStream_OUTPUT_STREAM_STDOUT
	stderr = warrenv1.OutputStream_OUTPUT_STREAM_STDERR
)

func line(task string, at int, text string) *warrenv1.LogLine {
	return &warrenv1.LogLine{
		TaskId: task, TaskName: "web." + task, NodeHostname: "n1", Stream: stdout,
		Time: timestamppb.New(epoch.Add(time.Duration(at))), Line: []byte(text),
	}
}

func TestAStreamTakenUpAgainBringsEachLineOnceAndLeavesNoneOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Lines of several tasks come merged by time; times may be equal. The reader sees a beginning,
		// then asks again, possibly several times.
		var written []*warrenv1.LogLine
		at := 0
		for n := range rapid.IntRange(0, 30).Draw(t, "lines") {
			at += rapid.IntRange(0, 2).Draw(t, "later")
			written = append(written, line(rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "task"), at, strconv.Itoa(n)))
		}
		r := NewResumer(epoch)
		sel := &warrenv1.LogSelection{Follow: true}
		var printed []string
		for round := range 4 {
			upTo := len(written)
			if round < 3 {
				upTo = rapid.IntRange(0, len(written)).Draw(t, "seen")
			}
			for _, l := range written[:upTo] {
				if sel.GetSince() != nil && l.GetTime().AsTime().Before(sel.GetSince().AsTime()) {
					continue
				}
				if r.Fresh(l) {
					printed = append(printed, string(l.GetLine()))
				}
			}
			sel = r.Again(&warrenv1.LogSelection{Follow: true})
		}
		for n := range written {
			if len(printed) != len(written) || printed[n] != strconv.Itoa(n) {
				t.Fatalf("printed %q of %d lines", printed, len(written))
			}
		}
	})
}

func TestATailThatBrokeIsTakenUpFromItsBeginning(t *testing.T) {
	five := uint32(5)
	again := NewResumer(epoch).Again(&warrenv1.LogSelection{Tail: &five})
	if again.Tail != nil || !again.GetSince().AsTime().Equal(epoch) {
		t.Errorf("asked again for %v", again)
	}
	if again := NewResumer(epoch).Again(&warrenv1.LogSelection{}); again.GetSince() != nil {
		t.Errorf("asked again for %v, although nothing has been seen", again)
	}
}

func streams(out, err *bytes.Buffer, colour bool) *output.Streams {
	return &output.Streams{
		Out: output.Stream{Writer: out, Colour: colour}, Err: output.Stream{Writer: err, Colour: colour},
		Now: func() time.Time { return epoch },
	}
}

func TestLinesAreJoinedNamedAndSentWhereTheyBelong(t *testing.T) {
	var out, err bytes.Buffer
	p := newPrinter(streams(&out, &err, false), Look{Names: true, Times: true})
	first := line("1", 0, "a long ")
	first.Partial = true
	p.line(first)
	wrong := line("10", 1, "wrong")
	wrong.Stream = stderr
	p.line(wrong)
	p.line(line("1", 2, "line"))
	unfinished := line("1", 3, "unfinished")
	unfinished.Partial = true
	p.line(unfinished)
	p.flush()
	p.notice("node n3 is down")
	const wantOut = "2026-11-23T10:00:00.000000000Z web.1@n1  | a long line\n2026-11-23T10:00:00.000000003Z web.1@n1  | unfinished\n"
	const wantErr = "2026-11-23T10:00:00.000000001Z web.10@n1 | wrong\nwarrenctl: node n3 is down\n"
	if out.String() != wantOut || err.String() != wantErr {
		t.Errorf("standard output:\n%s\nstandard error:\n%s", out.String(), err.String())
	}
}

func TestLinesForProgramsAreObjectsOfTheirOwn(t *testing.T) {
	var out, err bytes.Buffer
	p := newPrinter(streams(&out, &err, true), Look{Names: true, Times: true, Form: "json"})
	begun := line("1", 0, "half \"")
	begun.Partial = true
	p.line(begun)
	wrong := line("10", 1, "\xff\x1b[31m")
	wrong.Stream = stderr
	p.line(wrong)
	p.line(line("1", 2, "\" done"))
	p.flush()
	const want = `{"time":"2026-11-23T10:00:00.000000001Z","service":"web","task":"web.10","taskId":"10","node":"n1","stream":"stderr","line":"\ufffd\u001b[31m"}
{"time":"2026-11-23T10:00:00Z","service":"web","task":"web.1","taskId":"1","node":"n1","stream":"stdout","line":"half \"\" done"}
`
	if out.String() != want || err.Len() > 0 {
		t.Errorf("got\n%swant\n%sand on standard error\n%s", out.String(), want, err.String())
	}
	out.Reset()
	p = newPrinter(streams(&out, &err, false), Look{Form: "yaml"})
	p.line(line("1", 0, "a: b"))
	p.flush()
	if !strings.HasPrefix(out.String(), "---\n") || !strings.Contains(out.String(), "\nline: 'a: b'\n") {
		t.Errorf("as YAML it is\n%s", out.String())
	}
}

func TestATaskKeepsItsColour(t *testing.T) {
	var out, err bytes.Buffer
	p := newPrinter(streams(&out, &err, true), Look{Names: true})
	p.line(line("1", 0, "a"))
	p.line(line("2", 0, "b"))
	p.line(line("1", 0, "a"))
	p.flush()
	lines := strings.Split(out.String(), "\n")
	if lines[0] != lines[2] || !strings.HasPrefix(lines[0], "\x1b[") || lines[0][:5] == lines[1][:5] {
		t.Errorf("lines are %q", lines)
	}
}

// lineWatcher is a writer that tells of every line.
type lineWatcher struct {
	mu    sync.Mutex
	text  strings.Builder
	lines chan string
}

func (w *lineWatcher) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(b)
	for l := range strings.Lines(string(b)) {
		w.lines <- strings.TrimSpace(l)
	}
	return len(b), nil
}

func TestFollowingSurvivesABrokenStreamAndAManagerThatRestarts(t *testing.T) {
	dir, err := os.MkdirTemp("", "log") //nolint:usetesting // short: it becomes a socket's path
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
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.Cluster.InitCluster(ctx, connect.NewRequest(&warrenv1.InitClusterRequest{})); err != nil {
		t.Fatal(err)
	}
	_, err = c.Services.CreateService(ctx, connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: &warrenv1.ServiceSpec{
		Name: "web", Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: 2}},
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "nginx"}},
	}}))
	if err != nil {
		t.Fatal(err)
	}

	out := &lineWatcher{lines: make(chan string, 100)}
	var notices lineWatcher
	notices.lines = make(chan string, 100)
	s := &output.Streams{Out: output.Stream{Writer: out}, Err: output.Stream{Writer: &notices}, Now: time.Now}
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, c, s, &warrenv1.StreamLogsRequest{
			Target:    &warrenv1.StreamLogsRequest_Service{Service: "web"},
			Selection: &warrenv1.LogSelection{Follow: true},
		}, Look{})
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-out.lines:
			if got != want {
				t.Errorf("printed %q, want %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%q was never printed", want)
		}
	}
	m.Write("web.1", stdout, "one", epoch)
	expect("one")
	m.Write("web.2", stdout, "two", epoch)
	expect("two")
	m.BreakStreams()
	m.Write("web.1", stdout, "three", epoch)
	expect("three")
	m.BreakStreams()
	m.Write("web.1", stdout, "four", epoch.Add(time.Second))
	m.Write("web.2", stdout, "five", epoch)
	expect("four")
	expect("five")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) && connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("ended with %v", err)
	}
	if got := out.text.String(); got != "one\ntwo\nthree\nfour\nfive\n" {
		t.Errorf("printed:\n%s", got)
	}
	if notices.text.Len() > 0 {
		t.Errorf("it was told: %s", notices.text.String())
	}
}

func TestLogsGoOnAtAnotherManagerWithoutAWord(t *testing.T) {
	dir, err := os.MkdirTemp("", "log") //nolint:usetesting // short: it becomes a socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	m, err := fakemanager.Start(filepath.Join(dir, "m.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var doors []*fakemanager.Door
	var addrs []string
	for range 3 {
		d, err := m.Open("")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		doors, addrs = append(doors, d), append(addrs, d.Addr)
	}
	mine, err := m.Credentials(warrenv1.Role_ROLE_VIEWER, "ann")
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{Addrs: addrs, Credentials: mine})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Cluster.InitCluster(t.Context(), connect.NewRequest(&warrenv1.InitClusterRequest{})); err != nil {
		t.Fatal(err)
	}
	_, err = c.Services.CreateService(t.Context(), connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: &warrenv1.ServiceSpec{
		Name: "web", Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: 1}},
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "nginx"}},
	}}))
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	out, notices := &lineWatcher{lines: make(chan string, 2000)}, &lineWatcher{lines: make(chan string, 100)}
	s := &output.Streams{Out: output.Stream{Writer: out}, Err: output.Stream{Writer: notices}, Now: time.Now}
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, c, s, &warrenv1.StreamLogsRequest{
			Target:    &warrenv1.StreamLogsRequest_Service{Service: "web"},
			Selection: &warrenv1.LogSelection{Follow: true},
		}, Look{})
	}()
	// A task that writes all the time, while managers go one after the other.
	for n := range 1000 {
		m.Write("web.1", stdout, strconv.Itoa(n), epoch.Add(time.Duration(n/3)))
		if n%400 == 200 {
			<-out.lines // the stream is there
			doors[n/400].Close()
		}
	}
	for deadline := time.After(20 * time.Second); ; {
		var last string
		select {
		case last = <-out.lines:
		case <-deadline:
			t.Fatal("the last line was never printed")
		}
		if last == "999" {
			break
		}
	}
	cancel()
	<-done
	for n, l := range strings.Split(strings.TrimSpace(out.text.String()), "\n") {
		if l != strconv.Itoa(n) {
			t.Fatalf("line %d is %q", n, l)
		}
	}
	if notices.text.Len() > 0 {
		t.Errorf("it was told: %s", notices.text.String())
	}
}

func TestFollowingAManagerThatIsNotThereFailsAtOnce(t *testing.T) {
	c, err := client.New(client.Options{Socket: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	err = Run(t.Context(), c, streams(&out, &errs, false), &warrenv1.StreamLogsRequest{Selection: &warrenv1.LogSelection{Follow: true}}, Look{})
	if !client.NotReached(err) {
		t.Errorf("ended with %v", err)
	}
}
