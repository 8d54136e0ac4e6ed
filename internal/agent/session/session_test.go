package session

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// fakeAgent is everything a session works with.
type fakeAgent struct {
	ca     *testCA
	holder *pki.Holder
	fresh  chan struct{}
	heeded chan *warrenv1.Directory
	addrs  []string

	mu      sync.Mutex
	problem error // as last told
	reports []*warrenv1.TaskReport
	unsent  []*warrenv1.TaskReport
	log     bytes.Buffer

	applied chan *warrenv1.Assignments
	ready   chan struct{}
	changed chan struct{}
	label   string
	reading chan context.Context
	network *fakeNetwork
}

func newFakeAgent(t *testing.T) *fakeAgent {
	t.Helper()
	ca := newTestCA(t)
	return &fakeAgent{
		ca: ca, holder: pki.NewHolder(ca.member(t, warrenv1.Role_ROLE_AGENT)),
		fresh: make(chan struct{}), heeded: make(chan *warrenv1.Directory, 16),
		applied: make(chan *warrenv1.Assignments, 16),
		ready:   make(chan struct{}, 1),
		changed: make(chan struct{}, 1),
		reading: make(chan context.Context, 256),
		network: newFakeNetwork(),
	}
}

// NodeID is who the agent's certificate is for.
func (a *fakeAgent) NodeID() string { return a.holder.Get().Identity().Name }

// Addrs implements Managers.
func (a *fakeAgent) Addrs() []string { return a.addrs }

// Heed implements Managers.
func (a *fakeAgent) Heed(d *warrenv1.Directory, _ string) { a.heeded <- d }

func (a *fakeAgent) stand(_ string, problem error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.problem = problem
}

func (a *fakeAgent) Apply(assignments *warrenv1.Assignments) { a.applied <- assignments }

func (a *fakeAgent) Ready() <-chan struct{} { return a.ready }

func (a *fakeAgent) Rewind() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unsent = a.reports
	a.wake()
}

func (a *fakeAgent) Take(limit int) []*warrenv1.TaskReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := min(limit, len(a.unsent))
	taken := a.unsent[:n]
	if a.unsent = a.unsent[n:]; len(a.unsent) > 0 {
		a.wake()
	}
	return taken
}

func (a *fakeAgent) report(task string) { a.reportStatus(task, &warrenv1.TaskStatus{}) }

func (a *fakeAgent) reportStatus(task string, status *warrenv1.TaskStatus) {
	a.mu.Lock()
	defer a.mu.Unlock()
	report := &warrenv1.TaskReport{TaskId: task, Status: status}
	a.reports, a.unsent = append(a.reports, report), append(a.unsent, report)
	a.wake()
}

func (a *fakeAgent) wake() {
	select {
	case a.ready <- struct{}{}:
	default:
	}
}

func (a *fakeAgent) Collect(context.Context) *warrenv1.NodeFacts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &warrenv1.NodeFacts{Hostname: "host", OsName: a.label}
}

func (a *fakeAgent) Changed() <-chan struct{} { return a.changed }

// Read implements Logs: two lines and then, when followed, silence.
func (a *fakeAgent) Read(ctx context.Context, task string, selection *warrenv1.LogSelection, emit func([]*warrenv1.LogLine, bool) error) error {
	if task == "unknown" {
		return errors.New("no output of task unknown is kept on this node")
	}
	lines := []*warrenv1.LogLine{{TaskId: task, Line: []byte("one")}, {TaskId: task, Line: []byte("two")}}
	if err := emit(lines, true); err != nil {
		return err
	}
	if !selection.GetFollow() {
		return nil
	}
	a.reading <- ctx
	<-ctx.Done()
	return ctx.Err()
}

func (a *fakeAgent) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.Write(p)
}

func (a *fakeAgent) logged() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.String()
}

// attend runs the agent's side until the test ends, or the returned function is called.
func attend(t *testing.T, a *fakeAgent, managers ...string) (leave func()) {
	t.Helper()
	end := attendUntil(t, a, managers...)
	return func() { end(nil) }
}

// attendUntil is attend whose function says why the session is to end.
func attendUntil(t *testing.T, a *fakeAgent, managers ...string) (end func(why error)) {
	t.Helper()
	a.addrs = managers
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Run(ctx, Options{Managers: a, NodeID: a.NodeID(), ClusterID: "cluster", TLS: a.holder.ClientConfig, Fresh: a.fresh,
			Tasks: a, Reports: a, Facts: a, Logs: a, Network: a.network, Inside: fakeInside{}, Standing: a.stand, Logger: slog.New(slog.NewTextHandler(a, nil))})
	}()
	end = func(why error) {
		cancel(why)
		<-done
	}
	t.Cleanup(func() { end(nil) })
	return end
}

