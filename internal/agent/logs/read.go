package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// A batch is handed on when it holds this much.
const (
	batchLines = 512
	batchBytes = 256 << 10
)

// Read gives what a selection asks of a task's output to emit, oldest first, in batches. caughtUp is
// true from the call on with which all that was there at the beginning has been given; that call may
// bring no line. With follow Read goes on until ctx ends (and returns its error), End or Remove was
// called, or the selection's end has passed; else it returns when it has caught up. It also returns
// the first error of emit. A task without output is no error.
//
// A follower that is slower than the rotation misses what is deleted under it.
func (s *Store) Read(ctx context.Context, taskID string, selection *warrenv1.LogSelection, emit func(lines []*warrenv1.LogLine, caughtUp bool) error) error {
	log, err := s.log(taskID)
	if err != nil {
		return fmt.Errorf("read log of task %s: %w", taskID, err)
	}
	r := reader{log: log, taskID: taskID, emit: emit}
	if selection.GetSince() != nil {
		r.since = selection.GetSince().AsTime()
	}
	if selection.GetUntil() != nil {
		r.until = selection.GetUntil().AsTime()
	}
	defer r.close()
	now := log.state(false)
	if selection != nil && selection.Tail != nil {
		err = r.seekTail(now, int(selection.GetTail()))
	} else {
		err = r.seekSince(now)
	}
	if err == nil {
		err = r.run(ctx, selection.GetFollow())
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("read log of task %s: %w", taskID, err)
	}
	return err
}

// reader is one Read: a place in the files that moves forward.
type reader struct {
	log          *taskLog
	taskID       string
	since, until time.Time
	emit         func([]*warrenv1.LogLine, bool) error

	number   int   // of the file
	offset   int64 // in it, always at the start of a line
	file     *os.File
	batch    []*warrenv1.LogLine
	bytes    int
	caughtUp bool
	past     bool // a line at or after until was seen
}

func (r *reader) run(ctx context.Context, follow bool) error {
	for {
		now := r.log.state(follow)
		if err := r.readTo(ctx, now); err != nil {
			return err
		}
		if !r.caughtUp || len(r.batch) > 0 {
			r.caughtUp = true
			if err := r.hand(); err != nil {
				return err
			}
		}
		if !follow || now.ended || r.past {
			return nil
		}
		if err := r.wait(ctx, now.changed); err != nil {
			return err
		}
	}
}

