package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// What is kept where a template does not say.
const (
	DefaultMaxSize  = 10_000_000
	DefaultMaxFiles = 3
)

// Writer appends to a task's output. Streams may be written at the same time.
type Writer struct {
	log      *taskLog
	maxSize  int64
	maxFiles int

	// Guarded by log.mu.
	closed  bool
	lost    int       // entries dropped since the last one that could be written
	lostFor error     // why
	lostAt  time.Time // when that began
}

// Buffers live as long as there is something in them; an idle task holds none.
var (
	readBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}
	// lineBuffers hold entries on their way to the disk.
	lineBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 96<<10); return &b }}
)

// assembler cuts one stream's bytes into entries. Between chunks it holds a line's beginning.
type assembler struct {
	stream warrenv1.OutputStream
	begun  []byte
}

// split hands out the entries that a chunk completes.
func (a *assembler) split(at time.Time, chunk []byte, put func(entry)) {
	for len(chunk) > 0 {
		room := longestText - len(a.begun)
		end := bytes.IndexByte(chunk[:min(len(chunk), room+1)], '\n')
		switch {
		case end >= 0:
			put(entry{time: at, stream: a.stream, text: a.join(chunk[:end])})
			chunk = chunk[end+1:]
		case len(chunk) > room:
			put(entry{time: at, stream: a.stream, partial: true, text: a.join(chunk[:room])})
			chunk = chunk[room:]
		default:
			a.begun = append(a.begun, chunk...)
			return
		}
		a.begun = nil
	}
}

// rest hands out the line that was begun and not ended.
func (a *assembler) rest(at time.Time, partial bool, put func(entry)) {
	if len(a.begun) > 0 {
		put(entry{time: at, stream: a.stream, partial: partial, text: a.begun})
		a.begun = nil
	}
}

func (a *assembler) join(text []byte) []byte {
	if len(a.begun) == 0 {
		return text
	}
	return append(a.begun, text...)
}

// put writes what a stream has to say in one write, or more where files are rotated. Entries get their
// times in the order in which they are written: of two streams the one that was read first may come here
// second. It fails never: what the disk does not take is dropped and counted, for the container must not
// wait for it.
func (w *Writer) put(produce func(put func(entry))) {
	buffer := lineBuffers.Get().(*[]byte)
	defer func() {
		*buffer = (*buffer)[:0]
		lineBuffers.Put(buffer)
	}()
	l := w.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.closed || l.file == nil {
		return // the task's output has been removed under its writer
	}
	pending := 0
	produce(func(e entry) {
		before := len(*buffer)
		e.time = l.stamp(e.time)
		*buffer = e.appendTo(*buffer)
		if l.size+int64(len(*buffer)) > w.maxSize && l.size+int64(before) > 0 {
			line := len(*buffer) - before
			w.flush((*buffer)[:before], pending)
			w.rotate()
			*buffer = append((*buffer)[:0], (*buffer)[before:before+line]...)
			pending = 0
		}
		pending++
	})
	w.flush(*buffer, pending)
	l.wake()
}

// flush writes whole entries to the last file, all or nothing. The caller holds log.mu.
func (w *Writer) flush(lines []byte, entries int) {
	if entries == 0 {
		return
	}
	if w.lost > 0 {
		notice := entry{
			time:   w.lostAt, // for what comes after it has its times already
			stream: warrenv1.OutputStream_OUTPUT_STREAM_STDERR,
			text:   fmt.Appendf(nil, "[warren: %d lines of output were lost here: %v]", w.lost, w.lostFor),
		}
		if err := w.append(notice.appendTo(nil)); err != nil {
			w.lost += entries
			return
		}
		w.lost = 0
	}
	if err := w.append(lines); err != nil {
		if w.lost == 0 {
			w.lostAt = w.log.latest
		}
		w.lost += entries
		w.lostFor = err
	}
}

func (w *Writer) append(lines []byte) error {
	l := w.log
	if _, err := l.file.Write(lines); err != nil {
		// A part may have been written: it goes, so that the file stays whole entries.
		l.file.Truncate(l.size) //nolint:errcheck // where this fails too, readers still stop at size
		if pathError, ok := errors.AsType[*fs.PathError](err); ok {
			err = pathError.Err
		}
		return err
	}
	l.size += int64(len(lines))
	return nil
}

// rotate begins the next file and deletes the oldest. Where no file can be made, the last one grows
// on. The caller holds log.mu.
func (w *Writer) rotate() {
	l := w.log
	next, err := os.OpenFile(l.path(l.last+1), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	l.file.Close()
	l.file, l.size = next, 0
	l.last++
	for l.last-l.first >= w.maxFiles {
		if err := os.Remove(l.path(l.first)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return
		}
		l.first++
	}
}

// Pump writes all that comes from the reading end of a pipe as one stream, until every writing end is
// closed or the file is; it closes the file. While there is nothing to read it holds a goroutine
// and no buffer. Reading is over with an error only where the pipe could not be read at all.
func (w *Writer) Pump(stream warrenv1.OutputStream, pipe *os.File) error {
	defer pipe.Close()
	raw, err := pipe.SyscallConn()
	if err != nil {
		return fmt.Errorf("read output: %w", err)
	}
	lines := assembler{stream: stream}
	ended, failure := false, error(nil)
	// One chunk at a time, so that closing the file is noticed also while a container writes without end.
	take := func(fd uintptr) bool {
		chunk := readBuffers.Get().(*[64 << 10]byte)
		defer readBuffers.Put(chunk)
		n, err := syscall.Read(int(fd), chunk[:])
		switch {
		case err == syscall.EAGAIN:
			return false // sleep until there is more
		case err == syscall.EINTR:
		case err != nil:
			ended, failure = true, err
		case n == 0:
			ended = true
		default:
			at := time.Now()
			w.put(func(put func(entry)) { lines.split(at, chunk[:n], put) })
		}
		return true
	}
	for !ended {
		if err := raw.Read(take); err != nil {
			// The file was closed: the agent stops, and what was begun goes on when it is back.
			w.put(func(put func(entry)) { lines.rest(time.Now(), true, put) })
			return nil
		}
	}
	w.put(func(put func(entry)) { lines.rest(time.Now(), false, put) })
	if failure != nil {
		return fmt.Errorf("read output: %w", failure)
	}
	return nil
}

// Close ends the writer. Its pumps must have returned.
func (w *Writer) Close() {
	l := w.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if !w.closed {
		w.closed = true
		l.release()
	}
}
