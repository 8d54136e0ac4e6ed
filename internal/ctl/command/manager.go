package command

import (
	"context"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Manager are the commands about managers.
type Manager struct {
	Ls ManagerLs `cmd:"" aliases:"list" help:"List managers."`
	Rm ManagerRm `cmd:"" aliases:"remove,delete,demote" help:"Take managers out of the cluster that are lost for good."`
}

// ManagerLs is `manager ls`.
type ManagerLs struct {
	output.ListFlags `set:"columns={{.Hostname}}: {{.Status}}"`
}

// Run does it.
func (c *ManagerLs) Run(ctx context.Context, s *Session) error {
	res, err := s.Client.Cluster.GetCluster(ctx, connect.NewRequest(&warrenv1.GetClusterRequest{}))
	if err != nil {
		return err
	}
	return c.List(s.Out, view.Managers(res.Msg.GetManagers(), s.Now()))
}

// ManagerRm is `manager rm`.
type ManagerRm struct {
	Force    bool     `short:"f" help:"Also one that is up, or without which the others cannot agree on anything."`
	Managers []string `arg:"" name:"manager" help:"Hostname, id or beginning of an id."`
}

// Help is the text below the usage line.
func (ManagerRm) Help() string {
	return "A manager that is up leaves by `warrenctl cluster leave` on its own machine. One that was taken out can join anew, once it has forgotten the cluster by `warrenctl cluster leave --force`."
}

// Run does it.
func (c *ManagerRm) Run(ctx context.Context, s *Session) error {
	return forEach(c.Managers, func(ref string) error {
		res, err := s.Members.DeleteManager(ctx, connect.NewRequest(&warrenv1.DeleteManagerRequest{Ref: ref, Force: c.Force}))
		if err != nil {
			return err
		}
		return s.print(res.Msg.GetId())
	})
}
