package state

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// Store holds the tables. Any number of goroutines may read it; only the Machine writes it.
type Store struct {
	write sync.Mutex // one writer at a time; readers never wait
	last  atomic.Pointer[commit]
}

// commit is one link of the feed: the changes of a commit and the state after it. Readers hold the
// link they have read; the garbage collector takes those that all have passed.
type commit struct {
	after   Snapshot
	changes []Change
	reset   bool
	next    *commit
	ready   chan struct{} // closed once next is set
}

// Change is one object's change by a commit.
type Change struct {
	// Before is nil where the object was created, After where it was deleted.
	Before, After Object
	// At is when the change was decided, by the clock of the manager that did; nil where that was not told yet.
	At *timestamppb.Timestamp
	// By is the user whose call has changed it, empty where it happened by itself.
	By string
}

// NewStore returns an empty store.
func NewStore() *Store {
	s := &Store{}
	empty := emptyTables()
	s.last.Store(&commit{after: Snapshot{tables: &empty}, ready: make(chan struct{})})
	return s
}

// Clear empties the store, for a machine that is about to begin anew.
func (s *Store) Clear() {
	s.write.Lock()
	defer s.write.Unlock()
	empty := emptyTables()
	s.publish(Snapshot{tables: &empty}, nil, true)
}

// Snapshot returns the state as of now. It costs nothing and never changes.
func (s *Store) Snapshot() Snapshot { return s.last.Load().after }

// Changed returns what is closed at the next change.
func (s *Store) Changed() <-chan struct{} { return s.last.Load().ready }

// Watch returns the state as of now and a feed of every change after it.
func (s *Store) Watch() (Snapshot, *Feed) {
	at := s.last.Load()
	return at.after, &Feed{at: at}
}

// publish makes a commit visible. The caller holds s.write.
func (s *Store) publish(after Snapshot, changes []Change, reset bool) {
	before := s.last.Load()
	next := &commit{after: after, changes: changes, reset: reset, ready: make(chan struct{})}
	s.last.Store(next)
	before.next = next
	close(before.ready)
}

// Feed is one reader's place in the sequence of commits. It must be read by one goroutine at a
// time. A feed nobody reads any more needs no closing.
type Feed struct{ at *commit }

// Batch is what happened since the last call, oldest first.
type Batch struct {
	// Snapshot is the state right after the last of the changes.
	Snapshot Snapshot
	// Changes are shared with other readers and must not be changed.
	Changes []Change
	// Reset says that the whole state was replaced (a raft snapshot was installed) and that Changes
	// tell only what came after that.
	Reset bool
}

// Ready is closed when there is something to Take.
func (f *Feed) Ready() <-chan struct{} { return f.at.ready }

// Take returns what has happened since the last call without waiting; no changes where nothing has.
func (f *Feed) Take() Batch {
	var b Batch
	for {
		select {
		case <-f.at.ready:
		default:
			b.Snapshot = f.at.after
			return b
		}
		f.at = f.at.next
		if f.at.reset {
			b.Changes, b.Reset = nil, true
		}
		if b.Changes == nil {
			b.Changes = slices.Clip(f.at.changes) // the commit's own, for all its readers; more is added to a copy
		} else {
			b.Changes = append(b.Changes, f.at.changes...)
		}
	}
}

// Step waits for the next commit and returns it alone, with the state as it was after it.
func (f *Feed) Step(ctx context.Context) (Batch, error) {
	select {
	case <-f.at.ready:
	case <-ctx.Done():
		return Batch{}, ctx.Err()
	}
	f.at = f.at.next
	return Batch{Snapshot: f.at.after, Changes: f.at.changes, Reset: f.at.reset}, nil
}

// Next waits until something has happened and returns all that has.
func (f *Feed) Next(ctx context.Context) (Batch, error) {
	select {
	case <-f.Ready():
		return f.Take(), nil
	case <-ctx.Done():
		return Batch{}, ctx.Err()
	}
}
