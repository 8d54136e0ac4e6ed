package rollout

import (
	"cmp"
	"iter"
	"time"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Inputs are the tables the loop watches.
var Inputs = []statev1.Table{statev1.Table_TABLE_SERVICE, statev1.Table_TABLE_NODE, statev1.Table_TABLE_TASK}

// Outputs are what the loop writes: tasks in slots that hold a live one; the record of the rollout; of the revisions what is found out
// about them; and where a rollout goes back by itself, what users write as well.
var Outputs = []string{
	"task create", "task.desired", "service.rollout", "service.written_at", "revision.image_digest", "revision.failure", "revision.outcome",
	"service.spec", "service.revision", "service.previous_revision", "service.last_revision", "service.written_by", "service.reverted", "service.trace",
}

// New returns the loop of a manager that leads since that time. It takes the ids of the tasks it creates from newID.
func New(newID func() string, leading time.Time) loop.Loop {
	r := &rollouts{underway: map[string]bool{}}
	return &loop.Keyed{
		Loop:     "rollout",
		All:      all,
		Affected: r.affected,
		DecideOne: func(s state.Snapshot, key string, now time.Time) (*state.Transaction, time.Time) {
			outcome := decide(s, key, now, leading, newID)
			if outcome.underway {
				r.underway[key] = true
			} else {
				delete(r.underway, key)
			}
			return outcome.transaction, outcome.wake
		},
	}
}

// rollouts remembers which services have something to move, so that the steps of all other services'
// tasks need no looking at. It changes no decision, only whether one is asked for.
type rollouts struct{ underway map[string]bool }

func all(s state.Snapshot) iter.Seq[string] {
	return func(yield func(string) bool) {
		for service := range s.Services() {
			if !yield(service.GetMeta().GetId()) {
				return
			}
		}
	}
}

func (r *rollouts) affected(s state.Snapshot, c state.Change) iter.Seq[string] {
	return func(yield func(string) bool) {
		switch o := cmp.Or(c.After, c.Before).(type) {
		case *warrenv1.Service:
			yield(o.GetMeta().GetId())
		case *warrenv1.Node:
			for t := range s.TasksByNode(o.GetMeta().GetId()) {
				if !yield(t.GetServiceId()) {
					return
				}
			}
		case *warrenv1.Task:
			before, _ := c.Before.(*warrenv1.Task)
			after, _ := c.After.(*warrenv1.Task)
			if r.underway[o.GetServiceId()] || after != nil && (mayHaveBecomeDue(s, before, after) || newsOfImage(s, before, after)) {
				yield(o.GetServiceId())
			}
		}
	}
}

// mayHaveBecomeDue tells whether a change of a task can make it due by itself: it came to be of an
// old revision, was placed while its node or the service changed, or was picked to be moved.
func mayHaveBecomeDue(s state.Snapshot, before, after *warrenv1.Task) bool {
	service := s.Service(after.GetServiceId())
	if service == nil || before != nil && before.GetNodeId() == after.GetNodeId() && before.GetDisplaced() == after.GetDisplaced() {
		return false
	}
	none := &images{snapshot: s, serviceID: after.GetServiceId(), revisions: map[uint64]image{}}
	return newJudge(s, service, none, time.Time{}).due(after) != nothing
}

// newsOfImage tells whether a task has found its image to be something that its revision does not stand for yet, or not at all.
func newsOfImage(s state.Snapshot, before, after *warrenv1.Task) bool {
	digest := after.GetStatus().GetImageDigest()
	if digest == "" || digest == before.GetStatus().GetImageDigest() {
		return false
	}
	return s.Revision(after.GetServiceId(), after.GetRevision()).GetImageDigest() != digest
}