// next takes one from a channel.
func next[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v, ok := <-from:
		if !ok {
			t.Fatalf("waiting for %s: it has ended", what)
		}
		return v
	case <-time.After(15 * time.Second):
		t.Fatalf("waiting for %s: it did not come", what)
		panic("unreachable")
	}
}

func untilClosed[T any](t *testing.T, from <-chan T, what string) {
	t.Helper()
	timeout := time.After(15 * time.Second)
	for {
		select {
		case _, ok := <-from:
			if !ok {
				return
			}
		case <-timeout:
			t.Fatalf("waiting for the end of %s: it did not come", what)
		}
	}
}

func TestASessionCarriesAssignmentsInAndStatusesOut(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	a.report("before")
	attend(t, a, m.addr)
	s := next(t, m.sessions, "session")
	if s.hello.GetNodeId() != a.NodeID() || s.hello.GetFacts().GetHostname() != "host" || s.hello.GetClusterId() != "cluster" {
		t.Errorf("hello: %v", s.hello)
	}
	if r := next(t, s.heard, "report"); len(r.GetReport().GetTasks()) != 1 || r.GetReport().GetTasks()[0].GetTaskId() != "before" {
		t.Errorf("first report: %v", r)
	}
	if err := s.send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Assignments{
		Assignments: &warrenv1.Assignments{Full: true, Removed: []string{"x"}},
	}}); err != nil {
		t.Fatal(err)
	}
	if got := next(t, a.applied, "assignments"); !got.GetFull() {
		t.Errorf("assignments: %v", got)
	}
	a.report("after")
	if r := next(t, s.heard, "report"); r.GetReport().GetTasks()[0].GetTaskId() != "after" {
		t.Errorf("second report: %v", r)
	}
}

func TestABrokenSessionIsTakenUpAgainAndEverythingReportedAnew(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	a.report("a")
	attend(t, a, m.addr)
	for range 2 {
		s := next(t, m.sessions, "session")
		if r := next(t, s.heard, "report"); len(r.GetReport().GetTasks()) != 1 {
			t.Errorf("report: %v", r)
		}
		s.hangUp()
	}
	next(t, m.sessions, "session")
}

// After a broken session a node reports all its tasks at once.
func TestABigNodesReportsComeInMessagesThatTheManagerTakes(t *testing.T) {
	const tasks = 3000 // 12 MB: a busy machine must be done with them before a manager is taken for silent
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	text := strings.Repeat("x", 2<<10)
	for i := range tasks {
		a.reportStatus(strconv.Itoa(i), &warrenv1.TaskStatus{
			State: warrenv1.TaskState_TASK_STATE_FAILED, Error: text, Exit: &warrenv1.TaskExit{Code: 1, LastOutput: text},
		})
	}
	attend(t, a, m.addr)
	s := next(t, m.sessions, "session")
	reported := map[string]bool{}
	for len(reported) < tasks {
		message := next(t, s.heard, "report")
		if size := proto.Size(message); size > maxReportBytes+(64<<10) {
			t.Errorf("a message of %d bytes", size)
		}
		for _, r := range message.GetReport().GetTasks() {
			if reported[r.GetTaskId()] {
				t.Fatalf("task %s was reported twice", r.GetTaskId())
			}
			reported[r.GetTaskId()] = true
		}
	}
}

func TestReportsArePutTogetherUpToASizeInTheirOrder(t *testing.T) {
	report := func(size int) *warrenv1.TaskReport {
		return &warrenv1.TaskReport{Status: &warrenv1.TaskStatus{Error: strings.Repeat("x", size)}}
	}
	small, half, huge := report(1), report(maxReportBytes/2), report(2*maxReportBytes)
	for name, c := range map[string]struct {
		reports []*warrenv1.TaskReport
		want    []int
	}{
		"none":           {nil, nil},
		"small ones":     {[]*warrenv1.TaskReport{small, small, small}, []int{3}},
		"too much":       {[]*warrenv1.TaskReport{half, small, half, small, small}, []int{2, 3}},
		"one by itself":  {[]*warrenv1.TaskReport{huge}, []int{1}},
		"one among them": {[]*warrenv1.TaskReport{small, huge, small}, []int{1, 1, 1}},
	} {
		var got []int
		var all []*warrenv1.TaskReport
		for piece := range pieces(c.reports) {
			got, all = append(got, len(piece)), append(all, piece...)
		}
		if !slices.Equal(got, c.want) || !slices.Equal(all, c.reports) {
			t.Errorf("%s: pieces of %v reports, want %v", name, got, c.want)
		}
	}
}

