package logtail

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Look says how lines are printed.
type Look struct {
	// Names puts the task's name before each line.
	Names bool
	// Times puts the line's time before each line.
	Times bool
	// Form, json or yaml, has each line be an object for programs, all on standard output.
	Form string
}

// Run prints the output that req asks for until it ends or, if it follows, until ctx does. A followed
// stream that breaks is taken up again where it broke, and nothing is said of it unless it takes long.
func Run(ctx context.Context, c *client.Client, s *output.Streams, req *warrenv1.StreamLogsRequest, look Look) error {
	p := newPrinter(s, look)
	resumer := NewResumer(s.Now())
	selection := req.GetSelection()
	var resumption client.Resumption
	defer p.flush()
	for {
		resumption.Open()
		err := stream(ctx, c, req, p, resumer, &resumption)
		if err == nil || !selection.GetFollow() {
			return err
		}
		err = resumption.Broke(ctx, err, func() { p.notice("no manager can be reached; trying again") })
		if err != nil {
			return err
		}
		req.Selection = resumer.Again(selection)
	}
}

// stream prints one stream to its end.
func stream(ctx context.Context, c *client.Client, req *warrenv1.StreamLogsRequest, p *printer, r *Resumer, resumption *client.Resumption) error {
	in, err := c.Logs.StreamLogs(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	defer in.Close()
	for in.Receive() {
		resumption.Heard()
		for _, line := range in.Msg().GetLines() {
			if r.Fresh(line) {
				p.line(line)
			}
		}
		if notice := in.Msg().GetNotice(); notice != "" {
			p.notice(notice)
		}
		if err := p.sync(); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
	return in.Err()
}
