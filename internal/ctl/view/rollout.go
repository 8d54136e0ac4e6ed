package view

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Image returns an image as people write it: its tag without the digest that the tag has been resolved to.
func Image(image string) string {
	tagged, _, pinned := strings.Cut(image, "@")
	if pinned && strings.Contains(tagged[strings.LastIndexByte(tagged, '/')+1:], ":") {
		return tagged
	}
	return image
}

// Revisions is the table of `service history`.
func Revisions(entries []*warrenv1.RevisionEntry, now time.Time) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "REVISION", Key: "Revision"}, {Title: "IMAGE", Key: "Image", Elastic: true}, {Title: "CREATED", Key: "Created"},
		{Title: "BY", Key: "By"}, {Title: "TASKS", Key: "Tasks"}, {Title: "OUTCOME", Key: "Outcome", Elastic: true},
		{Title: "DIGEST", Key: "Digest", Wide: true},
	}}
	for _, e := range entries {
		r := e.GetRevision()
		outcome := outcomeOf(r)
		if e.GetCurrent() {
			outcome.Text = strings.TrimSuffix("current, "+strings.TrimPrefix(outcome.Text, "complete"), ", ")
			outcome.Colour = cmp.Or(outcome.Colour, output.Good)
		}
		number := strconv.FormatUint(r.GetNumber(), 10)
		t.Rows = append(t.Rows, output.Row{
			ID: r.GetMeta().GetId(), Name: number, Object: e,
			Cells: []output.Cell{
				cell(number), cell(Image(r.GetTask().GetContainer().GetImage())), cell(Ago(r.GetMeta().GetCreatedAt(), now)),
				cell(r.GetWrittenBy()), {Text: strconv.FormatUint(uint64(e.GetRunning()), 10)}, outcome,
				id(cmp.Or(r.GetImageDigest(), digestIn(r.GetTask().GetContainer().GetImage()))),
			},
		})
	}
	return t
}

// outcomeOf says how the latest rollout to a revision has ended.
func outcomeOf(r *warrenv1.Revision) output.Cell {
	switch o := r.GetOutcome(); {
	case r.GetFailure() != "":
		return output.Cell{Text: "failed: " + r.GetFailure(), Colour: output.Bad}
	case o.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_ABANDONED:
		return output.Cell{Text: cmp.Or(o.GetMessage(), "given up"), Colour: output.Warning}
	case o.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE:
		return output.Cell{Text: "complete"}
	}
	return output.Cell{}
}

func digestIn(image string) string {
	_, digest, _ := strings.Cut(image, "@")
	return digest
}

// Plan is the table of a dry run, of a service with that name.
func Plan(name string, p *warrenv1.ServicePlan) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "TASK", Key: "Task"}, {Title: "ID", Key: "ID"}, {Title: "NODE", Key: "Node"}, {Title: "ACTION", Key: "Action"},
		{Title: "NEW NODE", Key: "NewNode"}, {Title: "PROBLEM", Key: "Problem", Elastic: true},
	}}
	for _, one := range p.GetTasks() {
		task := &warrenv1.Task{ServiceName: name, Slot: one.GetSlot(), NodeId: cmp.Or(one.GetNodeId(), one.GetNewNodeId())}
		called := TaskName(task, cmp.Or(one.GetNodeHostname(), one.GetNewNodeHostname()))
		node := ""
		if one.GetTaskId() != "" { // of a global service the slot's node is named also where nothing is there
			node = cmp.Or(one.GetNodeHostname(), one.GetNodeId())
		}
		t.Rows = append(t.Rows, output.Row{
			ID: one.GetTaskId(), Name: called, Object: one,
			Cells: []output.Cell{
				cell(called), id(one.GetTaskId()), cell(node),
				{Text: Planned(one.GetAction()), Colour: planColour(one.GetAction())},
				cell(cmp.Or(one.GetNewNodeHostname(), one.GetNewNodeId())), {Text: one.GetProblem(), Colour: output.Bad},
			},
		})
	}
	return t
}

// Planned is what would become of a task in a word.
func Planned(a warrenv1.PlannedAction) string { return word(a.String(), "PLANNED_ACTION_") }

func planColour(a warrenv1.PlannedAction) output.Colour {
	switch a {
	case warrenv1.PlannedAction_PLANNED_ACTION_CREATE:
		return output.Good
	case warrenv1.PlannedAction_PLANNED_ACTION_REPLACE:
		return output.Warning
	case warrenv1.PlannedAction_PLANNED_ACTION_STOP:
		return output.Bad
	default:
		return output.Faint
	}
}

