package state

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"
)

// Store holds the tables. Any number of goroutines may read it; only the Machine writes it.
type Store struct {
	write sync.Mutex // one writer at a time; readers never wait
	db    *memdb.MemDB
	last  atomic.Pointer[commit]
}

// commit is one link of the feed: the changes of a commit and the state after it. Readers hold the
// link they have read; the garbage collector takes those that all have passed.
type commit struct {
	db      *memdb.MemDB // a read-only snapshot
	index   uint64
	changes []Change
	reset   bool
	next    *commit
	ready   chan struct{} // closed once next is set
}

// Change is one object's change by a commit.
type Change struct {
	// Before is nil where the object was created, After where it was deleted.
	Before, After Object
}

// NewStore returns an empty store.
func NewStore() *Store {
	db, err := memdb.NewMemDB(schema)
	if err != nil {
		panic("state: " + err.Error()) // the schema is a constant of this package
	}
	s := &Store{db: db}
	s.last.Store(&commit{db: db.Snapshot(), ready: make(chan struct{})})
	return s
}

// Snapshot returns the state as of now. It costs nothing and never changes.
func (s *Store) Snapshot() Snapshot { return s.last.Load().snapshot() }

// Watch returns the state as of now and a feed of every change after it.
func (s *Store) Watch() (Snapshot, *Feed) {
	at := s.last.Load()
	return at.snapshot(), &Feed{at: at}
}

func (c *commit) snapshot() Snapshot { return Snapshot{txn: c.db.Txn(false), index: c.index} }

// publish makes what was committed to s.db visible. The caller holds s.write.
func (s *Store) publish(index uint64, changes []Change, reset bool) {
	before := s.last.Load()
	next := &commit{db: s.db.Snapshot(), index: index, changes: changes, reset: reset, ready: make(chan struct{})}
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
	Changes  []Change
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
			b.Snapshot = f.at.snapshot()
			return b
		}
		f.at = f.at.next
		if f.at.reset {
			b.Changes, b.Reset = nil, true
		}
		b.Changes = append(b.Changes, f.at.changes...)
	}
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
