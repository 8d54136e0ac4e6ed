package dispatch

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/manager/liveness"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestASilentAgentIsUnknownSinceItWasLastHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		a := r.join("n1")
		time.Sleep(700 * time.Millisecond)
		a.heartbeat()
		last := time.Now()
		time.Sleep(2500*time.Millisecond - 1)
		synctest.Wait()
		if got := r.node("n1").GetStatus().GetState(); got != ready {
			t.Fatalf("%v too early", got)
		}
		time.Sleep(time.Nanosecond)
		<-a.done
		synctest.Wait()
		if s := r.node("n1").GetStatus(); s.GetState() != unheard || !s.GetSince().AsTime().Equal(last) {
			t.Errorf("status %v, last heard at %v", s, last)
		}
	})
}

func TestAnyMessageCountsAsAHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, append(web(), statetest.Task("t1", "web", 1, "n1"))...)
		a := r.dial("n1")
		for range 20 {
			time.Sleep(2 * time.Second)
			a.report(observed("t1", 1, running, time.Now(), "still"))
		}
		if got := r.node("n1").GetStatus().GetState(); got != ready {
			t.Errorf("the node is %v", got)
		}
	})
}

func TestABrokenSessionIsUnknownAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		a := r.join("n1")
		time.Sleep(time.Second)
		a.hangUp()
		synctest.Wait()
		if s := r.node("n1").GetStatus(); s.GetState() != unheard || !s.GetSince().AsTime().Equal(time.Now()) {
			t.Errorf("status %v at %v", s, time.Now())
		}
	})
}

func TestAGoodbyeIsNotABreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		a := r.join("n1")
		a.goodbye()
		a.hangUp()
		<-a.done
		synctest.Wait()
		if got := r.node("n1").GetStatus().GetState(); a.err != nil || got != disconnected {
			t.Errorf("ended with %v, the node is %v", a.err, got)
		}
	})
}

func TestASessionsEndDoesNotTouchANodeThatIsDownAlready(t *testing.T) {
	s := statetest.New(t, statetest.Node("n1", func(n *warrenv1.Node) { n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN })).Snapshot()
	e := unknown(time.Now(), "late news")
	if got := decideNode(s, "n1", &e, time.Now()); got != nil {
		t.Errorf("got %v", got.Message())
	}
}

func TestANewLeaderGivesEveryoneAFreshGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, statetest.Node("n1"), statetest.Node("n2"), statetest.Node("n3", func(n *warrenv1.Node) {
			n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN
		}))
		began := time.Now()
		a := r.join("n1")
		waited := make(chan time.Duration)
		go func() {
			r.d.Await(t.Context(), "n2")
			waited <- time.Since(began)
		}()
		for range 3 {
			time.Sleep(time.Second)
			a.heartbeat()
		}
		if got := r.node("n2").GetStatus().GetState(); got != ready {
			t.Errorf("%v too early", got)
		}
		if got := <-waited; got != liveness.DefaultNodeGrace {
			t.Errorf("waited for a node for %v", got)
		}
		synctest.Wait()
		if s := r.node("n2").GetStatus(); s.GetState() != unheard || !s.GetSince().AsTime().Equal(began) {
			t.Errorf("the absent node's status is %v", s)
		}
		if got := r.node("n1").GetStatus().GetState(); got != ready {
			t.Errorf("the node that came is %v", got)
		}
		if got := r.node("n3").GetStatus().GetState(); got != warrenv1.NodeState_NODE_STATE_DOWN {
			t.Errorf("the node that was down is %v", got)
		}
	})
}

func TestTheLastThingThatHappenedToANodeIsWhatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		random := rand.New(rand.NewPCG(1, 2))
		for range 300 {
			a := r.dial("n1")
			last := random.IntN(3)
			switch last {
			case 0:
				a.hangUp()
			case 1:
				a.goodbye()
			}
			if random.IntN(2) == 0 {
				synctest.Wait()
				want := []warrenv1.NodeState{unheard, disconnected, ready}[last]
				if got := r.node("n1").GetStatus().GetState(); got != want {
					t.Fatalf("the node is %v, not %v", got, want)
				}
			}
		}
	})
}

func TestWhatIsRefusedIsWrittenWithWhatWasSaidMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meddler{}
		r := newRigWith(t, func(p loop.Proposer) loop.Proposer { m.Proposer = p.(*statetest.Proposer); return m }, statetest.Node("n1"))
		a := r.join("n1")
		renewed := certificateEnd.AddDate(1, 0, 0)
		m.meddle = func() {
			m.meddle = nil
			transaction := state.New(time.Now())
			state.Update(transaction, r.node("n1"), func(n *warrenv1.Node) { n.Spec.Labels = map[string]string{"zone": "east"} })
			statetest.Commit(t, r.proposer, transaction)
			r.d.Renewed("n1", renewed)
		}
		a.say(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Overlay{Overlay: &warrenv1.OverlayStatus{PublicKey: "key"}}})
		n := r.node("n1")
		if got := n.GetStatus().GetOverlay().GetPublicKey(); got != "key" {
			t.Errorf("what the agent said of its overlay is lost: %q", got)
		}
		if !n.GetStatus().GetCertificateExpiresAt().AsTime().Equal(renewed) || n.GetSpec().GetLabels()["zone"] != "east" {
			t.Errorf("node %v", n)
		}
	})
}

func TestTheIntervalGrowsWithTheCluster(t *testing.T) {
	half := statetest.Cluster(func(c *warrenv1.Cluster) { c.Spec.HeartbeatInterval = durationpb.New(500 * time.Millisecond) })
	for _, c := range []struct {
		cluster  *warrenv1.Cluster
		sessions int
		want     time.Duration
	}{
		{nil, 0, time.Second},
		{statetest.Cluster(), 200, time.Second},
		{statetest.Cluster(), 1000, 5 * time.Second},
		{half, 10, 500 * time.Millisecond},
		{half, 400, time.Second},
	} {
		if got := heartbeatInterval(c.cluster, c.sessions); got != c.want {
			t.Errorf("%d sessions: %v, want %v", c.sessions, got, c.want)
		}
	}
}

func TestAManagerThatStoodStillItselfCallsNobodySilent(t *testing.T) {
	start := time.Now()
	p := pulse{interval: time.Second, last: start, due: start.Add(2500 * time.Millisecond), silent: func(time.Time) {}}
	p.timer = time.NewTimer(time.Hour)
	defer p.timer.Stop()
	if silent, _ := p.examine(start.Add(10 * time.Second)); silent != nil {
		t.Fatal("called silent although the timer was late")
	}
	if silent, _ := p.examine(p.due); silent == nil {
		t.Error("not called silent although nothing came since")
	}
}
