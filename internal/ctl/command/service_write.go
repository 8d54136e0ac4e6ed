package command

import (
	"context"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/alecthomas/kong"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/progress"
	"github.com/cuemby/warren/internal/ctl/specflags"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// ServiceCreate is `service create`.
type ServiceCreate struct {
	specflags.Create
	LookOn
	// One list, so that flags end at the image: what follows it is the container's.
	Words []string `arg:"" name:"image" passthrough:"partial" help:"Image, then arguments in place of its own; flags come before it."`
}

// Help is the text below the usage line.
func (ServiceCreate) Help() string {
	return `The id of the service is printed on standard output, progress on standard error. Ctrl-C ends the looking on, not the work.

Example:

    warrenctl service create --name web --replicas 3 --limit-memory 256m --env MODE=prod nginx:1.27`
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
	spec, err := c.Spec(image, args)
	if err != nil {
		return failure.AsUsage(err)
	}
	if len(args) > 0 && isFlag(parsed, args[0]) {
		s.warn([]string{args[0] + " comes after the image and so goes to the container as an argument; if it was meant for warrenctl, put it before " + image})
	}

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
	return c.followPorts(ctx, s, res.GetService())
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

// ServiceUpdate is `service update`.
type ServiceUpdate struct {
	specflags.Update
	LookOn
	Service string `arg:"" complete:"service" help:"Name, id or beginning of an id."`
}

// Help is the text below the usage line.
func (ServiceUpdate) Help() string {
	return `Only what is given changes. Tasks are replaced if what they are made of changes, one at a time unless the service's update flags say otherwise.

Example:

    warrenctl service update web --image nginx:1.28 --env-add MODE=test --env-rm DEBUG`
}

// Run does it.
func (c *ServiceUpdate) Run(ctx context.Context, s *Session) error {
	var written *warrenv1.Service
	err := retry(func() error {
		entry, err := s.service(ctx, c.Service)
		if err != nil {
			return err
		}
		was := entry.GetService()
		spec := proto.CloneOf(was.GetSpec())
		if err := c.Apply(spec); err != nil {
			return failure.AsUsage(err)
		}
		if proto.Equal(spec, was.GetSpec()) {
			if !c.Quiet {
				s.Err.Printf("%s: nothing changes.", was.GetSpec().GetName())
			}
			written = was
			return nil
		}
		res, err := s.Services.UpdateService(ctx, connect.NewRequest(&warrenv1.UpdateServiceRequest{
			Ref: was.GetMeta().GetId(), Spec: spec, Version: was.GetMeta().GetVersion(),
		}))
		if err != nil {
			return err
		}
		s.warn(res.Msg.GetWarnings())
		written = res.Msg.GetService()
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.print(written.GetSpec().GetName()); err != nil {
		return err
	}
	return c.followPorts(ctx, s, written)
}

// followPorts looks on until a service is there, and then at its ports.
func (l LookOn) followPorts(ctx context.Context, s *Session, svc *warrenv1.Service) error {
	if err := l.follow(ctx, s, []progress.Target{target(svc)}); err != nil || l.Detach {
		return err
	}
	s.warnOfPorts(ctx, svc)
	return nil
}
