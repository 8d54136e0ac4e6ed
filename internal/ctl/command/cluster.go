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

	JoinToken ClusterJoinToken `cmd:"" help:"Show what to type on a machine that is to join."`
	Join      ClusterJoin      `cmd:"" help:"Make this machine a member of a cluster."`
	Leave     ClusterLeave     `cmd:"" help:"Have this machine leave its cluster."`
	Unlock    ClusterUnlock    `cmd:"" help:"Unlock this manager after a restart, in a cluster with autolock."`
	UnlockKey ClusterUnlockKey `cmd:"" help:"Show the key that unlocks managers, or make a new one."`
	Backup    ClusterBackup    `cmd:"" help:"Save the whole cluster in a file, or check such a file."`
	Restore   ClusterRestore   `cmd:"" help:"Make this manager the only one of the cluster of a backup."`
	Recover   ClusterRecover   `cmd:"" help:"Make this manager the only one of its cluster, after most were lost."`
	Ca        ClusterCA        `cmd:"" help:"The certificate authority, by which members know each other."`
}

// clusterSettings are the flags that set what is true of the whole cluster.
type clusterSettings struct {
	Name              *string        `help:"Name of the cluster, shown to people." placeholder:"NAME"`
	HeartbeatInterval *time.Duration `help:"How often an agent says that it is alive (1s)." placeholder:"DURATION"`
	NodeGrace         *time.Duration `help:"Silence after which a node's tasks are replaced elsewhere (3.5s)." placeholder:"DURATION"`
	RestartGrace      *time.Duration `help:"The same for a node whose agent is being restarted (60s)." placeholder:"DURATION"`
	CertificateLife   *time.Duration `help:"How long members' certificates are good; they renew themselves past half of it (720h)." placeholder:"DURATION"`
	KeyLife           *time.Duration `help:"How long nodes keep their WireGuard keys before they draw others (720h)." placeholder:"DURATION"`
	TaskHistory       *uint32        `help:"Ended tasks kept for each slot (5)." placeholder:"N"`
	Autolock          *bool          `help:"Seal the managers' keys on their disks: after a restart they ask for an unlock key (false)."`
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
		{&spec.CertificateLife, c.CertificateLife},
	} {
		if d.given != nil {
			*d.to = durationpb.New(*d.given)
		}
	}
	if c.KeyLife != nil {
		if spec.Network == nil {
			spec.Network = &warrenv1.ClusterNetwork{}
		}
		spec.Network.KeyLife = durationpb.New(*c.KeyLife)
	}
	if c.TaskHistory != nil {
		spec.TaskHistory = c.TaskHistory
	}
	if c.Autolock != nil {
		spec.Autolock = *c.Autolock
	}
}

// ClusterInit is `cluster init`.
type ClusterInit struct {
	clusterSettings
	AdvertiseAddr string `help:"Under what address others reach this manager. Default: as it is configured, or this machine's first." placeholder:"HOST:PORT"`
	ListenAddr    string `help:"Where this manager listens from now on. Default: as it is configured (:7420)." placeholder:"HOST:PORT"`

	NodeRange     string `group:"Network" help:"Addresses of nodes and tasks, cut into a subnet for each node; for good (10.208.0.0/12)." placeholder:"ADDRESS/LENGTH"`
	NodePrefix    uint32 `group:"Network" help:"Length of the prefix of a node's subnet; for good (24, for 253 tasks)." placeholder:"LENGTH"`
	VipRange      string `name:"vip-range" group:"Network" help:"Addresses of services; for good (10.224.0.0/16)." placeholder:"ADDRESS/LENGTH"`
	WireguardPort uint16 `name:"wireguard-port" group:"Network" help:"UDP port where nodes take the overlay's packets (7421)." placeholder:"PORT"`
}

// Help is the text below the usage line.
func (ClusterInit) Help() string {
	return "Example:\n\n    warrenctl cluster init --name shop --node-range 172.24.0.0/14"
}

// Run does it.
func (c *ClusterInit) Run(ctx context.Context, s *Session) error {
	spec := &warrenv1.ClusterSpec{Network: &warrenv1.ClusterNetwork{
		NodeRange: c.NodeRange, NodePrefix: c.NodePrefix, VipRange: c.VipRange, WireguardPort: uint32(c.WireguardPort),
	}}
	c.apply(spec)
	res, err := s.Client.Cluster.InitCluster(ctx, connect.NewRequest(&warrenv1.InitClusterRequest{
		Spec: spec, AdvertiseAddr: c.AdvertiseAddr, ListenAddr: c.ListenAddr,
	}))
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
	if key := res.Msg.GetUnlockKey(); key != "" {
		if err := s.printUnlockKey(key); err != nil {
			return err
		}
	}
	if addr := res.Msg.GetAgentAddr(); addr != "" {
		if err := s.print("Agents reach it at " + addr + "."); err != nil {
			return err
		}
		return s.sayHowToJoin(ctx)
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
	if err := s.print(name); err != nil || c.Autolock == nil || !*c.Autolock {
		return err
	}
	res, err := s.Trust.GetUnlockKey(ctx, connect.NewRequest(&warrenv1.GetUnlockKeyRequest{}))
	if err != nil {
		return err
	}
	return s.printUnlockKey(res.Msg.GetKey())
}
