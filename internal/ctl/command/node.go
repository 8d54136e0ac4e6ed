package command

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/specflags"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Node are the commands about nodes.
type Node struct {
	Ls        NodeLs        `cmd:"" aliases:"list" help:"List nodes."`
	Ps        NodePs        `cmd:"" aliases:"tasks" help:"List the tasks of nodes."`
	Inspect   NodeInspect   `cmd:"" aliases:"get" help:"Show all of nodes, as JSON."`
	Describe  NodeDescribe  `cmd:"" help:"Show all of nodes, for people."`
	Update    NodeUpdate    `cmd:"" aliases:"set" help:"Change a node's labels, its availability or where its WireGuard is reached."`
	Drain     NodeDrain     `cmd:"" help:"Move all tasks off nodes and keep new ones away."`
	StopTasks NodeStopTasks `cmd:"" help:"Stop all tasks on nodes now and keep new ones away."`
	Pause     NodePause     `cmd:"" aliases:"cordon" help:"Keep new tasks off nodes; those there stay."`
	Activate  NodeActivate  `cmd:"" aliases:"uncordon,undrain,resume" help:"Let nodes take tasks again."`
	RotateKey NodeRotateKey `cmd:"" help:"Have nodes draw other WireGuard keys."`
	Rm        NodeRm        `cmd:"" aliases:"remove,delete" help:"Remove nodes that are down."`
}

// NodeLs is `node ls`.
type NodeLs struct {
	output.ListFlags `set:"columns={{.Hostname}}: {{.Status}}"`
	Filter           []string `sep:"none" help:"Only nodes with this id, name (its beginning), status, availability or label." placeholder:"KEY=VALUE"`
}

var nodeFilters = filters[*warrenv1.NodeEntry]{
	"id": func(e *warrenv1.NodeEntry, v string) bool {
		return strings.HasPrefix(e.GetNode().GetMeta().GetId(), v)
	},
	"name": func(e *warrenv1.NodeEntry, v string) bool {
		return strings.HasPrefix(e.GetNode().GetFacts().GetHostname(), v)
	},
	"status": func(e *warrenv1.NodeEntry, v string) bool {
		return strings.EqualFold(view.NodeState(e.GetNode().GetStatus().GetState()), v)
	},
	"availability": func(e *warrenv1.NodeEntry, v string) bool {
		return strings.EqualFold(view.Availability(e.GetNode().GetSpec().GetAvailability()), v)
	},
	"label":      func(e *warrenv1.NodeEntry, v string) bool { return hasLabel(e.GetNode().GetSpec().GetLabels(), v) },
	"node.label": func(e *warrenv1.NodeEntry, v string) bool { return hasLabel(e.GetNode().GetSpec().GetLabels(), v) },
	"engine.label": func(e *warrenv1.NodeEntry, v string) bool {
		return hasLabel(e.GetNode().GetFacts().GetEngineLabels(), v)
	},
}

var nodeWords = filterWords{
	"status":       wordsOf(warrenv1.NodeState_name, view.NodeState),
	"availability": wordsOf(warrenv1.NodeAvailability_name, view.Availability),
}

// Help is the text below the usage line.
func (NodeLs) Help() string {
	return "Example:\n\n    warrenctl node ls --filter label=zone=eu -o wide"
}

// Run does it.
func (c *NodeLs) Run(ctx context.Context, s *Session) error {
	entries, err := s.ListNodes(ctx)
	if err != nil {
		return err
	}
	if entries, err = nodeFilters.apply(entries, c.Filter, nodeWords); err != nil {
		return err
	}
	// Only to be shown along: without it the nodes are still worth showing.
	var managers []*warrenv1.Manager
	if res, err := s.Client.Cluster.GetCluster(ctx, connect.NewRequest(&warrenv1.GetClusterRequest{})); err == nil {
		managers = res.Msg.GetManagers()
	}
	return c.List(s.Out, view.Nodes(entries, managers, s.Now()))
}

// NodePs is `node ps`.
type NodePs struct {
	Nodes []string `arg:"" name:"node" complete:"node" help:"Hostname, id or beginning of an id."`
	taskList
}

// Run does it.
func (c *NodePs) Run(ctx context.Context, s *Session) error {
	perNode, failed := collect(c.Nodes, func(ref string) ([]*warrenv1.TaskEntry, error) {
		return s.ListTasks(ctx, "", ref, c.runningOnly())
	})
	return c.show(s, perNode, failed)
}

// NodeInspect is `node inspect`.
type NodeInspect struct {
	output.InspectFlags
	Nodes []string `arg:"" name:"node" complete:"node" help:"Hostname, id or beginning of an id."`
}

// Run does it.
func (c *NodeInspect) Run(ctx context.Context, s *Session) error {
	return inspectNodes(ctx, s, c.InspectFlags, c.Nodes)
}

// NodeDescribe is `node describe`.
type NodeDescribe struct {
	output.DescribeFlags
	Nodes []string `arg:"" name:"node" complete:"node" help:"Hostname, id or beginning of an id."`
}

