package logstream

import (
	"container/heap"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// merge puts the lines of several sources in the order of time. Which line is next is known only when
// of each source that takes part either a line is here or the end of its backlog.
type merge struct {
	waiting map[*source]struct{} // those that take part and of which nothing is here
	here    byTime               // those of which something is here
}

// join makes s take part.
func (m *merge) join(s *source) { m.waiting[s] = struct{}{} }

// leave takes s out, of which nothing must be here.
func (m *merge) leave(s *source) { delete(m.waiting, s) }

// has tells whether s takes part.
func (m *merge) has(s *source) bool {
	_, waiting := m.waiting[s]
	return waiting || len(s.backlog) > 0
}

// done tells whether every source has been merged to the end of its backlog.
func (m *merge) done() bool { return len(m.waiting) == 0 && len(m.here) == 0 }

// offer gives lines of s to merge; s must be waiting. With last they are the end of its backlog.
func (m *merge) offer(s *source, lines []*warrenv1.LogLine, last bool) {
	if len(lines) == 0 {
		if last {
			delete(m.waiting, s)
		}
		return
	}
	delete(m.waiting, s)
	s.backlog, s.last = lines, last
	heap.Push(&m.here, s)
}

// next returns the lines that are known to come next, up to a size, and the sources that have given all
// they had here.
func (m *merge) next(limit int) (lines []*warrenv1.LogLine, spent []*source) {
	for size := 0; len(m.waiting) == 0 && len(m.here) > 0 && size < limit; {
		s := m.here[0]
		lines = append(lines, s.backlog[0])
		size += weight(s.backlog[0])
		s.backlog = s.backlog[1:]
		if len(s.backlog) > 0 {
			heap.Fix(&m.here, 0)
			continue
		}
		heap.Pop(&m.here)
		spent = append(spent, s)
		if !s.last {
			m.waiting[s] = struct{}{}
		}
	}
	return lines, spent
}

// weight is about how many bytes a line takes on the wire.
func weight(l *warrenv1.LogLine) int { return len(l.GetLine()) + 64 }

// byTime is a heap of sources by the time of their first line, then by their place in the reading, so
// that equal times do not make the order waver.
type byTime []*source

func (h byTime) Len() int { return len(h) }

func (h byTime) Less(i, j int) bool {
	a, b := h[i].backlog[0].GetTime(), h[j].backlog[0].GetTime()
	if a.GetSeconds() != b.GetSeconds() {
		return a.GetSeconds() < b.GetSeconds()
	}
	if a.GetNanos() != b.GetNanos() {
		return a.GetNanos() < b.GetNanos()
	}
	return h[i].place < h[j].place
}

func (h byTime) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *byTime) Push(x any) { *h = append(*h, x.(*source)) }

// Pop implements heap.Interface.
func (h *byTime) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
