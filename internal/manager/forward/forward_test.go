package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/access"
	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

func getNode(ref string) *connect.Request[warrenv1.GetNodeRequest] {
	return connect.NewRequest(&warrenv1.GetNodeRequest{Ref: ref})
}

func updateNode(size int) *connect.Request[warrenv1.UpdateNodeRequest] {
	return connect.NewRequest(&warrenv1.UpdateNodeRequest{Ref: "n", Spec: &warrenv1.NodeSpec{Labels: map[string]string{"a": strings.Repeat("x", size)}}})
}

func watchService() *connect.Request[warrenv1.WatchServiceRequest] {
	return connect.NewRequest(&warrenv1.WatchServiceRequest{Ref: "web"})
}

func TestAnyManagerAnswersAnyCallInTheCallersName(t *testing.T) {
	r := newRig(t)
	leader, follower := r.manager("m1"), r.manager("m2")
	elect(leader, follower)
	for name, options := range protocols {
		t.Run(name, func(t *testing.T) {
			res, err := r.nodes(follower, options...).GetNode(t.Context(), getNode("n"))
			if err != nil {
				t.Fatal(err)
			}
			if by := res.Msg.GetEntry().GetNode().GetMeta().GetId(); by != "m1" || res.Header().Get("Test-Header") != "head" || res.Trailer().Get("Test-Trailer") != "tail" {
				t.Errorf("answered by %s with header %v, trailer %v", by, res.Header(), res.Trailer())
			}
			who := <-leader.seen
			if who.Role != warrenv1.Role_ROLE_ADMIN || who.Name != "ann" || who.Via != "m2" || len(who.Key) == 0 || who.Addr == "" || who.Issuer == "" {
				t.Errorf("the leader took the caller for %+v", who)
			}

			stream, err := r.services(follower, options...).WatchService(t.Context(), watchService())
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			if !stream.Receive() || stream.Msg().GetService().GetMeta().GetId() != "m1" {
				t.Errorf("the stream brought %v, %v", stream.Msg(), stream.Err())
			}
			<-leader.seen

			attend(t, r.sessions(follower, options...), leader)
		})
	}
}

