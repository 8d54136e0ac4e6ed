package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Network are the commands about networks.
type Network struct {
	Create   NetworkCreate   `cmd:"" aliases:"add" help:"Create a network."`
	Ls       NetworkLs       `cmd:"" aliases:"list" help:"List networks."`
	Inspect  NetworkInspect  `cmd:"" aliases:"get" help:"Show all of networks, as JSON."`
	Describe NetworkDescribe `cmd:"" help:"Show all of networks, for people."`
	Check    NetworkCheck    `cmd:"" aliases:"ping" help:"Have every node ping every other over the overlay."`
	Rm       NetworkRm       `cmd:"" aliases:"remove,delete" help:"Remove networks that no service is on."`
}

// NetworkCreate is `network create`.
type NetworkCreate struct {
	Label  []string `short:"l" sep:"none" help:"Label of the network." placeholder:"KEY=VALUE"`
	Driver string   `short:"d" default:"overlay" help:"overlay: there is no other." placeholder:"DRIVER"`
	Name   string   `arg:"" help:"Name: letters, digits and -, in lower case."`

	// What Docker's users try.
	Attachable bool     `hidden:""`
	Ingress    bool     `hidden:""`
	Internal   bool     `hidden:""`
	IPv6       bool     `name:"ipv6" hidden:""`
	Subnet     []string `hidden:"" sep:"none"`
	Gateway    []string `hidden:"" sep:"none"`
	IPRange    []string `name:"ip-range" hidden:"" sep:"none"`
	IPAMDriver string   `name:"ipam-driver" hidden:""`
	Scope      string   `hidden:""`
	Opt        []string `short:"o" hidden:"" sep:"none"`
}

// Help is the text below the usage line.
func (NetworkCreate) Help() string {
	return "Services reach each other if they share a network; those that name none are on the network default.\n\n" +
		"Example:\n\n    warrenctl network create shop\n    warrenctl service create --name db --network shop postgres:17"
}

var networkName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// refuse explains flags of Docker's that have nothing to set.
func (c *NetworkCreate) refuse() error {
	switch {
	case c.Driver != "overlay":
		return failure.Usagef("--driver %s: every network is an overlay; for the node's own network use `warrenctl service create --network host`", c.Driver)
	case len(c.Subnet)+len(c.Gateway)+len(c.IPRange) > 0 || c.IPAMDriver != "":
		return failure.Usagef("--subnet, --gateway, --ip-range and --ipam-driver: addresses come from the cluster's ranges, which `warrenctl cluster init --node-range --vip-range` sets; a network is a group of services and has none of its own")
	case len(c.Opt) > 0:
		return failure.Usagef("--opt %s: there are no options: all that leaves a machine is encrypted, and the MTU is worked out", c.Opt[0])
	case c.Attachable:
		return failure.Usagef("--attachable: only tasks of services can be on a network")
	case c.Ingress:
		return failure.Usagef("--ingress: ports are published without a network of their own")
	case c.Internal:
		return failure.Usagef("--internal: a network does not keep its services from the outside; rules in the chain WARREN-USER of a node can")
	case c.IPv6:
		return failure.Usagef("--ipv6: addresses inside the cluster are IPv4, whatever lies below")
	case c.Scope != "":
		return failure.Usagef("--scope: every network is the whole cluster's")
	case c.Name == "host", c.Name == "none":
		return failure.Usagef("%s cannot name a network, as `--network %s` means that a service is on none: choose another name", c.Name, c.Name)
	case !networkName.MatchString(c.Name):
		return failure.Usagef("%q cannot name a network: it must be a DNS label: 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit", c.Name)
	}
	return nil
}

// Run does it.
func (c *NetworkCreate) Run(ctx context.Context, s *Session) error {
	if err := c.refuse(); err != nil {
		return err
	}
	spec := &warrenv1.NetworkSpec{Name: c.Name}
	for _, l := range c.Label {
		key, value, _ := strings.Cut(l, "=")
		if key == "" {
			return failure.Usagef("--label: %q is not KEY=VALUE", l)
		}
		if spec.Labels == nil {
			spec.Labels = map[string]string{}
		}
		spec.Labels[key] = value
	}
	res, err := s.Networks.CreateNetwork(ctx, connect.NewRequest(&warrenv1.CreateNetworkRequest{Spec: spec}))
	if err != nil {
		return err
	}
	return s.print(res.Msg.GetNetwork().GetSpec().GetName())
}