// Run does it.
func (c *NodeDescribe) Run(ctx context.Context, s *Session) error {
	return inspectNodes(ctx, s, c.Inspect(), c.Nodes)
}

// nodeSubject is what templates see: it has the node's own fields at hand, as Docker's has.
type nodeSubject struct {
	*warrenv1.Node
	Tasks    uint32
	Reserved *warrenv1.Resources
	ask      func() ([]*warrenv1.OverlayPeer, error)
}

// Peers asks the node's agent, in a template that has {{.Peers}}.
func (n nodeSubject) Peers() ([]*warrenv1.OverlayPeer, error) { return n.ask() }

func inspectNodes(ctx context.Context, s *Session, f output.InspectFlags, refs []string) error {
	entries, failed := collect(refs, func(ref string) (*warrenv1.NodeEntry, error) { return s.node(ctx, ref) })
	if len(entries) == 0 {
		return failed
	}
	// A node's agent is asked only where it is to be shown what it says.
	peers := map[proto.Message][]*warrenv1.OverlayPeer{}
	problems := map[proto.Message]string{}
	shown := make([]proto.Message, len(entries))
	for i, e := range entries {
		shown[i] = e
		if f.Format != "" && f.Format != "json" {
			continue
		}
		told, err := s.peers(ctx, e.GetNode())
		peers[e] = told
		if err != nil {
			problems[e] = strings.Join(failure.Describe(err, specflags.FlagOf), "; ")
		}
		if f.Pretty || f.Output == "pretty" {
			continue
		}
		if problems[e] != "" {
			s.warn([]string{problems[e] + ": peers are left out"})
		}
		with := output.With{Message: e, Key: "peers"}
		for _, p := range told {
			with.More = append(with.More, p)
		}
		shown[i] = with
	}
	err := output.Inspect(f, s.Out, shown,
		func(o proto.Message) any {
			e := o.(*warrenv1.NodeEntry)
			ask := func() ([]*warrenv1.OverlayPeer, error) { return s.peers(ctx, e.GetNode()) }
			return nodeSubject{e.GetNode(), e.GetTasks(), e.GetReserved(), ask}
		},
		func(o proto.Message) string {
			return view.Node(o.(*warrenv1.NodeEntry), peers[o], problems[o], s.Now())
		})
	return errors.Join(failed, err)
}

