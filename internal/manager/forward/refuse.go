package forward

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
)

const (
	// UnexecutedHeader, "true", marks an answer to a call that certainly was not carried out, and so may be
	// made again, at another manager too.
	UnexecutedHeader = "Warren-Not-Executed"
	// StaleHeader, "true", marks an answer from this manager's own state, which others may have moved past.
	StaleHeader = "Warren-Stale"
	// LeaderlessHeader says in RFC 3339 since when there has been no leader, on stale answers and on
	// refusals that waiting will not mend.
	LeaderlessHeader = "Warren-Leaderless-Since"
)

var (
	errPassedOn   = connect.NewError(connect.CodePermissionDenied, errors.New("the call is about the manager that was called, and cannot be passed on to another"))
	errNotLeading = connect.NewError(connect.CodeUnavailable, errors.New("this manager does not lead the cluster: try again, or ask another manager"))
)

// refuse answers a call with an error, in the caller's protocol.
func (f *Forwarder) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if failed := new(failure); errors.As(err, &failed) {
		if failed.unexecuted {
			w.Header().Set(UnexecutedHeader, "true")
		}
		err = connect.NewError(connect.CodeUnavailable, failed)
	}
	if err := f.errors.Write(w, r, err); err != nil {
		f.logger.DebugContext(r.Context(), "a refusal did not reach its caller", "error", err)
	}
}

// refuseUnexecuted is refuse where the call certainly was not carried out.
func (f *Forwarder) refuseUnexecuted(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set(UnexecutedHeader, "true")
	if leaderless := new(leaderless); errors.As(err, &leaderless) {
		w.Header().Set(LeaderlessHeader, leaderless.since.UTC().Format(time.RFC3339))
	}
	f.refuse(w, r, err)
}

// leaderless says that there is no leader, and what can be done about it.
type leaderless struct {
	since time.Time
	peers []peerState
}

// Error implements error.
func (l *leaderless) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the cluster has no leader, since %s ago: its managers, of which most must answer, ", time.Since(l.since).Round(time.Second))
	if len(l.peers) == 0 {
		b.WriteString("do not agree on one")
	} else {
		b.WriteString("seen from here: ")
	}
	for i, p := range l.peers {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s at %s ", p.Name, p.Addr)
		if p.err == nil {
			b.WriteString("answers")
		} else {
			fmt.Fprintf(&b, "does not (%v)", p.err)
		}
	}
	b.WriteString(": start those that are down; if they are lost for good, run `warrenctl cluster recover` on this machine. What runs goes on running")
	return b.String()
}

// explain words why nobody could be asked to answer a call.
func (f *Forwarder) explain(ctx context.Context, err error) error {
	if !errors.Is(err, errNoLeader) {
		if ctx.Err() != nil {
			return connect.NewError(connect.CodeCanceled, err)
		}
		return err
	}
	leader, _ := f.leadership.Leader()
	return connect.NewError(connect.CodeUnavailable, &leaderless{leader.Since, f.probes.look(ctx, f.leadership.Peers(), f.credentials)})
}
