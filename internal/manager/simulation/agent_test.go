package simulation

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// What images do in the simulation; a number behind a colon makes revisions differ.
const (
	// runs until it is stopped or something befalls it; what follows says what more there is to it: nodigest (nobody knows
	// what it stands for), moving (it stands for another thing on every node that is not told what), slow (it serves only
	// some time after it has begun to run)
	goodImage  = "good"
	crashImage = "crash" // ends soon after it has started
	badImage   = "bad"   // cannot be pulled
	sickImage  = "sick"  // runs and is found unhealthy before long
)

// sickWithin bounds how long a program runs until it is found unhealthy, if it ever is: longer than until one crashes that does.
const sickWithin = 3 * time.Second

// forever is longer than any simulation.
const forever = 365 * 24 * time.Hour

// agent is a simulated machine with its agent. It speaks the real protocol with the dispatcher.
type agent struct {
	id     string
	facts  *warrenv1.NodeFacts
	client warrenv1connect.SessionServiceClient
	skew   time.Duration
	// overlay has its tasks wait for an address of the node's subnet, and the agent say what of the network is in force.
	overlay bool

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
	inForce uint64 // of the endpoints, to be said; 0 for nothing
	subnet  netip.Prefix
	settled chan struct{} // closed when there is a subnet
	wake    chan struct{}
	life    sync.WaitGroup // the goroutines of the machine
}

// local is a task as the agent knows it.
type local struct {
	id      string
	name    string
	image   string
	pin     string     // what the image stands for; empty where the node finds out
	address netip.Addr // held until managers have forgotten the task: they may hear of its end later than of another's start
	overlay bool
	status  *warrenv1.TaskStatus
	alive   bool          // a goroutine looks after it
	running bool          // its program runs
	stop    chan struct{} // closed when it is to stop
	stopped bool
	killed  chan bool // its program is to crash; true for good
}

func newAgent(id string, facts *warrenv1.NodeFacts, client warrenv1connect.SessionServiceClient, random *rand.Rand) *agent {
	a := &agent{
		id: id, facts: facts, client: client, random: random,
		skew:    time.Duration(random.Int64N(int64(20*time.Second))) - 10*time.Second,
		tasks:   map[string]*local{},
		outbox:  map[string]*warrenv1.TaskStatus{},
		wake:    make(chan struct{}, 1),
		goodbye: make(chan struct{}, 1),
		settled: make(chan struct{}),
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
		sleep(ctx, min(wait, time.Second)) // it may be called back earlier
	}
	a.off()
	a.life.Wait()
}

// attend is one session.
func (a *agent) attend(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case <-a.goodbye: // it was restarted while it had no session
	default:
	}
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
			case *warrenv1.AttendResponse_Network:
				a.settle(m.Network)
			case *warrenv1.AttendResponse_Endpoints:
				a.enforce(m.Endpoints)
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
		messages := []*warrenv1.AttendRequest{{Message: &warrenv1.AttendRequest_Heartbeat{Heartbeat: &warrenv1.Heartbeat{}}}}
		select {
		case <-ticker.C:
		case <-a.wake:
			messages = a.news()
		case <-a.goodbye:
			say(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Goodbye{Goodbye: &warrenv1.Goodbye{}}})
			return
		case <-ctx.Done():
			return
		}
		for _, m := range messages {
			if !say(m) {
				return
			}
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

// news is what there is to say.
func (a *agent) news() (messages []*warrenv1.AttendRequest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.outbox) > 0 {
		report := &warrenv1.StatusReport{}
		for id, status := range a.outbox {
			report.Tasks = append(report.Tasks, &warrenv1.TaskReport{TaskId: id, Status: status})
		}
		clear(a.outbox)
		messages = append(messages, &warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Report{Report: report}})
	}
	if a.inForce > 0 {
		messages = append(messages, &warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_InForce{InForce: &warrenv1.EndpointsInForce{Version: a.inForce}}})
		a.inForce = 0
	}
	return messages
}

func (a *agent) rouse() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// settle takes the node's subnet.
func (a *agent) settle(n *warrenv1.NetworkConfig) {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := !a.subnet.IsValid()
	if p, err := netip.ParsePrefix(n.GetSubnet()); err == nil {
		a.subnet = p
		if first {
			close(a.settled)
		}
	}
}

// enforce has the network's endpoints be in force at once, and says so.
func (a *agent) enforce(e *warrenv1.Endpoints) {
	if !a.overlay || e.GetMore() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inForce = e.GetVersion()
	a.rouse()
}

// lease gives a task the first free address of the subnet; it keeps the one that it has.
func (a *agent) lease(t *local) {
	if !t.overlay || t.address.IsValid() {
		return
	}
	held := map[netip.Addr]bool{}
	for _, other := range a.tasks {
		held[other.address] = true
	}
	addr := a.subnet.Addr().Next().Next() // the first one is the node's own
	for held[addr] {
		addr = addr.Next()
	}
	t.address = addr
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
		t = &local{
			id: id, name: lifecycle.Name(m.GetTask(), a.facts.GetHostname()), image: m.GetSpec().GetContainer().GetImage(), status: status,
			overlay: a.overlay && m.GetSpec().GetNetwork() != warrenv1.NetworkMode_NETWORK_MODE_HOST,
			stop:    make(chan struct{}), killed: make(chan bool, 1),
		}
		a.tasks[id] = t
	}
	t.pin = m.GetImageDigest()
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
		stop := enter(warrenv1.TaskState_TASK_STATE_PREPARING, time.Millisecond, 300*time.Millisecond)
		if !stop && t.overlay {
			select {
			case <-a.settled:
			case <-t.stop:
				stop = true
			case <-machine.Done():
			}
		}
		if stop {
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
		stop, final := a.program(machine, t, kind)
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
		if final || restarts == 2 {
			end(warrenv1.TaskState_TASK_STATE_FAILED)
			return
		}
	}
}

