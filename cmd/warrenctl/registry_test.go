package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
)

type registryKey struct{}

// fakeRegistry is a registry on this machine that knows app:N, whose digest is N sixty-four times; after it has moved
// one more than N.
type fakeRegistry struct {
	server *httptest.Server
	moved  atomic.Bool
}

// ServeHTTP implements http.Handler.
func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tag, known := strings.CutPrefix(r.URL.Path, "/v2/app/manifests/")
	switch {
	case !known && r.URL.Path != "/v2/":
		w.WriteHeader(http.StatusNotFound)
		return
	case known && f.moved.Load():
		tag = string(tag[0] + 1)
	}
	w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	w.Header().Set("Content-Length", "2")
	w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat(tag, 64))
}

// registry steers the registry of a script, whose address it leaves in REGISTRY: registry start | move | stop.
func registry(ts *testscript.TestScript, _ bool, args []string) {
	f := ts.Value(registryKey{}).(*fakeRegistry)
	switch args[0] {
	case "start":
		f.server = httptest.NewServer(f)
		ts.Defer(f.server.Close)
		ts.Setenv("REGISTRY", strings.TrimPrefix(f.server.URL, "http://"))
	case "move":
		f.moved.Store(true)
	case "stop":
		f.server.Close()
	default:
		ts.Fatalf("registry %s is not known", args[0])
	}
}
