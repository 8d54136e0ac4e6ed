package command

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Cluster are the commands about the whole cluster.
type Cluster struct {
	Init   ClusterInit   `cmd:"" help:"Make this manager the first of a new cluster."`
	Info   ClusterInfo   `cmd:"" aliases:"inspect,describe,get,status" help:"Show the cluster and its managers."`
	Update ClusterUpdate `cmd:"" aliases:"set" help:"Change settings of the whole cluster."`
}

// clusterSettings are the flags that set what is true of the whole cluster.
type clusterSettings struct {
	Name              *string        `help:"Name of the cluster, shown to people." placeholder:"NAME"`
	HeartbeatInterval *time.Duration `help:"How often an agent says that it is alive (1s)." placeholder:"DURATION"`
	NodeGrace         *time.Duration `help:"Silence after which a node's tasks are replaced elsewhere (3.5s)." placeholder:"DURATION"`
	RestartGrace      *time.Duration `help:"The same for a node whose agent is being restarted (60s)." placeholder:"DURATION"`
	TaskHistory       *uint32        `help:"Ended tasks kept for each slot (5)." placeholder:"N"`
}

// apply writes what was given into spec.
func (c *clusterSettings) apply(spec *warrenv1.ClusterSpec) {
	if c.Name != nil {
		spec.Name = *c.Name
	}
	for _, d := range []struct {
		to    **durationpb.Duration
		given *time.Duration
	}{
		{&spec.HeartbeatInterval, c.HeartbeatInterval},
		{&spec.NodeGrace, c.NodeGrace},
		{&spec.RestartGrace, c.RestartGrace},
	} {
		if d.given != nil {
			*d.to = durationpb.New(*d.given)
		}
	}
	if c.TaskHistory != nil {
		spec.TaskHistory = c.TaskHistory
	}
}

// ClusterInit is `cluster init`.
type ClusterInit struct{ clusterSettings }

// Help is the text below the usage line.
func (ClusterInit) Help() string { return "Example:\n\n    warrenctl cluster init --name shop" }

// Run does it.
func (c *ClusterInit) Run(ctx context.Context, s *Session) error {
	spec := &warrenv1.ClusterSpec{}
	c.apply(spec)
	res, err := s.Client.Cluster.InitCluster(ctx, connect.NewRequest(&warrenv1.InitClusterRequest{Spec: spec}))
	if err != nil {
		return err
	}
	name := ""
	if n := res.Msg.GetCluster().GetSpec().GetName(); n != "" {
		name = " " + n
	}
	if err := s.print("Cluster" + name + " is made; this is its first manager."); err != nil {
		return err
	}
	if addr := res.Msg.GetAgentAddr(); addr != "" {
		return s.print("Agents reach it at " + addr + ".")
	}
	return s.print("It listens on its unix socket alone, so agents on other machines cannot reach it.")
}

// ClusterInfo is `cluster info`.
type ClusterInfo struct {
	Output string `short:"o" enum:"pretty,json,yaml" default:"pretty" help:"How to show it: pretty, json or yaml." placeholder:"FORM"`
	Format string `help:"Print it through a Go template, such as '{{.Nodes}}'." placeholder:"TEMPLATE"`
}

// Run does it.
func (c *ClusterInfo) Run(ctx context.Context, s *Session) error {
	res, err := s.Client.Cluster.GetCluster(ctx, connect.NewRequest(&warrenv1.GetClusterRequest{}))
	if err != nil {
		return err
	}
	return output.Inspect(output.InspectFlags{Output: c.Output, Format: c.Format}, s.Out, []*warrenv1.GetClusterResponse{res.Msg},
		func(r *warrenv1.GetClusterResponse) any { return r },
		func(r *warrenv1.GetClusterResponse) string { return view.Cluster(r, s.Now()) })
}

// ClusterUpdate is `cluster update`.
type ClusterUpdate struct{ clusterSettings }

// Help is the text below the usage line.
func (ClusterUpdate) Help() string {
	return "Example:\n\n    warrenctl cluster update --node-grace 10s"
}

// Run does it.
func (c *ClusterUpdate) Run(ctx context.Context, s *Session) error {
	if (c.clusterSettings == clusterSettings{}) {
		return failure.Usagef("nothing to change: give at least one of the settings")
	}
	var name string
	err := retry(func() error {
		res, err := s.Client.Cluster.GetCluster(ctx, connect.NewRequest(&warrenv1.GetClusterRequest{}))
		if err != nil {
			return err
		}
		was := res.Msg.GetCluster()
		spec := &warrenv1.ClusterSpec{}
		if was.GetSpec() != nil {
			spec = proto.CloneOf(was.GetSpec())
		}
		c.apply(spec)
		written, err := s.Client.Cluster.UpdateCluster(ctx, connect.NewRequest(&warrenv1.UpdateClusterRequest{Spec: spec, Version: was.GetMeta().GetVersion()}))
		if err != nil {
			return err
		}
		// The manager puts defaults in the place of what is empty.
		name = written.Msg.GetCluster().GetSpec().GetName()
		return nil
	})
	if err != nil {
		return err
	}
	return s.print(name)
}
