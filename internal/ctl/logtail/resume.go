package logtail

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// skew is how far nodes' clocks may be apart without a line being left out.
const skew = 10 * time.Second

// Resumer remembers how far each task's output has been seen, so that a stream can be asked for again.
//
// Lines of one task come in order, but several can bear the same time: beside the last time it
// remembers how many lines bore it.
type Resumer struct {
	began time.Time
	seen  map[string]*mark
}

// mark is how far one task's output has been seen.
type mark struct {
	last time.Time
	// count is how many lines with that time have been seen, in this stream or an earlier one.
	count int
	// again is how many of them this stream has brought.
	again int
}

// NewResumer returns a Resumer of a stream first asked for at now.
func NewResumer(now time.Time) *Resumer {
	return &Resumer{began: now, seen: map[string]*mark{}}
}

// Fresh tells whether a line has not been seen before, and remembers it.
func (r *Resumer) Fresh(l *warrenv1.LogLine) bool {
	at := l.GetTime().AsTime()
	m := r.seen[l.GetTaskId()]
	if m == nil {
		r.seen[l.GetTaskId()] = &mark{last: at, count: 1, again: 1}
		return true
	}
	switch {
	case at.Before(m.last):
		return false
	case at.After(m.last):
		m.last, m.count, m.again = at, 1, 1
		return true
	}
	m.again++
	if m.again <= m.count {
		return false
	}
	m.count = m.again
	return true
}

// Again returns the selection that brings what has not been seen of one that broke, and begins to
// count anew. It may bring more: Fresh tells.
func (r *Resumer) Again(s *warrenv1.LogSelection) *warrenv1.LogSelection {
	s = proto.CloneOf(s)
	switch {
	case len(r.seen) > 0:
		// The task that is furthest behind decides: one that is quiet may have written since.
		var oldest time.Time
		for _, m := range r.seen {
			m.again = 0
			if oldest.IsZero() || m.last.Before(oldest) {
				oldest = m.last
			}
		}
		// A task of which nothing has been seen yet may be on a node whose clock is behind.
		s.Since, s.Tail = timestamppb.New(oldest.Add(-skew)), nil
	case s.Tail != nil:
		// Nothing was there when the stream began, or too little to fill the tail: all since counts.
		s.Since, s.Tail = timestamppb.New(r.began), nil
	}
	return s
}
