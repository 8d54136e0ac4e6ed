package metrics_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/cuemby/warren/internal/metrics"
)

var quiet = slog.New(slog.DiscardHandler)

// serve serves until the test ends, and returns where.
func serve(t *testing.T, s *metrics.Server) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Serve(ctx, metrics.NewRegistry())
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return "http://" + s.Addr().String()
}

func get(t *testing.T, method, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func TestMetricsAreReadAndNothingElseIsThere(t *testing.T) {
	t.Parallel()
	s, err := metrics.Listen(t.Context(), "127.0.0.1:0", false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	at := serve(t, s)
	code, text := get(t, http.MethodGet, at+"/metrics")
	for _, want := range []string{"warren_build_info{", "go_goroutines ", "process_resident_memory_bytes "} {
		if code != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%d: no %s in %s", code, want, text)
		}
	}
	for path, want := range map[string]int{"/": http.StatusNotFound, "/debug/pprof/": http.StatusNotFound} {
		if code, _ := get(t, http.MethodGet, at+path); code != want {
			t.Errorf("GET %s: %d, want %d", path, code, want)
		}
	}
	if code, _ := get(t, http.MethodPost, at+"/metrics"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
}

func TestATakenAddressMattersToWhoAskedForIt(t *testing.T) {
	t.Parallel()
	first, err := metrics.Listen(t.Context(), "127.0.0.1:0", false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}()
	taken := first.Addr().String()
	if _, err := metrics.Listen(t.Context(), taken, false, quiet); err == nil || !strings.Contains(err.Error(), "--metrics-addr") {
		t.Errorf("got %v", err)
	}
	var log bytes.Buffer
	without, err := metrics.Listen(t.Context(), taken, true, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if without.Addr() != nil || !strings.Contains(log.String(), "no metrics") {
		t.Errorf("listens at %v and says %s", without.Addr(), &log)
	}
	without.Serve(t.Context(), metrics.NewRegistry()) // returns at once
	if err := without.Close(); err != nil {
		t.Error(err)
	}
}

func TestNowhereIsAnAddress(t *testing.T) {
	t.Parallel()
	s, err := metrics.Listen(t.Context(), "", false, quiet)
	if err != nil || s.Addr() != nil {
		t.Errorf("listens at %v, %v", s.Addr(), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestAddressesAreCheckedBeforeAnythingIsTouched(t *testing.T) {
	t.Parallel()
	for addr, good := range map[string]bool{"": true, "127.0.0.1:7422": true, ":7422": true, "[::1]:0": true, "7422": false, "host:port": false, "host:99999": false} {
		err := metrics.CheckAddr(addr)
		if (err == nil) != good {
			t.Errorf("%q: %v", addr, err)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%q", addr)) {
			t.Errorf("%q is not named in %v", addr, err)
		}
	}
}
