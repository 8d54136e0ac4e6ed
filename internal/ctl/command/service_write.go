package command

import (
	"context"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/progress"
	"github.com/cuemby/warren/internal/ctl/specflags"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// ServiceCreate is `service create`.
type ServiceCreate struct {
	specflags.Create
	imageFlags
	LookOn
	// One list, so that flags end at the image: what follows it is the container's.
	Words []string `arg:"" name:"image" passthrough:"partial" help:"Image, then arguments in place of its own; flags come before it."`
}

// Help is the text below the usage line.
func (ServiceCreate) Help() string {
	return `The id of the service is printed on standard output, progress on standard error. Ctrl-C ends the looking on, not the work.

Examples:

    warrenctl service create --name web --replicas 3 --limit-memory 256m --env MODE=prod nginx:1.27
    warrenctl service create --name api -p 8080:80 --health-http 80/healthz --update-strategy canary --update-canary 10,50:5m api:4`
}

// Run does it.
func (c *ServiceCreate) Run(ctx context.Context, s *Session, parsed *kong.Context) error {
	words := c.Words
	if words[0] == "--" {
		if words = words[1:]; len(words) == 0 {
			return failure.Usagef("the image is missing")
		}
	}
	image, args := words[0], words[1:]
	if image == "" {
		return failure.Usagef("the image is empty")
	}
	spec, err := c.Spec(image, args)
	if err != nil {
		return failure.AsUsage(err)
	}
	if len(args) > 0 && isFlag(parsed, args[0]) {
		s.warn([]string{args[0] + " comes after the image and so goes to the container as an argument; if it was meant for warrenctl, put it before " + image})
	}

	spec.Task.Container.Image, _ = c.resolve(ctx, s, image, c.Quiet)
	res, err := c.create(ctx, s, spec)
	if err != nil {
		return err
	}
	if c.Name == "" && !c.Quiet {
		s.Err.Printf("The service is called %s, after its image; --name gives another name.", res.GetService().GetSpec().GetName())
	}
	s.warn(res.GetWarnings())
	if err := s.print(res.GetService().GetMeta().GetId()); err != nil {
		return err
	}
	return c.followPorts(ctx, s, target(res.GetService()), res.GetService())
}

// namesTried bounds the search for a name that is not taken.
const namesTried = 100

// create calls the manager. A service without a name gets one from its image, with the first number
// that makes it free.
func (c *ServiceCreate) create(ctx context.Context, s *Session, spec *warrenv1.ServiceSpec) (*warrenv1.CreateServiceResponse, error) {
	for n := 1; ; n++ {
		if c.Name == "" {
			spec.Name = specflags.NameFor(spec.GetTask().GetContainer().GetImage(), n)
		}
		res, err := s.Services.CreateService(ctx, connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: spec}))
		if c.Name == "" && connect.CodeOf(err) == connect.CodeAlreadyExists && n < namesTried {
			continue
		}
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
}

// isFlag tells whether a word is one of the command's own flags.
func isFlag(parsed *kong.Context, word string) bool {
	name, long := strings.CutPrefix(word, "--")
	name, _, _ = strings.Cut(name, "=")
	return long && slices.ContainsFunc(parsed.Flags(), func(f *kong.Flag) bool { return f.Name == name })
}

// followPorts looks on until a service is there, and then at its ports.
func (l LookOn) followPorts(ctx context.Context, s *Session, t progress.Target, svc *warrenv1.Service) error {
	if err := l.follow(ctx, s, []progress.Target{t}); err != nil || l.Detach {
		return err
	}
	s.warnOfPorts(ctx, svc)
	return nil
}
