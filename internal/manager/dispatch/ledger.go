package dispatch

import (
	"iter"
	"log/slog"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// An Assignments message is closed at the first of these.
const (
	maxPieceTasks = 1000
	maxPieceBytes = 1 << 20
)

// told is what an agent must know of a task. What else changes of it the agent has reported itself,
// and is not sent back to it.
type told struct {
	desired warrenv1.DesiredState
	lost    bool // the manager has given the task up
	// image is what its revision's image stands for: news as long as the task does not run, or is to be started again.
	image string
}

func toTell(s state.Snapshot, t *warrenv1.Task) told {
	now := standing(t)
	now.image = s.Revision(t.GetServiceId(), t.GetRevision()).GetImageDigest()
	return now
}

// standing is toTell of a task alone.
func standing(t *warrenv1.Task) told {
	return told{desired: t.GetDesired(), lost: t.GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_LOST}
}

// assigned tells whether t is among its node's assignments. A task that has its node from the start
// is not before the scheduler has agreed.
func assigned(t *warrenv1.Task) bool {
	return t.GetNodeId() != "" && t.GetStatus().GetState() >= warrenv1.TaskState_TASK_STATE_ASSIGNED
}

// newsToAgent tells whether a change of a task may have to be sent to its node.
func newsToAgent(c state.Change) bool {
	before, _ := c.Before.(*warrenv1.Task)
	after, _ := c.After.(*warrenv1.Task)
	return assigned(before) != assigned(after) || standing(before) != standing(after)
}

// ledger is what one session's agent has been told, and works out what it must be told next.
type ledger struct {
	node string
	// mayStop tells whether a task that is not wanted any more may be told so: not before every node has ceased to send
	// it connections. When it may, it is marked again.
	mayStop func(state.Snapshot, *warrenv1.Task) bool
	logger  *slog.Logger
	told    map[string]told // by task
}

func newLedger(node string, mayStop func(state.Snapshot, *warrenv1.Task) bool, logger *slog.Logger) *ledger {
	return &ledger{node: node, mayStop: mayStop, logger: logger, told: map[string]told{}}
}

// now is a task as its agent may know it now.
func (l *ledger) now(s state.Snapshot, t *warrenv1.Task) *warrenv1.Task {
	if t == nil || lifecycle.Wanted(t) || l.mayStop(s, t) {
		return t
	}
	held := proto.CloneOf(t)
	held.Desired = warrenv1.DesiredState_DESIRED_STATE_RUNNING
	return held
}

// everything yields the node's full set in pieces, at least one.
func (l *ledger) everything(s state.Snapshot) iter.Seq[*warrenv1.Assignments] {
	return func(yield func(*warrenv1.Assignments) bool) {
		clear(l.told)
		piece, size := &warrenv1.Assignments{Full: true}, 0
		for t := range s.TasksByNode(l.node) {
			if !assigned(t) {
				continue
			}
			t = l.now(s, t)
			a := l.assignment(s, t)
			if size += proto.Size(a); len(piece.Tasks) > 0 && (len(piece.Tasks) >= maxPieceTasks || size > maxPieceBytes) {
				piece.More = true
				if !yield(piece) {
					return
				}
				piece, size = &warrenv1.Assignments{}, proto.Size(a)
			}
			piece.Tasks = append(piece.Tasks, a)
			l.told[t.GetMeta().GetId()] = toTell(s, t)
		}
		yield(piece)
	}
}

// changes yields, in pieces, what the agent does not know yet of the tasks of those ids; nothing
// where it knows all.
func (l *ledger) changes(s state.Snapshot, ids map[string]struct{}) iter.Seq[*warrenv1.Assignments] {
	return func(yield func(*warrenv1.Assignments) bool) {
		piece, size := &warrenv1.Assignments{}, 0
		for id := range ids {
			t := l.now(s, s.Task(id))
			before, known := l.told[id]
			switch {
			case t.GetNodeId() != l.node || !assigned(t):
				if !known {
					continue
				}
				delete(l.told, id)
				piece.Removed = append(piece.Removed, id)
				size += len(id)
			case known && before == toTell(s, t):
				continue
			default:
				a := l.assignment(s, t)
				l.told[id] = toTell(s, t)
				piece.Tasks = append(piece.Tasks, a)
				size += proto.Size(a)
			}
			if len(piece.Tasks)+len(piece.Removed) >= maxPieceTasks || size >= maxPieceBytes {
				if !yield(piece) {
					return
				}
				piece, size = &warrenv1.Assignments{}, 0
			}
		}
		if len(piece.Tasks)+len(piece.Removed) > 0 {
			yield(piece)
		}
	}
}

func (l *ledger) assignment(s state.Snapshot, t *warrenv1.Task) *warrenv1.Assignment {
	revision := s.Revision(t.GetServiceId(), t.GetRevision())
	spec := revision.GetTask()
	if spec == nil {
		l.logger.Error("a task's revision is missing: its node gets an empty template",
			"task", t.GetMeta().GetId(), "service", t.GetServiceId(), "revision", t.GetRevision())
		spec = &warrenv1.TaskSpec{}
	}
	return &warrenv1.Assignment{Task: t, Spec: spec, ImageDigest: revision.GetImageDigest()}
}
