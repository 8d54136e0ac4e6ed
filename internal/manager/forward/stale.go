package forward

import (
	"context"
	"net/http"
	"time"
)

type staleKey struct{}

// Stale tells whether a call is to be answered from this manager's own state although nobody leads.
func Stale(ctx context.Context) bool {
	stale, _ := ctx.Value(staleKey{}).(bool)
	return stale
}

// serveStale answers a read from this manager's own state, and says so.
func (f *Forwarder) serveStale(w http.ResponseWriter, r *http.Request, b body) {
	leader, _ := f.leadership.Leader()
	w.Header().Set(StaleHeader, "true")
	w.Header().Set(LeaderlessHeader, leader.Since.UTC().Format(time.RFC3339))
	f.handler.ServeHTTP(w, b.onto(r.WithContext(context.WithValue(r.Context(), staleKey{}, true))))
}
