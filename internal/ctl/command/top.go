package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Top is `top`.
type Top struct {
	Node     []string      `short:"n" sep:"none" complete:"node" help:"Only this node, by hostname, id or beginning of an id. Repeat it for each." placeholder:"NODE"`
	Service  string        `short:"s" complete:"service" help:"Only tasks of this service, and the nodes that they are on." placeholder:"SERVICE"`
	Sort     string        `enum:"cpu,memory,network,name" default:"cpu" help:"cpu, memory, network: the largest first; or name (${default})." placeholder:"WORD"`
	Interval time.Duration `default:"1s" help:"How often it is drawn anew (${default}, at least 200ms)." placeholder:"DURATION"`
	Once     bool          `help:"Print it once, as where there is no terminal."`
	Output   string        `short:"o" enum:"table,json,yaml" default:"table" help:"table; or json or yaml, of each node what it and its tasks use, once." placeholder:"FORM"`
	What     string        `arg:"" optional:"" enum:"all,nodes,tasks,node,task," default:"all" help:"nodes or tasks. Default: both."`
}

// Help is the text below the usage line.
func (Top) Help() string {
	return "Nodes are asked as long as this runs, and no longer. CPU is what was busy in the last interval, in processors; memory leaves out pages of files that could be had back at once. " +
		"A task on its node's own network has no traffic of its own. Ctrl-C ends it.\n\n" +
		"Examples:\n\n    warrenctl top\n    warrenctl top tasks --service web --sort memory\n    warrenctl top nodes --once"
}

const (
	leastInterval = 200 * time.Millisecond
	mostInterval  = time.Hour
)

// Run does it.
func (c *Top) Run(ctx context.Context, s *Session) error {
	if c.Interval < leastInterval || c.Interval > mostInterval {
		return failure.Usagef("--interval %v: it must be from %v to %v", c.Interval, leastInterval, mostInterval)
	}
	if c.Once || c.Output != "table" || !s.Out.Terminal {
		return c.once(ctx, s)
	}
	return c.live(ctx, s)
}

func (c *Top) request() *connect.Request[warrenv1.WatchUsageRequest] {
	return connect.NewRequest(&warrenv1.WatchUsageRequest{Nodes: c.Node, Service: c.Service, Interval: durationpb.New(c.Interval)})
}

// once waits until every node has told what it uses, or why it does not.
func (c *Top) once(ctx context.Context, s *Session) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.System.WatchUsage(ctx, c.request())
	if err != nil {
		return err
	}
	defer func() {
		cancel() // the manager would go on telling
		_ = stream.Close()
	}()
	used, expected := &view.Usage{}, 0
	for first := true; first || used.Heard() < expected; first = false {
		if !stream.Receive() {
			if err := stream.Err(); err != nil {
				return err
			}
			return errors.New("the manager ended the answer before all nodes had answered: try again")
		}
		if first {
			expected = int(stream.Msg().GetNodes())
		}
		if stream.Msg().GetGone() {
			expected--
		}
		used.Hear(stream.Msg())
	}
	if c.Output != "table" {
		err = output.ListFlags{Output: c.Output}.List(s.Out, used.Nodes(c.Sort))
	} else {
		for _, part := range c.parts(s.Out, used) {
			if _, err = io.WriteString(s.Out, part); err != nil {
				return err
			}
		}
	}
	if err != nil {
		return err
	}
	return unanswered(s, used.Silent(), expected, len(c.Node) > 0)
}

// unanswered warns of the nodes that did not answer. It fails where none did, or these were asked for by name.
func unanswered(s *Session, said []string, of int, named bool) error {
	if len(said) == 0 {
		return nil
	}
	if named || len(said) >= of {
		return errors.New("not answered: " + strings.Join(said, "; "))
	}
	for _, one := range said {
		s.warn([]string{"not answered: " + one})
	}
	return nil
}

