package replicas

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Inputs are the tables the loop watches.
var Inputs = []statev1.Table{statev1.Table_TABLE_SERVICE, statev1.Table_TABLE_NODE, statev1.Table_TABLE_TASK}

// Outputs are what the loop writes. It alone deletes services; task.desired it shares with the
// rollout and liveness loops, each for tasks the others leave alone.
var Outputs = []string{"task create", "task.desired", "service delete", "revision delete"}

// New returns the loop. It takes the ids of the tasks it creates from newID.
func New(newID func() string) loop.Loop {
	return &loop.Keyed{
		Loop:     "replicas",
		All:      all,
		Affected: affected,
		DecideOne: func(s state.Snapshot, key string, now time.Time) (*state.Transaction, time.Time) {
			return decide(s, key, now, newID)
		},
	}
}

func all(s state.Snapshot) iter.Seq[string] {
	return func(yield func(string) bool) {
		for service := range s.Services() {
			if !yield(service.GetMeta().GetId()) {
				return
			}
		}
	}
}

// affected: what a task is at matters only when it comes to be, is wanted otherwise, ends or goes; so
// a service whose tasks are starting by the thousand is not looked at for each of their steps.
func affected(s state.Snapshot, c state.Change) iter.Seq[string] {
	return func(yield func(string) bool) {
		switch o := cmp.Or[state.Object](c.After, c.Before).(type) {
		case *warrenv1.Service:
			yield(o.GetMeta().GetId())
		case *warrenv1.Task:
			before, _ := c.Before.(*warrenv1.Task)
			after, _ := c.After.(*warrenv1.Task)
			if before == nil || after == nil || before.GetDesired() != after.GetDesired() ||
				lifecycle.Ended(before.GetStatus().GetState()) != lifecycle.Ended(after.GetStatus().GetState()) {
				yield(o.GetServiceId())
			}
		case *warrenv1.Node:
			for service := range s.Services() {
				if service.GetSpec().GetGlobal() != nil && !yield(service.GetMeta().GetId()) {
					return
				}
			}
		}
	}
}

// decide decides about one service.
func decide(s state.Snapshot, serviceID string, now time.Time, newID func() string) (*state.Transaction, time.Time) {
	service := s.Service(serviceID)
	if service == nil {
		return nil, time.Time{}
	}
	d := &decision{s: s, service: service, now: now, newID: newID, transaction: state.New(now)}
	slots := slot.Of(s, serviceID)
	switch {
	case service.GetRemoving():
		d.dismantle(slots)
	case service.GetSpec().GetGlobal() != nil:
		d.global(d.ofThisMode(slots))
	default:
		d.replicated(d.ofThisMode(slots))
	}
	return d.transaction, d.wake
}

// decision is one decision in the making.
type decision struct {
	s           state.Snapshot
	service     *warrenv1.Service
	now         time.Time
	newID       func() string
	transaction *state.Transaction
	checked     bool // the transaction rests on the service as it is
	wake        time.Time
}

// full tells that the transaction is large enough; the rest is decided when it is applied.
func (d *decision) full() bool { return d.transaction.Len() >= loop.MaxOperations }

// dismantle removes the tasks of a service, and then the service with its revisions. No task can
// come to be meanwhile: whoever creates one checks that the service has not changed.
func (d *decision) dismantle(slots []slot.Slot) {
	for i := range slots {
		d.giveUp(&slots[i])
	}
	if len(slots) > 0 {
		return
	}
	for r := range d.s.Revisions(d.service.GetMeta().GetId()) {
		d.transaction.Delete(r)
	}
	d.transaction.Delete(d.service)
}

// ofThisMode gives up the slots that a service keeps from before it turned from replicated to global or
// back, and returns the others.
func (d *decision) ofThisMode(slots []slot.Slot) []slot.Slot {
	kept := slots[:0]
	for i := range slots {
		if slots[i].Fits(d.service) {
			kept = append(kept, slots[i])
		} else {
			d.giveUp(&slots[i])
		}
	}
	return kept
}

// giveUp has all tasks of a slot removed, or none: a slot half given up would be filled again.
func (d *decision) giveUp(s *slot.Slot) {
	if d.full() {
		return
	}
	for _, tasks := range [][]*warrenv1.Task{s.Live, s.Ending, s.Ended} {
		for _, t := range tasks {
			slot.Remove(d.transaction, t)
		}
	}
}