// PlanCounts says what a dry run would do in numbers: 2 replaced, 1 kept.
func PlanCounts(p *warrenv1.ServicePlan) string {
	number, problems := map[warrenv1.PlannedAction]int{}, 0
	for _, one := range p.GetTasks() {
		number[one.GetAction()]++
		if one.GetProblem() != "" {
			problems++
		}
	}
	var said []string
	for _, a := range []struct {
		action warrenv1.PlannedAction
		word   string
	}{
		{warrenv1.PlannedAction_PLANNED_ACTION_CREATE, "created"},
		{warrenv1.PlannedAction_PLANNED_ACTION_REPLACE, "replaced"},
		{warrenv1.PlannedAction_PLANNED_ACTION_STOP, "stopped"},
		{warrenv1.PlannedAction_PLANNED_ACTION_KEEP, "kept"},
	} {
		if n := number[a.action]; n > 0 {
			said = append(said, fmt.Sprintf("%d %s", n, a.word))
		}
	}
	if len(said) == 0 {
		return "no tasks"
	}
	counts := count(len(p.GetTasks()), "task", "tasks") + ": " + strings.Join(said, ", ")
	if problems > 0 {
		counts += fmt.Sprintf("; %d would fit nowhere now", problems)
	}
	return counts
}

// rolloutState is a rollout's state in a word.
func rolloutState(r *warrenv1.Rollout) string { return word(r.GetState().String(), "ROLLOUT_STATE_") }

// rollout adds how the latest rollout stands, and what users have ordered.
func (p *page) rollout(s *warrenv1.Service, now time.Time) {
	r := s.GetRollout()
	p.under("Rollout", func() {
		if s.GetOrders().GetPaused() {
			by := ""
			if s.GetOrders().GetBy() != "" {
				by = " by " + s.GetOrders().GetBy()
			}
			p.say("Paused", "yes"+by+", until `warrenctl service resume`")
		}
		if r == nil {
			return
		}
		what := "update"
		if r.GetRollback() {
			what = "rollback"
		}
		p.say("State", fmt.Sprintf("%s of the %s from revision %d to %d", rolloutState(r), what, r.GetFrom(), r.GetTo()))
		p.say("Message", r.GetMessage())
		p.say("Started", when(r.GetStartedAt(), now))
		p.say("Since", when(r.GetSince(), now))
		p.amount("Failed", int64(r.GetFailed()))
		if w := r.GetWeight(); w > 0 && r.GetState() != warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE {
			p.say("Connections", fmt.Sprintf("%d %% go to the new revision", w))
			if steps := s.GetSpec().GetUpdate().GetCanary(); len(steps) > 0 {
				p.say("Step", fmt.Sprintf("%d of %d", min(int(r.GetStep())+1, len(steps)), len(steps)))
			}
		}
		if keep := r.GetKeepUntil(); keep != nil && keep.AsTime().After(now) {
			p.say("Old tasks", "kept until "+keep.AsTime().In(now.Location()).Format("2006-01-02 15:04:05 MST"))
		}
	})
}

// policy adds how tasks are replaced.
func (p *page) policy(heading string, u *warrenv1.UpdatePolicy) {
	p.under(heading, func() {
		if s := u.GetStrategy(); s != 0 {
			p.say("Strategy", word(s.String(), "ROLLOUT_STRATEGY_"))
		}
		var steps []string
		for _, step := range u.GetCanary() {
			said := fmt.Sprintf("%d %% until promoted", step.GetWeight())
			if hold := step.GetHold().AsDuration(); hold > 0 {
				said = fmt.Sprintf("%d %% for %s", step.GetWeight(), hold)
			}
			steps = append(steps, said)
		}
		p.list("Canary", steps)
		p.say("Keep", duration(u.GetKeep()))
		p.flag("Switch when promoted", u.GetManual())
		p.amount("Parallelism", int64(u.GetParallelism()))
		p.say("Delay", duration(u.GetDelay()))
		if order := u.GetOrder(); order != 0 {
			p.say("Order", word(order.String(), "UPDATE_ORDER_"))
		}
		p.say("Monitor", duration(u.GetMonitor()))
		if ratio := u.GetMaxFailureRatio(); ratio > 0 {
			p.say("Failure ratio", strconv.FormatFloat(ratio, 'f', -1, 64))
		}
		if action := u.GetFailureAction(); action != 0 {
			p.say("Failure action", word(action.String(), "FAILURE_ACTION_"))
		}
		p.say("Progress deadline", duration(u.GetProgressDeadline()))
		p.amount("Max unavailable", int64(u.GetMaxUnavailable()))
	})
}

// nodeLoss says what becomes of tasks whose node is down.
func nodeLoss(l *warrenv1.NodeLossPolicy) string {
	switch {
	case l.GetAction() == warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT && l.GetWait().AsDuration() > 0:
		return "wait for the node for " + l.GetWait().AsDuration().String() + ", then replace"
	case l.GetAction() == warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT:
		return "wait for the node"
	case l.GetAction() == warrenv1.NodeLossAction_NODE_LOSS_ACTION_REPLACE:
		return "replace"
	}
	return ""
}