// attend has a talk in both directions, one word at a time.
func attend(t *testing.T, sessions warrenv1connect.SessionServiceClient, leader *manager) {
	t.Helper()
	session := sessions.Attend(t.Context())
	for range 3 {
		if err := session.Send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Heartbeat{Heartbeat: &warrenv1.Heartbeat{}}}); err != nil {
			t.Fatal(err)
		}
		if m, err := session.Receive(); err != nil || m.GetWelcome() == nil {
			t.Fatalf("received %v, %v", m, err)
		}
	}
	if who := <-leader.seen; who.Role != warrenv1.Role_ROLE_AGENT || who.Name != "agent1" {
		t.Errorf("the leader took the agent for %+v", who)
	}
	if err := session.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("the end of the session is %v", err)
	}
	if err := session.CloseResponse(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsAboutTheManagerItselfIsAnsweredThere(t *testing.T) {
	r := newRig(t)
	leader, follower := r.manager("m1"), r.manager("m2")
	elect(leader, follower)
	h := r.dial(follower, r.admin())
	version, err := warrenv1connect.NewClusterServiceClient(h, "https://"+follower.addr).GetVersion(t.Context(), connect.NewRequest(&warrenv1.GetVersionRequest{}))
	if err != nil || version.Msg.GetVersion() != "m2" {
		t.Errorf("got %v, %v", version, err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+follower.addr+"/healthy", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := h.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); err != nil || string(text) != "m2" {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestWhoeverHasNoCertificateThatCountsMayJoinThroughAnyManager(t *testing.T) {
	r := newRig(t)
	leader, follower := r.manager("m1"), r.manager("m2")
	elect(leader, follower)
	for name, who := range map[string]*pki.Credentials{"none": nil, "of another cluster": newRig(t).admin()} {
		h := r.dial(follower, r.admin())
		config := h.Transport.(*http.Transport).TLSClientConfig
		config.GetClientCertificate = nil
		if who != nil {
			config.GetClientCertificate = pki.NewHolder(who).ClientConfig().GetClientCertificate
		}
		joined, err := warrenv1connect.NewMembershipServiceClient(h, "https://"+follower.addr).Join(t.Context(), connect.NewRequest(&warrenv1.JoinRequest{}))
		if err != nil || joined.Msg.GetName() != "m1" {
			t.Fatalf("%s: got %v, %v", name, joined, err)
		}
		if who := <-leader.seen; who.Role != warrenv1.Role_ROLE_ANONYMOUS || who.Via != "m2" {
			t.Errorf("%s: the leader took the caller for %+v", name, who)
		}
		// All else stays where the refusal knows why.
		if status, _ := r.raw(t, h, follower, "/warren.v1.NodeService/GetNode", http.Header{}); status != http.StatusOK {
			t.Fatalf("%s: status %d", name, status)
		}
		if here := <-follower.seen; here.Role != warrenv1.Role_ROLE_ANONYMOUS || (here.Refused != nil) != (who != nil) {
			t.Errorf("%s: taken for %+v", name, here)
		}
	}
}

// raw makes a call by hand, with a header.
func (r *rig) raw(t *testing.T, h *http.Client, m *manager, path string, header http.Header) (status int, answer http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+m.addr+path, strings.NewReader(`{"ref":"n"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	req.Header.Set("Content-Type", "application/json")
	res, err := h.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode, res.Header
}

func TestNobodyButAManagerCanSpeakInAnothersName(t *testing.T) {
	r := newRig(t)
	leader, follower := r.manager("m1"), r.manager("m2")
	elect(leader, follower)
	root := http.Header{}
	caller.PassOn(root, caller.Caller{Role: warrenv1.Role_ROLE_ADMIN, Name: "root", Local: true})
	forged := root.Get("Warren-Caller")
	viewer := r.credentials(warrenv1.Role_ROLE_VIEWER, "eve")
	for name, to := range map[string]*manager{"the leader": leader, "a follower": follower} {
		for _, http1 := range []bool{false, true} {
			h := r.dial(to, viewer)
			header := http.Header{"Warren-Caller": {forged}}
			if http1 {
				// What a proxy takes for its own headers it drops: the name it gives must not be among them.
				protocols := new(http.Protocols)
				protocols.SetHTTP1(true)
				h.Transport.(*http.Transport).Protocols = protocols
				h.Transport.(*http.Transport).TLSClientConfig.NextProtos = []string{"http/1.1"}
				header.Set("Connection", "Warren-Caller")
			}
			if status, _ := r.raw(t, h, to, "/warren.v1.NodeService/GetNode", header); status != http.StatusOK {
				t.Fatalf("%s: status %d", name, status)
			}
			if who := <-leader.seen; who.Role != warrenv1.Role_ROLE_VIEWER || who.Name != "eve" || who.Local {
				t.Errorf("%s: taken for %+v", name, who)
			}
			// What the caller's own role may not do stays where the API refuses it.
			r.raw(t, h, to, "/warren.v1.NodeService/UpdateNode", http.Header{"Warren-Caller": {forged}})
			if who := <-to.seen; who.Role != warrenv1.Role_ROLE_VIEWER || who.Via != "" {
				t.Errorf("%s: a write went on as %+v", name, who)
			}
		}
	}
}

func TestACallIsNeverPassedOnTwice(t *testing.T) {
	r := newRig(t)
	a, b, c := r.manager("m1"), r.manager("m2"), r.manager("m3")
	a.lead.set(b.leader())
	b.lead.set(c.leader())
	c.lead.set(a.leader())
	a.forwarder.patience = 300 * time.Millisecond
	for name, options := range protocols {
		_, err := r.nodes(a, options...).UpdateNode(t.Context(), updateNode(1))
		if connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "says that it does not") {
			t.Errorf("%s: got %v", name, err)
		}
		if ce := new(connect.Error); !errors.As(err, &ce) || ce.Meta().Get(UnexecutedHeader) != "true" {
			t.Errorf("%s: %v is not marked as not executed", name, err)
		}
	}
	if len(a.seen)+len(b.seen)+len(c.seen) > 0 {
		t.Error("somebody carried the call out")
	}
	// A manager itself can have no more passed on than once.
	h := r.dial(a, r.credentials(warrenv1.Role_ROLE_MANAGER, "m9"))
	header := http.Header{}
	caller.PassOn(header, caller.Caller{Role: warrenv1.Role_ROLE_ADMIN, Name: "ann"})
	if status, answer := r.raw(t, h, a, "/warren.v1.NodeService/GetNode", header); status != http.StatusServiceUnavailable || answer.Get(UnexecutedHeader) == "" {
		t.Errorf("status %d, header %v", status, answer)
	}
}

func TestACallAboutAManagerItselfCannotBePassedOn(t *testing.T) {
	r := newRig(t)
	m := r.manager("m1")
	elect(m)
	header := http.Header{}
	caller.PassOn(header, caller.Caller{Role: warrenv1.Role_ROLE_ADMIN, Name: "root", Local: true})
	h := r.dial(m, r.credentials(warrenv1.Role_ROLE_MANAGER, "m9"))
	if status, _ := r.raw(t, h, m, "/warren.v1.ManagerService/LeaveManager", header); status != http.StatusForbidden {
		t.Errorf("status %d", status)
	}
}

func TestACallWaitsForTheElectionUnderWay(t *testing.T) {
	r := newRig(t)
	leader, follower := r.manager("m1"), r.manager("m2")
	answered := make(chan error, 1)
	go func() {
		_, err := r.nodes(follower).UpdateNode(t.Context(), updateNode(1))
		answered <- err
	}()
	// The call cannot have been answered before there is a leader.
	elect(leader, follower)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestACallThatWasNotCarriedOutGoesToTheNextLeader(t *testing.T) {
	r := newRig(t)
	gone, deposed, leader, follower := r.manager("m1"), r.manager("m2"), r.manager("m3"), r.manager("m4")
	gone.kill()
	deposed.lead.set(leader.leader())
	elect(leader)
	for name, options := range protocols {
		for what, first := range map[string]*manager{"gone": gone, "deposed": deposed} {
			follower.lead.set(first.leader())
			answered := make(chan error, 1)
			go func() {
				res, err := r.nodes(follower, options...).UpdateNode(t.Context(), updateNode(1000))
				if err == nil && len(res.Msg.GetNode().GetSpec().GetLabels()["a"]) != 1000 {
					err = errors.New("something of the call was lost")
				}
				answered <- err
			}()
			timer := time.AfterFunc(50*time.Millisecond, func() { follower.lead.set(leader.leader()) })
			if err := <-answered; err != nil {
				t.Errorf("%s, %s: %v", name, what, err)
			}
			timer.Stop()
		}
	}
}

func TestACallThatTheLeaderSaysItRefusedIsMadeAgain(t *testing.T) {
	r := newRig(t)
	leader, follower := r.manager("m1"), r.manager("m2")
	elect(leader, follower)
	for name, options := range protocols {
		refusals := 2
		leader.hold = func(context.Context) error {
			if refusals--; refusals < 0 {
				return nil
			}
			err := connect.NewError(connect.CodeUnavailable, errors.New("about to lead"))
			err.Meta().Set(UnexecutedHeader, "true")
			return err
		}
		if _, err := r.nodes(follower, options...).UpdateNode(t.Context(), updateNode(1)); err != nil || refusals != -1 {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAManagerThatBecomesLeaderAnswersWhatItCouldNotPassOn(t *testing.T) {
	r := newRig(t)
	gone, m := r.manager("m1"), r.manager("m2")
	gone.kill()
	m.lead.set(gone.leader())
	timer := time.AfterFunc(50*time.Millisecond, func() { elect(m) })
	defer timer.Stop()
	res, err := r.nodes(m).UpdateNode(t.Context(), updateNode(10))
	if err != nil || res.Msg.GetNode().GetMeta().GetId() != "m2" || len(res.Msg.GetNode().GetSpec().GetLabels()["a"]) != 10 {
		t.Errorf("got %v, %v", res, err)
	}
}

func TestAWriteThatMayHaveBeenCarriedOutIsNotRepeated(t *testing.T) {
	r := newRig(t)
	leader, next, follower := r.manager("m1"), r.manager("m2"), r.manager("m3")
	elect(next)
	elect(leader, follower)
	leader.hold = func(ctx context.Context) error {
		follower.lead.set(next.leader())
		go leader.kill()
		<-ctx.Done()
		return ctx.Err()
	}
	_, err := r.nodes(follower).UpdateNode(t.Context(), updateNode(1))
	if connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "look whether the call has been carried out") {
		t.Errorf("got %v", err)
	}
	if ce := new(connect.Error); errors.As(err, &ce) && ce.Meta().Get(UnexecutedHeader) != "" {
		t.Error("it is marked as not executed")
	}
	if len(next.seen) > 0 {
		t.Error("it was repeated")
	}
}

func TestAWriteToALeaderThatWasCutOffEndsSoonAfterTheElection(t *testing.T) {
	r := newRig(t)
	leader, next, follower := r.manager("m1"), r.manager("m2"), r.manager("m3")
	wire := r.wire(leader)
	elect(leader)
	elect(next)
	follower.lead.set(Leader{ID: "m1", Addr: wire.addr, Since: time.Now()})
	leader.hold = func(context.Context) error {
		wire.dead.Store(true)
		follower.lead.set(next.leader())
		return nil
	}
	began := time.Now()
	_, err := r.nodes(follower).UpdateNode(t.Context(), updateNode(1))
	if connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "look whether the call has been carried out") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	if len(next.seen) > 0 {
		t.Error("it was repeated")
	}
}

func TestAStreamEndsAsUnavailableWhenItsLeaderIsLost(t *testing.T) {
	for name, options := range protocols {
		for what, lose := range map[string]func(leader, next, follower *manager){
			"killed":               func(leader, _, _ *manager) { leader.kill() },
			"deposed":              func(leader, next, _ *manager) { elect(next, leader) },
			"deposed and unaware":  func(_, next, follower *manager) { elect(next, follower) },
			"this manager stops":   func(_, _, follower *manager) { follower.forwarder.Close() },
			"this manager follows": func(leader, _, follower *manager) { elect(follower, leader) },
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				r := newRig(t)
				leader, next, follower := r.manager("m1"), r.manager("m2"), r.manager("m3")
				elect(leader, follower)
				stream, err := r.services(follower, options...).WatchService(t.Context(), watchService())
				if err != nil {
					t.Fatal(err)
				}
				defer stream.Close()
				if !stream.Receive() {
					t.Fatal(stream.Err())
				}
				lose(leader, next, follower)
				if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnavailable || !connect.IsWireError(stream.Err()) {
					t.Errorf("the stream ended with %v", stream.Err())
				}
			})
		}
	}
}

func TestAStreamOnALeaderItselfEndsWhenItIsDeposed(t *testing.T) {
	r := newRig(t)
	leader := r.manager("m1")
	elect(leader)
	stream, err := r.services(leader).WatchService(t.Context(), watchService())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	leader.lead.set(Leader{Since: time.Now()})
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnavailable {
		t.Errorf("the stream ended with %v", stream.Err())
	}
}

func TestAStreamOutlastsAMomentWithoutALeaderAndARenewedCertificate(t *testing.T) {
	r := newRig(t)
	leader, follower := r.manager("m1"), r.manager("m2")
	elect(leader, follower)
	session := r.sessions(follower).Attend(t.Context())
	beat := func() {
		t.Helper()
		if err := session.Send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Heartbeat{Heartbeat: &warrenv1.Heartbeat{}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := session.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	beat()
	follower.lead.set(Leader{Since: time.Now()})
	beat()
	elect(leader, follower)
	beat()
	before := leader.conns.Load()
	follower.holder.Set(r.credentials(warrenv1.Role_ROLE_MANAGER, "m2"))
	if _, err := r.nodes(follower).GetNode(t.Context(), getNode("n")); err != nil {
		t.Fatal(err)
	}
	beat()
	if leader.conns.Load() != before+1 {
		t.Errorf("%d connections, want one more than %d for the new certificate", leader.conns.Load(), before)
	}
	if err := errors.Join(session.CloseRequest(), session.CloseResponse()); err != nil {
		t.Error(err)
	}
}

func TestWithoutALeaderReadsAreAnsweredFromWhatIsKnownAndMarked(t *testing.T) {
	r := newRig(t)
	m := r.manager("m1")
	lost := time.Now().Add(-time.Hour)
	m.lead.set(Leader{Since: lost})
	for name, options := range protocols {
		began := time.Now()
		res, err := r.nodes(m, options...).GetNode(t.Context(), getNode("n"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if res.Header().Get(StaleHeader) != "true" || res.Header().Get(LeaderlessHeader) != lost.UTC().Format(time.RFC3339) || m.stale.Load() == 0 {
			t.Errorf("%s: the header is %v", name, res.Header())
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
	}
	elect(m)
	m.stale.Store(0)
	res, err := r.nodes(m).GetNode(t.Context(), getNode("n"))
	if err != nil || res.Header().Get(StaleHeader) != "" || m.stale.Load() != 0 {
		t.Errorf("with a leader: %v, %v", res.Header(), err)
	}
}

func TestWithoutALeaderWritesFailFastAndSayWhoAnswers(t *testing.T) {
	r := newRig(t)
	m, alive, dead := r.manager("m1"), r.manager("m2"), r.manager("m3")
	dead.kill()
	lost := time.Now().Add(-time.Hour)
	m.lead.set(Leader{Since: lost})
	m.lead.peers = []Peer{{"m2", "barn", alive.addr}, {"m3", "shed", dead.addr}, {"m4", "attic", alive.addr}}
	for name, options := range protocols {
		began := time.Now()
		_, err := r.nodes(m, options...).UpdateNode(t.Context(), updateNode(1))
		if connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%s: got %v", name, err)
		}
		for _, part := range []string{"barn at " + alive.addr + " answers", "shed at " + dead.addr + " does not", "connection refused", "attic", "manager m2 answers, where manager m4", "cluster recover"} {
			if !strings.Contains(fmt.Sprint(err), part) {
				t.Errorf("%s: %q does not say %q", name, err, part)
			}
		}
		if ce := new(connect.Error); !errors.As(err, &ce) || ce.Meta().Get(UnexecutedHeader) != "true" || ce.Meta().Get(LeaderlessHeader) == "" {
			t.Errorf("%s: %v lacks its marks", name, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
	}
}

func TestACallerWhoGoesAwayEndsTheWait(t *testing.T) {
	r := newRig(t)
	m := r.manager("m1")
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	inner := m.server.Handler
	m.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(served)
		time.AfterFunc(50*time.Millisecond, cancel)
		inner.ServeHTTP(w, r)
	})
	began := time.Now()
	if _, err := r.nodes(m).UpdateNode(ctx, updateNode(1)); connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("got %v", err)
	}
	<-served
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the wait went on for %v", took)
	}
}

func TestACallerWhoGoesAwayEndsTheStreamAtTheLeader(t *testing.T) {
	r := newRig(t)
	leader, follower := r.manager("m1"), r.manager("m2")
	elect(leader, follower)
	ended := make(chan struct{})
	leader.hold = func(ctx context.Context) error {
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-leader.seen
		cancel()
	}()
	if _, err := r.nodes(follower).UpdateNode(ctx, updateNode(1)); connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("got %v", err)
	}
	<-ended
}

func TestBigCallsArePassedOnWhole(t *testing.T) {
	r := newRig(t)
	leader, follower := r.manager("m1"), r.manager("m2")
	elect(leader, follower)
	for name, options := range protocols {
		for _, size := range []int{maxKept - 100, maxKept, maxKept + 1, 3 << 20} {
			res, err := r.nodes(follower, options...).UpdateNode(t.Context(), updateNode(size))
			if err != nil || len(res.Msg.GetNode().GetSpec().GetLabels()["a"]) != size {
				t.Errorf("%s, %d bytes: %v", name, size, err)
			}
		}
	}
}

func TestABigCallWaitsForALeaderAsWell(t *testing.T) {
	r := newRig(t)
	gone, leader, follower := r.manager("m1"), r.manager("m2"), r.manager("m3")
	gone.kill()
	follower.lead.set(gone.leader())
	timer := time.AfterFunc(50*time.Millisecond, func() { elect(leader, follower) })
	defer timer.Stop()
	res, err := r.nodes(follower).UpdateNode(t.Context(), updateNode(1<<20))
	if err != nil || len(res.Msg.GetNode().GetSpec().GetLabels()["a"]) != 1<<20 {
		t.Errorf("got %v", err)
	}
}

func TestAnotherManagerAtTheLeadersAddressIsNotBelieved(t *testing.T) {
	r := newRig(t)
	other, follower := r.manager("m1"), r.manager("m2")
	elect(other)
	follower.forwarder.patience = 200 * time.Millisecond
	follower.lead.set(Leader{ID: "m7", Addr: other.addr, Since: time.Now()})
	if _, err := r.nodes(follower).UpdateNode(t.Context(), updateNode(1)); connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "manager m1 answers, where manager m7 was expected") {
		t.Errorf("got %v", err)
	}
	if len(other.seen) > 0 {
		t.Error("it was told the call")
	}
}

func TestAThousandCallsAtOnceShareAConnectionAndLeaveNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("calls", func(t *testing.T) {
		r := newRig(t)
		leader, follower := r.manager("m1"), r.manager("m2")
		// All of it runs in one process here, perhaps on a busy machine and with the race detector.
		follower.forwarder.patience, follower.forwarder.pingTimeout = time.Minute, time.Minute
		elect(leader, follower)
		nodes, services := r.nodes(follower), r.services(follower)
		// The callers share connections.
		_, err := nodes.ListNodes(t.Context(), connect.NewRequest(&warrenv1.ListNodesRequest{}))
		_, err2 := services.ListServices(t.Context(), connect.NewRequest(&warrenv1.ListServicesRequest{}))
		if connect.CodeOf(err) != connect.CodeUnimplemented || connect.CodeOf(err2) != connect.CodeUnimplemented {
			t.Fatal(err, err2)
		}
		follower.holder.Set(r.credentials(warrenv1.Role_ROLE_MANAGER, "m2")) // and the follower has none
		before := leader.conns.Load()
		var calls sync.WaitGroup
		failed := make(chan error, 1000)
		for n := range 1000 {
			calls.Go(func() {
				if n%10 == 0 {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					stream, err := services.WatchService(ctx, watchService())
					if err != nil || !stream.Receive() {
						failed <- fmt.Errorf("stream: %w, %w", err, stream.Err())
					}
					return
				}
				ref := strconv.Itoa(n)
				if res, err := nodes.GetNode(t.Context(), getNode(ref)); err != nil || res.Msg.GetEntry().GetNode().GetSpec().GetLabels()["ref"] != ref {
					failed <- fmt.Errorf("call: %w", err)
				}
			})
		}
		calls.Wait()
		if n := len(failed); n > 0 {
			t.Errorf("%d of 1000 calls failed, the first with %v", n, <-failed)
		}
		if opened := leader.conns.Load() - before; opened > 20 { // a few more than maxDials: a fresh one carries 100 calls until the leader has said more
			t.Errorf("the follower opened %d connections", opened)
		}
	})
	settled(t, before)
}

func TestAMessageThatBreaksOffIsNotTakenForAWholeOne(t *testing.T) {
	var f frames
	whole := append(frame(0, []byte("hello")), frame(0, nil)...)
	for n := range whole {
		f = frames{}
		for _, b := range [][]byte{whole[:n/2], whole[n/2 : n]} {
			f.pass(b)
		}
		if want := n == 0 || n == 10; f.between() != want {
			t.Errorf("after %d bytes: between messages is %v", n, f.between())
		}
	}
	broken := &ending{
		ReadCloser: io.NopCloser(io.MultiReader(bytes.NewReader(whole[:7]), failing{})), from: t.Context(),
		answer: &http.Response{Header: http.Header{"Content-Type": {"application/connect+proto"}}},
	}
	if _, err := io.ReadAll(broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("it ended with %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func BenchmarkGetNode(b *testing.B) {
	for _, c := range []string{"at the leader", "through a follower"} {
		b.Run(c, func(b *testing.B) {
			r := newRig(b)
			leader, follower := r.manager("m1"), r.manager("m2")
			elect(leader, follower)
			to := map[string]*manager{"at the leader": leader, "through a follower": follower}[c]
			nodes := r.nodes(to)
			for b.Loop() {
				if _, err := nodes.GetNode(b.Context(), getNode("n")); err != nil {
					b.Fatal(err)
				}
				<-leader.seen
			}
		})
	}
}

func TestAStreamEndsWhenItsLeaderFallsSilent(t *testing.T) {
	r := newRig(t)
	leader, follower := r.manager("m1"), r.manager("m2")
	wire := r.wire(leader)
	elect(leader)
	follower.lead.set(Leader{ID: "m1", Addr: wire.addr, Since: time.Now()})
	stream, err := r.services(follower).WatchService(t.Context(), watchService())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	wire.dead.Store(true)
	began := time.Now()
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnavailable || !connect.IsWireError(stream.Err()) {
		t.Errorf("the stream ended with %v", stream.Err())
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
	// A network that swallows what would be a handshake holds nobody up for long either.
	follower.forwarder.patience = 200 * time.Millisecond
	if _, err := r.nodes(follower).UpdateNode(t.Context(), updateNode(1)); connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "out of reach") {
		t.Errorf("got %v", err)
	}
}

func TestWhatOnlyThisMachineMayAskIsNeverPassedOn(t *testing.T) {
	for method := range access.Methods() {
		if declared := access.Declared(method); declared.GetLocal() && !declared.GetHere() {
			t.Errorf("%s declares local and not here", method.FullName())
		}
	}
}
