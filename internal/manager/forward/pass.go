package forward

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cuemby/warren/internal/caller"
)

// passage is one attempt to have the leader answer a call.
type passage struct {
	call  procedure
	from  context.Context // the call's own
	reign *reign
	body  *body
	// connected is set when the leader was reached, sent when it was told the whole call.
	connected, sent atomic.Bool
	err             error
}

// unexecuted tells whether the leader certainly has not carried out the call, which failed. Without its end
// it does not begin, unless it takes what comes bit by bit.
func (p *passage) unexecuted(canceled bool) bool {
	if answer := new(notLeadingError); errors.As(p.err, &answer) {
		return true
	}
	if canceled || p.call.upload { // it may be on its way still
		return !p.connected.Load()
	}
	return !p.sent.Load()
}

type passageKey struct{}

func passageOf(ctx context.Context) *passage {
	p, _ := ctx.Value(passageKey{}).(*passage)
	return p
}

// failure says why the leader did not answer a call.
type failure struct {
	reign      *reign
	err        error
	unexecuted bool // certainly
	harmless   bool // even if it was carried out
}

// Error implements error.
func (f *failure) Error() string {
	who := f.reign.leader
	switch answer := new(notLeadingError); {
	case errors.As(f.err, &answer):
		return fmt.Sprintf("manager %s at %s is said to lead, and says that it does not: try again", who.ID, who.Addr)
	case errors.Is(f.err, errClosing), errors.Is(f.err, errDeposed) && (f.unexecuted || f.harmless):
		return f.err.Error()
	case f.unexecuted:
		return fmt.Sprintf("the leader, manager %s at %s, is out of reach from the manager that was asked: %v: try again, or ask another manager", who.ID, who.Addr, f.err)
	}
	return fmt.Sprintf("the leader, manager %s at %s, went away before it answered: %v: look whether the call has been carried out before trying again", who.ID, who.Addr, f.err)
}

// Unwrap implements errors.
func (f *failure) Unwrap() error { return f.err }

// leastReach is how long a leader has at least to be reached, by a call that has waited long already.
const leastReach = 300 * time.Millisecond

// lastWord is how long a leader that was deposed has to answer a write.
const lastWord = 500 * time.Millisecond

// errOutOfReach says that no connection came about in time.
var errOutOfReach = errors.New("no answer in time")

// notLeadingError is what a manager answers that was taken for the leader.
type notLeadingError struct{}

// Error implements error.
func (*notLeadingError) Error() string { return "it does not lead" }

// pass has the leader of a reign answer a call. Where it fails nothing has been answered yet. An answer
// that breaks off later is ended in the way of its protocol, or aborted. The leader must have been reached
// by until.
func (f *Forwarder) pass(w http.ResponseWriter, r *http.Request, call procedure, now *reign, b *body, until time.Time) *failure {
	attempt := &passage{call: call, from: r.Context(), reign: now, body: b}
	ctx := context.WithValue(r.Context(), passageKey{}, attempt)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { attempt.connected.Store(true) },
		WroteRequest: func(info httptrace.WroteRequestInfo) { attempt.sent.Store(info.Err == nil) },
	})
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := func() { cancel(context.Cause(now.over)) }
	defer context.AfterFunc(now.over, func() {
		if call.stream || call.read || !attempt.connected.Load() || f.closed.Err() != nil {
			over()
			return
		}
		// Whether a write to a leader that is deposed meanwhile takes effect, its own answer tells best.
		last := time.AfterFunc(lastWord, over)
		context.AfterFunc(ctx, func() { last.Stop() })
	})()
	reach := time.AfterFunc(max(time.Until(until), leastReach), func() {
		if !attempt.connected.Load() {
			cancel(errOutOfReach)
		}
	})
	defer reach.Stop()
	out := b.onto(r).WithContext(ctx)
	if f.observer != nil && !call.stream {
		out.Header = out.Header.Clone() // each try has its own
		ended := f.observer.Passing(call.name, now.leader.ID, out.Header)
		defer func() { ended(attempt.err) }()
	}
	f.proxy.ServeHTTP(w, out)
	if attempt.err == nil {
		return nil
	}
	canceled := ctx.Err() != nil
	if canceled {
		attempt.err = context.Cause(ctx)
	}
	return &failure{now, attempt.err, attempt.unexecuted(canceled), call.read || call.stream}
}

// rewrite turns the caller's request into the one to the leader. That it is made in the caller's name
// is written last, after all that the caller can make the proxy drop.
func rewrite(r *httputil.ProxyRequest) {
	attempt := passageOf(r.In.Context())
	r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", attempt.reign.leader.Addr, ""
	r.Out.Header.Del("Connection") // no RPC is an upgrade to another protocol
	r.Out.Header.Del("Upgrade")
	caller.PassOn(r.Out.Header, caller.From(attempt.from))
}

// transport sends a call over the link of its reign.
type transport struct{}

// RoundTrip implements http.RoundTripper.
func (transport) RoundTrip(r *http.Request) (*http.Response, error) {
	attempt := passageOf(r.Context())
	if attempt.body.all {
		r.GetBody = func() (io.ReadCloser, error) { return attempt.body.reader(), nil }
	}
	return attempt.reign.link.transport.RoundTrip(r)
}

// examine looks at the leader's answer before it is passed on.
func examine(res *http.Response) error {
	attempt := passageOf(res.Request.Context())
	grpc := strings.HasPrefix(res.Header.Get("Content-Type"), "application/grpc")
	if grpc && !attempt.call.stream {
		peek(res)
	}
	if unexecuted(res.Header) || unexecuted(res.Trailer) {
		return &notLeadingError{}
	}
	if attempt.call.stream || grpc {
		res.Body = newEnding(attempt.from, res)
	}
	return nil
}

func unexecuted(h http.Header) bool { return h.Get(UnexecutedHeader) != "" }

// peek waits for the beginning of an answer, or for the trailers that a gRPC error consists of.
func peek(res *http.Response) {
	ahead := bufio.NewReaderSize(res.Body, 16)
	if _, err := ahead.Peek(1); err == nil || !errors.Is(err, io.EOF) {
		res.Body = peeked{ahead, res.Body}
	}
}

type peeked struct {
	io.Reader
	io.Closer
}

// copyBytes is the size of what is passed on at a time. Every open stream has a buffer of it.
const copyBytes = 8 << 10

// buffers is the pool of them.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if kept, ok := b.pool.Get().(*[copyBytes]byte); ok {
		return kept[:]
	}
	return make([]byte, copyBytes)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(used []byte) { b.pool.Put((*[copyBytes]byte)(used)) }