func TestManagersAreTriedInTurn(t *testing.T) {
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down.Close()
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	attend(t, a, down.Addr().String(), m.addr)
	next(t, m.sessions, "session")
}

func TestHeartbeatsComeAsOftenAsTheManagerWants(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: 10 * time.Millisecond})
	attend(t, a, m.addr)
	s := next(t, m.sessions, "session")
	for range 5 {
		next(t, s.beats, "heartbeat")
	}
}

func TestAManagerThatFallsSilentIsLeft(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: 10 * time.Millisecond, mute: true})
	attend(t, a, m.addr)
	next(t, m.sessions, "session")
	next(t, m.sessions, "another session")
}

func TestAnAgentThatLeavesSaysGoodbye(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	leave := attend(t, a, m.addr)
	s := next(t, m.sessions, "session")
	leave()
	for message := range s.heard {
		if message.GetGoodbye() != nil {
			return
		}
	}
	t.Error("no goodbye came")
}

func TestChangedFactsAreSentAndUnchangedOnesAreNot(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	attend(t, a, m.addr)
	s := next(t, m.sessions, "session")
	a.changed <- struct{}{}
	a.report("a") // whatever comes first is not facts
	if first := next(t, s.heard, "message"); first.GetFacts() != nil {
		t.Errorf("facts that had not changed were sent: %v", first)
	}
	a.mu.Lock()
	a.label = "new"
	a.mu.Unlock()
	a.changed <- struct{}{}
	if second := next(t, s.heard, "message"); second.GetFacts().GetOsName() != "new" {
		t.Errorf("changed facts were not sent, but %v", second)
	}
}

