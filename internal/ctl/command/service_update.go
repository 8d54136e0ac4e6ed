package command

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/alecthomas/kong"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/specflags"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// ServiceUpdate is `service update`.
type ServiceUpdate struct {
	specflags.Update
	imageFlags
	Rollback  bool    `help:"Go back to the revision before the current instead, as service rollback does."`
	DryRun    bool    `aliases:"plan" help:"Change nothing; show which fields would change and what would become of each task."`
	AtVersion *uint64 `help:"Fail where a user has changed the service since this version, which --dry-run tells." placeholder:"VERSION"`
	Output    string  `short:"o" enum:"table,wide,json,yaml" default:"table" help:"With --dry-run: table, wide, json or yaml." placeholder:"FORM"`
	LookOn
	Service string `arg:"" complete:"service" help:"Name, id or beginning of an id."`
}

// Help is the text below the usage line.
func (ServiceUpdate) Help() string {
	return `Only what is given changes. Tasks are replaced if what they are made of changes, one at a time unless the service's update flags say otherwise, and each must be good before the next; a rollout that fails goes back by itself. The exit code is 1 where it has gone back or is paused.

Examples:

    warrenctl service update web --image nginx:1.28 --env-add MODE=test --env-rm DEBUG
    warrenctl service update web --limit-memory 1g --dry-run`
}

// Run does it.
func (c *ServiceUpdate) Run(ctx context.Context, s *Session, parsed *kong.Context) error {
	if c.Rollback {
		if others := c.beside(parsed); len(others) > 0 {
			return failure.Usagef("--rollback goes back to what the service was and cannot go with %s", strings.Join(others, ", "))
		}
		return c.rollBack(ctx, s, c.Service, 0)
	}
	if c.Output != "table" && !c.DryRun {
		return failure.Usagef("--output goes with --dry-run")
	}
	if c.DryRun {
		return c.plan(ctx, s)
	}
	var was, written *warrenv1.Service
	changing := func() error {
		entry, err := s.service(ctx, c.Service)
		if err != nil {
			return err
		}
		was = entry.GetService()
		spec, err := c.changed(ctx, s, was)
		if err != nil {
			return err
		}
		if proto.Equal(spec, was.GetSpec()) {
			if !c.Quiet {
				s.Err.Printf("%s: nothing changes.", was.GetSpec().GetName())
			}
			written = was
			return nil
		}
		res, err := s.Services.UpdateService(ctx, connect.NewRequest(c.request(was, spec)))
		if err != nil {
			return err
		}
		s.warn(res.Msg.GetWarnings())
		written = res.Msg.GetService()
		return nil
	}
	var err error
	if c.AtVersion != nil { // then the user wants to know of what came between
		if err = changing(); connect.CodeOf(err) == connect.CodeAborted {
			return fmt.Errorf("service %s has been changed since version %d: look at --dry-run again", was.GetSpec().GetName(), *c.AtVersion)
		}
	} else {
		err = retry(changing)
	}
	if err != nil {
		return err
	}
	if err := s.print(written.GetSpec().GetName()); err != nil {
		return err
	}
	t := target(written)
	if written.GetRevision() != was.GetRevision() {
		t = rollingTarget(written)
	}
	return c.followPorts(ctx, s, t, written)
}

// changed returns the spec that a service is to have.
func (c *ServiceUpdate) changed(ctx context.Context, s *Session, was *warrenv1.Service) (*warrenv1.ServiceSpec, error) {
	spec := proto.CloneOf(was.GetSpec())
	if err := c.Apply(spec); err != nil {
		return nil, failure.AsUsage(err)
	}
	spec.Task.Container.Image = c.updated(ctx, s, c.Image, was.GetSpec().GetTask().GetContainer().GetImage(), c.Quiet)
	return spec, nil
}

func (c *ServiceUpdate) request(was *warrenv1.Service, spec *warrenv1.ServiceSpec) *warrenv1.UpdateServiceRequest {
	version := was.GetMeta().GetVersion()
	if c.AtVersion != nil {
		version = *c.AtVersion
	}
	return &warrenv1.UpdateServiceRequest{Ref: was.GetMeta().GetId(), Spec: spec, Version: version}
}

// plan shows what would come of it.
func (c *ServiceUpdate) plan(ctx context.Context, s *Session) error {
	entry, err := s.service(ctx, c.Service)
	if err != nil {
		return err
	}
	was := entry.GetService()
	spec, err := c.changed(ctx, s, was)
	if err != nil {
		return err
	}
	req := c.request(was, spec)
	req.DryRun = true
	res, err := s.Services.UpdateService(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	s.warn(res.Msg.GetWarnings())
	if c.Output == "json" || c.Output == "yaml" {
		return output.Document(s.Out, c.Output, res.Msg)
	}
	name, plan := was.GetSpec().GetName(), res.Msg.GetPlan()
	diff, err := view.Diff(s.Out, name+" as it is", name+" as it would be", was.GetSpec(), spec)
	if err != nil {
		return err
	}
	if diff == "" {
		diff = "No field changes.\n"
	}
	if _, err := fmt.Fprintln(s.Out, diff); err != nil {
		return err
	}
	if err := (output.ListFlags{Output: c.Output}).List(s.Out, view.Plan(name, plan)); err != nil {
		return err
	}
	revision := fmt.Sprintf("It would be of revision %d, as it is.", plan.GetRevision())
	if plan.GetRevision() != was.GetRevision() {
		revision = fmt.Sprintf("It would go from revision %d to %d.", was.GetRevision(), plan.GetRevision())
	}
	return s.print(fmt.Sprintf("\n%s: %s. %s\nNothing has been changed. To do this, and only this: the same with --at-version %d in place of --dry-run.",
		name, view.PlanCounts(plan), revision, plan.GetVersion()))
}

// beside returns the flags on the command line that --rollback cannot go with.
func (c *ServiceUpdate) beside(parsed *kong.Context) []string {
	may := []string{"rollback", "detach", "quiet", "monitor", "timeout", "context", "socket", "host"}
	var others []string
	for _, name := range slices.Sorted(maps.Keys(explicit(parsed))) {
		if !slices.Contains(may, name) {
			others = append(others, "--"+name)
		}
	}
	return others
}
