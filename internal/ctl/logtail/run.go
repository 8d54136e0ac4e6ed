package logtail

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second
	// outOfReach is how long the manager may be silent before following is given up.
	outOfReach = time.Minute
)

// Look says how lines are printed.
type Look struct {
	// Names puts the task's name before each line.
	Names bool
	// Times puts the line's time before each line.
	Times bool
}

// Run prints the output that req asks for until it ends or, if it follows, until ctx does. A followed
// stream that breaks is taken up again where it broke.
func Run(ctx context.Context, c *client.Client, s *output.Streams, req *warrenv1.StreamLogsRequest, look Look) error {
	p := newPrinter(s, look)
	resumer := NewResumer(s.Now())
	selection := req.GetSelection()
	pause, lastHeard, said := retryFirst, time.Now(), false
	defer p.flush()
	for first := true; ; first = false {
		heard, err := stream(ctx, c, req, p, resumer)
		if heard {
			pause, lastHeard, said = retryFirst, time.Now(), false
		}
		switch {
		case err == nil, ctx.Err() != nil:
			return err
		case !selection.GetFollow() || !client.Transient(err) || time.Since(lastHeard) > outOfReach:
			return err
		case first && client.NotReached(err):
			return err
		}
		if !said {
			p.notice("the connection to the manager broke; trying again")
			said = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMost)
		req.Selection = resumer.Again(selection)
	}
}

// stream prints one stream to its end and tells whether anything came.
func stream(ctx context.Context, c *client.Client, req *warrenv1.StreamLogsRequest, p *printer, r *Resumer) (heard bool, err error) {
	in, err := c.Logs.StreamLogs(ctx, connect.NewRequest(req))
	if err != nil {
		return false, err
	}
	defer in.Close()
	for in.Receive() {
		heard = true
		for _, line := range in.Msg().GetLines() {
			if r.Fresh(line) {
				p.line(line)
			}
		}
		if notice := in.Msg().GetNotice(); notice != "" {
			p.notice(notice)
		}
		if err := p.sync(); err != nil {
			return heard, fmt.Errorf("write output: %w", err)
		}
	}
	return heard, in.Err()
}
