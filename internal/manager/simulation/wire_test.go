package simulation

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
)

// errCut is what both ends of a connection see when it is cut.
var errCut = errors.New("connection cut")

// wire carries HTTP calls to a handler in this process, without a network: what the protocol does
// above HTTP is real. Each call can be cut.
type wire struct {
	handler http.Handler
	calls   sync.WaitGroup
}

// RoundTrip implements http.RoundTripper. The call is cut when the request's context ends.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	body, answer := io.Pipe()
	response := &responseWriter{header: http.Header{}, body: answer, ready: make(chan struct{})}
	request := r.Clone(ctx)
	request.Proto, request.ProtoMajor, request.ProtoMinor = "HTTP/2.0", 2, 0
	request.RemoteAddr, request.RequestURI = "192.0.2.1:1", r.URL.RequestURI()
	w.calls.Go(func() {
		w.handler.ServeHTTP(response, request)
		response.WriteHeader(http.StatusOK)
		_ = answer.Close()
		_ = r.Body.Close()
		cancel(errCut)
	})
	// A call whose context has ended must block nobody: not the handler that writes, nor its reader.
	stop := context.AfterFunc(ctx, func() {
		_ = r.Body.Close()
		_ = answer.CloseWithError(errCut)
	})
	select {
	case <-response.ready:
	case <-ctx.Done():
		if r.Context().Err() != nil {
			return nil, r.Context().Err()
		}
		<-response.ready
	}
	return &http.Response{
		Status: http.StatusText(response.status), StatusCode: response.status, Header: response.header,
		Proto: request.Proto, ProtoMajor: 2, Request: r, ContentLength: -1,
		Body: closer{body, func() { stop(); cancel(errCut) }},
	}, nil
}

// responseWriter is the handler's side of an answer.
type responseWriter struct {
	header http.Header
	status int
	body   *io.PipeWriter
	once   sync.Once
	ready  chan struct{} // closed when the header is written
}

func (w *responseWriter) Header() http.Header { return w.header }

func (w *responseWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status = status
		w.header = w.header.Clone()
		close(w.ready)
	})
}

func (w *responseWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

// Flush implements http.Flusher. There is nothing to flush but the header.
func (w *responseWriter) Flush() { w.WriteHeader(http.StatusOK) }

type closer struct {
	*io.PipeReader
	done func()
}

func (c closer) Close() error {
	c.done()
	return c.PipeReader.Close()
}
