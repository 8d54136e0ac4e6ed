package dispatch

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func trust(removed ...string) *statev1.Authority {
	a := &statev1.Authority{Meta: &warrenv1.Meta{Id: "authority"}, Roots: [][]byte{[]byte("ca")}}
	for _, name := range removed {
		a.Removed = append(a.Removed, &statev1.RemovedMember{Name: name})
	}
	return a
}

func (a *agent) directory() *warrenv1.Directory {
	a.t.Helper()
	m := a.hear()
	if m.GetDirectory() == nil {
		a.t.Fatalf("got %v instead of a directory", m)
	}
	return m.GetDirectory()
}

// change commits one change of the state.
func (r *rig) change(f func(*state.Transaction)) {
	r.t.Helper()
	transaction := state.New(time.Now())
	f(transaction)
	statetest.Commit(r.t, r.proposer, transaction)
	synctest.Wait()
}

func (r *rig) changeTrust(f func(*statev1.Authority)) {
	r.t.Helper()
	r.change(func(t *state.Transaction) { state.Update(t, r.store.Snapshot().Authority(), f) })
}

func TestTheDirectoryComesAfterTheWelcomeAndWheneverItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, trust())
		r.d.reachable = func() []string { return []string{"self:1"} }
		a := r.dial("n1")
		a.welcome()
		if d := a.directory(); !slices.Equal(d.GetManagers(), []string{"self:1"}) || len(d.GetRoots()) != 1 || d.GetBridge() != nil {
			t.Errorf("at first: %v", d)
		}
		a.assignments()

		r.change(func(t *state.Transaction) {
			t.Create(&statev1.Member{Meta: &warrenv1.Meta{Id: "m1"}, Addr: "one:1"})
			t.Create(&statev1.Member{Meta: &warrenv1.Meta{Id: "m2"}})
		})
		if d := a.directory(); !slices.Equal(d.GetManagers(), []string{"one:1"}) {
			t.Errorf("with a manager that has announced itself: %v", d)
		}
		r.changeTrust(func(a *statev1.Authority) {
			a.Roots, a.Bridge = [][]byte{[]byte("new"), []byte("ca")}, []byte("bridge")
		})
		if d := a.directory(); len(d.GetRoots()) != 2 || !bytes.Equal(d.GetBridge(), []byte("bridge")) {
			t.Errorf("while the CA is replaced: %v", d)
		}
		// What else changes of the authority is nothing to agents.
		r.changeTrust(func(a *statev1.Authority) { a.Tokens = append(a.Tokens, &statev1.JoinToken{Serial: 1}) })
		a.hearsNothing()
	})
}

func TestANodeThatWasRemovedLosesItsSessionAndGetsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, trust())
		a := r.dial("n1")
		a.welcome()
		r.changeTrust(func(a *statev1.Authority) { a.Removed = trust("n1").GetRemoved() })
		<-a.done
		if connect.CodeOf(a.err) != connect.CodeUnauthenticated {
			t.Errorf("ended with %v", a.err)
		}
		statetest.Remove(t, r.store, state.KeyOf(r.node("n1")))
		again := r.dial("n1")
		<-again.done
		if connect.CodeOf(again.err) != connect.CodeUnauthenticated || r.node("n1") != nil {
			t.Errorf("the second session ended with %v; the node is %v", again.err, r.node("n1"))
		}
	})
}

func TestARenewedCertificateIsWrittenWhileTheSessionGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.join("n1")
		r.d.Renewed("n1", certificateEnd.AddDate(1, 0, 0))
		r.d.Renewed("n2", certificateEnd) // it has no session here
		synctest.Wait()
		if s := r.node("n1").GetStatus(); s.GetIssuer() != "ca" || s.GetCertificateExpiresAt().AsTime().Year() != 2101 || s.GetState() != ready {
			t.Errorf("status %v", s)
		}
		if r.node("n2") != nil {
			t.Error("a node has come to be")
		}
	})
}
