package dispatch

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestAnOldReportNeverOverwritesANewerOne(t *testing.T) {
	at := func(attempt uint32, s warrenv1.TaskState, second int64) *warrenv1.TaskStatus {
		return &warrenv1.TaskStatus{Attempt: attempt, State: s, Since: &timestamppb.Timestamp{Seconds: second}}
	}
	for _, c := range []struct {
		name            string
		known, observed *warrenv1.TaskStatus
		want            bool
	}{
		{"the next state", at(1, starting, 5), at(1, running, 6), true},
		{"the next attempt", at(1, running, 5), at(2, starting, 6), true},
		{"an earlier state", at(1, running, 5), at(1, starting, 6), false},
		{"an earlier attempt", at(2, starting, 5), at(1, running, 6), false},
		{"the same, later", at(1, running, 5), at(1, running, 6), true},
		{"the same, at the same time", at(1, running, 5), at(1, running, 5), true},
		{"the same, earlier", at(1, running, 5), at(1, running, 4), false},
		{"an end", at(3, running, 5), at(3, failed, 6), true},
		{"an end of an earlier attempt", at(3, running, 5), at(2, failed, 6), true},
		{"after the end", at(1, failed, 5), at(2, running, 6), false},
		{"another end", at(1, lost, 5), at(1, shutdown, 6), false},
	} {
		if got := later(c.known, c.observed); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func TestAttemptAndStateNeverDecreaseWhateverAgentsReport(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		store := statetest.New(t, statetest.Task("t1", "web", 1, "n1", statetest.In(placed)))
		proposer := statetest.NewProposer(store)
		proposer.OnCommit(func(before, after state.Snapshot) {
			b, a := before.Task("t1").GetStatus(), after.Task("t1").GetStatus()
			if lifecycle.Compare(a, b) < 0 || lifecycle.Ended(b.GetState()) {
				rt.Fatalf("went from %v to %v", b, a)
			}
		})
		var book reportBook
		for range rapid.IntRange(1, 40).Draw(rt, "reports") {
			report := observed("t1", rapid.Uint32Range(0, 3).Draw(rt, "attempt"),
				warrenv1.TaskState(rapid.IntRange(0, 12).Draw(rt, "state")), time.Unix(rapid.Int64Range(0, 5).Draw(rt, "since"), 0), "")
			if reportable(report.GetStatus().GetState()) {
				book.add("t1", report.GetStatus())
			}
			if status := book.pending["t1"]; status != nil && rapid.Bool().Draw(rt, "write") {
				if transaction := decideStatus(store.Snapshot(), "n1", "t1", status, time.Now()); transaction != nil {
					statetest.Commit(t, proposer, transaction)
				}
				clear(book.pending)
			}
		}
	})
}

func TestAnAgentSpeaksOnlyForItsOwnTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, append(web(),
			statetest.Task("mine", "web", 1, "n1"), statetest.Task("other", "web", 2, "n2"),
			statetest.Task("early", "web", 3, "n1", statetest.In(pending)))...)
		a := r.dial("n1")
		a.report(observed("mine", 1, running, time.Now(), "ours"), observed("other", 1, failed, time.Now(), "not ours"),
			observed("early", 1, running, time.Now(), "not yet"), observed("nobody", 1, running, time.Now(), ""))
		a.report(observed("mine", 9, lost, time.Now(), "not an agent's to say"))
		a.report(observed("mine", 9, pending, time.Now(), "nor this"))
		s := r.store.Snapshot()
		if got := s.Task("mine").GetStatus(); got.GetMessage() != "ours" || got.GetState() != running {
			t.Errorf("its own task is %v", got)
		}
		if got := s.Task("other").GetStatus().GetState(); got != running {
			t.Errorf("another node's task is %v", got)
		}
		if got := s.Task("early").GetStatus().GetState(); got != pending {
			t.Errorf("the task that is not assigned yet is %v", got)
		}
	})
}

func TestAReportChangesNothingButTheStatus(t *testing.T) {
	s := statetest.New(t, statetest.Task("t1", "web", 1, "n1")).Snapshot()
	transaction := decideStatus(s, "n1", "t1", observed("t1", 1, failed, time.Now(), "").GetStatus(), time.Now())
	if got := statetest.Writes(s, transaction); len(got) != 1 || got[0] != "task.status" {
		t.Errorf("writes %v", got)
	}
	if again := decideStatus(s, "n1", "t1", s.Task("t1").GetStatus(), time.Now()); again != nil {
		t.Error("a report that says nothing new is written")
	}
}

