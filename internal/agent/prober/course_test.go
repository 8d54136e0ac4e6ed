package prober

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func anyCheck(r *rapid.T) *Check {
	interval := rapid.Int64Range(int64(time.Millisecond), int64(time.Minute)).Draw(r, "interval")
	return &Check{
		Interval:         time.Duration(interval),
		StartPeriod:      time.Duration(rapid.Int64Range(0, int64(2*time.Minute)).Draw(r, "start period")),
		StartInterval:    time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Minute)).Draw(r, "start interval")),
		Retries:          uint32(rapid.IntRange(1, 5).Draw(r, "retries")),
		SuccessThreshold: uint32(rapid.IntRange(1, 4).Draw(r, "success threshold")),
	}
}

func anyDuration(r *rapid.T, most time.Duration, label string) time.Duration {
	return time.Duration(rapid.Int64Range(0, int64(most)).Draw(r, label))
}

// A program that never answers becomes unhealthy no sooner than if it were probed by the plain schedule alone, and
// not much later, however often it is probed.
func TestFrequentEarlyProbesMakeNothingUnhealthyEarlier(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := anyCheck(r)
		takes := anyDuration(r, 10*time.Second, "probe takes")
		k, at := c.begin(Health{State: starting, Since: epoch}, epoch, epoch, 0)
		for k.State == starting {
			began := at
			ended := began.Add(takes)
			k, at = c.take(k, Failed("no"), began, ended, rapid.Float64Range(0, 1).Draw(r, "chance"))
			if at.Before(ended) || at.Sub(ended) > c.StartInterval {
				r.Fatalf("the probe after one that ended at %v is at %v", ended, at)
			}
			if k.State == unhealthy {
				plain := epoch.Add(c.StartPeriod + time.Duration(c.Retries)*c.Interval)
				if began.Before(plain) {
					r.Fatalf("unhealthy by a probe %v too early", plain.Sub(began))
				}
				if late := began.Sub(plain); late > time.Duration(c.Retries)*(2*takes+c.StartInterval) {
					r.Fatalf("unhealthy %v too late", late)
				}
			}
		}
	})
}

// Whatever probes find, the state is what the last ones make it.
func TestTheStateFollowsFromTheLastResults(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := anyCheck(r)
		k, at := c.begin(Health{}, epoch, epoch, 0)
		passed, fails, successes, want := false, uint32(0), uint32(0), starting
		due := epoch.Add(c.StartPeriod + c.Interval)
		for range rapid.IntRange(1, 60).Draw(r, "probes") {
			began := at
			ended := began.Add(anyDuration(r, time.Minute, "takes"))
			result := rapid.SampledFrom([]Result{Succeeded(), Failed("one"), Failed("two"), Unknown("?")}).Draw(r, "result")
			before := k
			k, at = c.take(k, result, began, ended, rapid.Float64Range(0, 1).Draw(r, "chance"))
			switch result.outcome {
			case succeeded:
				passed, fails = true, 0
				successes++
				if want != unhealthy || successes >= c.SuccessThreshold {
					want = healthy
				}
			case failed:
				successes = 0
				if passed || !began.Before(due) {
					fails, due = fails+1, ended.Add(c.Interval)
				}
				if fails >= c.Retries {
					want = unhealthy
				}
			case unknown:
				if k.Health != before.Health {
					r.Fatalf("a probe that was not made changed %+v to %+v", before.Health, k.Health)
				}
			}
			if before.State != k.State {
				successes = 0
			}
			if k.State != want || k.Failures != min(fails, c.Retries) {
				r.Fatalf("it is %v with %d failures, want %v with %d", k.State, k.Failures, want, fails)
			}
			if changed := before.State != k.State; changed && k.Since != ended || !changed && k.Since != before.Since {
				r.Fatalf("it is %v since %v, and was %v since %v", k.State, k.Since, before.State, before.Since)
			}
			if k.State == healthy && before.State != healthy && k.Output != "" || k.State == unhealthy && k.Output == "" {
				r.Fatalf("%v with the output %q", k.State, k.Output)
			}
			rest := at.Sub(ended)
			if passed && (rest < c.Interval*89/100 || rest > c.Interval*111/100) || !passed && rest > c.StartInterval || rest < 0 {
				r.Fatalf("a rest of %v", rest)
			}
		}
	})
}

