package prober

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// How many probes are under way at once for each processor; further ones wait in the order in which they came. A
// connection that is waited for costs next to nothing, and one program that does not answer must not keep others
// from being asked; so that is only to keep a thousand from coming in one moment. A program that is run costs the
// container runtime tens of milliseconds of a processor to launch, and nothing once it runs.
const (
	connectionsPerCPU = 32
	launchesPerCPU    = 2
)

// Options says what a prober works with.
type Options struct {
	// Executor runs the programs of exec probes.
	Executor Executor
	// Observe, if set, is told of each probe: its kind (http, tcp, grpc or exec), what came of it (succeeded, failed, or
	// unknown where the program could not be asked), and how long it took. It must be quick.
	Observe func(kind, outcome string, took time.Duration)
	// Probe is called, if set, instead of probing anything.
	Probe func(ctx context.Context, at Target) Result
}

// Prober probes programs. It needs no watching itself: what it does belongs to the watches.
type Prober struct {
	options     Options
	home        int // the node's network namespace
	connections *semaphore.Weighted
	launches    *semaphore.Weighted
}

// New returns a prober. Close it when no watch is left.
func New(o Options) (*Prober, error) {
	// Not that of /proc/self, which is the first thread's: that may be elsewhere at the moment, on somebody's errand.
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the node's network namespace: %w", err)
	}
	cpus := int64(runtime.GOMAXPROCS(0))
	return &Prober{
		options:     o,
		home:        home,
		connections: semaphore.NewWeighted(connectionsPerCPU * cpus),
		launches:    semaphore.NewWeighted(launchesPerCPU * cpus),
	}, nil
}

// Close gives back what New took.
func (p *Prober) Close() error { return unix.Close(p.home) }

// Subject is a program to be watched.
type Subject struct {
	Check *Check
	// Target says before each probe where the program is.
	Target func() Target
	// Started is when it began to run.
	Started time.Time
	// Before is what an earlier agent knew of it; zero for nothing.
	Before Health
	// Tell is told what is known whenever that changes, one call at a time, but not what Before says.
	Tell func(Health)
	// Unknown is told of probes that could not be made, and why.
	Unknown func(why string)
	// Ended is called when the watch has ended and no probe of it is under way any more.
	Ended func()
}

// Watch probes a program until ctx ends. It returns at once.
func (p *Prober) Watch(ctx context.Context, s Subject) {
	now := time.Now()
	w := &watch{prober: p, subject: s, ctx: ctx, told: s.Before, toldAt: now}
	var first time.Time
	w.course, first = s.Check.begin(s.Before, s.Started, now, rand.Float64())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(first.Sub(now), w.turn)
	context.AfterFunc(ctx, w.end)
}

// watch is one program that is probed. It is either waiting, which its timer does, or in its turn.
type watch struct {
	prober  *Prober
	subject Subject
	ctx     context.Context

	mu    sync.Mutex // of the timer and over
	timer *time.Timer
	over  bool

	// Of the turn:
	course course
	told   Health
	toldAt time.Time
}

// end ends the watch, at once or with the turn that is under way.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.timer.Stop() {
		w.subject.Ended()
	}
}

// turn makes one probe, in the timer's goroutine.
func (w *watch) turn() {
	rest := w.probe()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over || w.ctx.Err() != nil {
		// Where end has not been there yet, it finds that the timer has run.
		w.subject.Ended()
		return
	}
	w.timer.Reset(rest)
}

// probe returns how long to rest until the next one.
func (w *watch) probe() time.Duration {
	slots := w.prober.connections
	if _, launches := w.subject.Check.probe.(execProbe); launches {
		slots = w.prober.launches
	}
	if slots.Acquire(w.ctx, 1) != nil {
		return 0 // the watch ends
	}
	release := sync.OnceFunc(func() { slots.Release(1) })
	defer release()

	began := time.Now()
	result := w.ask(release)
	ended := time.Now()
	if w.ctx.Err() != nil {
		return 0
	}
	if observe := w.prober.options.Observe; observe != nil {
		observe(w.subject.Check.probe.kind(), result.outcome.String(), ended.Sub(began))
	}
	if result.outcome == unknown && w.subject.Unknown != nil {
		w.subject.Unknown(result.output)
	}
	var next time.Time
	w.course, next = w.subject.Check.take(w.course, result, began, ended, rand.Float64())
	if news(w.told, w.course.Health, ended.Sub(w.toldAt)) {
		w.told, w.toldAt = w.course.Health, ended
		w.subject.Tell(w.told)
	}
	return next.Sub(ended)
}

func (w *watch) ask(launched func()) Result {
	check, at := w.subject.Check, w.subject.Target()
	ctx, cancel := w.ctx, context.CancelFunc(func() {})
	if _, launches := check.probe.(execProbe); !launches {
		// A program is given its time from when it runs.
		ctx, cancel = context.WithTimeout(w.ctx, check.Timeout)
	}
	defer cancel()
	if w.prober.options.Probe != nil {
		return w.prober.options.Probe(ctx, at)
	}
	return check.probe.run(ctx, w.prober, at, check.Timeout, launched)
}
