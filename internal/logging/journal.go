package logging

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	slogjournal "github.com/systemd/slog-journal"
)

// entry is the journal's handler. The journal shows an entry's message alone unless it is asked for all fields; so
// the message has the attributes behind it, as text has them, and those who search have the fields.
type entry struct {
	fields slog.Handler
	line   *line
	text   slog.Handler // writes to line
}

// line is what a text handler has written last.
type line struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func newJournal(level slog.Leveler) (slog.Handler, error) {
	fields, err := slogjournal.NewHandler(&slogjournal.Options{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			return slog.Attr{Key: field(a.Key), Value: plain(a.Value)}
		},
		ReplaceGroup: field,
	})
	if err != nil {
		return nil, fmt.Errorf("log to systemd's journal: %w", err)
	}
	l := &line{}
	return &entry{fields: fields, line: l, text: slog.NewTextHandler(&l.buf, &slog.HandlerOptions{Level: level, ReplaceAttr: attributesAlone})}, nil
}

// attributesAlone leaves out what the journal has fields for.
func attributesAlone(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
		return slog.Attr{}
	}
	return a
}

// field is a key as a name of the journal's fields, of which it takes capitals, digits and underscores alone and
// that must not begin with a digit or an underscore. The prefix keeps them apart from the journal's own, such as
// MESSAGE and UNIT.
func field(key string) string {
	return "WARREN_" + strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		default:
			return '_'
		}
	}, key)
}

// plain has times and durations read as they do in text, not as counts of microseconds.
func plain(v slog.Value) slog.Value {
	switch v.Kind() {
	case slog.KindTime:
		return slog.StringValue(v.Time().Format("2006-01-02T15:04:05.000Z07:00"))
	case slog.KindDuration:
		return slog.StringValue(v.Duration().String())
	default:
		return v
	}
}

func (e *entry) Enabled(ctx context.Context, level slog.Level) bool {
	return e.fields.Enabled(ctx, level)
}

func (e *entry) Handle(ctx context.Context, r slog.Record) error {
	attributes, err := e.line.of(ctx, e.text, r)
	if err != nil {
		return err
	}
	if attributes != "" {
		r.Message += " " + attributes
	}
	return e.fields.Handle(ctx, r)
}

func (e *entry) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &entry{fields: e.fields.WithAttrs(attrs), line: e.line, text: e.text.WithAttrs(attrs)}
}

func (e *entry) WithGroup(name string) slog.Handler {
	return &entry{fields: e.fields.WithGroup(name), line: e.line, text: e.text.WithGroup(name)}
}

// of is what a handler that writes here makes of a record.
func (l *line) of(ctx context.Context, h slog.Handler, r slog.Record) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
	err := h.Handle(ctx, r)
	return strings.TrimSuffix(l.buf.String(), "\n"), err
}
