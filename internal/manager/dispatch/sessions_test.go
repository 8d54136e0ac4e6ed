package dispatch

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	ready        = warrenv1.NodeState_NODE_STATE_READY
	unheard      = warrenv1.NodeState_NODE_STATE_UNKNOWN
	disconnected = warrenv1.NodeState_NODE_STATE_DISCONNECTED

	pending   = warrenv1.TaskState_TASK_STATE_PENDING
	placed    = warrenv1.TaskState_TASK_STATE_ASSIGNED
	preparing = warrenv1.TaskState_TASK_STATE_PREPARING
	starting  = warrenv1.TaskState_TASK_STATE_STARTING
	running   = warrenv1.TaskState_TASK_STATE_RUNNING
	stopping  = warrenv1.TaskState_TASK_STATE_STOPPING
	failed    = warrenv1.TaskState_TASK_STATE_FAILED
	shutdown  = warrenv1.TaskState_TASK_STATE_SHUTDOWN
	lost      = warrenv1.TaskState_TASK_STATE_LOST
)

// web is a service's object, with the revision that its tasks need.
func web() []state.Object {
	s := statetest.Replicated("web", 3)
	return []state.Object{s, statetest.Revision(s)}
}

func TestAnUnknownAgentMakesANewNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		a := r.dial("n1")
		if w := a.welcome(); w.GetClusterId() != statetest.ClusterID || w.GetHeartbeatInterval().AsDuration() != time.Second {
			t.Errorf("welcome %v", w)
		}
		if full := a.assignments(); !full.GetFull() || full.GetMore() || len(full.GetTasks()) != 0 {
			t.Errorf("first assignments %v", full)
		}
		n := r.node("n1")
		if n.GetStatus().GetIssuer() != "ca" || !n.GetStatus().GetCertificateExpiresAt().AsTime().Equal(certificateEnd) {
			t.Errorf("of its certificate is known: %v", n.GetStatus())
		}
		if n.GetStatus().GetState() != ready || n.GetStatus().GetAddr() != "192.0.2.1" || n.GetFacts().GetHostname() != "n1" ||
			n.GetSpec().GetAvailability() != warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE {
			t.Errorf("node %v", n)
		}
	})
}

func TestAnAgentThatComesBackUnchangedCostsNoWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, statetest.Node("n1", func(n *warrenv1.Node) {
			n.Status.Addr, n.Status.Issuer, n.Status.CertificateExpiresAt = "192.0.2.1", "ca", timestamppb.New(certificateEnd)
		}))
		before := r.store.Snapshot().Index()
		r.join("n1")
		if after := r.store.Snapshot().Index(); after != before {
			t.Errorf("%d writes", after-before)
		}
	})
}

func TestAnAgentThatComesBackKeepsWhatOperatorsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, statetest.Node("n1", func(n *warrenv1.Node) {
			n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
			n.Status.State, n.Status.Message = warrenv1.NodeState_NODE_STATE_DOWN, "gone"
		}))
		r.dial("n1", func(h *warrenv1.Hello) { h.Facts.Kernel = "6.1" }).welcome()
		n := r.node("n1")
		if n.GetSpec().GetAvailability() != warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN || n.GetStatus().GetState() != ready ||
			n.GetStatus().GetMessage() != "" || n.GetFacts().GetKernel() != "6.1" {
			t.Errorf("node %v", n)
		}
	})
}

func TestNewFactsAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		a := r.join("n1")
		since := r.node("n1").GetStatus().GetSince().AsTime()
		time.Sleep(time.Second)
		facts := statetest.Node("n1").GetFacts()
		facts.Kernel = "6.12"
		a.say(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Facts{Facts: facts}})
		n := r.node("n1")
		if n.GetFacts().GetKernel() != "6.12" || !n.GetStatus().GetSince().AsTime().Equal(since) || n.GetStatus().GetAddr() == "" {
			t.Errorf("node %v", n)
		}
	})
}

func TestAnAgentOfAnotherClusterIsTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		a := r.dial("n1", func(h *warrenv1.Hello) { h.ClusterId = "elsewhere" })
		<-a.done
		if connect.CodeOf(a.err) != connect.CodeFailedPrecondition || r.node("n1") != nil {
			t.Errorf("got %v, node %v", a.err, r.node("n1"))
		}
	})
}

func TestAStreamWithoutHelloIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		a := &agent{t: t, ctx: t.Context(), done: make(chan struct{}), out: make(chan *warrenv1.AttendRequest)}
		go func() {
			a.err = r.d.attend(t.Context(), a, caller.Caller{})
			close(a.done)
		}()
		<-a.done
		if connect.CodeOf(a.err) != connect.CodeDeadlineExceeded {
			t.Errorf("got %v", a.err)
		}
	})
}

func TestASecondSessionOfANodeEndsTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := r.join("n1")
		second := r.join("n1")
		<-first.done
		if connect.CodeOf(first.err) != connect.CodeAborted {
			t.Errorf("the first ended with %v", first.err)
		}
		synctest.Wait()
		if got := r.node("n1").GetStatus().GetState(); got != ready {
			t.Errorf("the node is %v", got)
		}
		second.heartbeat()
		if second.hear().GetHeartbeat() == nil {
			t.Error("the second is not served")
		}
	})
}

func TestTheFullSetHoldsTheHistoryButNoPendingTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, append(web(), statetest.Task("t1", "web", 1, "n1"),
			statetest.Task("t2", "web", 1, "n1", statetest.In(failed)),
			statetest.Task("t3", "web", 2, "n1", statetest.In(pending)),
			statetest.Task("t4", "web", 2, "n2"))...)
		a := r.dial("n1")
		a.welcome()
		var got []string
		for _, x := range a.assignments().GetTasks() {
			got = append(got, x.GetTask().GetMeta().GetId())
			if x.GetSpec().GetContainer().GetImage() != "image" {
				t.Errorf("assignment without its template: %v", x)
			}
		}
		if !slices.Equal(got, []string{"t1", "t2"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestALargeSetComesInPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := web()
		for i := range 2500 {
			objects = append(objects, statetest.Task(fmt.Sprintf("t%04d", i), "web", uint32(i), "n1"))
		}
		r := newRig(t, objects...)
		a := r.dial("n1")
		a.welcome()
		var got int
		for i, want := range []struct{ full, more bool }{{true, true}, {false, true}, {false, false}} {
			piece := a.assignments()
			got += len(piece.GetTasks())
			if piece.GetFull() != want.full || piece.GetMore() != want.more {
				t.Errorf("piece %d: full %t, more %t", i, piece.GetFull(), piece.GetMore())
			}
		}
		if got != 2500 {
			t.Errorf("%d tasks", got)
		}
		a.hearsNothing()
	})
}

func TestAPieceIsClosedBeforeItIsTooLarge(t *testing.T) {
	s := statetest.Replicated("web", 3)
	s.Spec.Task.Container.Args = []string{string(make([]byte, 300<<10))}
	objects := []state.Object{s, statetest.Revision(s)}
	for i := range 5 {
		objects = append(objects, statetest.Task(fmt.Sprint("t", i), "web", uint32(i), "n1"))
	}
	store := statetest.New(t, objects...)
	var sizes []int
	for piece := range newLedger("n1", nil, nil).everything(store.Snapshot()) {
		sizes = append(sizes, len(piece.GetTasks()))
	}
	if !slices.Equal(sizes, []int{3, 2}) {
		t.Errorf("pieces of %v tasks", sizes)
	}
}

func TestWhatControlLoopsDecideIsSentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, append(web(), statetest.Task("t1", "web", 1, "", statetest.In(pending)))...)
		a := r.join("n1")
		began := time.Now()

		r.edit("t1", func(t *warrenv1.Task) { t.NodeId, t.Status.State = "n1", placed })
		if got := a.assignments(); got.GetFull() || len(got.GetTasks()) != 1 || got.GetTasks()[0].GetSpec() == nil {
			t.Errorf("an assignment came as %v", got)
		}
		r.edit("t1", func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN })
		if got := a.assignments(); got.GetTasks()[0].GetTask().GetDesired() != warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN {
			t.Errorf("a shutdown came as %v", got)
		}
		r.edit("t1", func(t *warrenv1.Task) { t.Status.State = lost })
		if got := a.assignments(); got.GetTasks()[0].GetTask().GetStatus().GetState() != lost {
			t.Errorf("a lost task came as %v", got)
		}
		statetest.Remove(t, r.store, state.KeyOf(r.store.Snapshot().Task("t1")))
		if got := a.assignments(); !slices.Equal(got.GetRemoved(), []string{"t1"}) || len(got.GetTasks()) != 0 {
			t.Errorf("a removal came as %v", got)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v of waiting", took)
		}
	})
}

func TestATaskWithItsNodeFromTheStartIsSentWhenItIsAssigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, append(web(), statetest.Task("t1", "web", 0, "n1", statetest.In(pending)))...)
		a := r.join("n1")
		a.hearsNothing()
		r.edit("t1", func(t *warrenv1.Task) { t.Status.State = placed })
		if got := a.assignments(); len(got.GetTasks()) != 1 {
			t.Errorf("got %v", got)
		}
	})
}

func TestWhatAnAgentReportsIsNotSentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, append(web(), statetest.Task("t1", "web", 1, "n1", statetest.In(placed)))...)
		a := r.dial("n1")
		a.welcome()
		a.assignments()
		for i, s := range []warrenv1.TaskState{preparing, starting, running, failed} {
			a.report(observed("t1", 1, s, time.Now(), strconv.Itoa(i)))
			if got := r.store.Snapshot().Task("t1").GetStatus().GetState(); got != s {
				t.Fatalf("reported %v, written %v", s, got)
			}
		}
		a.hearsNothing()
	})
}

