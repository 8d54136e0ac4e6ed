package progress

import (
	"cmp"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// maxSlots bounds ServiceProgress.slots.
const maxSlots = 1000

// Of returns the progress of a service that is in s, slot by slot.
func Of(s state.Snapshot, service *warrenv1.Service) *warrenv1.ServiceProgress {
	slots := slot.Of(s, service.GetMeta().GetId())
	wanted := demandOf(s, service, slots)
	p := count(s, service, slots, wanted)
	for i := range slots {
		if len(p.Slots) == maxSlots {
			break
		}
		if wanted.has(&slots[i]) || alive(&slots[i]) {
			p.Slots = append(p.Slots, describe(service, newest(&slots[i])))
		}
	}
	return p
}

// Summary is Of without the slots, as lists show it.
func Summary(s state.Snapshot, service *warrenv1.Service) *warrenv1.ServiceProgress {
	slots := slot.Of(s, service.GetMeta().GetId())
	return count(s, service, slots, demandOf(s, service, slots))
}

func count(s state.Snapshot, service *warrenv1.Service, slots []slot.Slot, wanted demand) *warrenv1.ServiceProgress {
	p := &warrenv1.ServiceProgress{Desired: wanted.size()}
	serving := uint32(0) // of those that count as updated
	settled, m := true, newMover(s, service)
	for i := range slots {
		for _, t := range slots[i].Live {
			if kept(service, t) {
				continue
			}
			if t.GetStatus().GetHealth().GetState() == warrenv1.HealthState_HEALTH_STATE_UNHEALTHY {
				p.Unhealthy++
			}
			// What is wanted and does not run is on its way, be it for one that runs until then and must leave its node.
			settled = settled && slot.Running(t) && m.why(t) == ""
			if !slot.Running(t) {
				continue
			}
			p.Running++
			if slot.Serving(t) {
				p.Serving++
			}
			if t.GetRevision() == service.GetRevision() {
				p.Updated++
				if slot.Serving(t) {
					serving++
				}
			}
		}
		p.Stopping += uint32(len(slots[i].Ending))
	}
	p.Converged = rolledOut(service) && settled &&
		p.Desired == p.Running && p.Running == p.Updated && p.Updated == serving && p.Stopping == 0
	if !p.Converged {
		why := latestReason(service, slots, wanted, m)
		if said := rolloutReason(service); said.text != "" && (why.text == "" || rests(service)) {
			why = said
		}
		p.Reason, p.ReasonTaskId, p.ReasonAt = why.text, why.task, why.at
	}
	return p
}

// kept tells whether a task is one that blue-green keeps for a while to switch back to, and that counts for nothing else.
func kept(service *warrenv1.Service, t *warrenv1.Task) bool {
	r := service.GetRollout()
	return r.GetKeepUntil() != nil && r.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE &&
		t.GetRevision() == r.GetFrom() && t.GetRevision() != service.GetRevision()
}

// rolledOut tells whether the current revision's rollout is over. The first revision has none.
func rolledOut(service *warrenv1.Service) bool {
	r := service.GetRollout()
	if r == nil {
		return service.GetRevision() <= 1
	}
	return r.GetTo() == service.GetRevision() && r.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE
}

// rests tells whether a rollout goes on only when a user has it go on.
func rests(service *warrenv1.Service) bool {
	switch service.GetRollout().GetState() {
	case warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, warrenv1.RolloutState_ROLLOUT_STATE_WAITING:
		return service.GetRollout().GetTo() == service.GetRevision()
	}
	return false
}

// alive tells whether a slot has a task that has not ended. What is left of a slot that is neither
// wanted nor alive is history.
func alive(s *slot.Slot) bool { return len(s.Live)+len(s.Ending) > 0 }

// newest returns the task of a slot that was made last. Slots come with at least one.
func newest(s *slot.Slot) *warrenv1.Task {
	var last *warrenv1.Task
	for _, tasks := range [][]*warrenv1.Task{s.Live, s.Ending, s.Ended, s.Spent} {
		for _, t := range tasks {
			if last == nil || compareAge(last, t) < 0 {
				last = t
			}
		}
	}
	return last
}

// compareAge orders tasks by when they were made, the older first.
func compareAge(a, b *warrenv1.Task) int {
	return cmp.Or(
		compareTime(a.GetMeta().GetCreatedAt(), b.GetMeta().GetCreatedAt()),
		cmp.Compare(a.GetMeta().GetId(), b.GetMeta().GetId()),
	)
}

func compareTime(a, b *timestamppb.Timestamp) int {
	return cmp.Or(cmp.Compare(a.GetSeconds(), b.GetSeconds()), cmp.Compare(a.GetNanos(), b.GetNanos()))
}

func describe(service *warrenv1.Service, t *warrenv1.Task) *warrenv1.SlotProgress {
	status := t.GetStatus()
	message := status.GetMessage()
	switch {
	case !slot.Running(t):
		message = cmp.Or(failure(status), message)
	case lifecycle.Wanted(t) && !slot.Serving(t):
		message = notServing(status)
	}
	return &warrenv1.SlotProgress{
		Slot: t.GetSlot(), NodeId: t.GetNodeId(), TaskId: t.GetMeta().GetId(),
		State: status.GetState(), Attempt: status.GetAttempt(),
		Current: t.GetRevision() == service.GetRevision(),
		Message: message,
	}
}
