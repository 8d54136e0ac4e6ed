package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	Follow bool     `short:"f" help:"Go on with new events until Ctrl-C, or --until."`
	Since  string   `help:"Only events since then: 10m ago or 2026-11-23T10:00:00Z. Default: all remembered ones; with -f none." placeholder:"WHEN"`
	Until  string   `help:"Only events before then, in the same forms." placeholder:"WHEN"`
	Filter []string `sep:"none" help:"Only events of this service (and its tasks), node (and the tasks there), task, type, action or user (by)." placeholder:"KEY=VALUE"`
	Output string   `short:"o" enum:"text,json,yaml" default:"text" help:"text, json with one event a line, or yaml with a document for each." placeholder:"FORM"`
	Format string   `help:"Print each through a Go template, such as '{{.Time}} {{.Name}} {{.Action}}'." placeholder:"TEMPLATE"`
}

// Help is the text below the usage line.
func (Events) Help() string {
	return "Managers remember the last 10,000 events, since they were started; where there were others before, it is said how far back they go. " +
		"Of one key any value will do, of several keys all must hold.\n\n" +
		"Keys: service, node, task (name, id, or six characters of it or more), type or kind (cluster, manager, network, node, service, task, user), " +
		"action (a wrong one is answered with all there are), by.\n" +
		"Templates have .Time .Type .ID .Name .Action .Message .By .Node and .Event.\n\n" +
		"Examples:\n\n    warrenctl events -f --filter type=task\n    warrenctl events --since 1h --filter service=web --filter by=anna"
}

// eventsSkew is how far managers' clocks may be apart without an event being left out when another one
// goes on telling.
const eventsSkew = 10 * time.Second

// Run does it.
func (c *Events) Run(ctx context.Context, s *Session) error {
	req, err := c.request(s.Now())
	if err != nil {
		return err
	}
	var t *output.Template
	if c.Format != "" && c.Format != "json" {
		if t, err = output.NewTemplate(c.Format); err != nil {
			return err
		}
	}
	seen := &seenEvents{}
	var resumption client.Resumption
	for {
		resumption.Open()
		err := c.stream(ctx, s, req, seen, t, &resumption)
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
	if req.Until, err = moment("--until", c.Until, now); err != nil {
		return nil, err
	}
	if req.Since == nil {
		// Without -f all that is remembered; with it all from now on, also after a broken stream.
		req.Since = timestamppb.New(time.Unix(0, 0))
		if c.Follow {
			req.Since = timestamppb.New(now)
		}
	}
	if req.Until != nil && !req.GetSince().AsTime().Before(req.GetUntil().AsTime()) {
		since := "now, where -f begins without --since"
		if c.Since != "" {
			since = "--since " + c.Since
		}
		return nil, failure.Usagef("--until %s is not after %s: nothing can have happened between", c.Until, since)
	}
	for _, f := range c.Filter {
		key, value, ok := strings.Cut(f, "=")
		narrow := eventFilters[key]
		if narrow == nil || !ok || value == "" {
			return nil, failure.Usagef("--filter %s: not KEY=VALUE with a KEY of %s", f, strings.Join(slices.Sorted(maps.Keys(eventFilters)), ", "))
		}
		if err := narrow(req, value); err != nil {
			return nil, failure.Usagef("--filter %s: %w", f, err)
		}
	}
	return req, nil
}

// eventFilters are the keys that events can be filtered by, and what each has the manager leave out.
var eventFilters = map[string]func(req *warrenv1.WatchEventsRequest, value string) error{
	"service": func(req *warrenv1.WatchEventsRequest, v string) error {
		req.Services = append(req.Services, v)
		return nil
	},
	"node": func(req *warrenv1.WatchEventsRequest, v string) error { req.Nodes = append(req.Nodes, v); return nil },
	"task": func(req *warrenv1.WatchEventsRequest, v string) error { req.Tasks = append(req.Tasks, v); return nil },
	"by":   func(req *warrenv1.WatchEventsRequest, v string) error { req.By = append(req.By, v); return nil },
	"action": func(req *warrenv1.WatchEventsRequest, v string) error {
		req.Actions = append(req.Actions, v)
		return nil
	},
	"type": ofType,
	"kind": ofType,
}

func ofType(req *warrenv1.WatchEventsRequest, value string) error {
	number, known := warrenv1.EventObject_value["EVENT_OBJECT_"+strings.ToUpper(value)]
	if !known || number == 0 {
		return errors.New("there are cluster, manager, network, node, service, task and user")
	}
	req.Objects = append(req.Objects, warrenv1.EventObject(number))
	return nil
}

func (c *Events) stream(ctx context.Context, s *Session, req *warrenv1.WatchEventsRequest, seen *seenEvents, t *output.Template, resumption *client.Resumption) error {
	in, err := s.Client.Events.WatchEvents(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	defer in.Close()
	for in.Receive() {
		resumption.Heard()
		seen.incomplete(s, req, in.Msg().GetRememberedSince())
		for _, e := range in.Msg().GetEvents() {
			if !seen.fresh(e) {
				continue
			}
			if err := c.print(s, e, t); err != nil {
				return err
			}
		}
	}
	if err := in.Err(); err != nil || !c.Follow || req.GetUntil() != nil && !s.Now().Before(req.GetUntil().AsTime()) {
		return err
	}
	// A manager that shuts down may end its streams properly.
	return connect.NewError(connect.CodeUnavailable, errors.New("the manager ended the stream"))
}

// eventSubject is what templates see of an event.
type eventSubject struct {
	Time, Type, ID, Name, Action, Message, By, Node string

	Event *warrenv1.Event
}

func (c *Events) print(s *Session, e *warrenv1.Event, t *output.Template) error {
	at := e.GetTime().AsTime().In(s.Now().Location()).Format("2006-01-02T15:04:05.000Z07:00")
	switch {
	case t != nil:
		return t.Print(s.Out, eventSubject{
			Time: at, Type: view.Object(e.GetObject()), ID: e.GetObjectId(), Name: e.GetObjectName(), Action: e.GetAction(),
			Message: e.GetMessage(), By: e.GetBy(), Node: e.GetNodeName(), Event: e,
		})
	case c.Output == "json" || c.Output == "yaml" || c.Format == "json":
		return output.Record(s.Out, c.Output, e)
	}
	// The message says what it is about and what happened: the type and the action would say it again.
	name, message := e.GetObjectName(), cmp.Or(output.OneLine(e.GetMessage()), view.Object(e.GetObject())+" "+e.GetObjectName()+" "+e.GetAction())
	if before, after, found := strings.Cut(message, " "+name+" "); found && name != "" {
		message = before + " " + s.Out.Paint(output.Distinct(name), name) + " " + after
	}
	line := s.Out.Paint(output.Faint, at) + " " + message
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
	said bool                   // that the manager does not remember all
}

// incomplete says that a manager does not remember all that is asked for. Of a manager that goes on where another one ended, only
// what has happened since counts.
func (s *seenEvents) incomplete(to *Session, req *warrenv1.WatchEventsRequest, since *timestamppb.Timestamp) {
	from := req.GetSince().AsTime()
	if s.at != nil {
		from = s.at.AsTime()
	}
	if since == nil || s.said || !since.AsTime().After(from) {
		return
	}
	s.said = true
	to.warn([]string{"the manager that was asked remembers what happened since " + since.AsTime().In(to.Now().Location()).Format("2006-01-02T15:04:05Z07:00") +
		" and nothing before: it was started then, or there were too many events; another one may remember more (--host)"})
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