// wait sleeps until something has changed, or the selection's end has come.
func (r *reader) wait(ctx context.Context, changed <-chan struct{}) error {
	var end <-chan time.Time
	if !r.until.IsZero() {
		timer := time.NewTimer(time.Until(r.until))
		defer timer.Stop()
		end = timer.C
	}
	select {
	case <-changed:
	case <-end:
		r.past = true
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// readTo reads up to what the log held at a moment.
func (r *reader) readTo(ctx context.Context, now state) error {
	for !r.past {
		if r.number < now.first {
			r.move(now.first) // deleted before it could be read
		}
		limit := now.size
		if err := r.openFile(); errors.Is(err, fs.ErrNotExist) {
			if r.number >= now.last {
				return nil
			}
			r.move(r.number + 1)
			continue
		} else if err != nil {
			return err
		}
		if r.number < now.last {
			info, err := r.file.Stat()
			if err != nil {
				return err
			}
			limit = info.Size()
		}
		if err := r.readFile(ctx, limit); err != nil {
			return err
		}
		if r.number >= now.last {
			return nil
		}
		r.move(r.number + 1)
	}
	return nil
}

var forwardBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// readFile reads the whole lines of the open file up to limit.
func (r *reader) readFile(ctx context.Context, limit int64) error {
	buffer := forwardBuffers.Get().(*[64 << 10]byte)
	defer forwardBuffers.Put(buffer)
	for r.offset < limit && !r.past {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.file.ReadAt(buffer[:min(limit-r.offset, int64(len(buffer)))], r.offset)
		if n == 0 {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		chunk := buffer[:n]
		whole := bytes.LastIndexByte(chunk, '\n') + 1
		if whole == 0 {
			if n < len(buffer) {
				return nil // torn; what follows it in this file is yet to be written
			}
			whole = n // longer than any line of ours: not ours
		}
		r.offset += int64(whole)
		for line := range bytes.SplitSeq(bytes.TrimSuffix(chunk[:whole], []byte{'\n'}), []byte{'\n'}) {
			if err := r.take(line); err != nil {
				return err
			}
			if r.past {
				break
			}
		}
	}
	return nil
}

// take adds a line to the batch if it is wanted.
func (r *reader) take(line []byte) error {
	e, ok := parseEntry(line)
	if !ok || e.time.Before(r.since) {
		return nil
	}
	if !r.until.IsZero() && !e.time.Before(r.until) {
		r.past = true
		return nil
	}
	r.batch = append(r.batch, &warrenv1.LogLine{
		TaskId:  r.taskID,
		Time:    timestamppb.New(e.time),
		Stream:  e.stream,
		Line:    bytes.Clone(e.text),
		Partial: e.partial,
	})
	r.bytes += len(e.text)
	if len(r.batch) >= batchLines || r.bytes >= batchBytes {
		return r.hand()
	}
	return nil
}

func (r *reader) hand() error {
	batch := r.batch
	r.batch, r.bytes = nil, 0
	return r.emit(batch, r.caughtUp)
}

func (r *reader) openFile() (err error) {
	if r.file == nil {
		r.file, err = os.Open(r.log.path(r.number))
	}
	return err
}

func (r *reader) move(number int) {
	r.close()
	r.number, r.offset = number, 0
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// seekSince goes to the first file that can hold lines of the selection.
func (r *reader) seekSince(now state) error {
	r.number = now.first
	if r.since.IsZero() {
		return nil
	}
	for number := now.last; number > now.first; number-- {
		begins, err := firstTime(r.log.path(number))
		if err != nil {
			return err
		}
		if !begins.IsZero() && begins.Before(r.since) {
			r.number = number
			return nil
		}
	}
	return nil
}

// firstTime returns the time of a file's first line; zero where there is none.
func firstTime(path string) (time.Time, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	defer file.Close()
	head := make([]byte, longestEntry)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return time.Time{}, err
	}
	line, _, _ := bytes.Cut(head[:n], []byte{'\n'})
	e, _ := parseEntry(line)
	return e.time, nil
}

// seekTail goes to the start of the last so many lines, without reading what is before them.
func (r *reader) seekTail(now state, lines int) error {
	r.number, r.offset = now.last, now.size
	if lines == 0 {
		return nil
	}
	counted := 0
	return r.log.backward(now, func(number int, start, next int64, e entry) bool {
		if !e.partial && (r.until.IsZero() || e.time.Before(r.until)) {
			if counted == lines {
				r.number, r.offset = number, next // the parts of a long line stand before its end
				return false
			}
			counted++
		}
		r.number, r.offset = number, start
		return true
	})
}

// backward visits the entries that were there at a moment, the last one first.
func (l *taskLog) backward(now state, visit func(number int, start, next int64, e entry) bool) error {
	goOn := true
	for number := now.last; goOn && number >= now.first; number-- {
		file, err := os.Open(l.path(number))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		size := now.size
		if number < now.last {
			info, statErr := file.Stat()
			if statErr != nil {
				file.Close()
				return statErr
			}
			size = info.Size()
		}
		err = eachLineBackward(file, size, func(start, next int64, line []byte) bool {
			if e, ok := parseEntry(line); ok {
				goOn = visit(number, start, next, e)
			}
			return goOn
		})
		file.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Tail returns a task's last lines since a time for people to read, both streams as they came, within so many
// bytes: where that is less than the lines, their end. It returns what it can read, if need be nothing.
func (s *Store) Tail(taskID string, since time.Time, lines, size int) string {
	log, err := s.log(taskID)
	if err != nil {
		return ""
	}
	var texts []string // last first
	counted, held := 0, 0
	// An error leaves what was read before it, which is more use than none.
	_ = log.backward(log.state(false), func(_ int, _, _ int64, e entry) bool {
		if e.time.Before(since) {
			return false
		}
		if !e.partial {
			if counted == lines || held >= size {
				return false
			}
			counted++
		}
		text := string(e.text)
		if !e.partial && len(texts) > 0 {
			text += "\n"
		}
		texts = append(texts, text)
		held += len(text)
		return true
	})
	var b strings.Builder
	for _, text := range slices.Backward(texts) {
		b.WriteString(text)
	}
	tail := b.String()
	if len(tail) > size {
		tail = tail[len(tail)-size:]
		if _, whole, found := strings.Cut(tail, "\n"); found {
			tail = whole // not the end of a line whose beginning is missing
		}
	}
	return strings.ToValidUTF8(tail, "\uFFFD")
}
