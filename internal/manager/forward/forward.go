package forward

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/access"
	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/pki"
)

const (
	// electionWait is how long a call waits for a leader. Most elections take less than one second, and a
	// caller who is refused can only try again.
	electionWait = 3 * time.Second
	// The pause before a call that was not carried out is passed on again, unless another leader turns up
	// before: the first, doubling up to the last.
	firstPause = 10 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// Options is what a Forwarder works with. All but ElectionWait and Observer are needed.
type Options struct {
	// Handler answers calls here.
	Handler    http.Handler
	Leadership Leadership
	// Credentials are what this manager shows to the leader.
	Credentials *pki.Holder
	// ElectionWait is how long a call waits for a leader; 0 for three seconds, which suits a LAN.
	ElectionWait time.Duration
	// Observer, which may be nil, is told of calls that are passed on.
	Observer Observer
	Logger   *slog.Logger
}

// Observer is told of calls with one answer that are passed on to the leader; it must be quick.
type Observer interface {
	// Passing is told of a try to pass a call on to a manager, and may change the header that this one is sent. What it
	// returns is told why the try failed; nil where it did not.
	Passing(procedure, manager string, header http.Header) (ended func(error))
}

// Forwarder is the handler of a manager's calls. It must stand behind caller.Identify.
type Forwarder struct {
	handler     http.Handler
	leadership  Leadership
	credentials *pki.Holder
	observer    Observer
	logger      *slog.Logger
	procedures  map[string]procedure
	rules       access.Rules
	proxy       *httputil.ReverseProxy
	errors      *connect.ErrorWriter
	patience    time.Duration
	pingTimeout time.Duration
	probes      probes
	closed      context.Context // ends when the manager stops
	close       context.CancelCauseFunc

	mu    sync.Mutex
	reign *reign // nil before anybody was known to lead
}

// errClosing ends what is passed on when this manager stops.
var errClosing = connect.NewError(connect.CodeUnavailable, errors.New("the manager is shutting down: try again"))

// New returns a Forwarder. Close it.
func New(o Options) *Forwarder {
	f := &Forwarder{
		handler: o.Handler, leadership: o.Leadership, credentials: o.Credentials, observer: o.Observer, logger: o.Logger,
		procedures: procedures(), rules: access.NewRules(), errors: connect.NewErrorWriter(),
		patience: cmp.Or(o.ElectionWait, electionWait), pingTimeout: pingTimeout,
	}
	f.closed, f.close = context.WithCancelCause(context.Background())
	f.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      transport{},
		FlushInterval:  -1,
		BufferPool:     &buffers{},
		ModifyResponse: examine,
		ErrorHandler:   func(_ http.ResponseWriter, r *http.Request, err error) { passageOf(r.Context()).err = err },
		ErrorLog:       slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return f
}

// Run ends the streams to a manager as soon as another leads, until ctx ends.
func (f *Forwarder) Run(ctx context.Context) { f.follow(ctx) }

// Close ends what is being passed on, and the connection to the leader.
func (f *Forwarder) Close() {
	f.close(errClosing)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reign != nil && f.reign.link != nil {
		f.reign.link.retire()
	}
}

// ServeHTTP implements http.Handler.
func (f *Forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, known := f.procedures[r.URL.Path]
	who := caller.From(r.Context())
	switch {
	case !known:
		f.handler.ServeHTTP(w, r) // health, reflection, or nothing
	case p.here && who.Via != "":
		f.refuse(w, r, errPassedOn)
	case p.here, f.rules.Check(who, p.name) != nil: // which the API says in the right words
		f.handler.ServeHTTP(w, r)
	case who.Via != "":
		f.serveOther(w, r, p)
	default:
		f.serve(w, r, p)
	}
}

// serveOther answers a call that another manager has passed on because it takes this one for the leader.
// It never goes on to a third.
func (f *Forwarder) serveOther(w http.ResponseWriter, r *http.Request, p procedure) {
	if _, now, _ := f.look(); now != nil && now.leader.Here {
		f.serveHere(w, r, p, now)
		return
	}
	f.refuseUnexecuted(w, r, errNotLeading)
}

// serve has the leader answer a call, waiting for one if need be.
func (f *Forwarder) serve(w http.ResponseWriter, r *http.Request, p procedure) {
	ctx, until := r.Context(), time.Now().Add(f.patience)
	var body body
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		now, err := f.await(ctx, until)
		switch {
		case errors.Is(err, errNoLeader) && p.stale:
			f.serveStale(w, r, body)
			return
		case err != nil:
			f.refuseUnexecuted(w, r, f.explain(ctx, err))
			return
		case now.leader.Here:
			f.serveHere(w, body.onto(r), p, now)
			return
		}
		if body.source == nil {
			if body, err = take(r, p); err != nil {
				f.refuseUnexecuted(w, r, connect.NewError(connect.CodeCanceled, err))
				return
			}
		}
		failed := f.pass(w, r, p, now, &body, until)
		switch {
		case failed == nil:
			return
		case ctx.Err() != nil:
			f.refuse(w, r, connect.NewError(connect.CodeCanceled, ctx.Err()))
			return
		case !failed.unexecuted && !p.read, failed.unexecuted && (!body.whole() || time.Now().After(until)), time.Now().After(until):
			f.refuse(w, r, failed)
			return
		}
		f.logger.DebugContext(ctx, "call is passed on again", "rpc", p.name, "manager", now.leader.ID, "error", failed.err)
		_, _, changed := f.look()
		if err := wait(ctx, changed, pause); err != nil {
			f.refuse(w, r, connect.NewError(connect.CodeCanceled, err))
			return
		}
	}
}

// serveHere answers a call on this manager, which leads. Streams end when it leads no longer.
func (f *Forwarder) serveHere(w http.ResponseWriter, r *http.Request, p procedure, now *reign) {
	if !p.stream {
		f.handler.ServeHTTP(w, r)
		return
	}
	ctx, release := during(r.Context(), now)
	defer release()
	f.handler.ServeHTTP(w, r.WithContext(ctx))
}

// during returns a context that ends with the reign as well.
func during(ctx context.Context, now *reign) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(now.over, func() { cancel(context.Cause(now.over)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}