func TestTextsAreClipped(t *testing.T) {
	long := strings.Repeat("é", maxText)
	s := clip(&warrenv1.TaskStatus{Message: "a" + long, Exit: &warrenv1.TaskExit{LastOutput: long + "z"}})
	if got := s.GetMessage(); len(got) != maxText-1 || !strings.HasPrefix(got, "aé") {
		t.Errorf("message of %d bytes", len(got))
	}
	if got := s.GetExit().GetLastOutput(); len(got) != maxText-1 || !strings.HasSuffix(got, "éz") {
		t.Errorf("output of %d bytes", len(got))
	}
}

// gate holds proposals up while it is shut, and counts them.
type gate struct {
	loop.Proposer
	shut  atomic.Pointer[chan struct{}]
	calls atomic.Int64
}

func (g *gate) Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
	g.calls.Add(1)
	if shut := g.shut.Load(); shut != nil {
		<-*shut
	}
	return g.Proposer.Propose(ctx, transactions...)
}

func TestWhileOneReportIsWrittenTheNextOnesGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		r := newRigWith(t, func(p loop.Proposer) loop.Proposer { g.Proposer = p; return g },
			append(web(), statetest.Task("t1", "web", 1, "n1", statetest.In(placed)), statetest.Task("t2", "web", 2, "n1", statetest.In(placed)))...)
		a := r.dial("n1")
		g.calls.Store(0)
		opened := make(chan struct{})
		g.shut.Store(&opened)
		a.report(observed("t1", 1, preparing, time.Now(), ""))
		a.report(observed("t1", 1, starting, time.Now(), ""))
		a.report(observed("t1", 1, running, time.Now(), ""), observed("t2", 1, preparing, time.Now(), ""))
		a.hangUp() // what it has said counts all the same
		close(opened)
		synctest.Wait()
		s := r.store.Snapshot()
		if s.Task("t1").GetStatus().GetState() != running || s.Task("t2").GetStatus().GetState() != preparing {
			t.Errorf("tasks are %v and %v", s.Task("t1").GetStatus(), s.Task("t2").GetStatus())
		}
		// The first report, those that gathered, and the node.
		if got := g.calls.Load(); got != 3 {
			t.Errorf("%d proposals", got)
		}
	})
}

// meddler changes the task that is about to be written.
type meddler struct {
	*statetest.Proposer
	meddle func()
}

func (m *meddler) Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
	if m.meddle != nil {
		m.meddle()
	}
	return m.Proposer.Propose(ctx, transactions...)
}

func TestAReportThatMeetsAnotherWriterIsWrittenAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meddler{}
		r := newRigWith(t, func(p loop.Proposer) loop.Proposer { m.Proposer = p.(*statetest.Proposer); return m },
			append(web(), statetest.Task("t1", "web", 1, "n1", statetest.In(starting)))...)
		a := r.dial("n1")
		left := 3
		m.meddle = func() {
			if left--; left >= 0 {
				r.edit("t1", func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN })
			}
		}
		a.report(observed("t1", 1, running, time.Now(), ""))
		got := r.store.Snapshot().Task("t1")
		if got.GetStatus().GetState() != running || got.GetDesired() != warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN {
			t.Errorf("task %v", got)
		}
	})
}

func TestAReportThatCannotBeWrittenEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meddler{}
		r := newRigWith(t, func(p loop.Proposer) loop.Proposer { m.Proposer = p.(*statetest.Proposer); return m },
			append(web(), statetest.Task("t1", "web", 1, "n1", statetest.In(starting)))...)
		a := r.dial("n1")
		m.meddle = func() { r.edit("t1", func(t *warrenv1.Task) { t.Status.Message += "x" }) }
		a.report(observed("t1", 1, running, time.Now(), ""))
		<-a.done
		if connect.CodeOf(a.err) != connect.CodeUnavailable {
			t.Errorf("ended with %v", a.err)
		}
	})
}

// broken cannot write.
type broken struct{ err error }

func (b broken) Propose(context.Context, ...*state.Transaction) ([]error, error) { return nil, b.err }

func TestAManagerThatCannotWriteServesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("no longer the leader")
		r := newRigWith(t, func(loop.Proposer) loop.Proposer { return broken{why} })
		a := r.dial("n1")
		<-a.done
		if connect.CodeOf(a.err) != connect.CodeUnavailable {
			t.Errorf("the session ended with %v", a.err)
		}
		if err := r.stop(); !errors.Is(err, why) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestANodeCanGiveOnlyAddressesOfItsOwnSubnet(t *testing.T) {
	node := overlaid("n1", "10.208.1.0/24", "192.0.2.1")
	for address, kept := range map[string]bool{"10.208.1.7": true, "10.208.2.7": false, "10.224.0.1": false, "nonsense": false, "": true} {
		observed := &warrenv1.TaskStatus{Address: address, Serving: true}
		got := atHome(node, observed)
		if (got == observed) != kept || !kept && (got.GetAddress() != "" || got.GetServing()) {
			t.Errorf("%q becomes %v", address, got)
		}
	}
}
