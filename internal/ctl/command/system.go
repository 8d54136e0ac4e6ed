package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// System are the commands about what lies below the services.
type System struct {
	Info  SystemInfo  `cmd:"" help:"Show the whole cluster on one page, with what should not stay as it is."`
	Df    SystemDf    `cmd:"" help:"Show what takes up the nodes' disks."`
	Prune SystemPrune `cmd:"" help:"Remove the images that no task needs."`
}

// SystemInfo is `system info`.
type SystemInfo struct {
	Output string `short:"o" enum:"text,json,yaml" default:"text" help:"text, json or yaml." placeholder:"FORM"`
}

// Help is the text below the usage line.
func (SystemInfo) Help() string {
	return "Versions, managers and quorum, nodes, services, tasks, what is reserved, addresses, the CA; and warnings: an even number of managers, no manager to spare, " +
		"several versions, nodes that are not ready, certificates that end or were not renewed."
}

// Run does it.
func (c *SystemInfo) Run(ctx context.Context, s *Session) error {
	info, err := s.system(ctx)
	if err != nil {
		return err
	}
	if c.Output != "text" {
		return output.Value(s.Out, c.Output, info)
	}
	_, err = fmt.Fprint(s.Out, info)
	return err
}

// system asks for all that the page about the cluster is made of.
func (s *Session) system(ctx context.Context) (view.System, error) {
	res, err := s.Cluster.GetCluster(ctx, connect.NewRequest(&warrenv1.GetClusterRequest{}))
	if err != nil {
		return view.System{}, err
	}
	f := view.Facts{Cluster: res.Msg}
	if f.Nodes, err = s.ListNodes(ctx); err != nil {
		return view.System{}, err
	}
	if f.Services, err = s.ListServices(ctx); err != nil {
		return view.System{}, err
	}
	if f.Tasks, err = s.ListTasks(ctx, "", "", false); err != nil {
		return view.System{}, err
	}
	if f.Trust, err = s.trust(ctx); err != nil && !errors.Is(err, errNoCA) {
		s.warn([]string{"nothing is known of the CA: " + err.Error()}) // the page is wanted most where not all is well
	}
	return view.NewSystem(f, s.Now()), nil
}

// SystemDf is `system df`.
type SystemDf struct {
	output.ListFlags `set:"columns={{.Node}}: {{.Free}}"`
	Node             []string `short:"n" sep:"none" complete:"node" help:"Only this node, by hostname, id or beginning of an id. Repeat it for each." placeholder:"NODE"`
	Images           bool     `help:"List the images on each node."`
}

// Help is the text below the usage line.
func (SystemDf) Help() string {
	return "The disk is the one that holds images and containers. Reclaimable is what `warrenctl system prune` would free: images that no task needs. " +
		"Containers is what they have written to their root file systems, output the kept output of tasks, data what else the agent keeps.\n\n" +
		"Examples:\n\n    warrenctl system df\n    warrenctl system df --node n1 --images"
}

// Run does it.
func (c *SystemDf) Run(ctx context.Context, s *Session) error {
	stream, err := s.System.GetDiskUsage(ctx, connect.NewRequest(&warrenv1.GetDiskUsageRequest{Nodes: c.Node}))
	if err != nil {
		return err
	}
	rows, err := answers(s, stream, (*warrenv1.GetDiskUsageResponse).GetNodes)
	if err != nil {
		return err
	}
	table := view.Disks(rows)
	if c.Images {
		table = view.DiskImages(rows, s.Now())
	}
	if err := c.List(s.Out, table); err != nil {
		return err
	}
	return unanswered(s, silent(rows), len(rows), len(c.Node) > 0)
}

// answer is what a node tells, or why it does not.
type answer interface {
	GetNodeId() string
	GetHostname() string
	GetError() string
}