// NetworkLs is `network ls`.
type NetworkLs struct {
	output.ListFlags `set:"columns={{.Name}}: {{.Services}}"`
	Filter           []string `sep:"none" help:"Only networks with this name (its beginning) or label." placeholder:"KEY=VALUE"`
}

var networkFilters = filters[*warrenv1.NetworkEntry]{
	"id": func(e *warrenv1.NetworkEntry, v string) bool {
		return strings.HasPrefix(e.GetNetwork().GetMeta().GetId(), v)
	},
	"name": func(e *warrenv1.NetworkEntry, v string) bool {
		return strings.HasPrefix(e.GetNetwork().GetSpec().GetName(), v)
	},
	"label": func(e *warrenv1.NetworkEntry, v string) bool {
		return hasLabel(e.GetNetwork().GetSpec().GetLabels(), v)
	},
}

// Run does it.
func (c *NetworkLs) Run(ctx context.Context, s *Session) error {
	entries, err := s.ListNetworks(ctx)
	if err != nil {
		return err
	}
	if entries, err = networkFilters.apply(entries, c.Filter, nil); err != nil {
		return err
	}
	return c.List(s.Out, view.Networks(entries, s.Now()))
}

// NetworkInspect is `network inspect`.
type NetworkInspect struct {
	output.InspectFlags
	Networks []string `arg:"" name:"network" complete:"network" help:"Name."`
}

// Run does it.
func (c *NetworkInspect) Run(ctx context.Context, s *Session) error {
	return inspectNetworks(ctx, s, c.InspectFlags, c.Networks)
}

// NetworkDescribe is `network describe`.
type NetworkDescribe struct {
	output.DescribeFlags
	Networks []string `arg:"" name:"network" complete:"network" help:"Name."`
}

// Run does it.
func (c *NetworkDescribe) Run(ctx context.Context, s *Session) error {
	return inspectNetworks(ctx, s, c.Inspect(), c.Networks)
}

func inspectNetworks(ctx context.Context, s *Session, f output.InspectFlags, refs []string) error {
	entries, failed := collect(refs, func(ref string) (*warrenv1.NetworkEntry, error) {
		res, err := s.Networks.GetNetwork(ctx, connect.NewRequest(&warrenv1.GetNetworkRequest{Ref: ref}))
		if err != nil {
			return nil, err
		}
		return res.Msg.GetEntry(), nil
	})
	if len(entries) == 0 {
		return failed
	}
	// What templates see has the network's own fields at hand, and its name and labels where Docker's has them.
	type subject struct {
		*warrenv1.Network
		Name     string
		Labels   map[string]string
		Services []string
	}
	err := output.Inspect(f, s.Out, entries,
		func(e *warrenv1.NetworkEntry) any {
			spec := e.GetNetwork().GetSpec()
			return subject{e.GetNetwork(), spec.GetName(), spec.GetLabels(), e.GetServices()}
		},
		func(e *warrenv1.NetworkEntry) string { return view.Network(e, s.Now()) })
	return errors.Join(failed, err)
}

// NetworkRm is `network rm`.
type NetworkRm struct {
	Networks []string `arg:"" name:"network" complete:"network" help:"Name."`
}

// Run does it.
func (c *NetworkRm) Run(ctx context.Context, s *Session) error {
	return forEach(c.Networks, func(ref string) error {
		res, err := s.Networks.DeleteNetwork(ctx, connect.NewRequest(&warrenv1.DeleteNetworkRequest{Ref: ref}))
		if err != nil {
			return err
		}
		return s.print(res.Msg.GetNetwork().GetSpec().GetName())
	})
}

// NetworkCheck is `network check`.
type NetworkCheck struct {
	Count  uint32   `short:"c" default:"3" help:"Pings of each pair (${default}, at most 100)." placeholder:"N"`
	Output string   `short:"o" enum:"table,wide,json,yaml" default:"table" help:"How to show it: table (of 16 nodes at the most a matrix, of more what is not whole), wide (every pair in a line), json or yaml." placeholder:"FORM"`
	Format string   `help:"Print each pair through a Go template over the columns of -o wide, such as '{{.From}} {{.To}} {{.Average}}'." placeholder:"TEMPLATE"`
	Quiet  bool     `short:"q" help:"Print nothing but errors: the exit code tells."`
	Nodes  []string `arg:"" optional:"" name:"node" complete:"node" help:"Nodes to check between; of one, between it and all others. Default: all that are ready."`
}