func TestAManagerThatCannotBeAttendedAtIsExplained(t *testing.T) {
	unauthenticated := connect.NewError(connect.CodeUnauthenticated, errors.New("this machine was removed from the cluster"))
	for name, c := range map[string]struct {
		manager *fakeManager
		want    string
	}{
		"the manager refuses":     {&fakeManager{refusal: connect.NewError(connect.CodeFailedPrecondition, errors.New("node of another cluster"))}, "warrenctl cluster leave"},
		"the agent refuses":       {&fakeManager{cluster: "other"}, "its own is cluster, the manager's other"},
		"somebody else answers":   {&fakeManager{authority: newTestCA(t)}, "was not issued by this cluster's CA"},
		"the node was removed":    {&fakeManager{refusal: unauthenticated}, "this machine was removed from the cluster"},
		"a copy of it runs":       {&fakeManager{refusal: connect.NewError(connect.CodeAborted, errors.New("another session"))}, "copy of this one's --data-dir"},
		"it is no warren-manager": {&fakeManager{refusal: connect.NewError(connect.CodeUnimplemented, errors.New("what?"))}, "warren-manager of this release"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newFakeAgent(t)
			m := a.manager(t, c.manager)
			attend(t, a, m.addr)
			deadline := time.After(15 * time.Second)
			for {
				a.mu.Lock()
				problem := a.problem
				a.mu.Unlock()
				if problem != nil && strings.Contains(a.logged(), "cannot attend") { // which follows
					if !strings.Contains(problem.Error(), c.want) {
						t.Errorf("told %q, logged %s", problem, a.logged())
					}
					return
				}
				select {
				case <-deadline:
					t.Fatal("nothing was told")
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
}

func TestAFreshSessionTakesThePlaceOfTheOldOneWithoutAGap(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	a.report("a")
	attend(t, a, m.addr)
	first := next(t, m.sessions, "session")
	next(t, first.heard, "report")
	open(t, first, "stream", "task", true)
	r := next(t, m.relays, "relay")
	reading := next(t, a.reading, "reader")

	renewed := a.ca.member(t, warrenv1.Role_ROLE_AGENT)
	a.holder.Set(renewed)
	a.fresh <- struct{}{}
	second := next(t, m.sessions, "fresh session")
	if second.serial.Cmp(renewed.Certificate().SerialNumber) != 0 {
		t.Error("the fresh session shows the old certificate")
	}
	for message := range first.heard {
		if message.GetGoodbye() != nil {
			t.Error("the old session said goodbye")
		}
	}
	if report := next(t, second.heard, "report"); len(report.GetReport().GetTasks()) != 1 {
		t.Errorf("report: %v", report)
	}
	if reading.Err() != nil {
		t.Error("the stream that was open has ended")
	}
	r.hangUp()
	if logged := a.logged(); strings.Contains(logged, "broke") || strings.Contains(logged, "cannot") {
		t.Errorf("logged: %s", logged)
	}
}

func TestADirectoryIsHandedOn(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	attend(t, a, m.addr)
	s := next(t, m.sessions, "session")
	err := s.send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Directory{
		Directory: &warrenv1.Directory{Managers: []string{"a:1"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if d := next(t, a.heeded, "directory"); !slices.Equal(d.GetManagers(), []string{"a:1"}) {
		t.Errorf("got %v", d)
	}
}

func TestAnotherManagerIsFoundAtOnceWhenOneIsLost(t *testing.T) {
	a := newFakeAgent(t)
	one, two := a.manager(t, &fakeManager{interval: time.Minute}), a.manager(t, &fakeManager{interval: time.Minute})
	attend(t, a, one.addr, two.addr)
	for range 2 {
		var s *managerSession
		var other *fakeManager
		select {
		case s = <-one.sessions:
			other = two
		case s = <-two.sessions:
			other = one
		}
		// One that has lasted counts as lost, not as a failed try.
		<-time.After(lasting + 100*time.Millisecond)
		s.hangUp()
		next(t, other.sessions, "session at the other manager").hangUp()
	}
}

func TestANodeThatLeavesForGoodSaysNoGoodbye(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	end := attendUntil(t, a, m.addr)
	s := next(t, m.sessions, "session")
	end(ErrLeave)
	for message := range s.heard {
		if message.GetGoodbye() != nil {
			t.Error("it said goodbye")
		}
	}
}

func open(t *testing.T, s *managerSession, id, task string, follow bool) {
	t.Helper()
	err := s.send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_OpenStream{OpenStream: &warrenv1.OpenStream{
		StreamId: id,
		Purpose: &warrenv1.OpenStream_Logs{Logs: &warrenv1.LogsPurpose{
			TaskId: task, Selection: &warrenv1.LogSelection{Follow: follow},
		}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAStreamOnDemandIsDialledBackAndServed(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	attend(t, a, m.addr)
	s := next(t, m.sessions, "session")
	open(t, s, "stream", "task", false)
	r := next(t, m.relays, "relay")
	if first := next(t, r.heard, "first message"); first.GetStreamId() != "stream" {
		t.Errorf("first message: %v", first)
	}
	if second := next(t, r.heard, "second message"); len(second.GetLogs().GetLines()) != 2 || !second.GetLogs().GetCaughtUp() || second.GetStreamId() != "" {
		t.Errorf("second message: %v", second)
	}
	untilClosed(t, r.heard, "the relay")
}

func TestAStreamThatCannotBeServedSaysWhy(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	attend(t, a, m.addr)
	s := next(t, m.sessions, "session")
	open(t, s, "stream", "unknown", false)
	r := next(t, m.relays, "relay")
	next(t, r.heard, "first message")
	if second := next(t, r.heard, "second message"); second.GetError() == "" {
		t.Errorf("second message: %v", second)
	}
}

func TestAStreamEndsWhenItsReaderIsGone(t *testing.T) {
	for name, end := range map[string]func(*managerSession, *managerRelay, func()){
		"the manager hangs up":  func(_ *managerSession, r *managerRelay, _ func()) { r.hangUp() },
		"the manager closes it": func(s *managerSession, _ *managerRelay, _ func()) { closeStream(s, "stream") },
		"the agent leaves":      func(_ *managerSession, _ *managerRelay, leave func()) { leave() },
	} {
		t.Run(name, func(t *testing.T) {
			a := newFakeAgent(t)
			m := a.manager(t, &fakeManager{interval: time.Hour})
			leave := attend(t, a, m.addr)
			s := next(t, m.sessions, "session")
			open(t, s, "stream", "task", true)
			r := next(t, m.relays, "relay")
			reading := next(t, a.reading, "reader")
			end(s, r, leave)
			<-reading.Done()
		})
	}
}

func closeStream(s *managerSession, id string) {
	_ = s.send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_CloseStream{
		CloseStream: &warrenv1.CloseStream{StreamId: id},
	}})
}

func TestTooManyStreamsAreRefused(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	attend(t, a, m.addr)
	s := next(t, m.sessions, "session")
	for i := range maxStreams {
		open(t, s, strconv.Itoa(i), "task", true)
		next(t, a.reading, "reader")
		next(t, m.relays, "relay")
	}
	open(t, s, "one more", "task", true)
	r := next(t, m.relays, "relay")
	next(t, r.heard, "first message")
	if second := next(t, r.heard, "second message"); !strings.Contains(second.GetError(), "too many streams") {
		t.Errorf("second message: %v", second)
	}
}
