package forward

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
)

// maxKept bounds how much of a call is kept to be passed on again: more than people write, little enough
// for thousands of calls at once. Larger ones are passed on once.
const maxKept = 256 << 10

// body is what the caller sends with a call.
type body struct {
	source io.ReadCloser // of the request; nil before take
	kept   []byte        // what was read of source
	all    bool          // and there is no more
	begun  *atomic.Bool  // something of source was given away
}

// take reads what comes with a call if it is small, in order to pass it on again should that be necessary.
// What the caller sends bit by bit is not waited for.
func take(r *http.Request, p procedure) (body, error) {
	b := body{source: r.Body, begun: new(atomic.Bool)}
	if p.upload {
		return b, nil
	}
	var err error
	if b.kept, err = io.ReadAll(io.LimitReader(r.Body, maxKept+1)); err != nil {
		return b, fmt.Errorf("read the call: %w", err)
	}
	b.all = len(b.kept) <= maxKept
	return b, nil
}

// whole tells whether all of the call is still there to be passed on.
func (b body) whole() bool { return b.all || !b.begun.Load() }

// onto returns the request with its body from the beginning.
func (b body) onto(r *http.Request) *http.Request {
	if b.source == nil {
		return r
	}
	again := *r
	again.Body = b.reader()
	if b.all {
		again.ContentLength = int64(len(b.kept))
	}
	return &again
}

func (b body) reader() io.ReadCloser {
	if b.all {
		return io.NopCloser(bytes.NewReader(b.kept))
	}
	rest := &rest{source: b.source, begun: b.begun}
	if len(b.kept) == 0 {
		return io.NopCloser(rest)
	}
	return io.NopCloser(io.MultiReader(bytes.NewReader(b.kept), rest))
}

// rest is what has not been kept of a body. It notes when it is begun.
type rest struct {
	source io.Reader
	begun  *atomic.Bool
}

// Read implements io.Reader.
func (r *rest) Read(p []byte) (int, error) {
	r.begun.Store(true)
	return r.source.Read(p)
}
