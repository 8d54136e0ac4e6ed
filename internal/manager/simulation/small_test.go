package simulation

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var (
	worlds    = flag.Int("worlds", someWorlds, "how many small worlds to run")
	onlyThose = onlyFlag()
)

func onlyFlag() *only {
	o := new(only)
	flag.Var(o, "only", "what of a seed's happenings is to happen, by number, as in 3,7,12; all if it is not given")
	return o
}

// only is a flag that names happenings by their numbers.
type only []int

// String implements flag.Value.
func (o only) String() string {
	words := make([]string, 0, len(o))
	for _, n := range o {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ",")
}

// Set implements flag.Value.
func (o *only) Set(text string) error {
	*o = only{}
	if text == "" {
		return nil
	}
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil {
			return fmt.Errorf("numbers of happenings are wanted, as in 3,7,12: %w", err)
		}
		*o = append(*o, n)
	}
	return nil
}

// small is a world of a few nodes and services in which much happens at once: whatever can go wrong needs no more, most of the time, and there is
// time for thousands of them.
func small(seed uint64) scale {
	random := rand.New(rand.NewPCG(seed, 5))
	return scale{
		nodes: 2 + random.IntN(6), services: 1 + random.IntN(4),
		faults: 20 * time.Second, pause: 1200 * time.Millisecond, rest: 70 * time.Second, overlay: true,
	}
}

func TestSmallWorldsConvergeWhateverHappens(t *testing.T) {
	first, began := firstOr(usualSeed), time.Now()
	// Where the program itself falls, what the tests have logged is lost.
	fmt.Printf("small worlds: seeds from %d\n", first)
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a world is small and soon gone
	var next, lived, happenings, commits atomic.Int64
	t.Run("all", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				for n := next.Add(1) - 1; n < int64(*worlds) && !t.Failed(); n = next.Add(1) - 1 {
					seed := first + uint64(n)
					l := live(t, story{seed: seed, size: small(seed), only: *onlyThose})
					lived.Add(1)
					happenings.Add(int64(len(l.trace)))
					commits.Add(int64(l.commits))
					report(t, l, "SmallWorlds -worlds 1")
				}
			})
		}
	})
	took := time.Since(began)
	t.Logf("%d worlds with %d happenings and %d commits in %v: %.1f worlds per second", lived.Load(), happenings.Load(), commits.Load(), took.Round(time.Millisecond), float64(lived.Load())/took.Seconds())
}

// What is told of a rule that two of many happenings break is these two, the rule, and how to see it again.
func TestABrokenRuleIsToldWithWhatItTakesToBreakIt(t *testing.T) {
	const seed = 1
	size := small(seed)
	whole := live(t, story{seed: seed, size: size})
	if whole.breach() != nil || len(whole.trace) < 10 {
		t.Fatalf("an ordinary world was wanted: %d happenings, %v", len(whole.trace), whole.breach())
	}
	// Two that do not depend on others: what befalls a node.
	var two []deed
	for _, d := range whole.trace {
		if strings.HasPrefix(d.words, "node ") && len(two) < 2 {
			two = append(two, d)
		}
	}
	l := live(t, story{seed: seed, size: size, rule: func(w *world) error {
		w.mu.Lock()
		both := numbers(w.trace)
		w.mu.Unlock()
		if slices.Contains(both, two[0].number) && slices.Contains(both, two[1].number) {
			return fmt.Errorf("both have happened")
		}
		return nil
	}})
	if l.breach() == nil {
		t.Fatal("the rule was not broken")
	}
	text := tell(t, l, "SmallWorlds -worlds 1", time.Minute)
	for _, want := range []string{
		"both have happened", fmt.Sprintf("2 of %d happenings", len(l.trace)),
		fmt.Sprintf("   1. %6.1fs  %s  (%d)\n   2. %6.1fs  %s  (%d)\n", two[0].at.Seconds(), two[0].words, two[0].number, two[1].at.Seconds(), two[1].words, two[1].number),
		fmt.Sprintf("go test ./internal/manager/simulation -run SmallWorlds -worlds 1 -seed 1 -only=%d,%d", two[0].number, two[1].number),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

// Leaving out happenings changes nothing of the others.
func TestWhatHappensDoesNotDependOnWhatElseHappens(t *testing.T) {
	const seed = 2
	all := live(t, story{seed: seed, size: small(seed)})
	words := map[int]string{}
	for _, d := range all.trace {
		words[d.number] = d.words
	}
	for _, d := range all.trace {
		if !strings.HasPrefix(d.words, "node ") {
			continue
		}
		for _, alone := range live(t, story{seed: seed, size: small(seed), only: []int{d.number}}).trace {
			if alone != d {
				t.Errorf("%v became %v", d, alone)
			}
		}
	}
}
