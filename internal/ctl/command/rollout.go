package command

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/progress"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// rollingTarget is a service whose tasks are to be those of its revision.
func rollingTarget(svc *warrenv1.Service) progress.Target {
	t := target(svc)
	t.Revision = svc.GetRevision()
	return t
}

// ServiceRollback is `service rollback`.
type ServiceRollback struct {
	LookOn
	To      *uint64 `aliases:"to-revision" help:"The revision to go back to, as service history numbers them. Default: the one before the current." placeholder:"REVISION"`
	Service string  `arg:"" complete:"service" help:"Name, id or beginning of an id."`
}

// Help is the text below the usage line.
func (ServiceRollback) Help() string {
	return "Tasks that are still of that revision are left alone; the others are replaced as the service's rollback flags say. Tags stay what they stood for then.\n\n" +
		"Example:\n\n    warrenctl service rollback web --to 3"
}

// Run does it.
func (c *ServiceRollback) Run(ctx context.Context, s *Session) error {
	to := uint64(0)
	if c.To != nil {
		if to = *c.To; to == 0 {
			return failure.Usagef("--to: revisions are numbered from 1: `warrenctl service history %s` shows them; leave --to out for the one before", c.Service)
		}
	}
	return c.rollBack(ctx, s, c.Service, to)
}

// rollBack orders a rollback, to the revision before for 0, and looks on.
func (l LookOn) rollBack(ctx context.Context, s *Session, ref string, to uint64) error {
	res, err := s.Services.RollBackService(ctx, connect.NewRequest(&warrenv1.RollBackServiceRequest{Ref: ref, Revision: to}))
	if err != nil {
		return err
	}
	svc := res.Msg.GetService()
	if !l.Quiet {
		s.Err.Printf("%s goes back to revision %d.", svc.GetSpec().GetName(), svc.GetRevision())
	}
	if err := s.print(svc.GetSpec().GetName()); err != nil {
		return err
	}
	return l.follow(ctx, s, []progress.Target{rollingTarget(svc)})
}

// ServiceHistory is `service history`.
type ServiceHistory struct {
	output.ListFlags `set:"columns={{.Revision}}: {{.Image}}"`
	Service          string `arg:"" complete:"service" help:"Name, id or beginning of an id."`
}

// Help is the text below the usage line.
func (ServiceHistory) Help() string {
	return "A rollback passes over revisions that failed, unless one is named with --to.\n\nExample:\n\n    warrenctl service history web"
}

// Run does it.
func (c *ServiceHistory) Run(ctx context.Context, s *Session) error {
	entries, err := s.revisions(ctx, c.Service)
	if err != nil {
		return err
	}
	return c.List(s.Out, view.Revisions(entries, s.Now()))
}

