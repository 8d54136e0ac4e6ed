package view

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// shortID is how much of an id is shown: enough to be unique among a million.
const shortID = 12

// ShortID returns the beginning of an id that tables show and every command takes.
func ShortID(id string) string { return id[:min(len(id), shortID)] }

// Ago says how long before now t was: 3 minutes ago. Empty for no time.
func Ago(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return ""
	}
	// A manager's clock may be ahead of this machine's.
	return lowerFirst(units.HumanDuration(max(0, now.Sub(t.AsTime())))) + " ago"
}

// Lasting says how long a time is, as people do: 4 minutes.
func Lasting(d time.Duration) string { return lowerFirst(units.HumanDuration(d)) }

// lowerFirst suits go-units' phrases (About a minute) to the middle of a sentence.
func lowerFirst(s string) string {
	return strings.ToLower(s[:1]) + s[1:]
}

// word turns the name of an enum's value into what people read: TASK_STATE_RUNNING into running.
func word(name, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", "-")
}

// State is a task's state in a word.
func State(s warrenv1.TaskState) string { return word(s.String(), "TASK_STATE_") }

// Desired is a task's desired state in a word.
func Desired(d warrenv1.DesiredState) string { return word(d.String(), "DESIRED_STATE_") }

// NodeState is a node's state in a word.
func NodeState(s warrenv1.NodeState) string { return word(s.String(), "NODE_STATE_") }

// Availability is a node's availability in a word.
func Availability(a warrenv1.NodeAvailability) string {
	if a == warrenv1.NodeAvailability_NODE_AVAILABILITY_UNSPECIFIED {
		a = warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE
	}
	return word(a.String(), "NODE_AVAILABILITY_")
}

// Object is the kind of object of an event in a word.
func Object(o warrenv1.EventObject) string { return word(o.String(), "EVENT_OBJECT_") }

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// Ended tells that a state is final.
func Ended(s warrenv1.TaskState) bool { return s >= warrenv1.TaskState_TASK_STATE_COMPLETE }

// StateColour is what a task's state tells at a glance.
func StateColour(s warrenv1.TaskState) output.Colour {
	switch s {
	case warrenv1.TaskState_TASK_STATE_RUNNING:
		return output.Good
	case warrenv1.TaskState_TASK_STATE_FAILED, warrenv1.TaskState_TASK_STATE_REJECTED, warrenv1.TaskState_TASK_STATE_LOST:
		return output.Bad
	case warrenv1.TaskState_TASK_STATE_COMPLETE, warrenv1.TaskState_TASK_STATE_SHUTDOWN:
		return output.Faint
	default:
		return output.Warning
	}
}

// TaskName is what people call a task: web.3, or web.n2 of a global service.
func TaskName(t *warrenv1.Task, hostname string) string {
	switch {
	case t.GetSlot() != 0:
		return t.GetServiceName() + "." + strconv.FormatUint(uint64(t.GetSlot()), 10)
	case hostname != "":
		return t.GetServiceName() + "." + hostname
	default:
		return t.GetServiceName() + "." + ShortID(t.GetNodeId())
	}
}

// Problem says in one line what is wrong with a task: why it does not run or why it last ended, with
// the last line of its output where it ended by itself. Empty if nothing is.
func Problem(s *warrenv1.TaskStatus) string {
	problem := s.GetError()
	if problem == "" && s.GetState() == warrenv1.TaskState_TASK_STATE_PENDING {
		problem = s.GetMessage()
	}
	if h := s.GetHealth(); problem == "" && unhealthy(s) {
		return lastLine(h.GetOutput())
	}
	if problem == "" && s.GetState() == warrenv1.TaskState_TASK_STATE_RUNNING && !s.GetServing() {
		return s.GetMessage() // it does not listen yet, or its node is down and is waited for
	}
	if problem == "" {
		return ""
	}
	if last := lastLine(s.GetExit().GetLastOutput()); last != "" && !strings.Contains(problem, last) {
		problem += ": " + last
	}
	return problem
}

// unhealthy tells that a task runs and does not do its work.
func unhealthy(s *warrenv1.TaskStatus) bool {
	return s.GetState() == warrenv1.TaskState_TASK_STATE_RUNNING && s.GetHealth().GetState() == warrenv1.HealthState_HEALTH_STATE_UNHEALTHY
}

func lastLine(text string) string {
	text = strings.TrimRight(text, "\r\n ")
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}

// CPUs writes billionths of a processor as people do: 1.5.
func CPUs(nano int64) string {
	return strconv.FormatFloat(float64(nano)/1e9, 'f', -1, 64)
}

// Memory writes bytes in powers of 1,024: 512MiB.
func Memory(bytes int64) string { return units.BytesSize(float64(bytes)) }

func duration(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return d.AsDuration().String()
}

// Mode says how many tasks a service wants: replicated or global.
func Mode(s *warrenv1.ServiceSpec) string {
	if s.GetGlobal() != nil {
		return "global"
	}
	return "replicated"
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Waits says in one line what keeps a task that does not run yet.
func Waits(s *warrenv1.TaskStatus) string {
	if p := Problem(s); p != "" {
		return p
	}
	return s.GetMessage()
}