// Help is the text below the usage line.
func (NetworkCheck) Help() string {
	return "The exit code is 1 where anything does not come through at all, or a node could not be asked. Loss of some pings alone is shown. " +
		"Nodes that are not ready are left out, with a warning, unless they are named.\n\n" +
		"Example:\n\n    warrenctl network check\n    warrenctl network check n1 n2 --count 20 -o wide"
}

// Run does it.
func (c *NetworkCheck) Run(ctx context.Context, s *Session) error {
	if c.Count == 0 || c.Count > 100 {
		return failure.Usagef("--count can be from 1 to 100")
	}
	rows, err := c.gather(ctx, s)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return errors.New("no node is ready, so there is nothing to check: `warrenctl node ls` shows how they are")
	}
	check := view.NewCheck(rows)
	if err := c.show(s, check); err != nil {
		return err
	}
	if len(c.Nodes) <= 1 && !c.Quiet {
		c.sayWhoIsLeftOut(ctx, s, rows)
	}
	if holes := check.Holes(); len(holes) > 0 {
		return errors.New("the overlay has holes: " + strings.Join(holes, "; "))
	}
	return nil
}

// gather waits for all rows, and says on a terminal how many there are.
func (c *NetworkCheck) gather(ctx context.Context, s *Session) ([]*warrenv1.CheckNetworkResponse, error) {
	stream, err := s.Networks.CheckNetwork(ctx, connect.NewRequest(&warrenv1.CheckNetworkRequest{Count: c.Count, Nodes: c.Nodes}))
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }()
	var expected int
	var rows []*warrenv1.CheckNetworkResponse
	for first := true; stream.Receive(); first = false {
		if first {
			expected = int(stream.Msg().GetRows())
		} else {
			rows = append(rows, stream.Msg())
		}
		if !c.Quiet {
			s.Err.Redraw(fmt.Sprintf("%d of %d nodes have answered", len(rows), expected))
		}
	}
	if !c.Quiet {
		s.Err.Redraw("")
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if len(rows) < expected {
		return nil, errors.New("the manager ended the check before all nodes had answered: try again")
	}
	return rows, nil
}

// sayWhoIsLeftOut names the nodes that were not checked as they are not ready: what is shown is no word on them.
func (c *NetworkCheck) sayWhoIsLeftOut(ctx context.Context, s *Session, rows []*warrenv1.CheckNetworkResponse) {
	nodes, err := s.ListNodes(ctx)
	if err != nil {
		return // the check itself is done and shown
	}
	checked := map[string]bool{}
	for _, row := range rows {
		checked[row.GetNodeId()] = true
	}
	var out []string
	for _, e := range nodes {
		if n := e.GetNode(); !checked[n.GetMeta().GetId()] && n.GetStatus().GetState() != warrenv1.NodeState_NODE_STATE_READY {
			out = append(out, fmt.Sprintf("%s (%s)", cmp.Or(n.GetFacts().GetHostname(), view.ShortID(n.GetMeta().GetId())), view.NodeState(n.GetStatus().GetState())))
		}
	}
	if len(out) > 0 {
		s.warn([]string{"not checked, as they are not ready: " + strings.Join(out, ", ")})
	}
}

func (c *NetworkCheck) show(s *Session, check view.Check) error {
	switch {
	case c.Quiet:
		return nil
	case c.Format != "":
		return output.ListFlags{Format: c.Format}.List(s.Out, check.Pairs())
	case c.Output == "json", c.Output == "yaml":
		return output.ListFlags{Output: c.Output}.List(s.Out, check.Rows())
	}
	table := check.Matrix()
	if c.Output == "wide" {
		table = check.Pairs()
	}
	if len(table.Rows) > 0 {
		if err := (output.ListFlags{Output: "table", NoTrunc: true}).List(s.Out, table); err != nil {
			return err
		}
	}
	return s.print(check.Summary())
}
