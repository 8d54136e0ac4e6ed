package supervisor

import (
	"context"

	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Active counts the tasks that have not ended.
func (s *Supervisor) Active() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	active := 0
	for _, t := range s.tasks {
		if _, progress := t.now(); !lifecycle.Ended(progress.Status.GetState()) {
			active++
		}
	}
	return active
}

// Clear stops every task and removes all of it, as a manager would that wants nothing of this node, and
// returns when nothing is left. Nobody may Apply meanwhile. Where ctx ends first, what has been ordered
// goes on all the same.
func (s *Supervisor) Clear(ctx context.Context) error {
	select {
	case <-s.listed: // only now is it known what there is
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.Apply(&warrenv1.Assignments{Full: true})
	select {
	case <-s.empty():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// empty returns what is closed when no task is left.
func (s *Supervisor) empty() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.emptied == nil {
		s.emptied = make(chan struct{})
	}
	emptied := s.emptied
	if len(s.tasks) == 0 {
		close(s.emptied)
		s.emptied = nil
	}
	return emptied
}
