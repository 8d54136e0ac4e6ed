package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Options says what a supervisor works with.
type Options struct {
	Runtime Runtime
	// Network may be nil: tasks on the overlay are refused then.
	Network Network
	Prober  Prober
	Output  Output
	Journal Journal
	// NodeID is this node's; it changes when the node leaves its cluster and joins one again.
	NodeID   func() string
	Hostname string
	// MaxParallelStarts bounds how many containers are created and started at once; further ones wait
	// in the order in which they came.
	MaxParallelStarts int
	// FirstWord bounds how long recorded tasks of which no container is left, as after a reboot, wait for a manager to say
	// whether they are still wanted here: what was replaced elsewhere meanwhile must not run even for a moment. 0: they
	// start at once.
	FirstWord time.Duration
	// Resynced is called, if set, when the runtime has been reached (again) and its containers listed.
	Resynced func()
	// Observer may be nil.
	Observer Observer
	// Tracer may be nil.
	Tracer Tracer
	Logger *slog.Logger
}

// Supervisor keeps a node's containers in agreement with its assignments. Apply gives it what the
// manager sends, Outbox what there is to report.
type Supervisor struct {
	Options
	ctx    context.Context // ends when the agent leaves; tasks are begun by Apply, which has none
	outbox *Outbox
	starts *semaphore.Weighted
	// Removing is slow and heavy on the disk: it has slots of its own so that no start waits for it.
	removals *semaphore.Weighted
	resync   chan struct{} // holds one wish for a new listing
	listed   chan struct{} // closed when the containers were first listed
	running  sync.WaitGroup

	mu        sync.Mutex
	tasks     map[string]*task
	watches   map[string]*watch  // by container: those whose end a task waits for
	unclaimed map[string][]Found // by task: containers no task has asked for yet
	listing   map[string]Exit    // ends seen during a listing; nil when there is none
	left      map[string]bool    // tasks that were forgotten since the last listing began
	gathering map[string]bool    // tasks of a full set of assignments that is still coming; nil else
	tidied    bool               // places of tasks that are not this node's have been looked for
	whole     bool               // a full set of assignments has come since this process began
	told      chan struct{}      // closed then
	connected chan struct{}      // closed, and made anew, when the runtime has been reached again
	emptied   chan struct{}      // closed when no task is left; nil when nobody waits for that
}

// watch is one task's wait for the end of one container.
type watch struct {
	started bool      // it is known to have run: guarded by the supervisor's mutex
	ended   chan Exit // holds one
}

// Start takes up the tasks the journal knows and supervises until ctx ends, which stops no container.
// Wait then waits for it.
func Start(ctx context.Context, o Options) (*Supervisor, error) {
	recorded, err := o.Journal.Tasks()
	if err != nil {
		return nil, err
	}
	if o.Network == nil {
		o.Network = noOverlay{}
	}
	if o.Observer == nil {
		o.Observer = unobserved{}
	}
	s := &Supervisor{
		Options:   o,
		ctx:       ctx,
		outbox:    newOutbox(),
		starts:    semaphore.NewWeighted(int64(max(1, o.MaxParallelStarts))),
		removals:  semaphore.NewWeighted(int64(max(2, o.MaxParallelStarts/2))),
		resync:    make(chan struct{}, 1),
		listed:    make(chan struct{}),
		tasks:     map[string]*task{},
		watches:   map[string]*watch{},
		unclaimed: map[string][]Found{},
		connected: make(chan struct{}),
		told:      make(chan struct{}),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(recorded)) {
		t := newTask(s, id, recorded[id].Assignment)
		t.recorded = true
		if progress := recorded[id].Progress; progress.Status != nil {
			t.progress = progress
			s.outbox.put(id, progress.Status)
		}
		s.begin(t)
	}
	s.running.Go(s.hear)
	s.running.Go(s.reconcile)
	return s, nil
}

// Wait returns when the context given to Start has ended and everything of the supervisor with it.
func (s *Supervisor) Wait() { s.running.Wait() }

// Outbox holds what is to be reported to the manager.
func (s *Supervisor) Outbox() *Outbox { return s.outbox }