// parts are the tables that are asked for, one below the other.
func (c *Top) parts(s output.Stream, used *view.Usage) []string {
	table := func(t *output.Table) string {
		var b strings.Builder
		to := s
		to.Writer = &b
		_ = output.ListFlags{Output: "table"}.List(to, t) // to memory
		return b.String()
	}
	switch c.What {
	case "node", "nodes":
		return []string{table(used.Nodes(c.Sort))}
	case "task", "tasks":
		return []string{table(used.Tasks(c.Sort))}
	}
	return []string{table(used.Nodes(c.Sort)), "\n", table(used.Tasks(c.Sort))}
}

// live draws what is used in place until ctx ends.
func (c *Top) live(ctx context.Context, s *Session) error {
	screen := &topScreen{stream: s.Out}
	screen.draw([]string{"Waiting for the nodes to answer…"})
	var resumption client.Resumption
	for {
		resumption.Open()
		err := c.follow(ctx, s, screen, &resumption)
		err = resumption.Broke(ctx, err, func() { s.warn([]string{"no manager can be reached; trying again"}) })
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // Ctrl-C is how one leaves
		case err != nil:
			return err
		}
	}
}

// follow draws what one stream tells.
func (c *Top) follow(ctx context.Context, s *Session, screen *topScreen, resumption *client.Resumption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.System.WatchUsage(ctx, c.request())
	if err != nil {
		return err
	}
	messages, ended := make(chan *warrenv1.WatchUsageResponse), make(chan struct{})
	var broke error // to be read once ended is closed
	go func() {     // ends with the stream, which cancel ends
		defer close(ended)
		for stream.Receive() {
			select {
			case messages <- stream.Msg():
			case <-ctx.Done():
			}
		}
		broke = stream.Err()
	}()
	defer func() {
		cancel()
		<-ended
		_ = stream.Close()
	}()
	// Nodes tell at moments of their own: what they tell is drawn together.
	ticker := time.NewTicker(c.Interval)
	defer ticker.Stop()
	used, expected, drawn := &view.Usage{}, -1, false
	for {
		select {
		case m := <-messages:
			resumption.Heard()
			if expected < 0 {
				expected = int(m.GetNodes())
			}
			used.Hear(m)
			if drawn || used.Heard() < expected {
				continue
			}
		case <-ticker.C:
		case <-ended:
			if broke == nil {
				return connect.NewError(connect.CodeUnavailable, errors.New("the manager ended the stream"))
			}
			return broke
		case <-ctx.Done():
			return ctx.Err()
		}
		if used.Heard() > 0 || expected == 0 {
			drawn = true
			screen.draw(c.frame(s.Out, used))
		}
	}
}

// frame is what is drawn: as many lines as the terminal has, with a word on those that it has not.
func (c *Top) frame(s output.Stream, used *view.Usage) []string {
	lines := []string{s.Paint(output.Faint, used.Summary()), ""}
	for _, part := range c.parts(s, used) {
		lines = append(lines, strings.Split(strings.TrimSuffix(part, "\n"), "\n")...)
	}
	if room := s.Height() - 1; room > 2 && len(lines) > room {
		hidden := len(lines) - room + 1
		lines = append(lines[:room-1], s.Paint(output.Faint, fmt.Sprintf("… %d more", hidden)))
	}
	return lines
}

// topScreen redraws lines in place.
type topScreen struct {
	stream output.Stream
	height int
}

func (s *topScreen) draw(lines []string) {
	var frame strings.Builder
	if s.height > 0 {
		fmt.Fprintf(&frame, "\x1b[%dA", s.height)
	}
	for _, line := range lines {
		// A line longer than the terminal would wrap, and the next frame begin at the wrong place.
		frame.WriteString(output.Snip(line, s.stream.Width()-1) + "\x1b[K\n")
	}
	frame.WriteString("\x1b[J")
	fmt.Fprint(s.stream, frame.String())
	s.height = len(lines)
}
