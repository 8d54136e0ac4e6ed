package events

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// remembered is how many events a Log keeps: hours of an ordinary cluster's life in a few megabytes.
const remembered = 10_000

// ErrOverrun tells a reader that events were forgotten before it came to read them.
var ErrOverrun = errors.New("events came faster than they were read, and some are forgotten")

// Log remembers the newest events. It is safe for concurrent use.
type Log struct {
	mu   sync.Mutex
	ring []*warrenv1.Event // event number n stands at n % remembered
	next uint64            // the number of the event to come
	more chan struct{}     // closed when the next event is there
	gap  time.Time         // nothing is known to be left out from then on; zero where nothing is at all
}

// NewLog returns a log without events.
func NewLog() *Log { return &Log{more: make(chan struct{})} }

// Run words what the feed brings until ctx ends, whose error it returns. It takes commits one by one, so that a cause is read from
// the state of then, also when a manager that starts replays what has happened long ago.
func (l *Log) Run(ctx context.Context, feed *state.Feed) error {
	for {
		batch, err := feed.Step(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		if batch.Reset && batch.Snapshot.Cluster() != nil {
			l.skip(now)
		}
		var events []*warrenv1.Event
		for _, c := range batch.Changes {
			events = append(events, From(batch.Snapshot, c, now)...)
		}
		l.Append(events...)
	}
}

// Append adds events, oldest first. The log keeps them; they must not be changed any more.
func (l *Log) Append(events ...*warrenv1.Event) {
	if len(events) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if first := events[0].GetTime().AsTime(); first.Before(l.gap) {
		l.gap = first // what is replayed after a start has happened before
	}
	for _, e := range events {
		if len(l.ring) < remembered {
			l.ring = append(l.ring, e)
		} else {
			l.ring[l.next%remembered] = e
		}
		l.next++
	}
	close(l.more)
	l.more = make(chan struct{})
}

// skip notes that the state has become another without the changes that led there: they are not told.
func (l *Log) skip(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap = now
}

// Since tells since when all events are remembered; zero where they are since the cluster was made.
func (l *Log) Since() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := l.gap
	if l.next > remembered {
		if oldest := l.ring[l.next%remembered].GetTime().AsTime(); oldest.After(since) {
			since = oldest
		}
	}
	return since
}

// Reader returns a reader of all events to come, and before them of those remembered that happened at
// or after since, if it is not zero.
func (l *Log) Reader(since time.Time) *Reader {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &Reader{log: l, next: l.next}
	if since.IsZero() {
		return r
	}
	for oldest := l.next - uint64(len(l.ring)); r.next > oldest; r.next-- {
		if l.ring[(r.next-1)%remembered].GetTime().AsTime().Before(since) {
			break
		}
	}
	return r
}

// Remembered returns the events that are remembered, oldest first.
func (l *Log) Remembered() []*warrenv1.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*warrenv1.Event, 0, len(l.ring))
	for n := l.next - uint64(len(l.ring)); n < l.next; n++ {
		all = append(all, l.ring[n%remembered])
	}
	return all
}

// Reader is one reader's place in a Log. It must be used by one goroutine at a time, and needs no closing.
type Reader struct {
	log  *Log
	next uint64
}

// Take returns at most limit events that are there and not read yet, without waiting. It fails with
// ErrOverrun when some were forgotten unread; the reader goes on with the oldest that is left.
func (r *Reader) Take(limit int) ([]*warrenv1.Event, error) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	oldest := r.log.next - uint64(len(r.log.ring))
	if r.next < oldest {
		r.next = oldest
		return nil, ErrOverrun
	}
	var events []*warrenv1.Event
	for ; r.next < r.log.next && len(events) < limit; r.next++ {
		events = append(events, r.log.ring[r.next%remembered])
	}
	return events, nil
}

// Wait returns when there is something to Take, or with ctx's error.
func (r *Reader) Wait(ctx context.Context) error {
	r.log.mu.Lock()
	there, more := r.next < r.log.next, r.log.more
	r.log.mu.Unlock()
	if there {
		return nil
	}
	select {
	case <-more:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
