package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/coreos/go-systemd/v22/journal"
)

// Format is the form of a log.
type Format string

// The formats.
const (
	// Auto is Journal where the process's standard error is the journal's, else Text.
	Auto Format = "auto"
	// Text is a line of key=value pairs for each entry.
	Text Format = "text"
	// JSON is a line with a JSON object for each entry.
	JSON Format = "json"
	// Journal sends entries to systemd's journal, with their levels as its priorities and their attributes as
	// its fields: https://systemd.io/JOURNAL_NATIVE_PROTOCOL.
	Journal Format = "journal"
)

// Log is where a daemon's loggers write.
type Log struct {
	to    io.Writer
	level slog.LevelVar
	// form makes entries; another takes its place when the format changes.
	form atomic.Pointer[form]
}

// form is a format's handler. Its address tells formats in their order apart, so that loggers notice a change.
type form struct{ slog.Handler }

// New returns a log of entries from a level on, which are written to a stream unless the format is Journal. It
// fails where there is no journal to send to.
func New(to io.Writer, level slog.Level, format Format) (*Log, error) {
	l := &Log{to: to}
	return l, l.Set(level, format)
}

// Set changes level and format of what is logged from now on. When it fails, with the reason why there is no such
// format here, nothing has changed.
func (l *Log) Set(level slog.Level, format Format) error {
	handler, err := l.handler(format)
	if err != nil {
		return err
	}
	l.level.Set(level)
	l.form.Store(&form{handler})
	return nil
}

// Logger returns a logger that writes here.
func (l *Log) Logger() *slog.Logger {
	return slog.New(&follower{log: l, dress: func(h slog.Handler) slog.Handler { return h }})
}

func (l *Log) handler(format Format) (slog.Handler, error) {
	if format == Auto {
		// Whoever starts a daemon from a service of their own may have turned its output elsewhere.
		if ours, _ := journal.StderrIsJournalStream(); ours && l.to == os.Stderr {
			if handler, err := newJournal(&l.level); err == nil {
				return handler, nil
			}
		}
		format = Text
	}
	options := &slog.HandlerOptions{Level: &l.level}
	switch format {
	case Text:
		return slog.NewTextHandler(l.to, options), nil
	case JSON:
		return slog.NewJSONHandler(l.to, options), nil
	case Journal:
		return newJournal(&l.level)
	default:
		return nil, fmt.Errorf("log format %q: use %s, %s, %s or %s", format, Auto, Text, JSON, Journal)
	}
}

// follower is the handler of a logger: the log's form of the day, with the attributes and groups that the logger
// was given.
type follower struct {
	log   *Log
	dress func(slog.Handler) slog.Handler
	// dressed is what dress made of a form, until there is another.
	dressed atomic.Pointer[dressed]
}

type dressed struct {
	of *form
	slog.Handler
}

func (f *follower) Enabled(_ context.Context, level slog.Level) bool {
	return level >= f.log.level.Level()
}

func (f *follower) Handle(ctx context.Context, r slog.Record) error {
	return f.handler().Handle(ctx, r)
}

func (f *follower) handler() slog.Handler {
	now := f.log.form.Load()
	if d := f.dressed.Load(); d != nil && d.of == now {
		return d
	}
	d := &dressed{of: now, Handler: f.dress(now)}
	f.dressed.Store(d)
	return d
}

func (f *follower) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &follower{log: f.log, dress: func(h slog.Handler) slog.Handler { return f.dress(h).WithAttrs(attrs) }}
}

func (f *follower) WithGroup(name string) slog.Handler {
	return &follower{log: f.log, dress: func(h slog.Handler) slog.Handler { return f.dress(h).WithGroup(name) }}
}
