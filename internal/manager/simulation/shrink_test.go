package simulation

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/manager/state/statetest"
)

// shrinkFor bounds how long is spent on making a trace smaller.
const shrinkFor = 20 * time.Second

// story is a world that can be lived through again.
type story struct {
	seed uint64
	size scale
	only []int              // what of its plan happens; all of it where it is nil
	rule func(*world) error // one more rule, if set
}

// lived is a world that has had its story.
type lived struct {
	*world
	story  story
	lasted time.Duration // in virtual time
}

// live has a world go through its story.
func live(t *testing.T, s story) (l lived) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, s.seed, s.size)
		w.only, w.rule = s.only, s.rule
		w.run()
		l = lived{world: w, story: s, lasted: time.Since(statetest.Epoch)}
	})
	return l
}

// report fails the test where a rule was broken in a world. It tells what of all that happened it takes to break it, and how to see it again;
// how is the part of the command that chooses the test.
func report(t *testing.T, l lived, how string) {
	t.Helper()
	if l.breach() == nil {
		return
	}
	t.Error(tell(t, l, how, shrinkFor))
}

// tell is what there is to tell of a world in which a rule was broken.
func tell(t *testing.T, l lived, how string, limit time.Duration) string {
	began, runs, all := time.Now(), 0, numbers(l.trace)
	least := l
	shrink(all, time.Now().Add(limit), func(only []int) bool {
		s := l.story
		s.only = only
		for range 2 { // a seed does not fix in which order the goroutines of an instant run
			runs++
			if again := live(t, s); again.breach() != nil && again.breach().rule == l.breach().rule {
				least = again
				return true
			}
		}
		return false
	})
	var text strings.Builder
	fmt.Fprintf(&text, "seed %d: %v\n%d of %d happenings are enough (%d runs in %v):\n", l.seed, least.breach(), len(least.trace), len(all), runs, time.Since(began).Round(100*time.Millisecond))
	for i, d := range least.trace {
		fmt.Fprintf(&text, "%4d. %6.1fs  %s  (%d)\n", i+1, d.at.Seconds(), d.words, d.number)
	}
	fmt.Fprintf(&text, "replay with: go test ./internal/manager/simulation -run %s -seed %d -only=%v\n", how, l.seed, only(numbers(least.trace)))
	return text.String() + least.breach().account
}

func numbers(trace []deed) []int {
	ns := make([]int, 0, len(trace))
	for _, d := range trace {
		ns = append(ns, d.number)
	}
	return ns
}

// shrink returns as few of some things as it finds in time with which it fails as it does with all of them. It leaves out halves first, then
// smaller and smaller parts, at last one by one, until none can be left out.
func shrink(all []int, until time.Time, fails func([]int) bool) []int {
	part := (len(all) + 1) / 2
	for len(all) > 0 {
		smaller := false
		for from := 0; from < len(all); {
			if !time.Now().Before(until) {
				return all
			}
			without := slices.Delete(slices.Clone(all), from, min(from+part, len(all)))
			if fails(without) {
				all, smaller = without, true
			} else {
				from += part
			}
		}
		if part == 1 && !smaller {
			return all
		}
		if !smaller || part > len(all) {
			part = max(1, (min(part, len(all))+1)/2)
		}
	}
	return all
}

func TestShrinkingLeavesWhatIsNeededAndNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := make([]int, rapid.IntRange(1, 60).Draw(t, "happenings"))
		for i := range all {
			all[i] = i + 1
		}
		needed := rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, min(4, len(all)), rapid.ID).Draw(t, "needed")
		slices.Sort(needed)
		runs := 0
		least := shrink(all, time.Now().Add(time.Minute), func(only []int) bool {
			runs++
			for _, n := range needed {
				if !slices.Contains(only, n) {
					return false
				}
			}
			return true
		})
		if !slices.Equal(least, needed) {
			t.Fatalf("%v are needed, and %v were left", needed, least)
		}
		if runs > 40*(len(needed)+1) {
			t.Fatalf("it took %d runs to leave %d of %d", runs, len(needed), len(all))
		}
	})
}

func TestShrinkingEndsInTime(t *testing.T) {
	all := []int{1, 2, 3}
	if least := shrink(all, time.Now(), func([]int) bool { t.Error("it was run though time was up"); return true }); len(least) != 3 {
		t.Errorf("left %v", least)
	}
}
