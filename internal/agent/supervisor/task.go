package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/agent/prober"
	"github.com/cuemby/warren/internal/agent/store"
	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// What is kept in a task's status of the output of a program that failed.
const (
	lastLines = 10
	lastBytes = 2 << 10
)

// slowStart is when a start is said to be slow.
const slowStart = 3 * time.Second

// recordTime is how long the report of a task's end may wait for its record.
const recordTime = 5 * time.Second

// task is one task on this node, from its assignment until nothing is left of it.
type task struct {
	*Supervisor
	id      string
	claimed bool // it has asked for the containers that were there; guarded by the supervisor's mutex
	// recorded: it is known from an earlier agent's record, which may be older than what managers want.
	recorded bool
	// received is when its assignment has come.
	received time.Time

	// wanted ends when the program shall not run (any more), or the agent leaves.
	wanted context.Context
	unwant context.CancelFunc
	// purged is closed when nothing shall be left of the task.
	purged    chan struct{}
	purgeOnce sync.Once

	mu         sync.Mutex
	assignment *warrenv1.Assignment // nil of a task that is not this node's
	progress   store.Progress
	erased     bool

	// rotation is held while connections are begun or ceased to be sent to the task.
	rotation sync.Mutex
	// entering are those that wait to have connections sent to the current attempt.
	entering sync.WaitGroup
	// probing are watches of its programs' health that have not ended.
	probing sync.WaitGroup

	swept chan struct{} // closed when the last discarded container is gone; nil if none was
}

// newTask makes a task that knows only what the manager knows of it.
func newTask(s *Supervisor, id string, a *warrenv1.Assignment) *task {
	t := &task{Supervisor: s, id: id, purged: make(chan struct{}), assignment: a, received: time.Now()}
	t.wanted, t.unwant = context.WithCancel(s.ctx)
	t.progress.Status = a.GetTask().GetStatus()
	if !lifecycle.Wanted(a.GetTask()) {
		t.unwant()
	}
	return t
}

