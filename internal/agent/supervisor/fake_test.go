package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cuemby/warren/internal/agent/prober"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// fakeRuntime is containers without a kernel. It outlives supervisors as containerd does agents, and
// notes when something happens that never must.
type fakeRuntime struct {
	// stepTime is how long creating and starting take each, listTime how old a listing is when it is told.
	stepTime, listTime time.Duration
	network            *fakeNetwork

	mu         sync.Mutex
	containers map[string]*fakeContainer
	listeners  map[int]func(Event)
	nextPid    uint32
	trouble    map[string]error                 // by method: what it answers
	missing    map[string]error                 // by image: what pulling it answers
	stubborn   bool                             // programs ignore the stop signal
	ill        map[string]string                // by container: what a probe of it sees
	checks     map[string]*warrenv1.HealthCheck // by image: its HEALTHCHECK
	probed     map[string]int                   // by container: how often

	starting, mostStarting int
	startOrder             []string // task ids
	signals                []syscall.Signal
	violations             []string
}

type fakeContainer struct {
	Container
	state   string // created, running, stopped
	process Process
	started time.Time
	exit    *Exit
	ghost   bool // of before a reboot: nobody knows how it ended
}

func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{
		containers: map[string]*fakeContainer{},
		listeners:  map[int]func(Event){},
		trouble:    map[string]error{},
		missing:    map[string]error{},
		ill:        map[string]string{},
		checks:     map[string]*warrenv1.HealthCheck{},
		probed:     map[string]int{},
	}
}

func (r *fakeRuntime) fails(method string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trouble[method]
}

func (r *fakeRuntime) setTrouble(method string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trouble[method] = err
}

func (r *fakeRuntime) step(ctx context.Context) error {
	r.mu.Lock()
	r.starting++
	r.mostStarting = max(r.mostStarting, r.starting)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.starting--
		r.mu.Unlock()
	}()
	if !pause(ctx, r.stepTime, nil) {
		return ctx.Err()
	}
	return nil
}

func (r *fakeRuntime) Pull(_ context.Context, image string, progress func(string)) (Image, error) {
	progress("pulling " + image)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.missing[image]; err != nil {
		return Image{}, err
	}
	return Image{Name: image, Digest: "sha256:" + image, Health: r.checks[image]}, nil
}

func (r *fakeRuntime) Create(ctx context.Context, c Container) (Process, error) {
	if err := errors.Join(r.step(ctx), r.fails("create")); err != nil {
		return Process{}, err
	}
	placed := r.network.has(c)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !placed {
		r.violate("container %s was made at %v, which is not its task's place", c.ID, c.Place)
	}
	if old := r.containers[c.ID]; old != nil && old.state == "running" {
		r.violate("container %s was made anew while it ran", c.ID)
	}
	r.nextPid++
	r.containers[c.ID] = &fakeContainer{Container: c, state: "created", process: Process{Pid: r.nextPid}}
	return Process{Pid: r.nextPid}, nil
}

func (r *fakeRuntime) Start(ctx context.Context, id string) (Process, error) {
	if err := errors.Join(r.step(ctx), r.fails("start")); err != nil {
		return Process{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil || c.state != "created" {
		return Process{}, fmt.Errorf("container %s cannot be started", id)
	}
	for _, other := range r.containers {
		if other.TaskID == c.TaskID && other.state == "running" {
			r.violate("containers %s and %s ran at once", other.ID, c.ID)
		}
		if other.TaskID == c.TaskID && other.Attempt > c.Attempt {
			r.violate("container %s started after %s", c.ID, other.ID)
		}
	}
	r.startOrder = append(r.startOrder, c.TaskID)
	c.state, c.started = "running", time.Now()
	return c.process, nil
}

func (r *fakeRuntime) Signal(_ context.Context, id string, signal syscall.Signal) error {
	r.mustBeWithdrawn(id)
	r.mu.Lock()
	c := r.containers[id]
	if c == nil || c.state != "running" {
		r.mu.Unlock()
		return nil
	}
	r.signals = append(r.signals, signal)
	ignored := r.stubborn && signal != syscall.SIGKILL
	r.mu.Unlock()
	if !ignored {
		r.end(id, 128+uint32(signal), false)
	}
	return nil
}

func (r *fakeRuntime) StopSignal(context.Context, string) (syscall.Signal, error) {
	return syscall.SIGTERM, nil
}

func (r *fakeRuntime) Remove(_ context.Context, id string) error {
	if err := errors.Join(r.fails("remove"), r.fails("remove "+id)); err != nil {
		return err
	}
	r.mustBeWithdrawn(id)
	r.end(id, 137, false)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.containers, id)
	return nil
}

func (r *fakeRuntime) List(ctx context.Context) ([]Found, error) {
	if err := r.fails("list"); err != nil {
		return nil, err
	}
	found := r.list()
	pause(ctx, r.listTime, nil)
	return found, ctx.Err()
}

func (r *fakeRuntime) list() []Found {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []Found
	for _, id := range slices.Sorted(maps.Keys(r.containers)) {
		c := r.containers[id]
		f := Found{ID: id, TaskID: c.TaskID, Attempt: c.Attempt, ImageDigest: c.Image.Digest, StartedAt: c.started, Health: c.Image.Health}
		switch {
		case c.state == "running":
			f.Running, f.Pid = true, c.process.Pid
		case c.state == "stopped" && !c.ghost:
			exit := *c.exit
			f.Exit = &exit
		}
		found = append(found, f)
	}
	return found
}

func (r *fakeRuntime) Reattach(context.Context, string) error { return nil }

func (r *fakeRuntime) Events(ctx context.Context, on func(Event)) error {
	r.mu.Lock()
	key := len(r.listeners)
	for r.listeners[key] != nil {
		key++
	}
	r.listeners[key] = on
	r.mu.Unlock()
	on(Resync{})
	<-ctx.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.listeners, key)
	return ctx.Err()
}

