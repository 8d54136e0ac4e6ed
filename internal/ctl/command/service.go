package command

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/progress"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Service are the commands about services.
type Service struct {
	Create   ServiceCreate   `cmd:"" aliases:"run,add" help:"Create a service."`
	Ls       ServiceLs       `cmd:"" aliases:"list" help:"List services."`
	Ps       ServicePs       `cmd:"" aliases:"tasks" help:"List the tasks of services, with what went wrong."`
	Inspect  ServiceInspect  `cmd:"" aliases:"get" help:"Show all of services, as JSON."`
	Describe ServiceDescribe `cmd:"" help:"Show all of services, for people."`
	Update   ServiceUpdate   `cmd:"" aliases:"set" help:"Change a service."`
	Scale    ServiceScale    `cmd:"" help:"Change the number of replicas of services."`
	Logs     ServiceLogs     `cmd:"" aliases:"log" help:"Show what a service's tasks write."`

	Rollback  ServiceRollback  `cmd:"" aliases:"undo" help:"Go back to an earlier revision of a service."`
	History   ServiceHistory   `cmd:"" aliases:"revisions" help:"List the revisions that are kept of a service."`
	Diff      ServiceDiff      `cmd:"" help:"Show what changed between revisions of a service."`
	Pause     ServicePause     `cmd:"" help:"Have rollouts of services replace nothing more."`
	Resume    ServiceResume    `cmd:"" aliases:"continue,unpause" help:"Have rollouts go on that are paused."`
	Abort     ServiceAbort     `cmd:"" aliases:"cancel" help:"Take back the rollouts that are under way."`
	Promote   ServicePromote   `cmd:"" help:"Have canaries go on to the next step, and blue-green rollouts switch over."`
	Rebalance ServiceRebalance `cmd:"" help:"Move tasks of services from the nodes with most of them to those with least."`

	Rm ServiceRm `cmd:"" aliases:"remove,delete" help:"Remove services."`
}

// ServiceLs is `service ls`.
type ServiceLs struct {
	output.ListFlags `set:"columns={{.Name}}: {{.Replicas}}"`
	Filter           []string `sep:"none" help:"Only services with this id, name (its beginning), mode or label." placeholder:"KEY=VALUE"`
}

// Help is the text below the usage line.
func (ServiceLs) Help() string {
	return "Example:\n\n    warrenctl service ls --filter label=team=shop --format '{{.Name}} {{.Replicas}}'"
}

var serviceFilters = filters[*warrenv1.ServiceEntry]{
	"id": func(e *warrenv1.ServiceEntry, v string) bool {
		return strings.HasPrefix(e.GetService().GetMeta().GetId(), v)
	},
	"name": func(e *warrenv1.ServiceEntry, v string) bool {
		return strings.HasPrefix(e.GetService().GetSpec().GetName(), v)
	},
	"mode": func(e *warrenv1.ServiceEntry, v string) bool {
		return strings.EqualFold(view.Mode(e.GetService().GetSpec()), v)
	},
	"label": func(e *warrenv1.ServiceEntry, v string) bool {
		return hasLabel(e.GetService().GetSpec().GetLabels(), v)
	},
}

var serviceWords = filterWords{"mode": {"replicated", "global"}}

// Run does it.
func (c *ServiceLs) Run(ctx context.Context, s *Session) error {
	entries, err := s.ListServices(ctx)
	if err != nil {
		return err
	}
	if entries, err = serviceFilters.apply(entries, c.Filter, serviceWords); err != nil {
		return err
	}
	return c.List(s.Out, view.Services(entries, s.Now()))
}

// ServicePs is `service ps`.
type ServicePs struct {
	Services []string `arg:"" name:"service" complete:"service" help:"Name, id or beginning of an id."`
	taskList
}

// Help is the text below the usage line.
func (ServicePs) Help() string {
	return "The tasks of one slot stand together, the newest first. Tasks that have ended are kept for a while.\n\n" +
		"Example:\n\n    warrenctl service ps web --no-trunc"
}

// Run does it.
func (c *ServicePs) Run(ctx context.Context, s *Session) error {
	perService, failed := collect(c.Services, func(ref string) ([]*warrenv1.TaskEntry, error) {
		return s.ListTasks(ctx, ref, "", c.runningOnly())
	})
	return c.show(s, perService, failed)
}

// ServiceInspect is `service inspect`.
type ServiceInspect struct {
	output.InspectFlags
	Services []string `arg:"" name:"service" complete:"service" help:"Name, id or beginning of an id."`
}

// Help is the text below the usage line.
func (ServiceInspect) Help() string {
	return "Example:\n\n    warrenctl service inspect web --format '{{.Spec.Task.Container.Image}}'"
}

// Run does it.
func (c *ServiceInspect) Run(ctx context.Context, s *Session) error {
	return inspectServices(ctx, s, c.InspectFlags, c.Services)
}

// ServiceDescribe is `service describe`.
type ServiceDescribe struct {
	output.DescribeFlags
	Services []string `arg:"" name:"service" complete:"service" help:"Name, id or beginning of an id."`
}

