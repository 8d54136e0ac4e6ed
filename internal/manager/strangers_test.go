package manager

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/cuemby/warren/internal/caller"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestCallsOfStrangersAreFewAndSmall(t *testing.T) {
	release := make(chan struct{})
	var inside sync.WaitGroup
	inside.Add(maxStrangers)
	handler := boundStrangers(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			inside.Done()
			<-release
		}
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		}
	}))
	as := func(role warrenv1.Role) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handler.ServeHTTP(w, r.WithContext(caller.With(r.Context(), caller.Caller{Role: role})))
		}))
		t.Cleanup(s.Close)
		return s
	}
	strangers, agents := as(warrenv1.Role_ROLE_ANONYMOUS), as(warrenv1.Role_ROLE_AGENT)
	post := func(to *httptest.Server, path string, bytes int) int {
		res, err := to.Client().Post(to.URL+path, "text/plain", strings.NewReader(strings.Repeat("x", bytes)))
		if err != nil {
			t.Error(err)
			return 0
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := post(strangers, "/", maxStrangerBytes); got != http.StatusOK {
		t.Errorf("a request to join: %d", got)
	}
	if got := post(strangers, "/", maxStrangerBytes+1); got != http.StatusRequestEntityTooLarge {
		t.Errorf("a large one: %d", got)
	}
	var waiting sync.WaitGroup
	for range maxStrangers {
		waiting.Go(func() { post(strangers, "/wait", 1) })
	}
	inside.Wait()
	if got := post(strangers, "/", 1); got != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", got)
	}
	if got := post(agents, "/", 2*maxStrangerBytes); got != http.StatusOK {
		t.Errorf("a member meanwhile: %d", got)
	}
	close(release)
	waiting.Wait()
}