func (s *Session) revisions(ctx context.Context, ref string) ([]*warrenv1.RevisionEntry, error) {
	res, err := s.Services.ListRevisions(ctx, connect.NewRequest(&warrenv1.ListRevisionsRequest{Ref: ref}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetRevisions(), nil
}

// ServiceDiff is `service diff`.
type ServiceDiff struct {
	Output  string  `short:"o" enum:"diff,json,yaml" default:"diff" help:"diff, or json or yaml with each field that changed." placeholder:"FORM"`
	Service string  `arg:"" complete:"service" help:"Name, id or beginning of an id."`
	From    *uint64 `arg:"" optional:"" name:"from" help:"Revision to compare. Default: the one before the current."`
	To      *uint64 `arg:"" optional:"" name:"to" help:"Revision to compare it with. Default: the current."`
}

// Help is the text below the usage line.
func (ServiceDiff) Help() string {
	return "Shows what tasks are made from, as a unified diff of YAML; nothing where two revisions are equal.\n\nExample:\n\n    warrenctl service diff web 3 5"
}

// Run does it.
func (c *ServiceDiff) Run(ctx context.Context, s *Session) error {
	entry, err := s.service(ctx, c.Service)
	if err != nil {
		return err
	}
	svc := entry.GetService()
	kept, err := s.revisions(ctx, svc.GetMeta().GetId())
	if err != nil {
		return err
	}
	for _, given := range []*uint64{c.From, c.To} {
		if given != nil && *given == 0 {
			return failure.Usagef("revisions are numbered from 1: `warrenctl service history %s` shows them", svc.GetSpec().GetName())
		}
	}
	from, to := svc.GetPreviousRevision(), svc.GetRevision()
	if c.To != nil {
		to = *c.To
	}
	if c.From != nil {
		from = *c.From
	}
	if from == 0 {
		return fmt.Errorf("service %s has had no revision before %d: there is nothing to compare", svc.GetSpec().GetName(), svc.GetRevision())
	}
	template := func(number uint64) (*warrenv1.TaskSpec, error) {
		for _, e := range kept {
			if e.GetRevision().GetNumber() == number {
				return e.GetRevision().GetTask(), nil
			}
		}
		return nil, fmt.Errorf("revision %d of service %s is not kept: see `warrenctl service history %s`", number, svc.GetSpec().GetName(), svc.GetSpec().GetName())
	}
	before, err := template(from)
	if err != nil {
		return err
	}
	after, err := template(to)
	if err != nil {
		return err
	}
	if c.Output != "diff" {
		changes, err := view.Changes(before, after)
		if err != nil {
			return err
		}
		return output.Value(s.Out, c.Output, view.RevisionDiff{Service: svc.GetSpec().GetName(), From: from, To: to, Changes: changes})
	}
	name := func(number uint64) string { return fmt.Sprintf("%s revision %d", svc.GetSpec().GetName(), number) }
	diff, err := view.Diff(s.Out, name(from), name(to), before, after)
	if err != nil {
		return err
	}
	if diff == "" {
		s.Err.Printf("Revisions %d and %d are equal.", from, to)
	}
	_, err = fmt.Fprint(s.Out, diff)
	return err
}

// ServicePause is `service pause`.
type ServicePause struct {
	Services []string `arg:"" name:"service" complete:"service" help:"Name, id or beginning of an id."`
}

// Help is the text below the usage line.
func (ServicePause) Help() string {
	return "What is being replaced at the moment still is. Without a rollout under way the next one waits. `warrenctl service resume` ends it."
}

// Run does it.
func (c *ServicePause) Run(ctx context.Context, s *Session) error {
	return forEach(c.Services, func(ref string) error {
		res, err := s.Services.PauseRollout(ctx, connect.NewRequest(&warrenv1.PauseRolloutRequest{Ref: ref}))
		if err != nil {
			return err
		}
		svc := res.Msg.GetService()
		if !underWay(svc) {
			s.Err.Printf("No rollout of %s is under way; the next one waits for `warrenctl service resume %s`.", svc.GetSpec().GetName(), svc.GetSpec().GetName())
		}
		return s.print(svc.GetSpec().GetName())
	})
}

// underWay tells that a service's tasks are being replaced, or are to be.
func underWay(svc *warrenv1.Service) bool {
	r := svc.GetRollout()
	switch {
	case r == nil:
		return false
	case r.GetTo() != svc.GetRevision(): // it has been ordered and has not begun
		return true
	}
	switch r.GetState() {
	case warrenv1.RolloutState_ROLLOUT_STATE_RUNNING, warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, warrenv1.RolloutState_ROLLOUT_STATE_WAITING:
		return true
	default:
		return false
	}
}

// ServiceResume is `service resume`.
type ServiceResume struct {
	LookOn
	Services []string `arg:"" name:"service" complete:"service" help:"Name, id or beginning of an id."`
}

// Help is the text below the usage line.
func (ServiceResume) Help() string {
	return "One that was paused because tasks failed goes on and counts failures anew.\n\nExample:\n\n    warrenctl service resume web"
}

// Run does it.
func (c *ServiceResume) Run(ctx context.Context, s *Session) error {
	return c.order(ctx, s, c.Services, func(ref string) (*warrenv1.Service, error) {
		res, err := s.Services.ResumeRollout(ctx, connect.NewRequest(&warrenv1.ResumeRolloutRequest{Ref: ref}))
		if err != nil {
			return nil, err
		}
		return res.Msg.GetService(), nil
	})
}

// ServicePromote is `service promote`.
type ServicePromote struct {
	LookOn
	Services []string `arg:"" name:"service" complete:"service" help:"Name, id or beginning of an id."`
}

// Help is the text below the usage line.
func (ServicePromote) Help() string { return "Example:\n\n    warrenctl service promote web" }

// Run does it.
func (c *ServicePromote) Run(ctx context.Context, s *Session) error {
	return c.order(ctx, s, c.Services, func(ref string) (*warrenv1.Service, error) {
		res, err := s.Services.PromoteRollout(ctx, connect.NewRequest(&warrenv1.PromoteRolloutRequest{Ref: ref}))
		if err != nil {
			return nil, err
		}
		return res.Msg.GetService(), nil
	})
}

// order gives an order to the rollouts of services, and looks on.
func (l LookOn) order(ctx context.Context, s *Session, refs []string, give func(ref string) (*warrenv1.Service, error)) error {
	targets, failed := collect(refs, func(ref string) (progress.Target, error) {
		svc, err := give(ref)
		if err != nil {
			return progress.Target{}, err
		}
		t := target(svc)
		if underWay(svc) {
			t = rollingTarget(svc)
		}
		return t, s.print(t.Name)
	})
	return errors.Join(failed, l.follow(ctx, s, targets))
}

// ServiceAbort is `service abort`.
type ServiceAbort struct {
	LookOn
	Services []string `arg:"" name:"service" complete:"service" help:"Name, id or beginning of an id."`
}

// Help is the text below the usage line.
func (ServiceAbort) Help() string {
	return "A service goes back to the revision it was rolled from, also one whose rollout is paused or waits to be promoted. One with no rollout under way is left alone; service rollback takes that back too.\n\n" +
		"Example:\n\n    warrenctl service abort web"
}

// Run does it.
func (c *ServiceAbort) Run(ctx context.Context, s *Session) error {
	return c.order(ctx, s, c.Services, func(ref string) (*warrenv1.Service, error) {
		entry, err := s.service(ctx, ref)
		if err != nil {
			return nil, err
		}
		svc := entry.GetService()
		name, r := svc.GetSpec().GetName(), svc.GetRollout()
		begun := r.GetTo() == svc.GetRevision()
		switch {
		case !underWay(svc):
			return nil, fmt.Errorf("no rollout of service %s is under way; `warrenctl service rollback %s` goes back to the revision before", name, name)
		case begun && r.GetRollback():
			return nil, fmt.Errorf("service %s goes back to revision %d already; `warrenctl service rollback %s --to %d` returns to the other one", name, r.GetTo(), name, r.GetFrom())
		}
		to := uint64(0) // before it has begun: the one before
		if begun {
			to = r.GetFrom()
		}
		res, err := s.Services.RollBackService(ctx, connect.NewRequest(&warrenv1.RollBackServiceRequest{Ref: svc.GetMeta().GetId(), Revision: to}))
		if err != nil {
			return nil, err
		}
		if !c.Quiet {
			s.Err.Printf("%s goes back to revision %d.", name, res.Msg.GetService().GetRevision())
		}
		return res.Msg.GetService(), nil
	})
}

// ServiceRebalance is `service rebalance`.
type ServiceRebalance struct {
	LookOn
	Output   string   `short:"o" enum:"text,json,yaml" default:"text" help:"text, json or yaml." placeholder:"FORM"`
	Services []string `arg:"" name:"service" complete:"service" help:"Name, id or beginning of an id."`
}

// Help is the text below the usage line.
func (ServiceRebalance) Help() string {
	return "As few tasks are moved as that takes, each as if its node were drained: in start-first order its replacement serves before it is stopped. Nothing is ever rebalanced by itself.\n\n" +
		"Example:\n\n    warrenctl service rebalance web"
}

// Run does it.
func (c *ServiceRebalance) Run(ctx context.Context, s *Session) error {
	ordered := []rebalanced{}
	targets, failed := collect(c.Services, func(ref string) (progress.Target, error) {
		res, err := s.Services.RebalanceService(ctx, connect.NewRequest(&warrenv1.RebalanceServiceRequest{Ref: ref}))
		if err != nil {
			return progress.Target{}, err
		}
		t := target(res.Msg.GetService())
		t.Moving = true
		ordered = append(ordered, rebalanced{t.Name, t.ID, res.Msg.GetMoving()})
		if c.Output != "text" {
			return t, nil
		}
		said := t.Name + ": nothing to move"
		if n := res.Msg.GetMoving(); n == 1 {
			said = t.Name + ": 1 task is moved"
		} else if n > 1 {
			said = fmt.Sprintf("%s: %d tasks are moved", t.Name, n)
		}
		return t, s.print(said)
	})
	if c.Output != "text" {
		failed = errors.Join(failed, output.Value(s.Out, c.Output, ordered))
	}
	return errors.Join(failed, c.follow(ctx, s, targets))
}

// rebalanced is, for programs, what came of an order to rebalance a service.
type rebalanced struct {
	Service string `json:"service"`
	ID      string `json:"id"`
	Moving  uint32 `json:"moving"`
}
