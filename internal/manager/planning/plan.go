package planning

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/replicas"
	"github.com/cuemby/warren/internal/manager/scheduler"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	keep    = warrenv1.PlannedAction_PLANNED_ACTION_KEEP
	create  = warrenv1.PlannedAction_PLANNED_ACTION_CREATE
	replace = warrenv1.PlannedAction_PLANNED_ACTION_REPLACE
	stop    = warrenv1.PlannedAction_PLANNED_ACTION_STOP
)

// maxRounds bounds how often the replicas loop is asked; each time it does a thousand things, or waits for a slot whose
// tasks have failed.
const maxRounds = 256

// maxSteps bounds how often all nodes are looked through. More tasks than that are replaced in larger steps than they
// will be, which tells as well whether they fit.
const maxSteps = 256

// defaultCanaryWeight is the weight of a canary whose policy names no steps.
const defaultCanaryWeight = 10

// Of tells what would come of a service as it is in s, where an update is supposed to have been made.
func Of(s state.Snapshot, serviceID string, now time.Time) *warrenv1.ServicePlan {
	service := s.Service(serviceID)
	p := &plan{snapshot: s, service: service, judge: newJudge(s, service), trial: scheduler.NewTrial(s, now)}
	p.survey(settle(s, service, now))
	p.place()
	res := &warrenv1.ServicePlan{Version: service.GetMeta().GetVersion(), Revision: service.GetRevision()}
	for _, e := range p.entries {
		if n := s.Node(e.PlannedTask.GetNodeId()); n != nil {
			e.NodeHostname = n.GetFacts().GetHostname()
		}
		if n := s.Node(e.GetNewNodeId()); n != nil {
			e.NewNodeHostname = n.GetFacts().GetHostname()
		}
		res.Tasks = append(res.Tasks, e.PlannedTask)
	}
	return res
}

