package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	stdout = warrenv1.OutputStream_OUTPUT_STREAM_STDOUT
	stderr = warrenv1.OutputStream_OUTPUT_STREAM_STDERR
)

func openStore(t testing.TB) *Store {
	t.Helper()
	store, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func openWriter(t testing.TB, store *Store, task string, options *warrenv1.LogOptions) *Writer {
	t.Helper()
	w, err := store.Writer(task, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// at is a time so many seconds after some beginning.
func at(seconds int) time.Time { return time.Unix(1_800_000_000+int64(seconds), 5) }

// say writes a line as if it had come at a time.
func say(w *Writer, seconds int, text string) {
	w.put(func(put func(entry)) { put(entry{time: at(seconds), stream: stdout, text: []byte(text)}) })
}

// read returns the lines a selection asks for, partial ones with a tilde.
func read(t testing.TB, store *Store, task string, selection *warrenv1.LogSelection) []string {
	t.Helper()
	var texts []string
	caught := false
	err := store.Read(t.Context(), task, selection, func(lines []*warrenv1.LogLine, caughtUp bool) error {
		for _, line := range lines {
			text := string(line.GetLine())
			if line.GetPartial() {
				text += "~"
			}
			texts = append(texts, text)
		}
		caught = caughtUp
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !caught {
		t.Error("the reader was not told that it has caught up")
	}
	return texts
}

func expect(t testing.TB, got []string, want ...string) {
	t.Helper()
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAReaderGetsTheLinesOfItsSelection(t *testing.T) {
	store := openStore(t)
	w := openWriter(t, store, "task", &warrenv1.LogOptions{MaxSizeBytes: 150, MaxFiles: 10})
	for i := range 10 {
		say(w, i, fmt.Sprint("line ", i))
	}
	if files, err := filepath.Glob(filepath.Join(store.dir, "task", "*.log")); err != nil || len(files) < 3 {
		t.Fatalf("files %v %v: the selections are to reach over several", files, err)
	}
	tail := func(n uint32) *uint32 { return &n }
	for _, test := range []struct {
		name      string
		selection *warrenv1.LogSelection
		from, to  int
	}{
		{"all", nil, 0, 10},
		{"the last", &warrenv1.LogSelection{Tail: tail(1)}, 9, 10},
		{"the last of several files", &warrenv1.LogSelection{Tail: tail(7)}, 3, 10},
		{"more than there are", &warrenv1.LogSelection{Tail: tail(99)}, 0, 10},
		{"none", &warrenv1.LogSelection{Tail: tail(0)}, 0, 0},
		{"since", &warrenv1.LogSelection{Since: timestamppb.New(at(6))}, 6, 10},
		{"since long ago", &warrenv1.LogSelection{Since: timestamppb.New(at(-5))}, 0, 10},
		{"until", &warrenv1.LogSelection{Until: timestamppb.New(at(4))}, 0, 4},
		{"between", &warrenv1.LogSelection{Since: timestamppb.New(at(2)), Until: timestamppb.New(at(4))}, 2, 4},
		{"the last until", &warrenv1.LogSelection{Tail: tail(2), Until: timestamppb.New(at(4))}, 2, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			var want []string
			for i := test.from; i < test.to; i++ {
				want = append(want, fmt.Sprint("line ", i))
			}
			expect(t, read(t, store, "task", test.selection), want...)
			again, err := Open(store.dir) // as after a restart
			if err != nil {
				t.Fatal(err)
			}
			expect(t, read(t, again, "task", test.selection), want...)
		})
	}
}

func TestATaskWithoutOutputIsNoError(t *testing.T) {
	store := openStore(t)
	expect(t, read(t, store, "silent", nil))
	if got := store.Tail("silent", time.Time{}, 5, 100); got != "" {
		t.Errorf("tail %q", got)
	}
	if err := store.Remove("silent"); err != nil {
		t.Error(err)
	}
	if err := store.Remove("../x"); err == nil {
		t.Error("an id that is a path was taken")
	}
}

func TestOldFilesGoAndNoneIsLargerThanAsked(t *testing.T) {
	store := openStore(t)
	w := openWriter(t, store, "task", &warrenv1.LogOptions{MaxSizeBytes: 1000, MaxFiles: 2})
	for i := range 200 {
		say(w, i, fmt.Sprintf("line %03d", i))
	}
	files, err := os.ReadDir(filepath.Join(store.dir, "task"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%v %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Size() > 1000 {
			t.Errorf("%s has %d bytes (%v)", f.Name(), info.Size(), err)
		}
	}
	lines := read(t, store, "task", nil)
	if len(lines) < 20 || lines[len(lines)-1] != "line 199" {
		t.Errorf("%q", lines)
	}
}

func TestTimesGrowWhateverTheClockDoesAndWhichStreamComesFirst(t *testing.T) {
	store := openStore(t)
	w := openWriter(t, store, "task", &warrenv1.LogOptions{MaxSizeBytes: 150, MaxFiles: 10})
	say(w, 5, "read second, written first")
	say(w, 4, "read first, written second")
	say(w, 5, "at the same time")
	say(w, -3600, "the clock was set back")
	w.Close()
	again, err := Open(store.dir)
	if err != nil {
		t.Fatal(err)
	}
	w = openWriter(t, again, "task", nil)
	say(w, 0, "after a restart of the agent")
	say(w, 9, "the clock has caught up")

	var last time.Time
	var lines int
	err = again.Read(t.Context(), "task", nil, func(batch []*warrenv1.LogLine, _ bool) error {
		for _, line := range batch {
			if now := line.GetTime().AsTime(); !now.After(last) || now.Before(at(5)) || now.After(at(9)) {
				t.Errorf("%q at %v comes after %v", line.GetLine(), now, last)
			}
			last = line.GetTime().AsTime()
			lines++
		}
		return nil
	})
	if err != nil || lines != 6 || !last.Equal(at(9)) {
		t.Errorf("%d lines, the last at %v: %v", lines, last, err)
	}
}

func TestATornLineIsPassedOverAndCutOff(t *testing.T) {
	store := openStore(t)
	w := openWriter(t, store, "task", nil)
	say(w, 1, "whole")
	w.Close()
	file := filepath.Join(store.dir, "task", "0.log")
	torn, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := torn.WriteString("2026-01-02T15:04:05.000000001Z stdout F to"); err != nil {
		t.Fatal(err)
	}
	torn.Close()
	store, err = Open(store.dir)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, read(t, store, "task", nil), "whole")
	say(openWriter(t, store, "task", nil), 2, "next")
	expect(t, read(t, store, "task", nil), "whole", "next")
	store, err = Open(store.dir)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, read(t, store, "task", nil), "whole", "next")
}

func TestAFollowerSeesEachLineOverRotationsAndAttemptsUntilTheEnd(t *testing.T) {
	store := openStore(t)
	options := &warrenv1.LogOptions{MaxSizeBytes: 120, MaxFiles: 100}
	first := openWriter(t, store, "task", options)
	say(first, 0, "before")
	seen := make(chan string)
	ended := make(chan error, 1)
	go func() {
		ended <- store.Read(context.Background(), "task", &warrenv1.LogSelection{Follow: true}, func(lines []*warrenv1.LogLine, caughtUp bool) error {
			for _, line := range lines {
				seen <- string(line.GetLine())
			}
			return nil
		})
	}()
	if got := <-seen; got != "before" {
		t.Fatal(got)
	}
	for i := range 20 {
		say(first, i, fmt.Sprint("first ", i))
		if got := <-seen; got != fmt.Sprint("first ", i) {
			t.Fatal(got)
		}
	}
	first.Close()
	second := openWriter(t, store, "task", options)
	say(second, 30, "second")
	if got := <-seen; got != "second" {
		t.Fatal(got)
	}
	second.Close()
	if err := store.End("task"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAFollowerEndsWithItsContextOrWhenTheTaskIsRemoved(t *testing.T) {
	store := openStore(t)
	w := openWriter(t, store, "task", nil)
	say(w, 0, "x")
	follow := func(ctx context.Context) (caughtUp chan struct{}, ended chan error) {
		caughtUp, ended = make(chan struct{}, 1), make(chan error, 1)
		go func() {
			ended <- store.Read(ctx, "task", &warrenv1.LogSelection{Follow: true}, func(_ []*warrenv1.LogLine, caught bool) error {
				caughtUp <- struct{}{}
				return nil
			})
		}()
		return caughtUp, ended
	}
	ctx, cancel := context.WithCancel(t.Context())
	caughtUp, ended := follow(ctx)
	<-caughtUp
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	caughtUp, ended = follow(t.Context())
	<-caughtUp
	if err := store.Remove("task"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	say(w, 1, "into the void")
	if ids, err := store.List(); err != nil || len(ids) != 0 {
		t.Errorf("left %v %v", ids, err)
	}
}

// fakeShim opens a pipe for writing as containerd's shim does.
func fakeShim(t *testing.T, path string) *os.File {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAPumpWritesLinesAtOnceAndHoldsWhatIsUnfinished(t *testing.T) {
	store := openStore(t)
	w := openWriter(t, store, "task", nil)
	path := filepath.Join(t.TempDir(), "pipes", "stdout")
	pipe, err := MakePipe(path)
	if err != nil {
		t.Fatal(err)
	}
	shim := fakeShim(t, path)
	if size, err := unix.FcntlInt(shim.Fd(), unix.F_GETPIPE_SZ, 0); err != nil || size != pipeSize {
		t.Errorf("the pipe holds %d bytes (%v)", size, err)
	}
	pumped := make(chan error, 1)
	go func() { pumped <- w.Pump(stdout, pipe) }()
	lines := make(chan string)
	go store.Read(context.WithoutCancel(t.Context()), "task", &warrenv1.LogSelection{Follow: true}, func(batch []*warrenv1.LogLine, _ bool) error {
		for _, line := range batch {
			lines <- fmt.Sprintf("%v %s", line.GetPartial(), line.GetLine())
		}
		return nil
	})
	fmt.Fprint(shim, "one\ntw")
	if got := <-lines; got != "false one" {
		t.Error(got)
	}
	fmt.Fprint(shim, "o\n"+strings.Repeat("x", longestText+1)+"\nend")
	for _, want := range []string{"false two", "true " + strings.Repeat("x", longestText), "false x"} {
		if got := <-lines; got != want {
			t.Errorf("got %.40q, want %.40q", got, want)
		}
	}
	shim.Close()
	if got := <-lines; got != "false end" {
		t.Error(got)
	}
	if err := <-pumped; err != nil {
		t.Error(err)
	}
	if err := store.End("task"); err != nil {
		t.Error(err)
	}
}

func TestWhatIsWrittenWhileNobodyReadsWaitsInThePipe(t *testing.T) {
	store := openStore(t)
	path := filepath.Join(t.TempDir(), "stdout")
	first, err := MakePipe(path)
	if err != nil {
		t.Fatal(err)
	}
	// The shim holds the pipe open for reading too, so that writing to it is no error.
	shim := fakeShim(t, path)
	held := os.NewFile(uintptr(must(syscall.Open(path, syscall.O_RDONLY, 0))), path)
	w := openWriter(t, store, "task", nil)
	pumped := make(chan error, 1)
	go func() { pumped <- w.Pump(stdout, first) }()
	first.Close() // the agent goes
	if err := <-pumped; err != nil {
		t.Error(err)
	}
	w.Close()
	text := strings.Repeat(strings.Repeat("y", 99)+"\n", 10_000)
	if n, err := shim.WriteString(text); n != len(text) || err != nil {
		t.Fatal(n, err)
	}
	second, err := OpenPipe(path)
	if err != nil {
		t.Fatal(err)
	}
	shim.Close()
	held.Close()
	if err := openWriter(t, store, "task", nil).Pump(stdout, second); err != nil {
		t.Error(err)
	}
	if got := len(read(t, store, "task", nil)); got != 10_000 {
		t.Errorf("%d lines", got)
	}
}

func must(fd int, err error) int {
	if err != nil {
		panic(err)
	}
	return fd
}

func TestAFullDiskLosesLinesAndSaysSo(t *testing.T) {
	store := openStore(t)
	w := openWriter(t, store, "task", nil)
	say(w, 0, "before")
	good := w.log.file
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs /dev/full")
	}
	defer full.Close()
	w.log.file = full
	say(w, 1, "lost")
	say(w, 2, "lost as well")
	w.log.file = good
	say(w, 3, "after")
	expect(t, read(t, store, "task", nil),
		"before", "[warren: 2 lines of output were lost here: no space left on device]", "after")
}

// The attempts of a task follow one another in its output: of what one ended of, those before it say nothing.
func TestTheTailOfACrashIsOfItsAttemptAlone(t *testing.T) {
	store := openStore(t)
	w := openWriter(t, store, "task", nil)
	say(w, 0, "the first attempt")
	say(w, 1, "the second attempt")
	say(w, 2, "crashes")
	if got := store.Tail("task", at(1), 10, 2048); got != "the second attempt\ncrashes" {
		t.Errorf("%q", got)
	}
	if got := store.Tail("task", at(3), 10, 2048); got != "" {
		t.Errorf("%q", got)
	}
}

func TestTheTailOfACrashIsShortAndReadable(t *testing.T) {
	store := openStore(t)
	w := openWriter(t, store, "task", nil)
	for i := range 20 {
		say(w, i, fmt.Sprint("line ", i))
	}
	if got := store.Tail("task", time.Time{}, 2, 2048); got != "line 18\nline 19" {
		t.Errorf("%q", got)
	}
	if got := store.Tail("task", time.Time{}, 10, 20); got != "line 18\nline 19" {
		t.Errorf("%q", got)
	}
	say(w, 20, "\xff\xfe"+strings.Repeat("z", 100))
	if got := store.Tail("task", time.Time{}, 1, 50); got != strings.Repeat("z", 50) {
		t.Errorf("%q", got)
	}
}

func TestWhatGoesInComesOutWhateverTheChunks(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		store, err := Open(filepath.Join(dir, strconv.Itoa(n)))
		if err != nil {
			t.Fatal(err)
		}
		w, err := store.Writer("task", &warrenv1.LogOptions{MaxSizeBytes: rapid.Int64Range(1, 50_000).Draw(t, "size"), MaxFiles: 100_000})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		text := rapid.SliceOfN(rapid.SampledFrom([]string{"\n", "a", "ü", "\x00", "long " + strings.Repeat("l", 3000), "\r"}), 0, 200).Draw(t, "text")
		whole := []byte(strings.Join(text, ""))
		lines := assembler{stream: stderr}
		for rest := whole; len(rest) > 0; {
			cut := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
			w.put(func(put func(entry)) { lines.split(at(0), rest[:cut], put) })
			rest = rest[cut:]
		}
		w.put(func(put func(entry)) { lines.rest(at(0), false, put) })
		var back bytes.Buffer
		err = store.Read(context.Background(), "task", nil, func(batch []*warrenv1.LogLine, _ bool) error {
			for _, line := range batch {
				if len(line.GetLine()) > longestText || line.GetStream() != stderr {
					t.Fatalf("line of %d bytes on %v", len(line.GetLine()), line.GetStream())
				}
				back.Write(line.GetLine())
				if !line.GetPartial() {
					back.WriteByte('\n')
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want := whole
		if len(want) > 0 && want[len(want)-1] != '\n' {
			want = append(want, '\n')
		}
		if !bytes.Equal(back.Bytes(), want) {
			t.Fatalf("%d bytes back, want %d", back.Len(), len(want))
		}
		all := bytes.Count(want, []byte("\n"))
		tail := rapid.IntRange(0, 20).Draw(t, "tail")
		full := 0
		err = store.Read(context.Background(), "task", &warrenv1.LogSelection{Tail: new(uint32(tail))}, func(batch []*warrenv1.LogLine, _ bool) error {
			for _, line := range batch {
				if !line.GetPartial() {
					full++
				}
			}
			return nil
		})
		if err != nil || full != min(tail, all) {
			t.Fatalf("tail %d of %d gave %d (%v)", tail, all, full, err)
		}
	})
}

func FuzzParseEntry(f *testing.F) {
	f.Add([]byte("2026-01-02T15:04:05.000000001Z stdout F text"))
	f.Add([]byte("2026-01-02T15:04:05+02:00 stderr P "))
	f.Add([]byte("2026-01-02T15:04:05.1Z stdin F x"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, ok := parseEntry(line)
		if !ok || bytes.ContainsRune(line, '\n') {
			return
		}
		again, ok := parseEntry(bytes.TrimSuffix(e.appendTo(nil), []byte{'\n'}))
		if !ok || !again.time.Equal(e.time) || again.stream != e.stream || again.partial != e.partial || !bytes.Equal(again.text, e.text) {
			t.Errorf("%q became %+v, then %+v", line, e, again)
		}
	})
}

func BenchmarkPump(b *testing.B) {
	store := openStore(b)
	w := openWriter(b, store, "task", nil)
	path := filepath.Join(b.TempDir(), "stdout")
	pipe, err := MakePipe(path)
	if err != nil {
		b.Fatal(err)
	}
	shim, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Pump(stdout, pipe) }()
	chunk := []byte(strings.Repeat(strings.Repeat("x", 99)+"\n", 320))
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		if _, err := shim.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	shim.Close()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