// Run does it.
func (c *ServiceDescribe) Run(ctx context.Context, s *Session) error {
	return inspectServices(ctx, s, c.Inspect(), c.Services)
}

func inspectServices(ctx context.Context, s *Session, f output.InspectFlags, refs []string) error {
	entries, failed := collect(refs, func(ref string) (*warrenv1.ServiceEntry, error) { return s.service(ctx, ref) })
	if len(entries) == 0 {
		return failed
	}
	// What templates see has the service's own fields at hand, as Docker's has.
	type subject struct {
		*warrenv1.Service
		Progress *warrenv1.ServiceProgress
	}
	err := output.Inspect(f, s.Out, entries,
		func(e *warrenv1.ServiceEntry) any { return subject{e.GetService(), e.GetProgress()} },
		func(e *warrenv1.ServiceEntry) string { return view.Service(e, s.taken(ctx, e.GetService()), s.Now()) })
	return errors.Join(failed, err)
}

// taken says which ports of a service's lead elsewhere on some nodes. It is only to be shown along: where it cannot
// be had it is left out.
func (s *Session) taken(ctx context.Context, svc *warrenv1.Service) []string {
	if !view.Publishes(svc) {
		return nil
	}
	nodes, err := s.ListNodes(ctx)
	if err != nil {
		return nil
	}
	return view.Taken(svc, nodes)
}

// warnOfPorts tells what a service, once it is there, was not given of what it publishes.
func (s *Session) warnOfPorts(ctx context.Context, svc *warrenv1.Service) {
	if !view.Publishes(svc) {
		return
	}
	if e, err := s.service(ctx, svc.GetMeta().GetId()); err == nil {
		s.warn(e.GetService().GetEndpoint().GetProblems())
		for _, port := range s.taken(ctx, e.GetService()) {
			s.warn([]string{"a published port is taken: " + port + ", so that it leads there and not to " + e.GetService().GetSpec().GetName()})
		}
	}
}

func (s *Session) service(ctx context.Context, ref string) (*warrenv1.ServiceEntry, error) {
	res, err := s.Services.GetService(ctx, connect.NewRequest(&warrenv1.GetServiceRequest{Ref: ref}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetEntry(), nil
}

// ServiceScale is `service scale`.
type ServiceScale struct {
	LookOn
	Orders []string `arg:"" name:"service=replicas" complete:"service" help:"Service and its number of replicas, such as web=3."`
}

// Help is the text below the usage line.
func (ServiceScale) Help() string { return "Example:\n\n    warrenctl service scale web=3 api=2" }

// Run does it.
func (c *ServiceScale) Run(ctx context.Context, s *Session) error {
	// Nothing is ordered unless all of it can be understood.
	replicas := make(map[string]uint32, len(c.Orders))
	refs := make([]string, 0, len(c.Orders))
	for _, order := range c.Orders {
		ref, number, ok := strings.Cut(order, "=")
		n, err := strconv.ParseUint(number, 10, 32)
		if !ok || ref == "" || err != nil {
			return failure.Usagef("%q is not SERVICE=REPLICAS, such as web=3", order)
		}
		if _, twice := replicas[ref]; twice {
			return failure.Usagef("%s is given twice", ref)
		}
		replicas[ref] = uint32(n)
		refs = append(refs, ref)
	}
	targets, failed := collect(refs, func(ref string) (progress.Target, error) {
		res, err := s.Services.ScaleService(ctx, connect.NewRequest(&warrenv1.ScaleServiceRequest{Ref: ref, Replicas: replicas[ref]}))
		if err != nil {
			return progress.Target{}, err
		}
		t := target(res.Msg.GetService())
		return t, s.print(t.Name + " scaled to " + strconv.FormatUint(uint64(replicas[ref]), 10))
	})
	return errors.Join(failed, c.follow(ctx, s, targets))
}

// ServiceRm is `service rm`.
type ServiceRm struct {
	LookOn
	Services []string `arg:"" name:"service" complete:"service" help:"Name, id or beginning of an id."`
}

// Help is the text below the usage line.
func (ServiceRm) Help() string { return "Example:\n\n    warrenctl service rm web api" }

// Run does it.
func (c *ServiceRm) Run(ctx context.Context, s *Session) error {
	targets, failed := collect(c.Services, func(ref string) (progress.Target, error) {
		res, err := s.Services.DeleteService(ctx, connect.NewRequest(&warrenv1.DeleteServiceRequest{Ref: ref}))
		if err != nil {
			return progress.Target{}, err
		}
		t := target(res.Msg.GetService())
		t.Removal = true
		return t, s.print(t.Name)
	})
	return errors.Join(failed, c.follow(ctx, s, targets))
}

// target is a service as it was written, to be looked on.
func target(svc *warrenv1.Service) progress.Target {
	return progress.Target{Name: svc.GetSpec().GetName(), ID: svc.GetMeta().GetId(), Version: svc.GetMeta().GetVersion()}
}