// settle has the replicas loop do all it would do about a service, and returns the state after that.
func settle(s state.Snapshot, service *warrenv1.Service, now time.Time) state.Snapshot {
	made := 0
	l := replicas.New(func() string { made++; return "planned" + strconv.Itoa(made) })
	l.Reset(state.NewStore().Snapshot()) // of nothing but this service
	l.Observe(s, []state.Change{{Before: service, After: service}})
	for range maxRounds {
		d := l.Decide(s, now)
		if len(d.Proposals) == 0 {
			if d.Wake.IsZero() {
				return s
			}
			now = later(now, d.Wake)
		}
		for _, p := range d.Proposals {
			after, changes, err := s.Suppose(p.Transaction)
			if err != nil {
				return s // as nobody else writes this, it is the loop's own fault
			}
			s = after
			l.Observe(s, changes)
		}
	}
	return s
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// plan is one plan in the making.
type plan struct {
	judge
	snapshot state.Snapshot
	service  *warrenv1.Service
	trial    *scheduler.Trial
	entries  []*entry
}

// entry is what becomes of one slot.
type entry struct {
	*warrenv1.PlannedTask
	key  slot.Key
	task *warrenv1.Task // that is there now
	// revision is what the new task is of.
	revision uint64
}

// survey compares the slots as they are with those after the replicas loop has done its part.
func (p *plan) survey(after state.Snapshot) {
	id := p.service.GetMeta().GetId()
	now := map[slot.Key]slot.Slot{}
	for _, s := range slot.Of(p.snapshot, id) {
		now[s.Key] = s
	}
	for _, then := range slot.Of(after, id) {
		if e := p.become(now[then.Key], then); e != nil {
			e.key = then.Key
			e.Slot, e.PlannedTask.NodeId = then.Number, then.NodeID
			if e.task != nil {
				e.TaskId, e.PlannedTask.NodeId = e.task.GetMeta().GetId(), e.task.GetNodeId()
			}
			p.entries = append(p.entries, e)
		}
	}
}

// become tells what a slot becomes; nil where nothing is there and nothing comes.
func (p *plan) become(now, then slot.Slot) *entry {
	is := func(action warrenv1.PlannedAction, t *warrenv1.Task) *entry {
		return &entry{PlannedTask: &warrenv1.PlannedTask{Action: action}, task: t, revision: p.service.GetRevision()}
	}
	switch {
	case len(now.Live) > 0 && len(then.Live) == 0:
		return is(stop, now.Live[0])
	case len(now.Live) == 0 && len(then.Live) > 0:
		e := is(create, nil)
		e.revision = then.Live[0].GetRevision() // while a rollout rests what was there comes back
		return e
	case len(now.Live) == 0:
		if len(then.Ending) > 0 && then.InUse() && then.Fits(p.service) && p.service.GetSpec().GetGlobal() == nil {
			return is(replace, then.Ending[0]) // the replicas loop waits for its end
		}
		return nil
	}
	for _, t := range now.Live {
		if !p.due(t) {
			return is(keep, t)
		}
	}
	return is(replace, now.Live[0])
}

// place tries out where the new tasks go, in the order in which the loops would make them.
func (p *plan) place() {
	var leaving, coming []*entry
	for _, e := range p.entries {
		switch {
		case e.GetAction() == stop:
			leaving = append(leaving, e)
		case e.GetAction() == create, e.GetAction() == keep && slot.Unassigned(e.task):
			coming = append(coming, e)
		}
	}
	// What is stopped has its place until it has ended: what fits nowhere else comes there then.
	for _, e := range leaving {
		p.trial.Retire(e.task)
	}
	for _, e := range coming {
		p.put(e)
	}
	for _, e := range leaving {
		p.trial.Remove(e.task)
	}
	for _, e := range coming {
		if len(leaving) > 0 && e.GetProblem() != "" {
			p.put(e)
		}
	}
	var due []*entry
	for _, e := range p.entries {
		switch {
		case e.GetAction() != replace:
		case slot.Unassigned(e.task):
			p.put(e) // nothing is missed while it is replaced
		default:
			due = append(due, e)
		}
	}
	slices.SortStableFunc(due, func(a, b *entry) int { return cmp.Compare(urgency(a.task), urgency(b.task)) })
	total := len(due)
	for len(due) > 0 {
		n := min(max(p.step(len(due)), total/maxSteps), len(due))
		p.replace(due[:n])
		due = due[n:]
	}
}

// step is how many of the slots that are still to be replaced are replaced next.
func (p *plan) step(left int) int {
	policy := p.service.GetSpec().GetUpdate()
	parallelism := max(1, int(policy.GetParallelism()))
	total := int(p.service.GetSpec().GetReplicated().GetReplicas())
	switch policy.GetStrategy() {
	case warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN:
		return left
	case warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY:
		weight := defaultCanaryWeight
		if steps := policy.GetCanary(); len(steps) > 0 {
			weight = int(steps[len(steps)-1].GetWeight())
		}
		if beside := (total*weight + 99) / 100; left == total && beside > 0 {
			return beside
		}
	}
	return parallelism
}

// replace tries out the replacement of slots that are replaced at the same time.
func (p *plan) replace(together []*entry) {
	first := slot.StopFirst(p.service)
	for _, e := range together {
		// What does not run is stopped as soon as its replacement is made.
		if first || !slot.Running(e.task) {
			p.trial.Retire(e.task)
		}
		if first {
			p.trial.Remove(e.task)
		}
	}
	done := 0
	finish := func(all []*entry) {
		for _, e := range all {
			if !first && (e.GetProblem() == "" || !slot.Running(e.task)) {
				p.finish(e)
			}
		}
	}
	for i, e := range together {
		p.put(e)
		if e.GetProblem() != "" && !first && done < i {
			// It waits until those before it have made room.
			finish(together[done:i])
			done = i
			p.put(e)
		}
	}
	finish(together[done:])
}

// finish has a task that has been replaced end.
func (p *plan) finish(e *entry) {
	if slot.Running(e.task) {
		p.trial.Retire(e.task)
	}
	p.trial.Remove(e.task)
}

// put tries out where a slot's new task goes.
func (p *plan) put(e *entry) {
	e.NewNodeId, e.Problem = p.trial.Place(p.service, e.revision, e.key)
}

// urgency sorts tasks that are due as the rollout loop does: what does not run goes first, then what does not serve.
func urgency(t *warrenv1.Task) int {
	switch {
	case !slot.Running(t):
		return 0
	case !slot.Serving(t):
		return 1
	}
	return 2
}

// judge tells which tasks of a service are to be replaced.
type judge struct {
	at      state.Snapshot
	service *warrenv1.Service
	rules   *placement.Rules // nil where the placement cannot be read
	leave   map[string]bool
}

func newJudge(s state.Snapshot, service *warrenv1.Service) judge {
	rules, err := placement.Compile(service.GetSpec().GetPlacement())
	if err != nil {
		rules = nil
	}
	return judge{at: s, service: service, rules: rules, leave: map[string]bool{}}
}

// due tells whether a live task is to be replaced: it is of another revision, was picked to be moved, or may not stay on
// its node. A global service's slots go with their nodes.
func (j judge) due(t *warrenv1.Task) bool {
	switch {
	case t.GetRevision() != j.service.GetRevision():
		return true
	case j.service.GetSpec().GetGlobal() != nil || t.GetNodeId() == "":
		return false
	}
	return t.GetDisplaced() || j.mustLeave(t.GetNodeId())
}

func (j judge) mustLeave(nodeID string) bool {
	leave, known := j.leave[nodeID]
	if !known {
		n := j.at.Node(nodeID)
		leave = n != nil && (n.GetSpec().GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN ||
			j.rules != nil && !j.rules.Admits(n))
		j.leave[nodeID] = leave
	}
	return leave
}

// placed returns the tasks of a slot that are on a node and wanted.
func placed(s *slot.Slot) []*warrenv1.Task {
	return slices.DeleteFunc(slices.Clone(s.Live), func(t *warrenv1.Task) bool {
		return t.GetNodeId() == "" || slot.Unassigned(t) || !lifecycle.Wanted(t)
	})
}
