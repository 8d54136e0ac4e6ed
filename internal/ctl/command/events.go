package command

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Events is `events`.
type Events struct {
	Follow bool     `short:"f" help:"Go on with new events until Ctrl-C."`
	Since  string   `help:"Only events since then: 10m ago or 2026-11-23T10:00:00Z. Default: all remembered ones; with -f none." placeholder:"WHEN"`
	Filter []string `sep:"none" help:"Only events of this type of object: cluster, network, node, service or task." placeholder:"type=WORD"`
	Output string   `short:"o" enum:"text,json,yaml" default:"text" help:"text, json with one event a line, or yaml with a document for each." placeholder:"FORM"`
}

// Help is the text below the usage line.
func (Events) Help() string { return "Example:\n\n    warrenctl events -f --filter type=task" }

// eventsSkew is how far managers' clocks may be apart without an event being left out when another one
// goes on telling.
const eventsSkew = 10 * time.Second

// Run does it.
func (c *Events) Run(ctx context.Context, s *Session) error {
	req, err := c.request(s.Now())
	if err != nil {
		return err
	}
	seen := &seenEvents{}
	var resumption client.Resumption
	for {
		resumption.Open()
		err := c.stream(ctx, s, req, seen, &resumption)
		if err == nil || !c.Follow {
			return err
		}
		if err := resumption.Broke(ctx, err, func() { s.warn([]string{"no manager can be reached; trying again"}) }); err != nil {
			return err
		}
		if seen.at != nil {
			req.Since = timestamppb.New(seen.at.AsTime().Add(-eventsSkew))
		}
	}
}

func (c *Events) request(now time.Time) (*warrenv1.WatchEventsRequest, error) {
	req := &warrenv1.WatchEventsRequest{NoFollow: !c.Follow}
	var err error
	if req.Since, err = moment("--since", c.Since, now); err != nil {
		return nil, err
	}
	if req.Since == nil {
		// Without -f all that is remembered; with it all from now on, also after a broken stream.
		req.Since = timestamppb.New(time.Unix(0, 0))
		if c.Follow {
			req.Since = timestamppb.New(now)
		}
	}
	for _, f := range c.Filter {
		key, value, _ := strings.Cut(f, "=")
		number, known := warrenv1.EventObject_value["EVENT_OBJECT_"+strings.ToUpper(value)]
		if key != "type" || !known || number == 0 {
			return nil, failure.Usagef("--filter %s: not type=cluster, type=network, type=node, type=service or type=task", f)
		}
		req.Objects = append(req.Objects, warrenv1.EventObject(number))
	}
	return req, nil
}

func (c *Events) stream(ctx context.Context, s *Session, req *warrenv1.WatchEventsRequest, seen *seenEvents, resumption *client.Resumption) error {
	in, err := s.Client.Events.WatchEvents(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	defer in.Close()
	for in.Receive() {
		resumption.Heard()
		for _, e := range in.Msg().GetEvents() {
			if !seen.fresh(e) {
				continue
			}
			if err := c.print(s, e); err != nil {
				return err
			}
		}
	}
	return in.Err()
}

func (c *Events) print(s *Session, e *warrenv1.Event) error {
	if c.Output == "json" || c.Output == "yaml" {
		return output.Record(s.Out, c.Output, e)
	}
	at := e.GetTime().AsTime().In(s.Now().Location()).Format("2006-01-02T15:04:05.000Z07:00")
	line := s.Out.Paint(output.Faint, at) + " " + view.Object(e.GetObject()) + " " +
		s.Out.Paint(output.Distinct(e.GetObjectName()), e.GetObjectName()) + " " + e.GetAction()
	if m := output.OneLine(e.GetMessage()); m != "" {
		line += ": " + m
	}
	if by := output.OneLine(e.GetBy()); by != "" && !strings.Contains(line, "by "+by) {
		line += " (by " + by + ")"
	}
	return s.print(line)
}

// seenEvents tells apart the events that a stream taken up again brings a second time, from the same manager
// or another one.
type seenEvents struct {
	at   *timestamppb.Timestamp // the latest
	last map[string]time.Time   // those that can come again
}

// maxRemembered is how many events are remembered before those are forgotten that cannot come again.
const maxRemembered = 10_000

func (s *seenEvents) fresh(e *warrenv1.Event) bool {
	key := fmt.Sprint(e.GetIndex(), " ", e.GetObjectId(), " ", e.GetAction())
	if e.GetAction() == "removed" { // of which each manager has its own index, and an object only one
		key = e.GetObjectId()
	}
	if _, seen := s.last[key]; seen {
		return false
	}
	if s.last == nil {
		s.last = map[string]time.Time{}
	}
	at := e.GetTime().AsTime()
	s.last[key] = at
	if s.at == nil || at.After(s.at.AsTime()) {
		s.at = e.GetTime()
	}
	if len(s.last) > maxRemembered {
		old := s.at.AsTime().Add(-2 * eventsSkew)
		maps.DeleteFunc(s.last, func(_ string, at time.Time) bool { return at.Before(old) })
	}
	return true
}