// Apply takes what the manager wants of this node. It waits for nothing.
func (s *Supervisor) Apply(a *warrenv1.Assignments) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	if a.GetFull() {
		s.gathering = map[string]bool{}
	}
	var record []*warrenv1.Assignment
	for _, assignment := range a.GetTasks() {
		if s.assign(assignment) {
			record = append(record, assignment)
		}
		if s.gathering != nil {
			s.gathering[assignment.GetTask().GetMeta().GetId()] = true
		}
	}
	if len(record) > 0 {
		// Nobody waits for this: a container carries the names of its task and attempt, and what is
		// not on disk comes again with the manager's next full set.
		s.Journal.Assign(record...)
	}
	for _, id := range a.GetRemoved() {
		if t := s.tasks[id]; t != nil {
			t.purge()
		}
	}
	if s.gathering == nil || a.GetMore() {
		return
	}
	for id, t := range s.tasks {
		if !s.gathering[id] {
			t.purge()
		}
	}
	first := !s.whole
	s.gathering, s.whole = nil, true
	s.purgeUnclaimed()
	if first {
		close(s.told)
		s.purgeOutput()
	}
}

// assign takes one assignment, and tells whether it says anything that is worth recording.
func (s *Supervisor) assign(a *warrenv1.Assignment) bool {
	id := a.GetTask().GetMeta().GetId()
	if t := s.tasks[id]; t != nil {
		return t.update(a)
	}
	s.begin(newTask(s, id, a))
	return true
}

func (s *Supervisor) begin(t *task) {
	s.tasks[t.id] = t
	s.running.Go(t.run)
}

// purgeUnclaimed removes the containers and places of tasks that are not this node's, once both what there
// is and what there should be are known.
func (s *Supervisor) purgeUnclaimed() {
	select {
	case <-s.listed:
	default:
		return
	}
	if !s.whole {
		return
	}
	for id := range s.unclaimed {
		if s.tasks[id] == nil {
			s.Logger.Info("removing containers of a task that is not this node's", "task", id)
			t := newTask(s, id, nil)
			t.purge()
			s.begin(t)
		}
	}
	if !s.tidied {
		s.tidied = true
		s.purgePlaces()
	}
}

// purgeOutput removes the output of tasks that are no longer this node's, which an agent that was
// killed may have left.
func (s *Supervisor) purgeOutput() {
	s.running.Go(func() {
		kept, err := s.Output.List()
		if err != nil {
			s.Logger.Error("cannot list the kept output of tasks", "error", err)
			return
		}
		for _, id := range kept {
			s.mu.Lock()
			known := s.tasks[id] != nil
			s.mu.Unlock()
			if known {
				continue // tasks are never assigned twice, so it cannot become known now
			}
			if err := s.Output.Remove(id); err != nil {
				s.Logger.Error("cannot remove the output of a task that is gone", "task", id, "error", err)
			}
		}
	})
}

// forget drops a task of which nothing is left.
func (s *Supervisor) forget(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, t.id)
	if s.listing != nil {
		s.left[t.id] = true // it may be listed yet
	}
	s.outbox.drop(t.id)
	if len(s.tasks) == 0 && s.emptied != nil {
		close(s.emptied)
		s.emptied = nil
	}
}

// hear takes the runtime's events.
func (s *Supervisor) hear() {
	slow := time.AfterFunc(slowStart, func() {
		select {
		case <-s.listed:
		default:
			s.Logger.Warn("the container runtime has not answered yet: is containerd running, and at this address?")
		}
	})
	defer slow.Stop()
	err := s.Runtime.Events(s.ctx, func(e Event) {
		switch e := e.(type) {
		case Exit:
			s.ended(e)
		case Resync:
			select {
			case s.resync <- struct{}{}:
			default: // one is wished for already
			}
		}
	})
	if s.ctx.Err() == nil {
		s.Logger.Error("the container runtime's events have ended: exits of containers go unseen", "error", err)
	}
}

// ended gives the end of a container's program to whom it concerns.
func (s *Supervisor) ended(e Exit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.watches[e.ID]; w != nil {
		w.end(e)
		return
	}
	if s.listing != nil {
		s.listing[e.ID] = e
	}
	for _, found := range s.unclaimed {
		for i := range found {
			if found[i].ID == e.ID {
				found[i].Running, found[i].Exit = false, &e
			}
		}
	}
}

// end hands over an exit. Only the first one counts.
func (w *watch) end(e Exit) {
	select {
	case w.ended <- e:
	default:
	}
}

