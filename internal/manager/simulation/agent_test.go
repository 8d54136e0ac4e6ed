package simulation

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// What images do in the simulation; a number behind a colon makes revisions differ.
const (
	goodImage  = "good"  // runs until it is stopped; may crash during the faults
	crashImage = "crash" // ends soon after it has started
	badImage   = "bad"   // cannot be pulled
	sickImage  = "sick"  // runs and is found unhealthy before long
)

// forever is longer than any simulation.
const forever = 365 * 24 * time.Hour

// agent is a simulated machine with its agent. It speaks the real protocol with the dispatcher.
type agent struct {
	id     string
	facts  *warrenv1.NodeFacts
	client warrenv1connect.SessionServiceClient
	faulty *atomic.Bool // good programs crash now and then
	skew   time.Duration

	mu      sync.Mutex
	random  *rand.Rand
	machine context.Context // ends when the machine loses its power
	off     context.CancelFunc
	hangUp  context.CancelFunc // cuts the session; nil where there is none
	goodbye chan struct{}      // asks the session to end politely
	away    time.Time          // no session before
	stalled time.Time          // says and hears nothing before
	tasks   map[string]*local
	outbox  map[string]*warrenv1.TaskStatus
	wake    chan struct{}
	life    sync.WaitGroup // the goroutines of the machine
}

// local is a task as the agent knows it.
type local struct {
	id      string
	image   string
	status  *warrenv1.TaskStatus
	alive   bool          // a goroutine looks after it
	running bool          // its program runs
	stop    chan struct{} // closed when it is to stop
	stopped bool
}

func newAgent(id string, facts *warrenv1.NodeFacts, client warrenv1connect.SessionServiceClient, faulty *atomic.Bool, random *rand.Rand) *agent {
	a := &agent{
		id: id, facts: facts, client: client, faulty: faulty, random: random,
		skew:    time.Duration(random.Int64N(int64(20*time.Second))) - 10*time.Second,
		tasks:   map[string]*local{},
		outbox:  map[string]*warrenv1.TaskStatus{},
		wake:    make(chan struct{}, 1),
		goodbye: make(chan struct{}, 1),
	}
	a.machine, a.off = context.WithCancel(context.Background())
	return a
}

// between draws a duration.
func (a *agent) between(low, high time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return low + time.Duration(a.random.Int64N(int64(high-low)))
}

// run keeps a session open until ctx ends, as far as the faults let it.
func (a *agent) run(ctx context.Context) {
	for ctx.Err() == nil {
		a.mu.Lock()
		wait := time.Until(a.away)
		session, hangUp := context.WithCancel(ctx)
		a.hangUp = hangUp
		a.mu.Unlock()
		if wait <= 0 {
			a.attend(session)
			wait = a.between(20*time.Millisecond, 500*time.Millisecond)
		}
		hangUp()
		sleep(ctx, wait)
	}
	a.off()
	a.life.Wait()
}

// attend is one session.
func (a *agent) attend(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := a.client.Attend(ctx)
	say := func(m *warrenv1.AttendRequest) bool {
		a.stall(ctx)
		return stream.Send(m) == nil
	}
	interval := make(chan time.Duration, 1)
	var hearing sync.WaitGroup
	defer hearing.Wait()
	defer cancel()
	hearing.Go(func() {
		defer cancel()
		known := map[string]bool{}
		for {
			m, err := stream.Receive()
			if err != nil {
				return
			}
			a.stall(ctx)
			if ctx.Err() != nil {
				return
			}
			switch m := m.GetMessage().(type) {
			case *warrenv1.AttendResponse_Welcome:
				interval <- m.Welcome.GetHeartbeatInterval().AsDuration()
			case *warrenv1.AttendResponse_Assignments:
				a.assign(m.Assignments, known)
			}
		}
	})
	if !say(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Hello{Hello: &warrenv1.Hello{NodeId: a.id, Facts: a.facts}}}) {
		return
	}
	var beat time.Duration
	select {
	case beat = <-interval:
	case <-ctx.Done():
		return
	}
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		message := &warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Heartbeat{Heartbeat: &warrenv1.Heartbeat{}}}
		select {
		case <-ticker.C:
		case <-a.wake:
			report := a.takeReport()
			if report == nil {
				continue
			}
			message = &warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Report{Report: report}}
		case <-a.goodbye:
			say(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Goodbye{Goodbye: &warrenv1.Goodbye{}}})
			return
		case <-ctx.Done():
			return
		}
		if !say(message) {
			return
		}
	}
}