func TestAProgramThatStartsIsProbedOftenAndThenLess(t *testing.T) {
	c := &Check{Interval: 30 * time.Second, StartInterval: 5 * time.Second, Retries: 3, SuccessThreshold: 1}
	k, at := c.begin(Health{}, epoch, epoch, 0)
	var seen []string
	for k.State == starting {
		seen = append(seen, at.Sub(epoch).String())
		k, at = c.take(k, Failed("no"), at, at, 0.5)
	}
	want := []string{
		"0s", "100ms", "300ms", "700ms", "1.5s", "3.1s", "6.3s", "11.3s", "16.3s", "21.3s", "26.3s", "30s", "35s", "40s", "45s", "50s",
		"55s", "1m0s", "1m5s", "1m10s", "1m15s", "1m20s", "1m25s", "1m30s",
	}
	if !slices.Equal(seen, want) {
		t.Errorf("probes at %v, want %v", seen, want)
	}
}

func TestWhatAnEarlierAgentKnewIsGoneOnWith(t *testing.T) {
	c := &Check{Interval: 10 * time.Second, StartPeriod: time.Minute, StartInterval: time.Second, Retries: 3, SuccessThreshold: 2}
	now := epoch.Add(time.Hour)
	since := epoch.Add(time.Minute)

	k, first := c.begin(Health{State: healthy, Since: since, Failures: 2, Output: "x"}, epoch, now, 1)
	if first.Sub(now) != time.Second {
		t.Errorf("a healthy one is probed after %v", first.Sub(now))
	}
	if k, _ = c.take(k, Failed("y"), first, first, 0); k.State != unhealthy {
		t.Errorf("after its third failure it is %+v", k)
	}

	k, _ = c.begin(Health{State: unhealthy, Since: since, Failures: 3}, epoch, now, 0)
	k, next := c.take(k, Succeeded(), now, now, 0.5)
	if k.State != unhealthy || next.Sub(now) != c.Interval {
		t.Errorf("after one success of two it is %+v, and probed after %v", k, next.Sub(now))
	}
	if k, _ = c.take(k, Succeeded(), next, next, 0); k.State != healthy {
		t.Errorf("after two successes it is %+v", k)
	}

	// One whose start period is over waits for no other.
	k, first = c.begin(Health{State: starting, Since: epoch}, epoch, now, 0)
	if k, _ = c.take(k, Failed("no"), first, first, 0); k.Failures != 1 || first != now {
		t.Errorf("%+v at %v", k, first)
	}
	// One that has failed already is not probed sooner for it.
	k, first = c.begin(Health{State: starting, Since: epoch, Failures: 2}, epoch, now, 0)
	if k, _ = c.take(k, Failed("no"), first, first, 0); k.Failures != 2 {
		t.Errorf("%+v", k)
	}
}

func TestOnlyChangesAreNews(t *testing.T) {
	base := Health{State: unhealthy, Since: epoch, Failures: 3, Output: "a"}
	for name, c := range map[string]struct {
		change func(*Health)
		ago    time.Duration
		want   bool
	}{
		"nothing":                       {func(*Health) {}, time.Hour, false},
		"the state":                     {func(h *Health) { h.State = healthy }, 0, true},
		"the failures":                  {func(h *Health) { h.Failures = 0 }, 0, true},
		"the output a moment ago":       {func(h *Health) { h.Output = "b" }, time.Second, false},
		"the output after a long while": {func(h *Health) { h.Output = "b" }, quiet, true},
	} {
		now := base
		c.change(&now)
		if got := news(base, now, c.ago); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !news(Health{State: starting}, Health{State: starting, Output: "a"}, 0) {
		t.Error("the first output is no news")
	}
}

func TestFailuresCountInTimeAlsoWhereTheClockWasSetBack(t *testing.T) {
	c := &Check{Interval: 10 * time.Second, StartPeriod: 5 * time.Second, StartInterval: time.Second, Retries: 1}
	k, at := c.begin(Health{State: starting, Since: epoch}, epoch.Add(time.Hour), epoch, 0)
	for k.State == starting && at.Before(epoch.Add(time.Minute)) {
		k, at = c.take(k, Failed("no"), at, at, 0)
	}
	if k.State != unhealthy {
		t.Errorf("after a minute it is %+v", k.Health)
	}
}
