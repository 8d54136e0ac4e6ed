package supervisor

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/agent/store"
	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// advance moves the task's status on and reports it. A change that would make (attempt, state) less,
// or alter what has ended, is no change: it returns false then. The commit is of the record on disk.
func (t *task) advance(change func(*warrenv1.TaskStatus)) (*store.Commit, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.progress.Status
	after, changed := t.change(change)
	switch {
	case !changed:
		return nil, false
	case lifecycle.Ended(after.GetState()):
		commit := t.Journal.Advance(t.id, t.progress)
		t.running.Go(func() { t.reportEnd(after, commit) })
		return commit, true
	case !derivable(before, after):
		t.outbox.put(t.id, after)
		return t.Journal.Advance(t.id, t.progress), true
	default:
		t.outbox.put(t.id, after)
		return t.Journal.Note(t.id, t.progress), true
	}
}

// derivable tells whether the next agent finds out by itself what has changed: not that of a program that ended, nor
// what became of its health.
func derivable(before, after *warrenv1.TaskStatus) bool {
	return proto.Equal(after.GetExit(), before.GetExit()) && after.GetHealth().GetState() == before.GetHealth().GetState()
}

// note is advance for a step that is over in a moment: it is not reported by itself. Each report is
// a write on every manager, and of a hundred tasks that start one after the other none gathers with another's.
func (t *task) note(change func(*warrenv1.TaskStatus)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, changed := t.change(change); changed {
		t.Journal.Note(t.id, t.progress)
	}
}

// record is note for a step that must be on disk before another.
func (t *task) record(change func(*warrenv1.TaskStatus)) *store.Commit {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, changed := t.change(change); !changed {
		return nil
	}
	return t.Journal.Advance(t.id, t.progress)
}

// change changes the status where that is allowed. The caller holds t.mu.
func (t *task) change(change func(*warrenv1.TaskStatus)) (*warrenv1.TaskStatus, bool) {
	before := t.progress.Status
	if lifecycle.Ended(before.GetState()) || t.assignment == nil {
		return before, false
	}
	after := &warrenv1.TaskStatus{}
	if before != nil {
		after = proto.CloneOf(before)
	}
	change(after)
	after.Message, after.Error = shorten(after.GetMessage(), wordsBytes), shorten(after.GetError(), wordsBytes)
	if after.GetState() != warrenv1.TaskState_TASK_STATE_RUNNING {
		after.Serving = false
		if after.GetState() != warrenv1.TaskState_TASK_STATE_STOPPING {
			after.Health = nil
		}
	}
	order := lifecycle.Compare(after, before)
	if order < 0 || proto.Equal(after, before) {
		return before, false
	}
	if order > 0 {
		after.Since = timestamppb.Now()
	}
	t.progress.Status = after
	return after, true
}

// reportEnd reports that the task has ended once that is on disk: an agent killed between the two
// would not know, and run again what the manager was told has ended. A disk that cannot be written to
// must not hide the end for ever.
func (t *task) reportEnd(status *warrenv1.TaskStatus, commit *store.Commit) {
	bounded, cancel := context.WithTimeout(t.ctx, recordTime)
	defer cancel()
	_ = commit.Wait(bounded)
	if t.ctx.Err() != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.erased {
		t.outbox.put(t.id, status)
	}
}