// reconcile lists the containers whenever events may have been missed.
func (s *Supervisor) reconcile() {
	var again <-chan time.Time
	for tries := 0; ; {
		select {
		case <-s.resync:
		case <-again:
		case <-s.ctx.Done():
			return
		}
		err := s.list()
		if err == nil && s.Resynced != nil {
			s.Resynced()
		}
		if err == nil || s.ctx.Err() != nil {
			tries, again = 0, nil
			continue
		}
		if tries++; tries == 1 {
			s.Logger.Warn("cannot list the containers; trying again until it succeeds", "error", err)
		}
		again = time.After(retryDelay(tries))
	}
}

// list compares what there is with what tasks believe.
func (s *Supervisor) list() error {
	s.mu.Lock()
	s.listing, s.left = map[string]Exit{}, map[string]bool{}
	var believed []string
	for id, w := range s.watches {
		if w.started {
			believed = append(believed, id)
		}
	}
	s.mu.Unlock()

	found, err := s.Runtime.List(s.ctx)

	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.listing
	s.listing = nil
	if err != nil {
		return err
	}
	there := make(map[string]Found, len(found))
	clear(s.unclaimed)
	for _, f := range found {
		if s.left[f.TaskID] {
			continue
		}
		if exit, ended := seen[f.ID]; ended {
			f.Running, f.Exit = false, &exit
		}
		there[f.ID] = f
		if s.tasks[f.TaskID] == nil || !s.tasks[f.TaskID].claimed {
			s.unclaimed[f.TaskID] = append(s.unclaimed[f.TaskID], f)
		}
	}
	for _, id := range believed {
		w, f := s.watches[id], there[id]
		switch {
		case w == nil: // its end was heard of meanwhile
		case f.Running:
			s.running.Go(func() { s.reattach(id) })
		case f.Exit != nil:
			w.end(*f.Exit)
		default:
			w.end(Exit{ID: id, Unseen: true})
		}
	}
	close(s.connected)
	s.connected = make(chan struct{})
	select {
	case <-s.listed:
	default:
		close(s.listed)
	}
	s.purgeUnclaimed()
	return nil
}

// claim gives a task the containers that are there, and begins to watch the given one of them. Both
// in one step, so that no end is missed between.
func (s *Supervisor) claim(t *task, choose func([]Found) *Found) *watch {
	s.mu.Lock()
	defer s.mu.Unlock()
	adopted := choose(s.unclaimed[t.id])
	delete(s.unclaimed, t.id)
	t.claimed = true
	if adopted == nil {
		return nil
	}
	w := &watch{started: true, ended: make(chan Exit, 1)}
	if adopted.Exit != nil {
		w.end(*adopted.Exit)
	}
	s.watches[adopted.ID] = w
	return w
}

// watch begins to wait for the end of a container that is about to be made.
func (s *Supervisor) watch(id string) *watch {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &watch{ended: make(chan Exit, 1)}
	s.watches[id] = w
	return w
}

func (s *Supervisor) started(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.started = true
}

func (s *Supervisor) unwatch(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watches, id)
}

func (s *Supervisor) reattach(id string) {
	err := s.retry(s.ctx, "re-attach to container "+id, func() error { return s.Runtime.Reattach(s.ctx, id) })
	if err != nil && s.ctx.Err() == nil {
		s.Logger.Error("cannot re-attach to a running container", "container", id, "error", err)
	}
}

// reconnected is closed when the runtime has next been reached anew.
func (s *Supervisor) reconnected() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connected
}

// containerID names the container of a task's attempt.
func containerID(task string, attempt uint32) string {
	return task + "-" + strconv.FormatUint(uint64(attempt), 10)
}

// retry tries until f succeeds, fails for good, or ctx ends.
func (s *Supervisor) retry(ctx context.Context, what string, f func() error) error {
	return s.retryTelling(ctx, f, func(tries int, err error) {
		if tries == 1 {
			s.Logger.Warn("trying again until it succeeds", "what", what, "error", err)
		}
	})
}

// retryTelling is retry for who has something to say about a failure before the next try.
func (s *Supervisor) retryTelling(ctx context.Context, f func() error, tell func(tries int, err error)) error {
	for tries := 1; ; tries++ {
		reconnected := s.reconnected()
		err := f()
		if err == nil || ctx.Err() != nil || !isTransient(err) {
			return err
		}
		tell(tries, err)
		if !pause(ctx, retryDelay(tries), reconnected) {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}
