package loop_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// record is what a loop has looked at, in order.
type record struct {
	mu    sync.Mutex
	nodes []string
}

func (r *record) add(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes = append(r.nodes, node)
}

// take returns what was looked at since the last call.
func (r *record) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.nodes
	r.nodes = nil
	return taken
}

// kernelOf is a loop that wants every node's kernel to be called wanted, at the times it is told.
func kernelOf(wanted string, looked *record, wake func(node string, now time.Time) time.Time) *loop.Keyed {
	return &loop.Keyed{
		Loop: "kernel",
		All: func(s state.Snapshot) iter.Seq[string] {
			return func(yield func(string) bool) {
				for n := range s.Nodes() {
					if !yield(n.GetMeta().GetId()) {
						return
					}
				}
			}
		},
		Affected: func(_ state.Snapshot, c state.Change) iter.Seq[string] {
			return func(yield func(string) bool) {
				if n, ok := c.After.(*warrenv1.Node); ok {
					yield(n.GetMeta().GetId())
				}
			}
		},
		DecideOne: func(s state.Snapshot, node string, now time.Time) (*state.Transaction, time.Time) {
			looked.add(node)
			n := s.Node(node)
			if wake != nil {
				if at := wake(node, now); at.After(now) {
					return nil, at
				}
			}
			transaction := state.New(now)
			if n.GetFacts().GetKernel() != wanted {
				state.Update(transaction, n, func(n *warrenv1.Node) { n.Facts.Kernel = wanted })
			}
			return transaction, time.Time{}
		},
	}
}

// run runs a loop until the end of the test and returns what ends it early, with its last error.
func run(t *testing.T, store *state.Store, p loop.Proposer, l loop.Loop) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx, store, p, l, slog.New(slog.DiscardHandler)) }()
	return func() error { cancel(); return <-done }
}

type proposerFunc func(ctx context.Context, transactions ...*state.Transaction) ([]error, error)

func (f proposerFunc) Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
	return f(ctx, transactions...)
}

func TestALoopBeginsWithEverythingThenLooksAtWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := statetest.New(t, statetest.Node("n1"), statetest.Node("n2"))
		var looked record
		stop := run(t, store, statetest.NewProposer(store), kernelOf("6.1", &looked, nil))
		synctest.Wait()
		for n := range store.Snapshot().Nodes() {
			if n.GetFacts().GetKernel() != "6.1" {
				t.Errorf("node %s was left alone", n.GetMeta().GetId())
			}
		}
		looked.take()
		statetest.Put(t, store, statetest.Node("n2"))
		synctest.Wait()
		if got, want := looked.take(), []string{"n2", "n2"}; !slices.Equal(got, want) { // the change, and its own write
			t.Errorf("looked at %v, want %v", got, want)
		}
		if err := stop(); !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "kernel loop: ") {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestALoopSleepsUntilTheTimeItAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		store := statetest.New(t, statetest.Node("n1"), statetest.Node("n2"))
		var looked record
		stop := run(t, store, statetest.NewProposer(store), kernelOf("6.1", &looked, func(node string, _ time.Time) time.Time {
			if node == "n1" {
				return start.Add(time.Hour)
			}
			return start.Add(time.Minute)
		}))
		defer stop()
		synctest.Wait()
		kernels := func() string {
			s := store.Snapshot()
			return s.Node("n1").GetFacts().GetKernel() + "," + s.Node("n2").GetFacts().GetKernel()
		}
		if got, looks := kernels(), len(looked.take()); got != "," || looks != 2 {
			t.Errorf("wrote %s after %d looks, before any time had come", got, looks)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := kernels(); got != ",6.1" {
			t.Errorf("after a minute: %s", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := kernels(); got != "6.1,6.1" {
			t.Errorf("after an hour: %s", got)
		}
	})
}

func TestARefusedProposalIsDecidedAgainOnTheNewState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := statetest.New(t, statetest.Node("n1"))
		proposer, overtaken := statetest.NewProposer(store), false
		meddling := proposerFunc(func(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
			if !overtaken {
				overtaken = true
				statetest.Put(t, store, statetest.Node("n1", func(n *warrenv1.Node) { n.Facts.OsName = "other" }))
			}
			return proposer.Propose(ctx, transactions...)
		})
		var looked record
		stop := run(t, store, meddling, kernelOf("6.1", &looked, nil))
		defer stop()
		synctest.Wait()
		facts := store.Snapshot().Node("n1").GetFacts()
		if facts.GetKernel() != "6.1" || facts.GetOsName() != "other" {
			t.Errorf("ended with %v", facts)
		}
	})
}

func TestAMalformedDecisionIsNotRepeatedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := statetest.New(t, statetest.Node("n1"))
		var looked record
		l := kernelOf("6.1", &looked, nil)
		l.DecideOne = func(s state.Snapshot, node string, now time.Time) (*state.Transaction, time.Time) {
			looked.add(node)
			transaction := state.New(now)
			transaction.Check(s.Node(node))
			transaction.Check(s.Node(node))
			return transaction, time.Time{}
		}
		stop := run(t, store, statetest.NewProposer(store), l)
		defer stop()
		synctest.Wait() // returns only if the loop comes to rest
		if looks := len(looked.take()); looks > 2 {
			t.Errorf("looked %d times", looks)
		}
	})
}

func TestALoopEndsWhenItCanNoLongerWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := statetest.New(t, statetest.Node("n1"))
		deposed := errors.New("not the leader")
		var looked record
		err := loop.Run(t.Context(), store, proposerFunc(func(context.Context, ...*state.Transaction) ([]error, error) {
			return nil, deposed
		}), kernelOf("6.1", &looked, nil), slog.New(slog.DiscardHandler))
		if !errors.Is(err, deposed) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestProposalsAreWrittenInBoundedBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodes = 2*loop.MaxOperations + 1
		var objects []state.Object
		for i := range nodes {
			objects = append(objects, statetest.Node(fmt.Sprintf("n%d", i)))
		}
		store := statetest.New(t, objects...)
		proposer := statetest.NewProposer(store)
		var sizes []int
		counting := proposerFunc(func(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
			sizes = append(sizes, len(transactions))
			return proposer.Propose(ctx, transactions...)
		})
		var looked record
		stop := run(t, store, counting, kernelOf("6.1", &looked, nil))
		defer stop()
		synctest.Wait()
		if want := []int{loop.MaxOperations, loop.MaxOperations, 1}; !slices.Equal(sizes, want) {
			t.Errorf("batches of %v, want %v", sizes, want)
		}
	})
}

func TestALoopBeginsAnewWhenTheWholeStateIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := statetest.New(t, statetest.Node("n1"))
		var looked record
		stop := run(t, store, statetest.NewProposer(store), kernelOf("6.1", &looked, func(string, time.Time) time.Time {
			return time.Now().Add(time.Hour)
		}))
		defer stop()
		synctest.Wait()
		looked.take()
		var saved strings.Builder
		if err := statetest.New(t, statetest.Node("n2"), statetest.Node("n3")).Snapshot().Save(&saved); err != nil {
			t.Fatal(err)
		}
		if err := store.Load(strings.NewReader(saved.String())); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got, want := looked.take(), []string{"n2", "n3"}; !slices.Equal(got, want) {
			t.Errorf("looked at %v, want %v", got, want)
		}
	})
}

func TestAKeyedLoopDecidesTheSameOnTheSame(t *testing.T) {
	store := statetest.New(t, statetest.Node("n1"), statetest.Node("n2"))
	decide := func() []byte {
		var looked record
		l := kernelOf("6.1", &looked, nil)
		l.Reset(store.Snapshot())
		var all []byte
		for _, p := range l.Decide(store.Snapshot(), statetest.Epoch).Proposals {
			data, err := proto.MarshalOptions{Deterministic: true}.Marshal(p.Transaction.Message())
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, data...)
		}
		return all
	}
	if !slices.Equal(decide(), decide()) {
		t.Error("decided differently on the same")
	}
}
