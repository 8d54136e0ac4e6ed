package command

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/progress"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// emptying is what `node drain` and `node stop-tasks` share.
type emptying struct {
	Detach  bool           `short:"d" group:"Progress" help:"Return at once, wait for nothing."`
	Quiet   bool           `short:"q" group:"Progress" help:"Wait, but show no progress."`
	Timeout *time.Duration `group:"Progress" help:"Give up waiting after this long; 0 for never. Default: never on a terminal, elsewhere after 10m in which no task has gone." placeholder:"DURATION"`
	Nodes   []string       `arg:"" name:"node" complete:"node" help:"Hostname, id or beginning of an id."`
}

// NodeDrain is `node drain`.
type NodeDrain struct {
	Deadline *time.Duration `help:"Stop after this long what is still there, whether or not it has been replaced. Default: never." placeholder:"DURATION"`
	emptying
}

// Help is the text below the usage line.
func (NodeDrain) Help() string {
	return "Shows what is still there and what it waits for. Ctrl-C ends the looking on, not the draining; `warrenctl node activate` undoes it.\n\n" +
		"Replacements serve before what they replace is stopped. A task that runs and fits nowhere else stays until it does: a service is not weakened to empty a node, unless there is a --deadline. " +
		"Tasks of a global service, and of one that is updated stop-first, do not wait; of the latter --update-max-unavailable are missing at a time.\n\n" +
		"Example:\n\n    warrenctl node drain n1 --deadline 10m"
}

// Run does it.
func (c *NodeDrain) Run(ctx context.Context, s *Session) error { return c.empty(ctx, s, c.Deadline) }

// NodeStopTasks is `node stop-tasks`.
type NodeStopTasks struct{ emptying }

// Help is the text below the usage line.
func (NodeStopTasks) Help() string {
	return "What `warrenctl node drain --deadline 0s` does: every task gets its stop signal now and has its grace period to end in, whether or not it has been replaced; services lack it until its replacement serves elsewhere. " +
		"`warrenctl node activate` undoes it. Stopping the agent stops no task; on a machine that no manager reaches, `warren-agent end-tasks` does then.\n\n" +
		"Example:\n\n    warrenctl node stop-tasks n1"
}

// Run does it.
func (c *NodeStopTasks) Run(ctx context.Context, s *Session) error {
	return c.empty(ctx, s, new(time.Duration))
}

// empty drains the nodes, within a time if there is one, and looks on.
func (c *emptying) empty(ctx context.Context, s *Session, within *time.Duration) error {
	nodes, failed := collect(c.Nodes, func(ref string) (progress.Draining, error) {
		n, err := s.writeNode(ctx, ref, within, func(spec *warrenv1.NodeSpec) {
			if spec.GetAvailability() != warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN {
				spec.DrainDeadline = nil // of another time
			}
			spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
		})
		if err != nil {
			return progress.Draining{}, err
		}
		host := n.GetFacts().GetHostname()
		return progress.Draining{ID: n.GetMeta().GetId(), Hostname: host, Version: n.GetMeta().GetVersion()}, s.print(host)
	})
	if c.Detach || len(nodes) == 0 {
		return failed
	}
	streams := *s.Streams
	if c.Quiet {
		streams.Err = output.Stream{Writer: io.Discard}
	}
	limits := progress.Limits{}
	switch {
	case c.Timeout != nil:
		limits.Timeout = *c.Timeout
	case !s.Err.Terminal:
		limits.Stall = stallLimit
	}
	return errors.Join(failed, progress.FollowDrain(ctx, s.Client, &streams, nodes, limits))
}
