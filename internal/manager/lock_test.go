package manager

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
)

func TestCallsOverTLSWaitWhileAnUnlockedManagerTakesUpItsCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lock{locked: says("locked"), open: says("open"), done: make(chan struct{})}
		call := func(over *tls.ConnectionState) string {
			r, w := httptest.NewRequest(http.MethodPost, "/", nil), httptest.NewRecorder()
			r.TLS = over
			l.ServeHTTP(w, r.WithContext(t.Context()))
			return w.Body.String()
		}
		answer := make(chan string, 1)
		go func() { answer <- call(&tls.ConnectionState{}) }()
		synctest.Wait()
		if got := call(nil); got != "locked" {
			t.Errorf("on the socket it is %s", got)
		}
		select {
		case got := <-answer:
			t.Fatalf("too early it is %s", got)
		default:
		}
		l.opened(nil)
		if got := <-answer; got != "open" {
			t.Errorf("after that it is %s", got)
		}
	})
}

func says(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
}
