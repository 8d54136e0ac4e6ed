package manager

import (
	"net/http"
	"time"

	"github.com/cuemby/warren/internal/caller"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Who shows no certificate may ask to join, and nothing else. Anybody can: these bounds keep what they cost
// small, however many they are.
const (
	maxStrangers     = 64               // calls at once, of all of them together
	maxStrangerBytes = 16 << 10         // of one call; a request to join has one
	strangerTime     = 10 * time.Second // for a call to arrive
)

// boundStrangers has calls of strangers be few, small and quick. It must stand behind caller.Identify.
func boundStrangers(handler http.Handler) http.Handler {
	places := make(chan struct{}, maxStrangers)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if caller.From(r.Context()).Role != warrenv1.Role_ROLE_ANONYMOUS {
			handler.ServeHTTP(w, r)
			return
		}
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			http.Error(w, "too many callers without a certificate: try again later", http.StatusServiceUnavailable)
			return
		}
		if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(strangerTime)); err != nil {
			http.Error(w, "the call cannot be bounded in time", http.StatusInternalServerError)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxStrangerBytes)
		handler.ServeHTTP(w, r)
	})
}
