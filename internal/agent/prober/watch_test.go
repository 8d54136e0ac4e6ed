package prober

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// watched is a program that answers as it is told.
type watched struct {
	mu     sync.Mutex
	answer Result
	probes []time.Time
	told   []Health
	ended  int
}

func (w *watched) probe(context.Context, Target) Result {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probes = append(w.probes, time.Now())
	return w.answer
}

func (w *watched) answers(r Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = r
}

// take returns the probes and what was told since it was last called.
func (w *watched) take() ([]time.Time, []Health) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	probes, told := w.probes, w.told
	w.probes, w.told = nil, nil
	return probes, told
}

func (w *watched) subject(c *Check) Subject {
	return Subject{
		Check: c, Target: func() Target { return Target{} }, Started: time.Now(), Before: Health{State: starting, Since: time.Now()},
		Tell: func(h Health) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told = append(w.told, h)
		},
		Ended: func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ended++
		},
	}
}

func newProber(t *testing.T, o Options) *Prober {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func mustCompile(t testing.TB, h *warrenv1.HealthCheck) *Check {
	t.Helper()
	c, err := Compile(h)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAWatchTellsChangesAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{answer: Failed("not yet")}
		p := newProber(t, Options{Probe: w.probe})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begun := time.Now()
		p.Watch(ctx, w.subject(mustCompile(t, tcpOn(80))))
		probes, told := w.take()
		if len(probes) != 1 || probes[0] != begun || len(told) != 1 || told[0].State != starting || told[0].Output != "not yet" {
			t.Fatalf("at first: %v %+v", probes, told)
		}
		time.Sleep(10 * time.Second)
		if probes, told := w.take(); len(probes) != 6 || len(told) != 0 {
			t.Errorf("while it starts: %d probes, told %+v", len(probes), told)
		}
		w.answers(Succeeded())
		time.Sleep(10 * time.Minute)
		if probes, told := w.take(); len(probes) < 18 || len(probes) > 23 || len(told) != 1 || told[0].State != healthy || told[0].Output != "" {
			t.Errorf("while it is healthy: %d probes, told %+v", len(probes), told)
		}
		w.answers(Failed("broken"))
		time.Sleep(10 * time.Minute)
		if _, told := w.take(); len(told) != 3 || told[1].State != healthy || told[1].Failures != 2 || told[2].State != unhealthy || told[2].Output != "broken" {
			t.Errorf("when it breaks it is told %+v", told)
		}
	})
}

func TestAWatchEndsWithItsContextWhateverItIsAbout(t *testing.T) {
	for name, hang := range map[string]bool{"at rest": false, "in a probe": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &watched{}
				p := newProber(t, Options{Probe: func(ctx context.Context, _ Target) Result {
					if hang {
						<-ctx.Done()
						return Failed("late")
					}
					return Succeeded()
				}})
				ctx, cancel := context.WithCancel(t.Context())
				p.Watch(ctx, w.subject(mustCompile(t, tcpOn(80))))
				synctest.Wait()
				_, _ = w.take()
				cancel()
				if _, told := w.take(); w.ended != 1 || len(told) != 0 {
					t.Errorf("it ended %d times and told %+v", w.ended, told)
				}
				time.Sleep(time.Hour)
				if probes, _ := w.take(); w.ended != 1 || len(probes) != 0 {
					t.Errorf("it ended %d times, %d probes after that", w.ended, len(probes))
				}
			})
		})
	}
}

func TestAProbeThatTakesTooLongHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{}
		p := newProber(t, Options{Probe: func(ctx context.Context, _ Target) Result {
			<-ctx.Done()
			return Failed("late")
		}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p.Watch(ctx, w.subject(mustCompile(t, tcpOn(80))))
		time.Sleep(30*time.Second - time.Millisecond)
		if _, told := w.take(); len(told) != 0 {
			t.Errorf("told too early: %+v", told)
		}
		time.Sleep(time.Millisecond)
		if _, told := w.take(); len(told) != 1 {
			t.Errorf("told %+v", told)
		}
	})
}

func TestProbesAtOnceAreBoundedAndTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var under, most atomic.Int64
		var mu sync.Mutex
		turns := map[netip.Addr]int{}
		p := newProber(t, Options{Probe: func(_ context.Context, at Target) Result {
			most.Store(max(most.Load(), under.Add(1)))
			defer under.Add(-1)
			mu.Lock()
			turns[at.Addresses[0]]++
			mu.Unlock()
			time.Sleep(time.Second)
			return Succeeded()
		}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		check := mustCompile(t, &warrenv1.HealthCheck{Probe: &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{Command: []string{"x"}}}})
		check.Interval = time.Second
		slots := int64(0)
		for p.launches.TryAcquire(1) {
			slots++
		}
		p.launches.Release(slots)
		const programs = 50
		for i := range programs {
			s := (&watched{}).subject(check)
			s.Target = func() Target { return Target{Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}} }
			p.Watch(ctx, s)
		}
		time.Sleep(100 * time.Second)
		cancel()
		time.Sleep(time.Second) // those under way come to their end
		synctest.Wait()
		if most.Load() != slots {
			t.Errorf("%d were under way at once, want %d", most.Load(), slots)
		}
		fewest, mostTurns := programs*1000, 0
		for _, n := range turns {
			fewest, mostTurns = min(fewest, n), max(mostTurns, n)
		}
		if len(turns) != programs || mostTurns-fewest > 2 { // intervals differ a little
			t.Errorf("%d programs had from %d to %d turns", len(turns), fewest, mostTurns)
		}
	})
}

func TestIntervalsDrawProgramsApartThatWereStartedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProber(t, Options{Probe: func(context.Context, Target) Result { return Succeeded() }})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		check := mustCompile(t, tcpOn(80))
		var mu sync.Mutex
		seconds := map[string]int{}
		for range 200 {
			s := (&watched{}).subject(check)
			begun := time.Now()
			s.Target = func() Target {
				mu.Lock()
				defer mu.Unlock()
				if since := time.Since(begun); since > 4*time.Minute {
					seconds[fmt.Sprint(since.Truncate(time.Second))]++
				}
				return Target{}
			}
			p.Watch(ctx, s)
		}
		time.Sleep(5 * time.Minute)
		cancel()
		synctest.Wait()
		for second, n := range seconds {
			if n > 40 {
				t.Errorf("%d probes at %s", n, second)
			}
		}
	})
}
