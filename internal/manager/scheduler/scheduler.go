package scheduler

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// batch bounds the tasks written by one decision, so that the first of very many need not wait until
// the last is placed, and a raft entry stays small. The rest follow in the next decision.
const batch = loop.MaxOperations

// Scheduler is the loop. Make it with New.
type Scheduler struct {
	view *view
	// overtaken are the tasks whose proposals were refused: they are read anew.
	overtaken []string
}

var _ loop.Loop = (*Scheduler)(nil)

// New returns the scheduler.
func New() *Scheduler { return &Scheduler{view: newView()} }

// Name implements loop.Loop.
func (*Scheduler) Name() string { return "scheduler" }

// Reset implements loop.Loop.
func (s *Scheduler) Reset(at state.Snapshot) {
	s.view, s.overtaken = newView(), nil
	s.view.load(at)
}

// Observe implements loop.Loop.
func (s *Scheduler) Observe(at state.Snapshot, changes []state.Change) {
	for _, c := range changes {
		s.view.observe(at, c)
	}
}

// Refused implements loop.Loop: the proposal's task is looked at again as it is now.
func (s *Scheduler) Refused(p loop.Proposal) { s.overtaken = append(s.overtaken, p.Key) }

// Decide implements loop.Loop. Every proposal is about one task, so that one that has changed
// meanwhile keeps no other waiting.
func (s *Scheduler) Decide(at state.Snapshot, now time.Time) loop.Decision {
	for _, id := range s.overtaken {
		s.view.reread(at, id)
	}
	s.overtaken = s.overtaken[:0]

	s.view.placed, s.view.told = s.view.placed[:0], s.view.told[:0]
	more := s.view.place(now, batch)
	wake := s.view.explain(now, batch)
	if more {
		wake = now
	}
	d := loop.Decision{Wake: wake, Proposals: make([]loop.Proposal, 0, len(s.view.placed)+len(s.view.told))}
	for _, p := range s.view.placed {
		d.Proposals = append(d.Proposals, propose(p.task, now, func(t *warrenv1.Task) {
			t.NodeId = p.node.id
			t.Status.State = warrenv1.TaskState_TASK_STATE_ASSIGNED
			t.Status.Since = timestamppb.New(now)
			t.Status.Message = p.but
		}))
	}
	for _, p := range s.view.told {
		d.Proposals = append(d.Proposals, propose(p.task, now, func(t *warrenv1.Task) { t.Status.Message = p.text }))
	}
	return d
}

func propose(t *warrenv1.Task, now time.Time, edit func(*warrenv1.Task)) loop.Proposal {
	transaction := state.New(now)
	state.Update(transaction, t, func(t *warrenv1.Task) {
		if t.Status == nil {
			t.Status = &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_PENDING}
		}
		edit(t)
	})
	return loop.Proposal{Key: t.GetMeta().GetId(), Transaction: transaction}
}
