package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/ctl/contexts"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// User are the commands about who may use the cluster from elsewhere.
type User struct {
	Create UserCreate `cmd:"" aliases:"add" help:"Admit a user: make a key and a certificate, in a context file."`
	Ls     UserLs     `cmd:"" aliases:"list" help:"List users."`
	Rm     UserRm     `cmd:"" aliases:"remove,delete" help:"End users' access at once."`
}

// UserCreate is `user create`.
type UserCreate struct {
	Role        string         `required:"" enum:"admin,operator,viewer" help:"admin (all), operator (runs services) or viewer (reads)." placeholder:"ROLE"`
	TTL         *time.Duration `name:"ttl" help:"How long a certificate is good (1y); warrenctl renews it while it is used." placeholder:"DURATION"`
	ContextFile string         `short:"o" aliases:"output" help:"File to write, - for standard output (NAME.context.yaml)." placeholder:"FILE"`
	Force       bool           `short:"f" help:"Replace the file if it is there."`
	Name        string         `arg:"" help:"Name of a person or a program."`
}

// Help is the text below the usage line.
func (UserCreate) Help() string {
	return "The private key is made here and goes into the file alone, which only you may read. Hand it over safely: " +
		"whoever has it is that user.\n\nExample:\n\n    warrenctl user create ci --role operator --ttl 90d -o ci.yaml"
}

// Run does it.
func (c *UserCreate) Run(ctx context.Context, s *Session) error {
	path := c.ContextFile
	if path == "" {
		path = c.Name + ".context.yaml"
	}
	write := func(made *contexts.Context) error {
		text, err := made.Encode()
		if err == nil {
			_, err = s.Out.Write(text)
		}
		return err
	}
	if path != "-" {
		if c.ContextFile == "" && strings.ContainsAny(c.Name, `/\`) {
			return failure.Usagef("%q cannot be the name of a user", c.Name)
		}
		draft, err := contexts.NewDraft(path, c.Force)
		if err != nil {
			return err
		}
		defer draft.Discard()
		write = draft.Commit
	}
	made, err := c.create(ctx, s)
	if err != nil {
		return err
	}
	if err := write(made); err != nil {
		return fmt.Errorf("user %s is made, but its context is lost: %w: run `warrenctl user rm %s` and try again", c.Name, err, c.Name)
	}
	if path == "-" {
		return nil
	}
	s.Err.Printf("%s lets whoever has it be %s %s. There: warrenctl context import --use %s", path, c.Role, c.Name, path)
	return s.print(c.Name)
}

// create has the managers admit the user and returns the context.
func (c *UserCreate) create(ctx context.Context, s *Session) (*contexts.Context, error) {
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	asked, err := pki.NewRequest(key, s.Now())
	if err != nil {
		return nil, err
	}
	role, err := pki.ParseRole(c.Role)
	if err != nil {
		return nil, failure.AsUsage(err)
	}
	req := &warrenv1.CreateUserRequest{Name: c.Name, Role: role, Certificate: asked}
	if c.TTL != nil {
		req.Life = durationpb.New(*c.TTL)
	}
	res, err := s.Users.CreateUser(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	undo := fmt.Sprintf("`warrenctl user rm %s` undoes it", c.Name)
	if len(res.Msg.GetManagers()) == 0 {
		return nil, fmt.Errorf("user %s is made, but no manager listens on an address where it could be reached: %s", c.Name, undo)
	}
	credentials, err := pki.New(key, res.Msg.GetCertificate(), res.Msg.GetRoots(), nil)
	if err != nil {
		return nil, fmt.Errorf("user %s is made, but its certificate is of no use: %w: %s", c.Name, err, undo)
	}
	return &contexts.Context{ClusterName: res.Msg.GetClusterName(), Managers: res.Msg.GetManagers(), Credentials: credentials}, nil
}

// UserLs is `user ls`.
type UserLs struct {
	output.ListFlags `set:"columns={{.Name}}: {{.Role}}"`
	Filter           []string `sep:"none" help:"Only users with this name (its beginning) or role." placeholder:"KEY=VALUE"`
}

var userFilters = filters[*warrenv1.User]{
	"name": func(u *warrenv1.User, v string) bool { return strings.HasPrefix(u.GetMeta().GetId(), v) },
	"role": func(u *warrenv1.User, v string) bool { return strings.EqualFold(pki.RoleName(u.GetRole()), v) },
}

// Run does it.
func (c *UserLs) Run(ctx context.Context, s *Session) error {
	res, err := s.Users.ListUsers(ctx, connect.NewRequest(&warrenv1.ListUsersRequest{}))
	if err != nil {
		return err
	}
	users, err := userFilters.apply(res.Msg.GetUsers(), c.Filter, nil)
	if err != nil {
		return err
	}
	return c.List(s.Out, view.Users(users, s.Now()))
}

// UserRm is `user rm`.
type UserRm struct {
	Users []string `arg:"" name:"user" complete:"user" help:"Names of users."`
}

// Help is the text below the usage line.
func (UserRm) Help() string { return "Their certificates are worth nothing from then on." }

// Run does it.
func (c *UserRm) Run(ctx context.Context, s *Session) error {
	return forEach(c.Users, func(name string) error {
		res, err := s.Users.DeleteUser(ctx, connect.NewRequest(&warrenv1.DeleteUserRequest{Name: name}))
		if err != nil {
			return err
		}
		return s.print(res.Msg.GetUser().GetMeta().GetId())
	})
}
