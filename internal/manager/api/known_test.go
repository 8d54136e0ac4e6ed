package api_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// A manager that has just been elected does not know all that was committed before. Whoever was admitted or
// removed by then is to be judged by what is true.
func TestCallersAreRecognizedOnceAManagerKnowsWhatWasCommitted(t *testing.T) {
	key := []byte("key")
	vera := &warrenv1.User{Meta: &warrenv1.Meta{Id: "vera"}, Role: warrenv1.Role_ROLE_OPERATOR, KeyDigest: key}
	who := caller.Caller{Role: warrenv1.Role_ROLE_OPERATOR, Name: "vera", Key: key}

	s := serve(t)
	s.caller = who
	s.member.learn = func() {
		s.member.learn = nil
		write(t, s, func(tx *state.Transaction) { tx.Create(vera) })
	}
	must(s, s.services.ListServices, &warrenv1.ListServicesRequest{})

	s = serve(t, vera)
	s.caller = who
	s.member.learn = func() {
		s.member.learn = nil
		write(t, s, func(tx *state.Transaction) { tx.Delete(s.store.Snapshot().User("vera")) })
	}
	_, err := call(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec("web")})
	refused(t, err, connect.CodeUnauthenticated, "warrenctl user create")
	if n := s.store.Snapshot().ServiceCount(); n != 0 {
		t.Errorf("%d services were made", n)
	}
}

func write(t *testing.T, s *served, edit func(*state.Transaction)) {
	tx := state.New(time.Now())
	edit(tx)
	if results, err := s.proposer.Propose(t.Context(), tx); err != nil || results != nil {
		t.Error(results, err)
	}
}
