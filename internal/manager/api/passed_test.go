package api_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/caller"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestARemovedManagerPassesNothingOn(t *testing.T) {
	s := serve(t, &statev1.Authority{Meta: &warrenv1.Meta{Id: "authority"}, Removed: []*statev1.RemovedMember{{Name: "m2"}}})
	for via, code := range map[string]connect.Code{"m1": connect.CodeNotFound, "m2": connect.CodeUnauthenticated} {
		s.caller = caller.Caller{Role: warrenv1.Role_ROLE_ADMIN, Name: "root", Local: true, Via: via}
		if _, err := call(s, s.nodes.GetNode, &warrenv1.GetNodeRequest{Ref: "none"}); connect.CodeOf(err) != code {
			t.Errorf("passed on by %s: %v", via, err)
		}
	}
}

func TestAStreamThatIsCutOffSaysWhy(t *testing.T) {
	s := serve(t)
	why := connect.NewError(connect.CodeUnavailable, errors.New("deposed"))
	cut := make(chan context.CancelCauseFunc, 1)
	inner := s.http.Config.Handler
	s.http.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		cut <- cancel
		inner.ServeHTTP(w, r.WithContext(ctx))
	})
	stream, err := s.watch.WatchEvents(t.Context(), connect.NewRequest(&warrenv1.WatchEventsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	(<-cut)(why)
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnavailable || !connect.IsWireError(stream.Err()) {
		t.Errorf("ended with %v", stream.Err())
	}
}