// program runs a task's program, and tells whether it is to be stopped, or else whether its end is final.
func (a *agent) program(machine context.Context, t *local, kind string) (stop, final bool) {
	slow := strings.HasPrefix(t.image, goodImage+":slow")
	a.mu.Lock()
	select {
	case <-t.killed: // that was meant for the attempt before
	default:
	}
	t.running = machine.Err() == nil
	a.become(t, warrenv1.TaskState_TASK_STATE_RUNNING)
	if slow {
		a.feel(t, warrenv1.HealthState_HEALTH_STATE_STARTING)
	}
	a.mu.Unlock()
	changes, runs := forever, forever
	switch {
	case slow:
		changes = a.between(time.Millisecond, 4*time.Second)
	case kind == sickImage:
		changes = a.between(time.Millisecond, sickWithin)
	case kind == crashImage:
		runs = a.between(time.Millisecond, 2*time.Second)
	}
	change, end := time.NewTimer(changes), time.NewTimer(runs)
	defer change.Stop()
	defer end.Stop()
	for {
		select {
		case <-change.C:
			a.mu.Lock()
			if slow {
				a.feel(t, warrenv1.HealthState_HEALTH_STATE_HEALTHY)
			} else {
				a.feel(t, warrenv1.HealthState_HEALTH_STATE_UNHEALTHY)
			}
			a.mu.Unlock()
		case <-t.stop:
			return true, false
		case final := <-t.killed:
			return false, final
		case <-end.C:
			return false, false
		case <-machine.Done():
			return false, false
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
	if s >= warrenv1.TaskState_TASK_STATE_STARTING {
		t.status.ImageDigest = a.digest(t)
		a.lease(t)
	}
	t.status.Address = ""
	if t.address.IsValid() && !lifecycle.Ended(s) {
		t.status.Address = t.address.String()
	}
	if s == warrenv1.TaskState_TASK_STATE_RUNNING {
		t.status.StartedAt = now
	}
	a.report(t)
}

// digest is what the node finds a task's image to be.
func (a *agent) digest(t *local) string {
	switch {
	case strings.HasPrefix(t.image, goodImage+":nodigest"):
		return ""
	case t.pin != "":
		return t.pin
	case strings.HasPrefix(t.image, goodImage+":moving"):
		return "sha256:" + t.image + "@" + a.facts.GetHostname()
	}
	return "sha256:" + t.image
}

// note adds that something befell a task.
func (a *agent) note(t *local, kind warrenv1.IncidentKind) {
	t.status = proto.CloneOf(t.status)
	t.status.Incidents = append(t.status.Incidents, &warrenv1.Incident{
		At: timestamppb.New(time.Now().Add(a.skew)), Attempt: t.status.GetAttempt(), Kind: kind,
	})
}

// feel has a running task be found so, unless the machine is off. It serves when it is healthy.
func (a *agent) feel(t *local, health warrenv1.HealthState) {
	if a.machine.Err() != nil || !t.running {
		return
	}
	was := t.status.GetHealth().GetState()
	switch {
	case health == warrenv1.HealthState_HEALTH_STATE_UNHEALTHY:
		a.note(t, warrenv1.IncidentKind_INCIDENT_KIND_UNHEALTHY)
	case was == warrenv1.HealthState_HEALTH_STATE_UNHEALTHY:
		a.note(t, warrenv1.IncidentKind_INCIDENT_KIND_HEALTHY)
	}
	t.status = proto.CloneOf(t.status)
	t.status.Serving = health == warrenv1.HealthState_HEALTH_STATE_HEALTHY
	t.status.Health = &warrenv1.TaskHealth{State: health, Since: timestamppb.New(time.Now().Add(a.skew))}
	a.report(t)
}

func (a *agent) report(t *local) {
	if t.status.GetState() < warrenv1.TaskState_TASK_STATE_PREPARING || a.tasks[t.id] != t {
		return
	}
	a.outbox[t.id] = t.status
	a.rouse()
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

// kill has a task's program crash, and not be started again where it is final. The agent is locked by the caller.
func (a *agent) kill(t *local, final bool) {
	select {
	case t.killed <- final:
	default:
	}
}

// ail has a running task be unhealthy for a while, after which it is healthy again, or killed for it. The agent is locked by the caller.
func (a *agent) ail(t *local, d time.Duration, killed bool) {
	a.feel(t, warrenv1.HealthState_HEALTH_STATE_UNHEALTHY)
	machine, attempt := a.machine, t.status.GetAttempt()
	a.life.Go(func() {
		waitFor(machine, t.stop, d)
		a.mu.Lock()
		defer a.mu.Unlock()
		switch {
		case t.status.GetAttempt() != attempt || !t.running || t.stopped || strings.HasPrefix(t.image, sickImage):
		case killed:
			a.kill(t, false)
		default:
			a.feel(t, warrenv1.HealthState_HEALTH_STATE_HEALTHY)
		}
	})
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
