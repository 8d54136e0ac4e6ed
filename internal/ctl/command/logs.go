package command

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/durations"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/logtail"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// logFlags are the flags of commands that show output.
type logFlags struct {
	Follow     bool   `short:"f" help:"Go on with new output until Ctrl-C."`
	Tail       string `short:"n" default:"all" help:"Only this many last lines, or all; of a service, of each of its tasks." placeholder:"N"`
	Since      string `help:"Only output since then: 10m ago or 2026-11-23T10:00:00Z." placeholder:"WHEN"`
	Until      string `help:"Only output before then." placeholder:"WHEN"`
	Timestamps bool   `short:"t" help:"Show the time of each line."`
	Output     string `short:"o" enum:"text,json,yaml" default:"text" help:"text, as it was written; json with an object for each line, in a line of its own; or yaml with a document for each." placeholder:"FORM"`
}

// selection is what the flags ask for.
func (f *logFlags) selection(now time.Time) (*warrenv1.LogSelection, error) {
	sel := &warrenv1.LogSelection{Follow: f.Follow}
	if f.Tail != "all" {
		n, err := parseUint32(f.Tail)
		if err != nil {
			return nil, failure.Usagef("--tail is %q, but can be a number or all", f.Tail)
		}
		sel.Tail = &n
	}
	var err error
	if sel.Since, err = moment("--since", f.Since, now); err != nil {
		return nil, err
	}
	sel.Until, err = moment("--until", f.Until, now)
	return sel, err
}

// moment reads a point in time: how long ago, or when. Empty is none.
func moment(flag, text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if ago, err := durations.Parse(text); err == nil {
		return timestamppb.New(now.Add(-ago)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return timestamppb.New(t), nil
		}
	}
	return nil, failure.Usagef("%s is %q, which is neither a duration such as 10m nor a time such as 2026-11-23T10:00:00Z", flag, text)
}

// ServiceLogs is `service logs`.
type ServiceLogs struct {
	logFlags
	NoTaskNames bool   `aliases:"no-task-ids,raw" help:"Leave out the names of the tasks."`
	Service     string `arg:"" complete:"service" help:"Service, or one of its tasks (web.1)."`
}

// Help is the text below the usage line.
func (ServiceLogs) Help() string {
	return `What tasks wrote to standard output comes on standard output, the rest on standard error.
--tail counts for each task, ended ones included: with three tasks, --tail 20 shows up to 60 lines.
With -o json all comes on standard output, each line as {"time", "service", "task", "taskId", "node", "stream", "line"}.

Examples:

    warrenctl service logs -f --tail 20 web
    warrenctl service logs -o json --since 10m web`
}

// Run does it.
func (c *ServiceLogs) Run(ctx context.Context, s *Session) error {
	// A service's name has no dot, a task's always has.
	if strings.Contains(c.Service, ".") {
		return c.stream(ctx, s, &warrenv1.StreamLogsRequest{Target: &warrenv1.StreamLogsRequest_Task{Task: c.Service}}, !c.NoTaskNames)
	}
	return c.stream(ctx, s, &warrenv1.StreamLogsRequest{Target: &warrenv1.StreamLogsRequest_Service{Service: c.Service}}, !c.NoTaskNames)
}

// TaskLogs is `task logs`.
type TaskLogs struct {
	logFlags
	Task string `arg:"" complete:"task" help:"SERVICE.SLOT, id or beginning of an id."`
}

// Run does it.
func (c *TaskLogs) Run(ctx context.Context, s *Session) error {
	return c.stream(ctx, s, &warrenv1.StreamLogsRequest{Target: &warrenv1.StreamLogsRequest_Task{Task: c.Task}}, false)
}

func (f *logFlags) stream(ctx context.Context, s *Session, req *warrenv1.StreamLogsRequest, names bool) error {
	selection, err := f.selection(s.Now())
	if err != nil {
		return err
	}
	req.Selection = selection
	look := logtail.Look{Names: names, Times: f.Timestamps}
	if f.Output != "text" {
		look.Form = f.Output
	}
	return logtail.Run(ctx, s.Client, s.Streams, req, look)
}
