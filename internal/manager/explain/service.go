package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/digest"
	"github.com/cuemby/warren/internal/manager/progress"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Service explains a service.
func Service(at state.Snapshot, service *warrenv1.Service, told []*warrenv1.Event, now time.Time) *warrenv1.ExplainResponse {
	s := scene{at, told, now}
	p := progress.Summary(at, service)
	return &warrenv1.ExplainResponse{
		Object: warrenv1.EventObject_EVENT_OBJECT_SERVICE, Id: service.GetMeta().GetId(), Name: service.GetSpec().GetName(),
		Wanted: wantedOf(service, p), Actual: actualOf(p),
		Causes:     s.serviceCauses(service, p).told(),
		Happenings: s.ofService(service),
	}
}

func wantedOf(service *warrenv1.Service, p *warrenv1.ServiceProgress) string {
	if service.GetRemoving() {
		return "to be removed"
	}
	where := plural(int(p.GetDesired()), "replica")
	if service.GetSpec().GetGlobal() != nil {
		where = "a task on each of " + plural(int(p.GetDesired()), "node")
	}
	return fmt.Sprintf("%s of %s, revision %d", where, digest.Shorten(service.GetSpec().GetTask().GetContainer().GetImage()), service.GetRevision())
}

func actualOf(p *warrenv1.ServiceProgress) string {
	parts := []string{fmt.Sprintf("%d running", p.GetRunning())}
	add := func(n uint32, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(p.GetRunning()-min(p.GetUpdated(), p.GetRunning()), "of another revision")
	add(p.GetUnhealthy(), "unhealthy")
	add(p.GetRunning()-min(p.GetServing()+p.GetUnhealthy(), p.GetRunning()), "taking no connections")
	add(p.GetStopping(), "stopping")
	return strings.Join(parts, ", ")
}

// serviceCauses finds why a service is not as it is wanted.
func (s scene) serviceCauses(service *warrenv1.Service, p *warrenv1.ServiceProgress) causes {
	var all causes
	slots := slot.Of(s.Snapshot, service.GetMeta().GetId())
	if service.GetRemoving() {
		all.add(cause{rank: given, message: fmt.Sprintf("is being removed: %s still to end", plural(int(p.GetStopping()), "task"))})
		return all
	}
	for i := range slots {
		if slots[i].Fits(service) {
			s.slotCauses(&all, service, &slots[i])
		}
	}
	s.rolloutCauses(&all, service)
	s.endpointCauses(&all, service)
	return all
}

// slotCauses adds what ails one slot.
func (s scene) slotCauses(all *causes, service *warrenv1.Service, in *slot.Slot) {
	current := slices.IndexFunc(in.Live, func(t *warrenv1.Task) bool { return t.GetRevision() == service.GetRevision() })
	before := slices.IndexFunc(in.Live, func(t *warrenv1.Task) bool { return t.GetRevision() != service.GetRevision() })
	waiting := slices.IndexFunc(in.Live, slot.Unassigned)
	switch {
	case waiting >= 0 && s.stuck(all, in.Live, in.Live[waiting]):
	case current >= 0:
		t := in.Live[current]
		c, ails := s.ailment(t)
		if failing(service) && (!ails || c.rank == inProgress) {
			// It is tried again at the moment, and has its part in what the rollout is paused for.
			if last, ailed := s.before(t); ailed {
				c, ails = last, true
			}
		}
		if ails {
			// What the one before has died of says more than that the next is on its way.
			if last, ailed := s.lastEnd(service, in); ailed && c.rank == inProgress {
				c = last
			}
			all.add(c)
		}
	case len(in.Live) > 0:
		if last, ailed := s.lastEnd(service, in); ailed {
			all.add(last) // a replacement was tried
			return
		}
		t := in.Live[before]
		if c, ails := s.ailment(t); ails && c.rank != inProgress {
			all.add(c)
			return
		}
		all.add(cause{
			rank: inProgress, key: "turn", objects: []string{s.taskName(t)}, noun: "task",
			message: fmt.Sprintf("waits for its turn to be replaced by one of revision %d", service.GetRevision()),
		})
	case in.Done(service, service.GetRevision()):
		all.add(s.rests(service, in.Ended[0]))
	default:
		if last, ailed := s.lastEnd(service, in); ailed {
			if next := in.NotBefore(service, service.GetRevision(), s.now); next.After(s.now) {
				last.message += fmt.Sprintf("; tried again at %s", next.UTC().Format("15:04:05 UTC"))
			}
			all.add(last)
		}
	}
}

// failing tells whether a service's rollout is paused because its tasks fail.
func failing(service *warrenv1.Service) bool {
	r := service.GetRollout()
	return r.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_PAUSED && !service.GetOrders().GetPaused() && r.GetTo() == service.GetRevision()
}

// lastEnd tells what the slot's last task of the current revision has ended of.
func (s scene) lastEnd(service *warrenv1.Service, in *slot.Slot) (cause, bool) {
	if len(in.Ended) == 0 || in.Ended[0].GetRevision() != service.GetRevision() || !failed(in.Ended[0].GetStatus().GetState()) {
		return cause{}, false
	}
	return s.ailment(in.Ended[0])
}

// rests tells what the last task has ended of in a slot that the restart policy lets rest.
func (s scene) rests(service *warrenv1.Service, t *warrenv1.Task) cause {
	c, _ := s.ailment(t)
	again := fmt.Sprintf("have it run once more: `warrenctl service update %s --force`", service.GetSpec().GetName())
	if t.GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_COMPLETE {
		c.rank, c.key, c.message, c.remedy = rested, "rests", "has ended with exit code 0", again
	} else {
		c.key += ", rests"
		c.remedy += "; or " + again
	}
	c.message += "; its restart condition, " + conditionOf(service) + ", lets it rest"
	return c
}

func conditionOf(service *warrenv1.Service) string {
	switch service.GetSpec().GetTask().GetRestart().GetCondition() {
	case warrenv1.RestartCondition_RESTART_CONDITION_NONE:
		return "none"
	case warrenv1.RestartCondition_RESTART_CONDITION_ON_FAILURE:
		return "on-failure"
	}
	return "any"
}

// stuck tells of a task that stays where it is not to be, as next, its replacement, fits nowhere.
func (s scene) stuck(all *causes, live []*warrenv1.Task, next *warrenv1.Task) bool {
	for _, t := range live {
		n := s.Node(t.GetNodeId())
		var where string
		switch {
		case t == next || slot.Unassigned(t):
			continue
		case n.GetSpec().GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
			where = ", which is drained" + by(n.GetWrittenBy())
		case t.GetRevision() != next.GetRevision():
			continue // what the replacement waits for says it all
		case t.GetDisplaced():
			where = ", from where it is to be moved to balance its service"
		default:
			where = ", which its placement does not allow"
		}
		why := next.GetStatus().GetMessage()
		c := cause{
			rank: noRoom, key: t.GetNodeId() + where + why, objects: []string{s.taskName(t)}, noun: "task", at: next.GetStatus().GetSince().AsTime().UnixNano(),
			message: fmt.Sprintf("stays on node %s%s, until its replacement has a place%s", s.nodeName(t.GetNodeId()), where, because(why)),
			remedy:  s.roomRemedy(why, t),
		}
		if why == "" {
			c.rank = inProgress
		}
		all.add(c)
		return true
	}
	return false
}

// rolloutCauses adds what holds up the service's rollout, or has made it go back.
func (s scene) rolloutCauses(all *causes, service *warrenv1.Service) {
	r, name := service.GetRollout(), service.GetSpec().GetName()
	about := cause{rank: held, at: r.GetSince().AsTime().UnixNano()}
	orBack := fmt.Sprintf("; or go back: `warrenctl service abort %s`", name)
	if r.GetRollback() { // it goes back already
		orBack = ""
	}
	switch {
	case r.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_PAUSED && service.GetOrders().GetPaused():
		about.message = fmt.Sprintf("the rollout to revision %d is paused%s%s", r.GetTo(), s.since(r.GetSince()), by(service.GetOrders().GetBy()))
		about.remedy = fmt.Sprintf("have it go on: `warrenctl service resume %s`%s", name, orBack)
	case r.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_PAUSED:
		about.message = fmt.Sprintf("the rollout to revision %d is paused%s%s", r.GetTo(), s.since(r.GetSince()), because(r.GetMessage()))
		about.remedy = fmt.Sprintf("correct the service: `warrenctl service update %s`%s; or have it go on all the same: `warrenctl service resume %s`", name, orBack, name)
	case r.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_WAITING:
		about.message = fmt.Sprintf("the rollout to revision %d waits to be promoted%s%s", r.GetTo(), s.since(r.GetSince()), because(r.GetMessage()))
		about.remedy = fmt.Sprintf("`warrenctl service promote %s`%s", name, orBack)
	case r.GetRollback() && r.GetTo() == service.GetRevision() && s.Revision(service.GetMeta().GetId(), r.GetFrom()).GetFailure() != "":
		failure := s.Revision(service.GetMeta().GetId(), r.GetFrom()).GetFailure()
		verb := "the service went back"
		if r.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_RUNNING {
			verb = "the service goes back"
		}
		about.rank = given
		about.message = fmt.Sprintf("the rollout to revision %d failed, and %s to revision %d: %s", r.GetFrom(), verb, r.GetTo(), failure)
		about.remedy = fmt.Sprintf("correct what failed and update it again: `warrenctl service update %s`", name)
		s.failedOf(all, service, r.GetFrom())
	case service.GetOrders().GetPaused() && s.outdated(service):
		about.message = "the rollout is to wait" + by(service.GetOrders().GetBy())
		about.remedy = fmt.Sprintf("have it begin: `warrenctl service resume %s`", name)
	default:
		return
	}
	all.add(about)
}

func (s scene) outdated(service *warrenv1.Service) bool {
	for t := range s.TasksByService(service.GetMeta().GetId()) {
		if lifecycle.Wanted(t) && t.GetRevision() != service.GetRevision() {
			return true
		}
	}
	return false
}

// failedOf adds what the tasks of a revision have ended of that the service has gone back from.
func (s scene) failedOf(all *causes, service *warrenv1.Service, revision uint64) {
	for t := range s.TasksByService(service.GetMeta().GetId()) {
		if t.GetRevision() != revision {
			continue
		}
		c, ails := s.ailment(t)
		if !ails {
			c, ails = s.before(t)
		}
		if ails && c.rank != inProgress {
			c.key = fmt.Sprintf("%d %s", revision, c.key)
			c.message = fmt.Sprintf("of revision %d: %s", revision, c.message)
			all.add(c)
		}
	}
}

// before tells what a task ailed of that was stopped for it: its program ended, or it failed its probes, and it was
// taken back before its node had done anything more about that.
func (s scene) before(t *warrenv1.Task) (cause, bool) {
	c := about(s.taskName(t), t)
	for _, i := range slices.Backward(t.GetStatus().GetIncidents()) {
		switch i.GetKind() {
		case warrenv1.IncidentKind_INCIDENT_KIND_EXIT:
			return s.crash(c, t), true
		case warrenv1.IncidentKind_INCIDENT_KIND_UNHEALTHY:
			return s.unhealthy(c, t, "became unhealthy"+because(unprefixed(firstLine(i.GetMessage())))), true
		}
	}
	return c, false
}

// failed tells whether a task has ended by itself, or could not be started.
func failed(state warrenv1.TaskState) bool {
	switch state {
	case warrenv1.TaskState_TASK_STATE_FAILED, warrenv1.TaskState_TASK_STATE_REJECTED, warrenv1.TaskState_TASK_STATE_COMPLETE:
		return true
	}
	return false
}

// endpointCauses adds what keeps the service from being reached as it asks.
func (s scene) endpointCauses(all *causes, service *warrenv1.Service) {
	for _, problem := range service.GetEndpoint().GetProblems() {
		all.add(cause{rank: outside, key: problem, message: problem})
	}
	for n := range s.Nodes() {
		for _, taken := range n.GetStatus().GetOverlay().GetTakenPorts() {
			if !slices.ContainsFunc(service.GetEndpoint().GetPorts(), func(p *warrenv1.PublishedPort) bool {
				return p.GetPublished() == taken.GetPort() && (p.GetProtocol() == warrenv1.Protocol_PROTOCOL_UDP) == (taken.GetProtocol() == warrenv1.Protocol_PROTOCOL_UDP)
			}) {
				continue
			}
			program := cmp.Or(taken.GetBy(), "another program")
			port := fmt.Sprintf("%d/%s", taken.GetPort(), protocolName(taken.GetProtocol()))
			all.add(cause{
				rank: outside, key: "port " + port, objects: []string{s.nodeName(n.GetMeta().GetId())}, noun: "node",
				message: fmt.Sprintf("the published port %s is %s's, and leads there and not to the service", port, program),
				remedy:  fmt.Sprintf("stop that program there, or publish another port: `warrenctl service update %s --publish`", service.GetSpec().GetName()),
			})
		}
	}
}

func protocolName(p warrenv1.Protocol) string {
	if p == warrenv1.Protocol_PROTOCOL_UDP {
		return "udp"
	}
	return "tcp"
}
