package command

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Task are the commands about tasks.
type Task struct {
	Ls       TaskLs       `cmd:"" aliases:"list,ps" help:"List the tasks of all services."`
	Inspect  TaskInspect  `cmd:"" aliases:"get" help:"Show all of tasks, as JSON."`
	Describe TaskDescribe `cmd:"" help:"Show all of tasks, for people."`
	Logs     TaskLogs     `cmd:"" aliases:"log" help:"Show what a task writes."`
}

// taskList are the flags of commands that list tasks.
type taskList struct {
	output.ListFlags `set:"columns={{.Name}}: {{.CurrentState}}"`
	Filter           []string `sep:"none" help:"Only tasks with this id, name (its beginning), node, service, state, desired-state or health (starting, healthy, unhealthy or none)." placeholder:"KEY=VALUE"`
}

var taskFilters = filters[*warrenv1.TaskEntry]{
	"id": func(e *warrenv1.TaskEntry, v string) bool {
		return strings.HasPrefix(e.GetTask().GetMeta().GetId(), v)
	},
	"name": func(e *warrenv1.TaskEntry, v string) bool {
		return strings.HasPrefix(view.TaskName(e.GetTask(), e.GetNodeHostname()), v)
	},
	"node": func(e *warrenv1.TaskEntry, v string) bool {
		return v != "" && (e.GetNodeHostname() == v || strings.HasPrefix(e.GetTask().GetNodeId(), v))
	},
	"service": func(e *warrenv1.TaskEntry, v string) bool {
		return e.GetTask().GetServiceName() == v || e.GetTask().GetServiceId() == v
	},
	"state": func(e *warrenv1.TaskEntry, v string) bool {
		return strings.EqualFold(view.State(e.GetTask().GetStatus().GetState()), v)
	},
	"health": func(e *warrenv1.TaskEntry, v string) bool {
		return strings.EqualFold(view.HealthState(e.GetTask().GetStatus().GetHealth().GetState()), v)
	},
	"desired-state": func(e *warrenv1.TaskEntry, v string) bool {
		return strings.EqualFold(view.Desired(e.GetTask().GetDesired()), v)
	},
}

var taskWords = filterWords{
	"state":         wordsOf(warrenv1.TaskState_name, view.State),
	"desired-state": wordsOf(warrenv1.DesiredState_name, view.Desired),
	"health":        wordsOf(warrenv1.HealthState_name, view.HealthState),
}

// runningOnly tells whether the manager can leave out all but the tasks that are wanted.
func (l *taskList) runningOnly() bool {
	only := false
	for _, f := range l.Filter {
		if key, value, _ := strings.Cut(f, "="); key == "desired-state" {
			if !strings.EqualFold(value, "running") {
				return false
			}
			only = true
		}
	}
	return only
}

// show lists what was found for several refs; failed is what went wrong with the others.
func (l *taskList) show(s *Session, found [][]*warrenv1.TaskEntry, failed error) error {
	if len(found) == 0 {
		return failed
	}
	var entries []*warrenv1.TaskEntry
	for _, some := range found {
		entries = append(entries, some...)
	}
	entries, err := taskFilters.apply(entries, l.Filter, taskWords)
	if err != nil {
		return err
	}
	return errors.Join(failed, l.List(s.Out, view.Tasks(entries, s.Now())))
}

// TaskLs is `task ls`.
type TaskLs struct{ taskList }

// Help is the text below the usage line.
func (TaskLs) Help() string {
	return "Example:\n\n    warrenctl task ls --filter node=n2 --filter desired-state=running"
}

// Run does it.
func (c *TaskLs) Run(ctx context.Context, s *Session) error {
	entries, err := s.ListTasks(ctx, "", "", c.runningOnly())
	if err != nil {
		return err
	}
	return c.show(s, [][]*warrenv1.TaskEntry{entries}, nil)
}

// TaskInspect is `task inspect`.
type TaskInspect struct {
	output.InspectFlags
	Tasks []string `arg:"" name:"task" complete:"task" help:"SERVICE.SLOT, id or beginning of an id."`
}

// Run does it.
func (c *TaskInspect) Run(ctx context.Context, s *Session) error {
	return inspectTasks(ctx, s, c.InspectFlags, c.Tasks)
}

// TaskDescribe is `task describe`.
type TaskDescribe struct {
	output.DescribeFlags
	Tasks []string `arg:"" name:"task" complete:"task" help:"SERVICE.SLOT, id or beginning of an id."`
}

// Run does it.
func (c *TaskDescribe) Run(ctx context.Context, s *Session) error {
	return inspectTasks(ctx, s, c.Inspect(), c.Tasks)
}

func inspectTasks(ctx context.Context, s *Session, f output.InspectFlags, refs []string) error {
	tasks, failed := collect(refs, func(ref string) (*warrenv1.GetTaskResponse, error) {
		res, err := s.Tasks.GetTask(ctx, connect.NewRequest(&warrenv1.GetTaskRequest{Ref: ref}))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	})
	if len(tasks) == 0 {
		return failed
	}
	// What templates see has the task's own fields at hand, as Docker's has.
	type subject struct {
		*warrenv1.Task
		Name, Node string
		Spec       *warrenv1.TaskSpec
	}
	err := output.Inspect(f, s.Out, tasks,
		func(r *warrenv1.GetTaskResponse) any {
			t, host := r.GetEntry().GetTask(), r.GetEntry().GetNodeHostname()
			return subject{t, view.TaskName(t, host), cmp.Or(host, t.GetNodeId()), r.GetSpec()}
		},
		func(r *warrenv1.GetTaskResponse) string { return view.Task(r, s.Now()) })
	return errors.Join(failed, err)
}