// update takes a newer assignment, and tells whether it says anything new. What is wanted of a task
// only ever becomes less.
func (t *task) update(a *warrenv1.Assignment) bool {
	select {
	case <-t.purged:
		return false // nothing may be recorded any more of what is being forgotten
	default:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before, after := t.assignment.GetTask(), a.GetTask()
	t.assignment = a
	if !lifecycle.Wanted(after) {
		t.unwant()
	}
	if status := after.GetStatus(); lifecycle.Ended(status.GetState()) && !lifecycle.Ended(t.progress.Status.GetState()) {
		// The manager has given it up, as lost: what has ended never runs again, whatever runs here.
		t.progress.Status = status
		t.outbox.drop(t.id)
		t.Journal.Advance(t.id, t.progress)
	}
	return before.GetDesired() != after.GetDesired() ||
		lifecycle.Ended(before.GetStatus().GetState()) != lifecycle.Ended(after.GetStatus().GetState())
}

// purge makes the task stop and leave nothing behind.
func (t *task) purge() {
	t.unwant()
	t.purgeOnce.Do(func() { close(t.purged) })
}

// container is the one in which the task's current attempt runs.
type container struct {
	id      string
	attempt uint32
	started time.Time
	// speaks is when it was about to start: what the task has said before that is of other attempts.
	speaks  time.Time
	ended   <-chan Exit
	network warrenv1.NetworkMode
	overlay bool
	pid     uint32
	// check is how its program is probed; nil if it is not.
	check *prober.Check
	// ailing holds that its program is to be ended for being unhealthy.
	ailing chan struct{}

	// serving ends when it shall be sent no connections (any more), nor be probed.
	serving context.Context
	cease   context.CancelFunc

	// What is known of it, guarded by the task's rotation. It serves when it listens and is healthy.
	listens, healthy bool
	placed           bool   // on the overlay, by this agent
	missing          string // the ports that it does not listen on
	trouble          string // why it is not back on the overlay
	ready            bool   // it has served, or another agent began it

	// begun counts the tries to start it; it is the task's goroutine's.
	begun int
}

func (t *task) newContainer(id string, attempt uint32, a *warrenv1.Assignment) *container {
	c := &container{id: id, attempt: attempt, network: a.GetSpec().GetNetwork(), overlay: onOverlay(a.GetSpec()), ailing: make(chan struct{}, 1)}
	c.serving, c.cease = context.WithCancel(t.wanted)
	return c
}

// run is the task's life. It returns early when the agent leaves, from anywhere, and leaves all as it
// is: the next agent takes it up from there.
func (t *task) run() {
	defer t.probing.Wait()
	defer t.entering.Wait()
	defer t.unwant()
	if !t.waitForList() {
		return
	}
	current, next := t.takeUp()
	if current == nil && t.recorded {
		pause(t.wanted, t.FirstWord, t.told)
	}
	for t.ctx.Err() == nil {
		if current == nil {
			if current = t.start(next); current == nil {
				break
			}
		}
		exit, ok := t.await(current)
		if !ok {
			return
		}
		if next, ok = t.follow(current, exit); !ok {
			break
		}
		current = nil
	}
	if t.ctx.Err() != nil {
		return
	}
	// Wanted no more before it came to run (again).
	t.advance(func(s *warrenv1.TaskStatus) { s.State, s.Message = warrenv1.TaskState_TASK_STATE_SHUTDOWN, "" })

	if !t.waitForSweep() || !t.leaveOverlay() {
		return
	}
	select {
	case <-t.purged:
		t.erase()
	case <-t.ctx.Done():
	}
}

// waitingForRuntime is what a user reads of a task that cannot go on for want of containerd.
const waitingForRuntime = "waiting for the container runtime, which is down or slow"

// waitForList returns when it is known which containers there are; false if the agent leaves first.
func (t *task) waitForList() bool {
	slow := time.AfterFunc(slowStart, func() {
		// The attempt that is under way, or the first: managers take no word of a task before that.
		t.advance(func(s *warrenv1.TaskStatus) { underWay(s, max(1, s.GetAttempt()), waitingForRuntime) })
	})
	defer slow.Stop()
	select {
	case <-t.listed:
		return true
	case <-t.ctx.Done():
		return false
	}
}

// start makes the next attempt's container and starts it. It returns nil if the task cannot run or is
// not wanted any more.
func (t *task) start(next beginning) *container {
	// What the attempt replaces goes when it runs, or does not at the first try: removing is half as much
	// work as starting, and would slow it down.
	release := sync.OnceFunc(func() {
		if next.replaces != "" {
			t.discard(next.replaces, next.recorded)
		}
	})
	defer release()
	if !pause(t.wanted, next.delay, nil) {
		return nil
	}
	assignment, _ := t.now()
	c := t.newContainer(containerID(t.id, next.attempt), next.attempt, assignment)
	w := t.watch(c.id)
	c.ended = w.ended
	err := t.retryTelling(t.wanted, func() error { return t.tryStart(c, w, assignment) }, func(tries int, err error) {
		release()
		if tries == 1 {
			t.log().Warn("cannot start yet", "attempt", c.attempt, "error", err)
		}
		t.advance(func(s *warrenv1.TaskStatus) { s.Message = "trying again: " + err.Error() })
	})
	switch {
	case err == nil:
		return c
	case t.ctx.Err() != nil:
		return nil
	case t.wanted.Err() != nil:
		t.unwatch(c.id)
		t.discard(c.id, nil)
		return nil
	}
	if len(w.ended) > 0 {
		// A try whose outcome was lost did start the program, which has ended since.
		c.started = time.Now()
		return c
	}
	t.unwatch(c.id)
	t.Observer.Rejected()
	t.log().Warn("cannot start", "attempt", c.attempt, "error", err)
	commit, _ := t.advance(func(s *warrenv1.TaskStatus) {
		befell(s, warrenv1.IncidentKind_INCIDENT_KIND_REJECTED, time.Time{}, time.Now(), err.Error())
		s.State, s.Error, s.Message, s.Pid = warrenv1.TaskState_TASK_STATE_REJECTED, err.Error(), "", 0
	})
	t.discard(c.id, commit)
	return nil
}

// tryStart goes all the way from the image to the running program, passing over what is done already.
func (t *task) tryStart(c *container, w *watch, a *warrenv1.Assignment) error {
	slow := time.AfterFunc(slowStart, func() {
		t.prepare(c, waitingForRuntime)
	})
	defer slow.Stop()
	began := time.Now()
	if c.begun == 0 {
		t.step(c, a, StepReceive, t.received, nil)
	}
	c.begun++
	t.begun(c)
	image := pinned(a)
	pulled, err := t.Runtime.Pull(t.wanted, image, func(progress string) {
		slow.Stop()
		t.prepare(c, progress)
	})
	slow.Stop()
	t.step(c, a, StepPull, began, err)
	if err != nil {
		return err
	}
	if c.check, err = compile(a.GetSpec().GetHealth(), pulled.Health); err != nil {
		return err
	}
	// Before its turn to start: who waits for the overlay keeps nobody from starting.
	place, err := t.place(c, a)
	if err != nil {
		return err
	}
	if !t.starts.TryAcquire(1) {
		waited := time.Now()
		t.prepare(c, "waiting for its turn to start")
		err := t.starts.Acquire(t.wanted, 1)
		t.step(c, a, StepTurn, waited, err)
		if err != nil {
			return err
		}
	}
	defer t.starts.Release(1)
	slow.Reset(slowStart)
	// From here on the steps are short, and half of one is worth less than all of it: only the agent's
	// leaving interrupts them.
	creating := time.Now()
	_, err = t.Runtime.Create(t.ctx, t.container(c, a, pulled, place))
	t.step(c, a, StepCreate, creating, err)
	if err != nil {
		return err
	}
	if err := t.wanted.Err(); err != nil {
		return err
	}
	t.note(func(s *warrenv1.TaskStatus) {
		s.Attempt, s.State, s.Message = c.attempt, warrenv1.TaskState_TASK_STATE_STARTING, ""
		s.ContainerId, s.ImageDigest, s.Address = c.id, pulled.Digest, place.address()
	})
	if c.speaks.IsZero() { // else this is tried again, and the program may have run
		c.speaks = time.Now()
	}
	starting := time.Now()
	process, err := t.Runtime.Start(t.ctx, c.id)
	t.step(c, a, StepStart, starting, err)
	if err != nil {
		return err
	}
	t.started(w)
	c.started, c.pid = time.Now(), process.Pid
	t.Observer.Started(c.started.Sub(began))
	serving := t.entersAtOnce(c)
	if c.ready = serving; serving {
		t.step(c, a, StepServe, c.started, nil)
	}
	health := prober.Health{State: healthStarting, Since: c.started}
	t.advance(func(s *warrenv1.TaskStatus) {
		s.State, s.Pid, s.StartedAt = warrenv1.TaskState_TASK_STATE_RUNNING, process.Pid, timestamppb.New(c.started)
		s.Message, s.Serving = "", serving
		if c.check != nil {
			s.Health = health.Message()
		}
	})
	if !c.listens {
		t.entering.Go(func() { t.enter(c) })
	}
	t.probe(c, health)
	t.log().Debug("running", "attempt", c.attempt, "pid", process.Pid)
	return nil
}

// place gives the task its place on the overlay; none on another network.
func (t *task) place(c *container, a *warrenv1.Assignment) (Place, error) {
	if !c.overlay {
		return Place{}, nil
	}
	t.entering.Wait() // of an attempt before, which may yet be about its place
	began := time.Now()
	place, err := t.Network.Attach(t.wanted, a, func(progress string) { t.prepare(c, progress) })
	t.step(c, a, StepAttach, began, err)
	return place, err
}

// begun notes that the attempt is under way. A restarted task is starting all the while, for its state
// cannot go back.
func (t *task) begun(c *container) {
	t.note(func(s *warrenv1.TaskStatus) { underWay(s, c.attempt, "") })
}

// prepare reports what the attempt, which is under way, waits for.
func (t *task) prepare(c *container, message string) {
	t.advance(func(s *warrenv1.TaskStatus) { underWay(s, c.attempt, message) })
}

func underWay(s *warrenv1.TaskStatus, attempt uint32, message string) {
	if s.GetState() >= warrenv1.TaskState_TASK_STATE_RUNNING && s.GetAttempt() == attempt {
		return // a late word
	}
	if s.GetAttempt() < attempt {
		s.Attempt, s.State = attempt, warrenv1.TaskState_TASK_STATE_PREPARING
		s.ContainerId, s.Pid = "", 0
	}
	s.Message = message
}

func (t *task) container(c *container, a *warrenv1.Assignment, image Image, place Place) Container {
	task := a.GetTask()
	return Container{
		ID:           c.id,
		TaskID:       t.id,
		TaskName:     lifecycle.Name(task, t.Hostname),
		ServiceID:    task.GetServiceId(),
		ServiceName:  task.GetServiceName(),
		NodeID:       t.NodeID(),
		NodeHostname: t.Hostname,
		Slot:         task.GetSlot(),
		Attempt:      c.attempt,
		Image:        image,
		Place:        place,
		Spec:         a.GetSpec(),
	}
}

// await returns how the program ended, by itself or because it is not wanted any more; false if the
// agent leaves.
func (t *task) await(c *container) (Exit, bool) {
	select {
	case exit := <-c.ended:
		t.withdraw(c)
		return exit, true
	case <-c.ailing:
		return t.cure(c)
	case <-t.wanted.Done():
	}
	if t.ctx.Err() != nil {
		return Exit{}, false
	}
	return t.stop(c)
}

// follow does what follows on the program's end: it returns the next attempt, or false when there is
// none.
func (t *task) follow(c *container, exit Exit) (beginning, bool) {
	t.unwatch(c.id)
	if exit.At.IsZero() {
		exit.At = time.Now()
	}
	assignment, progress := t.now()
	spec := assignment.GetSpec()
	ended := &warrenv1.TaskExit{Code: exit.Code, OomKilled: exit.OOMKilled, At: timestamppb.New(exit.At)}
	record := func(s *warrenv1.TaskStatus) {
		s.Attempt, s.ContainerId, s.Pid, s.Exit, s.Message = c.attempt, c.id, 0, ended, ""
	}
	if t.wanted.Err() != nil {
		commit, _ := t.advance(func(s *warrenv1.TaskStatus) {
			record(s)
			s.State = warrenv1.TaskState_TASK_STATE_SHUTDOWN
		})
		t.discard(c.id, commit)
		return beginning{}, false
	}

	exit.Ailed = ailed(progress.Status, c)
	if failed(exit) {
		ended.LastOutput = t.Output.Tail(t.id, c.speaks, lastLines, lastBytes)
	}
	v := judge(spec.GetRestart(), progress.Restarts, exit, exit.At.Sub(c.started))
	t.log().Info("the program ended", "attempt", c.attempt, "code", exit.Code, "oom", exit.OOMKilled,
		"restart", !lifecycle.Ended(v.state), "delay", v.delay)
	t.Observer.Ended(why(exit), !lifecycle.Ended(v.state))
	next := beginning{attempt: c.attempt + 1, delay: v.delay}
	if c.overlay && !t.clean() {
		// Other nodes must not send it connections for as long as that takes.
		t.advance(func(s *warrenv1.TaskStatus) { s.Serving = false })
	}
	t.waitForSweep() // one discarded container at a time, however fast a program crashes
	t.mu.Lock()
	t.progress.Restarts = v.restarts
	t.mu.Unlock()
	commit, _ := t.advance(func(s *warrenv1.TaskStatus) {
		record(s)
		if exit.Ailed == "" {
			befell(s, warrenv1.IncidentKind_INCIDENT_KIND_EXIT, c.started, exit.At, exited(exit, spec.GetLimits(), ended.GetLastOutput()))
		}
		s.State, s.Message, s.Error = v.state, v.message, describe(exit, spec.GetLimits())
		if s.GetError() == "" && v.state == warrenv1.TaskState_TASK_STATE_FAILED {
			s.Error = "the program ended, with exit code 0, and may not be restarted again"
		}
		if !lifecycle.Ended(v.state) {
			s.Attempt, s.ContainerId = next.attempt, ""
		}
	})
	if lifecycle.Ended(v.state) || v.delay > 0 {
		t.discard(c.id, commit)
	} else {
		next.replaces, next.recorded = c.id, commit
	}
	return next, !lifecycle.Ended(v.state)
}

// now is the task as it stands.
func (t *task) now() (*warrenv1.Assignment, store.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.assignment, t.progress
}

func (t *task) log() *slog.Logger {
	assignment, _ := t.now()
	if assignment == nil {
		return t.Logger.With("task", t.id)
	}
	task := assignment.GetTask()
	return t.Logger.With("service", task.GetServiceName(), "task", lifecycle.Name(task, t.Hostname), "id", t.id)
}

func isTransient(err error) bool { return errors.Is(err, ErrTransient) }

// pause waits for d, or less if early is closed; false if ctx ends first.
func pause(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-early:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}