func TestAnAgentIsNotToldOfOtherNodesTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, append(web(), statetest.Task("t1", "web", 1, "n2"))...)
		a := r.join("n1")
		r.edit("t1", func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_REMOVE })
		statetest.Remove(t, r.store, state.KeyOf(r.store.Snapshot().Task("t1")))
		a.hearsNothing()
	})
}

func TestAReplacedStateIsSentAsAWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, append(web(), statetest.Task("t1", "web", 1, "n1"))...)
		a := r.dial("n1")
		a.welcome()
		a.assignments()
		term, _ := r.d.current()
		term.each(func(s *session) { s.markAll() })
		if got := a.assignments(); !got.GetFull() || len(got.GetTasks()) != 1 {
			t.Errorf("got %v", got)
		}
	})
}

func TestPostedMessagesComeAfterTheAssignmentsTheyAreAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, append(web(), statetest.Task("t1", "web", 1, "n1"))...)
		if _, err := r.d.Send("n1", &warrenv1.AttendResponse{}); err == nil {
			t.Error("sent to an agent that is not there")
		}
		a := r.dial("n1")
		ended, err := r.d.Send("n1", &warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_CloseStream{CloseStream: &warrenv1.CloseStream{StreamId: "x"}}})
		if err != nil {
			t.Fatal(err)
		}
		a.welcome()
		a.assignments()
		if got := a.hear().GetCloseStream().GetStreamId(); got != "x" {
			t.Errorf("stream id %q", got)
		}
		a.hangUp()
		<-ended
	})
}

func TestAnAgentThatReadsNothingIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		a := r.join("n1")
		for i := 0; ; i++ {
			if _, err := r.d.Send("n1", &warrenv1.AttendResponse{}); err != nil {
				break
			}
			if i > 2*maxPosted {
				t.Fatal("messages gather without bound")
			}
		}
		synctest.Wait() // the sender is stuck
		for range maxUnanswered {
			a.heartbeat()
			time.Sleep(time.Second)
		}
		select {
		case a.out <- &warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Heartbeat{Heartbeat: &warrenv1.Heartbeat{}}}:
		case <-a.done:
		}
		synctest.Wait()
		if got := r.node("n1").GetStatus().GetState(); got != unheard {
			t.Errorf("the node is %v", got)
		}
	})
}

func TestRemovingANodeEndsItsSessionAndItsAgentComesBackAsANewNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		a := r.join("n1")
		before := r.node("n1").GetMeta().GetVersion()
		statetest.Remove(t, r.store, state.KeyOf(r.node("n1")))
		<-a.done
		if connect.CodeOf(a.err) != connect.CodeUnauthenticated {
			t.Errorf("ended with %v", a.err)
		}
		synctest.Wait()
		if r.node("n1") != nil {
			t.Error("the end of the session brought the node back")
		}
		r.join("n1")
		if n := r.node("n1"); n == nil || n.GetMeta().GetVersion() <= before {
			t.Errorf("node %v", n)
		}
	})
}

func TestWithoutTheLeadNobodyIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		a := r.join("n1")
		if err := r.stop(); err == nil {
			t.Error("Run returned nil")
		}
		<-a.done
		late := &agent{t: t, ctx: t.Context(), done: make(chan struct{})}
		for _, err := range []error{a.err, r.d.attend(t.Context(), late, caller.Caller{})} {
			if connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("got %v", err)
			}
		}
		if got := r.node("n1").GetStatus().GetState(); got != ready {
			t.Errorf("the end of the lead made the node %v", got)
		}
	})
}

func TestAnAgentThatComesJustBeforeTheTermBeginsIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		if err := r.stop(); err == nil {
			t.Error("Run returned nil")
		}
		early := &agent{t: t, ctx: t.Context(), done: make(chan struct{}), out: make(chan *warrenv1.AttendRequest, 1), in: make(chan *warrenv1.AttendResponse, 64)}
		early.out <- &warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Hello{Hello: &warrenv1.Hello{NodeId: "n1"}}}
		go func() {
			early.err = r.d.attend(t.Context(), early, caller.Caller{})
			close(early.done)
		}()
		time.Sleep(termTimeout - time.Nanosecond)
		r.lead()
		early.welcome()
	})
}

func TestANodeThatWasRemovedIsTakenInWhenItsTasksAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, append(web(), statetest.Task("t1", "web", 1, "n1"))...)
		statetest.Remove(t, r.store, state.KeyOf(r.store.Snapshot().Node("n1")))
		synctest.Wait() // a session that begins before the term has seen the removal is ended by it
		early := r.dial("n1")
		<-early.done
		if connect.CodeOf(early.err) != connect.CodeUnavailable || r.store.Snapshot().Node("n1") != nil {
			t.Errorf("taken in with the tasks of the node that was: %v", early.err)
		}
		r.edit("t1", func(t *warrenv1.Task) { t.Status.State = lost })
		r.dial("n1").welcome()
	})
}
