// Package profiles serves Go's profiles of a daemon, for those who administer its machine: heap, goroutines, processor
// and traces, as net/http/pprof documents them. It is for unix sockets alone: what a process does and has in its
// memory is nobody else's business.
package profiles

import (
	"net/http"
	"net/http/pprof"
)

// With returns a handler that serves the profiles under /debug/pprof/ and leaves the rest to another.
func With(rest http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", rest)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