// stall holds up an agent that is to say and hear nothing for a while.
func (a *agent) stall(ctx context.Context) {
	a.mu.Lock()
	wait := time.Until(a.stalled)
	a.mu.Unlock()
	sleep(ctx, wait)
}

func (a *agent) takeReport() *warrenv1.StatusReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	var report *warrenv1.StatusReport
	for id, status := range a.outbox {
		if report == nil {
			report = &warrenv1.StatusReport{}
		}
		report.Tasks = append(report.Tasks, &warrenv1.TaskReport{TaskId: id, Status: status})
	}
	clear(a.outbox)
	return report
}

// assign does what a message of assignments says. known gathers the tasks of a full set that comes in
// pieces.
func (a *agent) assign(m *warrenv1.Assignments, known map[string]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	full := m.GetFull() || len(known) > 0
	for _, assignment := range m.GetTasks() {
		if full {
			known[assignment.GetTask().GetMeta().GetId()] = true
		}
		a.take(assignment)
	}
	for _, id := range m.GetRemoved() {
		a.forget(id)
	}
	if !full || m.GetMore() {
		return
	}
	for id, t := range a.tasks {
		if known[id] {
			a.report(t)
		} else {
			a.forget(id)
		}
	}
	clear(known)
}

// take makes one assignment real.
func (a *agent) take(m *warrenv1.Assignment) {
	if a.machine.Err() != nil {
		return
	}
	id, status := m.GetTask().GetMeta().GetId(), m.GetTask().GetStatus()
	t := a.tasks[id]
	if t == nil {
		if lifecycle.Ended(status.GetState()) {
			return
		}
		t = &local{id: id, image: m.GetSpec().GetContainer().GetImage(), status: status, stop: make(chan struct{})}
		a.tasks[id] = t
	}
	wanted := m.GetTask().GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING && !lifecycle.Ended(status.GetState())
	switch {
	case lifecycle.Ended(t.status.GetState()):
	case !wanted && t.alive:
		a.halt(t)
	case !wanted:
		a.become(t, warrenv1.TaskState_TASK_STATE_SHUTDOWN)
	case !t.alive:
		t.alive = true
		machine := a.machine
		a.life.Go(func() { a.look(machine, t) })
	}
}

func (a *agent) halt(t *local) {
	if !t.stopped {
		t.stopped = true
		close(t.stop)
	}
}

func (a *agent) forget(id string) {
	if t := a.tasks[id]; t != nil {
		a.halt(t)
		delete(a.tasks, id)
		delete(a.outbox, id)
	}
}

// look looks after one task's program until it has ended for good or the machine is off.
func (a *agent) look(machine context.Context, t *local) {
	enter := func(s warrenv1.TaskState, low, high time.Duration) (stopped bool) {
		a.mu.Lock()
		a.become(t, s)
		a.mu.Unlock()
		return waitFor(machine, t.stop, a.between(low, high))
	}
	end := func(s warrenv1.TaskState) {
		a.mu.Lock()
		defer a.mu.Unlock()
		t.running = false
		if machine.Err() == nil {
			t.alive = false
			a.become(t, s)
		}
	}
	stopping := func(high time.Duration) {
		a.mu.Lock()
		a.become(t, warrenv1.TaskState_TASK_STATE_STOPPING)
		a.mu.Unlock()
		sleep(machine, a.between(time.Millisecond, high))
		end(warrenv1.TaskState_TASK_STATE_SHUTDOWN)
	}
	kind, _, _ := strings.Cut(t.image, ":")
	for restarts := 0; machine.Err() == nil; restarts++ {
		a.mu.Lock()
		t.status = proto.CloneOf(t.status)
		t.status.Attempt++
		a.mu.Unlock()
		if enter(warrenv1.TaskState_TASK_STATE_PREPARING, time.Millisecond, 300*time.Millisecond) {
			stopping(10 * time.Millisecond)
			return
		}
		if kind == badImage {
			end(warrenv1.TaskState_TASK_STATE_REJECTED)
			return
		}
		if enter(warrenv1.TaskState_TASK_STATE_STARTING, time.Millisecond, 100*time.Millisecond) {
			stopping(10 * time.Millisecond)
			return
		}
		runs := forever
		switch {
		case kind == crashImage:
			runs = a.between(time.Millisecond, 2*time.Second)
		case a.faulty.Load() && a.between(0, 10) < 2:
			runs = a.between(time.Second, 30*time.Second)
		}
		a.mu.Lock()
		t.running = machine.Err() == nil
		a.become(t, warrenv1.TaskState_TASK_STATE_RUNNING)
		a.mu.Unlock()
		stop := false
		if kind == sickImage {
			stop = waitFor(machine, t.stop, a.between(time.Millisecond, 3*time.Second))
			if !stop {
				a.mu.Lock()
				a.sicken(t)
				a.mu.Unlock()
			}
		}
		stop = stop || waitFor(machine, t.stop, runs)
		if !stop && kind == goodImage && !a.faulty.Load() {
			stop = waitFor(machine, t.stop, forever) // it would have crashed, but the faults are over
		}
		if stop {
			stopping(2 * time.Second)
			return
		}
		a.mu.Lock()
		t.running = false
		if machine.Err() == nil {
			a.note(t, warrenv1.IncidentKind_INCIDENT_KIND_EXIT)
		}
		a.mu.Unlock()
		if restarts == 2 {
			end(warrenv1.TaskState_TASK_STATE_FAILED)
			return
		}
	}
}