// peers asks a node's agent how its overlay stands with the others. One that is known not to answer is not
// asked.
func (s *Session) peers(ctx context.Context, n *warrenv1.Node) ([]*warrenv1.OverlayPeer, error) {
	if now := n.GetStatus().GetState(); now != warrenv1.NodeState_NODE_STATE_READY {
		return nil, errors.New("node " + n.GetFacts().GetHostname() + " is " + view.NodeState(now))
	}
	res, err := s.Nodes.GetNodePeers(ctx, connect.NewRequest(&warrenv1.GetNodePeersRequest{Ref: n.GetMeta().GetId()}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetPeers(), nil
}

func (s *Session) node(ctx context.Context, ref string) (*warrenv1.NodeEntry, error) {
	res, err := s.Nodes.GetNode(ctx, connect.NewRequest(&warrenv1.GetNodeRequest{Ref: ref}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetEntry(), nil
}

// updateNode reads a node, changes its spec and writes it. It prints the node's name.
func (s *Session) updateNode(ctx context.Context, ref string, change func(*warrenv1.NodeSpec)) error {
	n, err := s.writeNode(ctx, ref, nil, change)
	if err != nil {
		return err
	}
	return s.print(n.GetFacts().GetHostname())
}

// writeNode reads a node, changes its spec and writes it, with the time within which it is to be drained, if there
// is one.
func (s *Session) writeNode(ctx context.Context, ref string, within *time.Duration, change func(*warrenv1.NodeSpec)) (written *warrenv1.Node, err error) {
	err = retry(func() error {
		entry, err := s.node(ctx, ref)
		if err != nil {
			return err
		}
		meta := entry.GetNode().GetMeta()
		spec := &warrenv1.NodeSpec{}
		if was := entry.GetNode().GetSpec(); was != nil {
			spec = proto.CloneOf(was)
		}
		change(spec)
		req := &warrenv1.UpdateNodeRequest{Ref: meta.GetId(), Spec: spec, Version: meta.GetVersion()}
		if within != nil {
			req.DrainWithin = durationpb.New(*within)
		}
		res, err := s.Nodes.UpdateNode(ctx, connect.NewRequest(req))
		if err == nil {
			written = res.Msg.GetNode()
		}
		return err
	})
	return written, err
}

// NodeUpdate is `node update`.
type NodeUpdate struct {
	LabelAdd          []string `sep:"none" aliases:"label" short:"l" help:"Add or change a label." placeholder:"KEY=VALUE"`
	LabelRm           []string `sep:"none" help:"Remove a label." placeholder:"KEY"`
	Availability      string   `enum:"active,pause,drain,paused,cordoned,drained," default:"" help:"active; pause: no new tasks; drain: and its own move away, but one that runs and fits nowhere else stays until it does." placeholder:"WORD"`
	WireguardEndpoint *string  `name:"wireguard-endpoint" help:"Where other nodes reach this one's WireGuard; empty for the address its agent comes from." placeholder:"ADDRESS:PORT"`
	Nodes             []string `arg:"" name:"node" complete:"node" help:"Hostname, id or beginning of an id."`
}

// Help is the text below the usage line.
func (NodeUpdate) Help() string {
	return "Example:\n\n    warrenctl node update n1 --label-add zone=eu --label-rm old"
}

var availabilities = map[string]warrenv1.NodeAvailability{
	"active": warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE,
	"pause":  warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE,
	"drain":  warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN,
	// As node ls shows them, and other tools call them.
	"paused": warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE, "cordoned": warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE,
	"drained": warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN,
}

// Run does it.
func (c *NodeUpdate) Run(ctx context.Context, s *Session) error {
	if len(c.LabelAdd) == 0 && len(c.LabelRm) == 0 && c.Availability == "" && c.WireguardEndpoint == nil {
		return failure.Usagef("nothing to change: give --label-add, --label-rm, --availability or --wireguard-endpoint")
	}
	if c.WireguardEndpoint != nil && *c.WireguardEndpoint != "" && len(c.Nodes) > 1 {
		return failure.Usagef("--wireguard-endpoint: each node has its own: name one")
	}
	added := map[string]string{}
	for _, l := range c.LabelAdd {
		key, value, _ := strings.Cut(l, "=")
		if key == "" {
			return failure.Usagef("--label-add: %q is not KEY=VALUE", l)
		}
		added[key] = value
	}
	return forEach(c.Nodes, func(ref string) error {
		return s.updateNode(ctx, ref, func(spec *warrenv1.NodeSpec) {
			for _, key := range c.LabelRm {
				delete(spec.Labels, key)
			}
			if len(added) > 0 && spec.Labels == nil {
				spec.Labels = map[string]string{}
			}
			maps.Copy(spec.Labels, added)
			if c.Availability != "" {
				spec.Availability = availabilities[c.Availability]
				if spec.GetAvailability() != warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN {
					spec.DrainDeadline = nil
				}
			}
			if c.WireguardEndpoint != nil {
				spec.WireguardEndpoint = *c.WireguardEndpoint
			}
		})
	})
}

// setAvailability is what drain, pause and activate share.
type setAvailability struct {
	Nodes []string `arg:"" name:"node" complete:"node" help:"Hostname, id or beginning of an id."`
}

func (c *setAvailability) set(ctx context.Context, s *Session, to warrenv1.NodeAvailability) error {
	return forEach(c.Nodes, func(ref string) error {
		return s.updateNode(ctx, ref, func(spec *warrenv1.NodeSpec) { spec.Availability, spec.DrainDeadline = to, nil })
	})
}

// NodePause is `node pause`.
type NodePause struct{ setAvailability }

// Run does it.
func (c *NodePause) Run(ctx context.Context, s *Session) error {
	return c.set(ctx, s, warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE)
}

// NodeActivate is `node activate`.
type NodeActivate struct{ setAvailability }

// Run does it.
func (c *NodeActivate) Run(ctx context.Context, s *Session) error {
	return c.set(ctx, s, warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE)
}

// NodeRotateKey is `node rotate-key`.
type NodeRotateKey struct {
	Nodes []string `arg:"" name:"node" complete:"node" help:"Hostname, id or beginning of an id."`
}

// Help is the text below the usage line.
func (NodeRotateKey) Help() string {
	return "Returns at once; `warrenctl node describe` shows the new public key as soon as there is one. Connections go on; but two nodes that draw at the same moment may not hear each other for some seconds, so name one after another where that matters. Keys are also drawn anew by themselves, see `warrenctl cluster update --key-life`."
}

// Run does it.
func (c *NodeRotateKey) Run(ctx context.Context, s *Session) error {
	return forEach(c.Nodes, func(ref string) error {
		return s.updateNode(ctx, ref, func(spec *warrenv1.NodeSpec) { spec.KeyGeneration++ })
	})
}

// NodeRm is `node rm`.
type NodeRm struct {
	Force bool     `short:"f" help:"Remove it although its agent is connected or expected back."`
	Nodes []string `arg:"" name:"node" complete:"node" help:"Hostname, id or beginning of an id."`
}

// Help is the text below the usage line.
func (NodeRm) Help() string {
	return "Its tasks are replaced elsewhere, and its certificate is worth nothing from then on. To take the machine in again run `warrenctl cluster leave --force` and then `warrenctl cluster join` on it."
}

// Run does it.
func (c *NodeRm) Run(ctx context.Context, s *Session) error {
	return forEach(c.Nodes, func(ref string) error {
		res, err := s.Nodes.DeleteNode(ctx, connect.NewRequest(&warrenv1.DeleteNodeRequest{Ref: ref, Force: c.Force}))
		if err != nil {
			return err
		}
		return s.print(res.Msg.GetNode().GetFacts().GetHostname())
	})
}

func parseUint32(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}