// probe is how programs are probed.
func (r *fakeRuntime) probe(ctx context.Context, at prober.Target) prober.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.probed[at.Container]++
	if c := r.containers[at.Container]; c == nil || c.state != "running" {
		return prober.Unknown("it does not run")
	}
	if len(at.Addresses) == 0 {
		r.violate("container %s is probed nowhere", at.Container)
	}
	if ctx.Err() != nil {
		return prober.Unknown("its probing has ended")
	}
	if what := r.ill[at.Container]; what != "" {
		return prober.Failed(what)
	}
	return prober.Succeeded()
}

// sicken has probes of a container see something; nothing heals it.
func (r *fakeRuntime) sicken(id, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ill[id] = what
}

// end ends a container's program, if it runs.
func (r *fakeRuntime) end(id string, code uint32, oom bool) {
	r.mu.Lock()
	c := r.containers[id]
	if c == nil || c.state != "running" {
		r.mu.Unlock()
		return
	}
	c.state, c.exit = "stopped", &Exit{ID: id, Code: code, OOMKilled: oom, At: time.Now()}
	r.mu.Unlock()
	r.tell(*c.exit)
}

// tell sends an event to who listens.
func (r *fakeRuntime) tell(e Event) {
	r.mu.Lock()
	listeners := slices.Collect(maps.Values(r.listeners))
	r.mu.Unlock()
	for _, on := range listeners {
		on(e)
	}
}

// reboot ends everything without a word.
func (r *fakeRuntime) reboot() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		c.state, c.ghost, c.started = "stopped", true, time.Time{}
	}
}

// signalled are the signals that programs got.
func (r *fakeRuntime) signalled() []syscall.Signal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.signals)
}

// running lists the containers that run.
func (r *fakeRuntime) running() []string { return r.inState("running") }

// all lists the containers that there are.
func (r *fakeRuntime) all() []string { return r.inState("") }

func (r *fakeRuntime) inState(state string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := []string{}
	for id, c := range r.containers {
		if strings.HasPrefix(c.state, state) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// mustBeWithdrawn notes it if a program is ended that connections are sent to.
func (r *fakeRuntime) mustBeWithdrawn(id string) {
	if slices.Contains(r.running(), id) && r.network.serves(taskOf(id)) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.violate("container %s was ended while connections were sent to it", id)
	}
}

// taskOf is the task of a container.
func taskOf(id string) string {
	task, _, _ := strings.Cut(id, "-")
	return task
}

// violate notes what never must happen. The mutex is held.
func (r *fakeRuntime) violate(format string, args ...any) {
	r.violations = append(r.violations, fmt.Sprintf(format, args...))
}

// fakeOutput is the kept output of tasks.
type fakeOutput struct {
	mu   sync.Mutex
	kept map[string]string
	// since is from when on a task's last lines were asked for, each time.
	since map[string][]time.Time
}

func newFakeOutput() *fakeOutput {
	return &fakeOutput{kept: map[string]string{}, since: map[string][]time.Time{}}
}

func (o *fakeOutput) Tail(task string, since time.Time, _, _ int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since[task] = append(o.since[task], since)
	return o.kept[task]
}

func (o *fakeOutput) Remove(task string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.kept, task)
	return nil
}

func (o *fakeOutput) List() ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Sorted(maps.Keys(o.kept)), nil
}