// become notes a task's next state and has it reported, unless the machine is off.
func (a *agent) become(t *local, s warrenv1.TaskState) {
	if a.machine.Err() != nil {
		return
	}
	now := timestamppb.New(time.Now().Add(a.skew))
	t.status = proto.CloneOf(t.status)
	t.status.State, t.status.Since, t.status.Message = s, now, ""
	t.status.Serving = s == warrenv1.TaskState_TASK_STATE_RUNNING
	t.status.Health = nil
	if s >= warrenv1.TaskState_TASK_STATE_STARTING && !strings.HasPrefix(t.image, "good:nodigest") {
		t.status.ImageDigest = "sha256:" + t.image
	}
	if s == warrenv1.TaskState_TASK_STATE_RUNNING {
		t.status.StartedAt = now
	}
	a.report(t)
}

// note adds that something befell a task.
func (a *agent) note(t *local, kind warrenv1.IncidentKind) {
	t.status = proto.CloneOf(t.status)
	t.status.Incidents = append(t.status.Incidents, &warrenv1.Incident{
		At: timestamppb.New(time.Now().Add(a.skew)), Attempt: t.status.GetAttempt(), Kind: kind,
	})
}

// sicken has a running task be found unhealthy, unless the machine is off.
func (a *agent) sicken(t *local) {
	if a.machine.Err() != nil {
		return
	}
	a.note(t, warrenv1.IncidentKind_INCIDENT_KIND_UNHEALTHY)
	t.status.Serving = false
	t.status.Health = &warrenv1.TaskHealth{
		State: warrenv1.HealthState_HEALTH_STATE_UNHEALTHY, Since: timestamppb.New(time.Now().Add(a.skew)),
	}
	a.report(t)
}

func (a *agent) report(t *local) {
	if t.status.GetState() < warrenv1.TaskState_TASK_STATE_PREPARING || a.tasks[t.id] != t {
		return
	}
	a.outbox[t.id] = t.status
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// running lists the tasks whose programs run.
func (a *agent) running() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var ids []string
	for id, t := range a.tasks {
		if t.running {
			ids = append(ids, id)
		}
	}
	return ids
}

// The faults.

// cut breaks the session; the agent comes back after a while.
func (a *agent) cut(after time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away = time.Now().Add(after)
	if a.hangUp != nil {
		a.hangUp()
	}
}

// silence has the agent say and hear nothing for a while, its session left open.
func (a *agent) silence(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stalled = time.Now().Add(d)
}

// restart has the agent say goodbye and come back; its programs run on.
func (a *agent) restart(after time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away = time.Now().Add(after)
	select {
	case a.goodbye <- struct{}{}:
	default:
	}
}

// crash takes the power from the machine, and gives it back after a while. What was running is gone,
// what was known is not.
func (a *agent) crash(after time.Duration) {
	a.cut(after)
	a.mu.Lock()
	a.off()
	a.mu.Unlock()
	a.life.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.outbox)
	for _, t := range a.tasks {
		t.alive, t.running = false, false
	}
	a.machine, a.off = context.WithCancel(context.Background())
}

// sleep waits for d, or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) { waitFor(ctx, nil, d) }

// waitFor waits for d, or for the end of ctx; or for stop, and tells whether that came.
func waitFor(ctx context.Context, stop <-chan struct{}, d time.Duration) bool {
	if d < 0 {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-stop:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}
