package audit

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/access"
	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// maxText bounds the texts of a line that come from elsewhere.
const maxText = 256

// Log is the audit log. It is a connect.Interceptor.
type Log struct {
	rules  access.Rules
	to     []*slog.Logger
	crowds crowds
}

var _ connect.Interceptor = (*Log)(nil)

// New returns a log that writes to a logger and, where file is not nil, to it in JSON, a line each.
func New(rules access.Rules, logger *slog.Logger, file io.Writer) *Log {
	l := &Log{rules: rules, to: []*slog.Logger{logger.With("audit", true)}}
	if file != nil {
		l.to = append(l.to, slog.New(slog.NewJSONHandler(file, nil)))
	}
	return l
}

// entry is what is known of one call.
type entry struct {
	procedure string
	began     time.Time
	what      subject
	result    result
	written   bool
}

type entryKey struct{}

// Handler has calls be written down too that fail before they come to the interceptor, because their message
// cannot be read.
func (l *Log) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || !l.rules[r.URL.Path].GetWrite() {
			next.ServeHTTP(w, r)
			return
		}
		e := &entry{procedure: r.URL.Path, began: time.Now()}
		ctx := context.WithValue(r.Context(), entryKey{}, e)
		next.ServeHTTP(w, r.WithContext(ctx))
		if !e.written {
			l.write(ctx, e, connect.CodeInvalidArgument.String(), "the request could not be read")
		}
	})
}

// begin returns the entry of a call, nil where it is none to be written down.
func (l *Log) begin(ctx context.Context, procedure string) *entry {
	if !l.rules[procedure].GetWrite() {
		return nil
	}
	if e, ok := ctx.Value(entryKey{}).(*entry); ok {
		return e
	}
	return &entry{procedure: procedure, began: time.Now()}
}

// WrapUnary implements connect.Interceptor.
func (l *Log) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		e := l.begin(ctx, req.Spec().Procedure)
		if e == nil {
			return next(ctx, req)
		}
		e.asked(req.Any())
		res, err := next(ctx, req)
		if err == nil {
			e.answered(res.Any())
		}
		l.end(ctx, e, err)
		return res, err
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (l *Log) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		e := l.begin(ctx, conn.Spec().Procedure)
		if e == nil {
			return next(ctx, conn)
		}
		err := next(ctx, &overheard{StreamingHandlerConn: conn, entry: e})
		l.end(ctx, e, err)
		return err
	}
}

// WrapStreamingClient implements connect.Interceptor; this is the serving side.
func (l *Log) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// overheard is a stream whose first messages tell what it is about.
type overheard struct {
	connect.StreamingHandlerConn
	entry          *entry
	heard, replied bool
}

// Receive implements connect.StreamingHandlerConn.
func (o *overheard) Receive(message any) error {
	err := o.StreamingHandlerConn.Receive(message)
	if err == nil && !o.heard {
		o.heard = true
		o.entry.asked(message)
	}
	return err
}

// Send implements connect.StreamingHandlerConn.
func (o *overheard) Send(message any) error {
	if !o.replied {
		o.replied = true
		o.entry.answered(message)
	}
	return o.StreamingHandlerConn.Send(message)
}

func (e *entry) asked(message any) {
	if m, ok := message.(proto.Message); ok {
		e.what = subjectOf(m)
	}
}

func (e *entry) answered(message any) {
	if m, ok := message.(proto.Message); ok {
		e.result = resultOf(m)
	}
}

// end writes down how a call ended.
func (l *Log) end(ctx context.Context, e *entry, err error) {
	if err == nil {
		l.write(ctx, e, "ok", "")
		return
	}
	text := err.Error()
	if told := new(connect.Error); errors.As(err, &told) {
		text = told.Message()
	}
	l.write(ctx, e, connect.CodeOf(err).String(), text)
}

func (l *Log) write(ctx context.Context, e *entry, outcome, failure string) {
	e.written = true
	who := caller.From(ctx)
	var unwritten int
	if outcome != "ok" && !trusted(who.Role) {
		var room bool
		if room, unwritten = l.crowds.admit(time.Now()); !room {
			return
		}
	}
	line := attributes{}
	line.text("rpc", shortName(e.procedure))
	line.text("outcome", outcome)
	line.text("role", roleName(who.Role))
	line.text("name", who.Name)
	if who.Local {
		line = append(line, slog.Bool("local", true))
	}
	line.text("addr", who.Addr)
	line.text("via", who.Via)
	line.text("object", e.what.name)
	line.text("with", e.what.with)
	line.text("id", e.result.id)
	if e.result.version != 0 {
		line = append(line, slog.Uint64("version", e.result.version))
	}
	line.text("error", failure)
	line.text("duration", time.Since(e.began).Round(time.Microsecond).String())
	if unwritten > 0 {
		line = append(line, slog.Int("unwritten", unwritten))
	}
	for _, to := range l.to {
		to.LogAttrs(ctx, slog.LevelInfo, "write", line...)
	}
}

// attributes are what a line says.
type attributes []slog.Attr

// text adds a text, unless it is empty.
func (a *attributes) text(key, value string) {
	if value != "" {
		*a = append(*a, slog.String(key, bounded(value)))
	}
}

// trusted tells whether callers of a role may fill the log with what they are refused.
func trusted(r warrenv1.Role) bool {
	switch r {
	case warrenv1.Role_ROLE_VIEWER, warrenv1.Role_ROLE_OPERATOR, warrenv1.Role_ROLE_ADMIN, warrenv1.Role_ROLE_MANAGER:
		return true
	}
	return false
}

func roleName(r warrenv1.Role) string {
	if name := pki.RoleName(r); name != "" {
		return name
	}
	return "anonymous"
}

// shortName makes ServiceService/CreateService of /warren.v1.ServiceService/CreateService.
func shortName(procedure string) string {
	return strings.TrimPrefix(procedure, "/warren.v1.")
}

// bounded makes a text from elsewhere fit for a line.
func bounded(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}