// answers gathers what every node answers, by hostname, and says on a terminal how many have. The first message tells
// how many there are.
func answers[T any, A interface {
	*T
	answer
}](s *Session, stream *connect.ServerStreamForClient[T], expected func(A) uint32) ([]A, error) {
	defer func() { _ = stream.Close() }()
	of, rows := 0, []A{}
	for first := true; stream.Receive(); first = false {
		m := A(stream.Msg())
		if first {
			of = int(expected(m))
		} else {
			rows = append(rows, m)
		}
		s.Err.Redraw(fmt.Sprintf("%d of %d nodes have answered", len(rows), of))
	}
	s.Err.Redraw("")
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if len(rows) < of {
		return nil, errors.New("the manager ended the answer before all nodes had answered: try again")
	}
	slices.SortFunc(rows, func(a, b A) int {
		return cmp.Or(cmp.Compare(a.GetHostname(), b.GetHostname()), cmp.Compare(a.GetNodeId(), b.GetNodeId()))
	})
	return rows, nil
}

func silent[A answer](rows []A) (said []string) {
	for _, row := range rows {
		if row.GetError() != "" {
			said = append(said, cmp.Or(row.GetHostname(), view.ShortID(row.GetNodeId()))+": "+row.GetError())
		}
	}
	return said
}

// SystemPrune is `system prune`.
type SystemPrune struct {
	Node   []string `short:"n" sep:"none" complete:"node" help:"Only on this node, by hostname, id or beginning of an id. Repeat it for each." placeholder:"NODE"`
	DryRun bool     `help:"Only show what would go."`
	Force  bool     `short:"f" help:"Do not ask."`
	Output string   `short:"o" enum:"table,json,yaml" default:"table" help:"How to show what went: table, json or yaml." placeholder:"FORM"`
}

// Help is the text below the usage line.
func (SystemPrune) Help() string {
	return "Images that are on a node and that no task there needs go, whoever brought them; also those that a rollback would want back, and then pulls. Agents do this by themselves for what they have pulled, " +
		"a day after its last task, and before that on a disk that gets full (--image-retention of warren-agent).\n\n" +
		"Examples:\n\n    warrenctl system prune --dry-run\n    warrenctl system prune --node n1 -f"
}

// Run does it.
func (c *SystemPrune) Run(ctx context.Context, s *Session) error {
	if !c.DryRun && !c.Force {
		if s.terminal() == nil {
			return failure.Usagef("there is no terminal to ask on whether this is meant: give --force")
		}
		rows, err := c.prune(ctx, s, true)
		if err != nil {
			return err
		}
		if table := view.Pruned(rows); len(table.Rows) == 0 {
			return c.show(s, rows)
		} else if err := (output.ListFlags{Output: "table"}).List(s.Err, table); err != nil {
			return err
		}
		s.Err.Printf("%s", view.PrunedSummary(rows, true))
		got, err := s.answer(ctx, "Remove them? [y/N]")
		if err != nil {
			return err
		}
		if word := strings.ToLower(got); word != "y" && word != "yes" {
			s.Err.Printf("Nothing was removed.")
			return nil
		}
	}
	rows, err := c.prune(ctx, s, c.DryRun)
	if err != nil {
		return err
	}
	return c.show(s, rows)
}

// show tells what went, or would go.
func (c *SystemPrune) show(s *Session, rows []*warrenv1.PruneImagesResponse) (err error) {
	table := view.Pruned(rows)
	if c.Output != "table" {
		for i := range rows {
			if i == 0 {
				table.Rows = nil
			}
			table.Rows = append(table.Rows, output.Row{Object: rows[i]})
		}
		err = output.ListFlags{Output: c.Output}.List(s.Out, table)
	} else {
		if len(table.Rows) > 0 {
			err = output.ListFlags{Output: "table"}.List(s.Out, table)
		}
		err = errors.Join(err, s.print(view.PrunedSummary(rows, c.DryRun)))
	}
	return errors.Join(err, unanswered(s, silent(rows), len(rows), len(c.Node) > 0))
}

func (c *SystemPrune) prune(ctx context.Context, s *Session, dryRun bool) ([]*warrenv1.PruneImagesResponse, error) {
	stream, err := s.System.PruneImages(ctx, connect.NewRequest(&warrenv1.PruneImagesRequest{Nodes: c.Node, DryRun: dryRun}))
	if err != nil {
		return nil, err
	}
	return answers(s, stream, (*warrenv1.PruneImagesResponse).GetNodes)
}
