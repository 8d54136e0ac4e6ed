package retention

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Inputs are the tables the loop watches.
var Inputs = []statev1.Table{statev1.Table_TABLE_CLUSTER, statev1.Table_TABLE_SERVICE, statev1.Table_TABLE_TASK}

// Outputs are what the loop writes. Revisions are also deleted by the replicas loop, with their service.
var Outputs = []string{"task delete", "revision delete"}

const (
	// DefaultTaskHistory is how many ended tasks are kept of a slot where the cluster does not say.
	DefaultTaskHistory = 5
	// RevisionHistory is how many revisions are kept of a service, the current one included. Older
	// ones stay as long as there is a task of theirs.
	RevisionHistory = 10
)

// New returns the loop.
func New() loop.Loop {
	return &loop.Keyed{Loop: "retention", All: all, Affected: affected, DecideOne: decide}
}

// The loop's keys are services, for their revisions, and slots, for their tasks.

func slotKey(serviceID string, key slot.Key) string {
	return fmt.Sprintf("%s/%d/%s", serviceID, key.Number, key.NodeID)
}

func parseSlotKey(key string) (serviceID string, of slot.Key, ok bool) {
	parts := strings.SplitN(key, "/", 3)
	if len(parts) != 3 {
		return "", slot.Key{}, false
	}
	number, err := strconv.ParseUint(parts[1], 10, 32)
	return parts[0], slot.Key{Number: uint32(number), NodeID: parts[2]}, err == nil
}

func all(s state.Snapshot) iter.Seq[string] {
	return func(yield func(string) bool) {
		for service := range s.Services() {
			if !yield(service.GetMeta().GetId()) {
				return
			}
		}
		for t := range s.Tasks() {
			if !yield(slotKey(t.GetServiceId(), slot.KeyOf(t))) {
				return
			}
		}
	}
}

func affected(s state.Snapshot, c state.Change) iter.Seq[string] {
	return func(yield func(string) bool) {
		switch o := cmp.Or(c.After, c.Before).(type) {
		case *warrenv1.Cluster:
			all(s)(yield)
		case *warrenv1.Service:
			if c.After != nil {
				yield(o.GetMeta().GetId())
				return
			}
			for t := range s.TasksByService(o.GetMeta().GetId()) {
				if !yield(slotKey(t.GetServiceId(), slot.KeyOf(t))) {
					return
				}
			}
		case *warrenv1.Task:
			if c.After == nil {
				if service := s.Service(o.GetServiceId()); service != nil && service.GetRevision() != o.GetRevision() {
					yield(o.GetServiceId())
				}
			} else if c.Before == nil || !lifecycle.Wanted(o) {
				yield(slotKey(o.GetServiceId(), slot.KeyOf(o)))
			}
		}
	}
}

func decide(s state.Snapshot, key string, now time.Time) (*state.Transaction, time.Time) {
	transaction := state.New(now)
	if serviceID, of, isSlot := parseSlotKey(key); isSlot {
		decideSlot(s, serviceID, of, transaction)
	} else {
		decideRevisions(s, key, transaction)
	}
	return transaction, time.Time{}
}

// decideSlot deletes what is not kept of one slot's tasks.
func decideSlot(s state.Snapshot, serviceID string, key slot.Key, transaction *state.Transaction) {
	of := slot.At(s, serviceID, key)
	kept := history(s, &of)
	if s.Service(serviceID) == nil {
		kept = 0
	}
	for _, t := range of.Spent {
		transaction.Delete(t)
	}
	for _, t := range of.Ended[min(kept, len(of.Ended)):] {
		transaction.Delete(t)
	}
}

// history returns how many ended tasks are kept in a slot: as many as the cluster says, but never so few
// that it could not be seen any more that the slot is in use or done, and for how long it must
// back off. That takes the last two where no task lives, the last one where one does.
func history(s state.Snapshot, of *slot.Slot) int {
	kept := DefaultTaskHistory
	if spec := s.Cluster().GetSpec(); spec != nil && spec.TaskHistory != nil {
		kept = int(spec.GetTaskHistory())
	}
	if len(of.Live) > 0 {
		return max(kept, 1)
	}
	return max(kept, 2)
}

// decideRevisions deletes the revisions of one service that are neither among the newest nor of
// any task, and to which its rollout can neither lead nor go back. It looks at the tasks only where there are too many.
func decideRevisions(s state.Snapshot, serviceID string, transaction *state.Transaction) {
	service := s.Service(serviceID)
	if service == nil || service.GetRemoving() {
		return
	}
	revisions := slices.SortedFunc(s.Revisions(serviceID), func(a, b *warrenv1.Revision) int {
		return cmp.Compare(b.GetNumber(), a.GetNumber())
	})
	if len(revisions) <= RevisionHistory {
		return
	}
	needed := map[uint64]bool{
		service.GetRevision(): true, service.GetPreviousRevision(): true,
		service.GetRollout().GetFrom(): true, service.GetRollout().GetTo(): true,
	}
	for t := range s.TasksByService(serviceID) {
		needed[t.GetRevision()] = true
	}
	for _, r := range revisions[RevisionHistory:] {
		if !needed[r.GetNumber()] && transaction.Len() < loop.MaxOperations {
			transaction.Delete(r)
		}
	}
	if transaction.Len() > 0 {
		transaction.Check(service) // it has not come to need one of them meanwhile
	}
}