// replicated keeps the number of slots that the service wants.
func (d *decision) replicated(slots []slot.Slot) {
	used := make([]*slot.Slot, 0, len(slots))
	taken := make(map[uint32]bool, len(slots))
	for i := range slots {
		s := &slots[i]
		if s.InUse() {
			used = append(used, s)
		}
		// The number of a slot that was given up is free again when its tasks have ended.
		taken[s.Number] = s.InUse() || len(s.Ending) > 0
	}
	want := int(d.service.GetSpec().GetReplicated().GetReplicas())
	if surplus := len(used) - want; surplus > 0 {
		d.restOnService()
		worstFirst(used)
		for _, s := range used[:surplus] {
			d.giveUp(s)
		}
		used = used[surplus:]
		slices.SortFunc(used, func(a, b *slot.Slot) int { return cmp.Compare(a.Number, b.Number) })
	}
	for _, s := range used {
		d.fill(s)
	}
	missing := want - len(used)
	for number := uint32(1); missing > 0 && !d.full(); number++ {
		if !taken[number] {
			d.fill(&slot.Slot{Key: slot.Key{Number: number}})
			missing--
		}
	}
}

// worstFirst sorts the slots of a service by how well they can be done without: first those whose task does not serve, the less
// it does the sooner, then, again and again, the newest on the node that has most copies, so that what stays is spread.
// Among equals the highest number goes first.
func worstFirst(slots []*slot.Slot) {
	// That a node's third copy goes before any second one is the same as taking from the fullest.
	copies := map[string]int{}
	nth := make(map[*slot.Slot]int, len(slots))
	slices.SortFunc(slots, olderFirst)
	for _, s := range slots {
		if worth(s) == serving {
			copies[s.Live[0].GetNodeId()]++
			nth[s] = copies[s.Live[0].GetNodeId()]
		}
	}
	slices.SortFunc(slots, func(a, b *slot.Slot) int {
		return cmp.Or(cmp.Compare(worth(a), worth(b)), cmp.Compare(nth[b], nth[a]), olderFirst(b, a))
	})
}

// What a slot is worth: the best of its tasks.
const (
	empty = iota
	waiting
	running
	serving
)

func worth(s *slot.Slot) int {
	switch {
	case len(s.Live) == 0:
		return empty
	case slot.Serving(s.Live[0]):
		return serving
	case slot.Running(s.Live[0]):
		return running
	}
	return waiting
}

// olderFirst sorts slots by when their best task was made, then by number.
func olderFirst(a, b *slot.Slot) int {
	return cmp.Or(made(a).Compare(made(b)), cmp.Compare(a.Number, b.Number))
}

func made(s *slot.Slot) time.Time {
	if len(s.Live) == 0 {
		return time.Time{}
	}
	return s.Live[0].GetMeta().GetCreatedAt().AsTime()
}

// global keeps a slot on each node that may have one.
func (d *decision) global(slots []slot.Slot) {
	rules, err := placement.Compile(d.service.GetSpec().GetPlacement())
	if err != nil {
		return // the API lets none in that cannot be read; a later manager's may be, and is left alone
	}
	byNode := make(map[string]*slot.Slot, len(slots))
	for i := range slots {
		byNode[slots[i].NodeID] = &slots[i]
	}
	for n := range d.s.Nodes() {
		s := byNode[n.GetMeta().GetId()]
		delete(byNode, n.GetMeta().GetId())
		if s == nil {
			s = &slot.Slot{Key: slot.Key{NodeID: n.GetMeta().GetId()}}
		}
		d.onNode(s, n, rules)
	}
	for i := range slots {
		if byNode[slots[i].NodeID] != nil {
			d.giveUp(&slots[i]) // the node was removed from the cluster
		}
	}
}

// onNode decides about a global service's slot. A node that takes no new tasks keeps the one it has,
// and a node that is drained keeps the slot's history.
func (d *decision) onNode(s *slot.Slot, n *warrenv1.Node, rules *placement.Rules) {
	before := d.transaction.Len()
	switch {
	case !rules.Admits(n):
		d.giveUp(s)
	case n.GetSpec().GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
		for _, t := range s.Live {
			if !d.full() {
				slot.Retire(d.transaction, t)
			}
		}
	case placement.Open(n):
		d.fill(s)
	}
	if d.transaction.Len() > before {
		d.transaction.Check(n)
	}
}

// fill creates a task in a slot that holds none, unless the slot is done or must wait.
func (d *decision) fill(s *slot.Slot) {
	if len(s.Live) > 0 || d.full() {
		return
	}
	revision := s.Next(d.service)
	if s.Done(d.service, revision) {
		return
	}
	if len(s.Ending) > 0 && slot.StopFirst(d.service) {
		return // its end is a change that brings us here again
	}
	if at := s.NotBefore(d.service, revision, d.now); at.After(d.now) {
		if d.wake.IsZero() || at.Before(d.wake) {
			d.wake = at
		}
		return
	}
	d.restOnService()
	d.transaction.Create(slot.NewTaskOf(d.newID(), d.service, revision, s.Key, d.now))
}

// restOnService has the transaction refused if the service has changed meanwhile, as when it is scaled again.
func (d *decision) restOnService() {
	if !d.checked {
		d.transaction.Check(d.service)
		d.checked = true
	}
}
