package view

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func cell(text string) output.Cell { return output.Cell{Text: text} }

func number[N uint32 | uint64](n N) output.Cell { return cell(strconv.FormatUint(uint64(n), 10)) }

func id(id string) output.Cell { return output.Cell{Text: id, Short: ShortID(id)} }

// Services is the table of `service ls`.
func Services(entries []*warrenv1.ServiceEntry, now time.Time) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "ID", Key: "ID"}, {Title: "NAME", Key: "Name"}, {Title: "MODE", Key: "Mode"},
		{Title: "REPLICAS", Key: "Replicas"}, {Title: "IMAGE", Key: "Image", Elastic: true}, {Title: "PORTS", Key: "Ports", Elastic: true}, {Title: "UPDATED", Key: "Updated"},
		{Title: "CREATED", Key: "Created", Wide: true}, {Title: "REVISION", Key: "Revision", Wide: true},
		{Title: "REASON", Key: "Reason", Wide: true, Elastic: true},
	}}
	for _, e := range entries {
		s, p := e.GetService(), e.GetProgress()
		replicas := cell(fmt.Sprintf("%d/%d", p.GetRunning(), p.GetDesired()) + standing(s, p))
		switch {
		case s.GetRemoving():
			replicas.Text += " (removing)"
			replicas.Colour = output.Faint
		case p.GetConverged():
			replicas.Colour = output.Good
		case p.GetRunning() == 0 || p.GetUnhealthy() > 0 && p.GetServing() == 0:
			replicas.Colour = output.Bad
		default:
			replicas.Colour = output.Warning
		}
		ports := cell(Ports(s))
		if len(s.GetEndpoint().GetProblems()) > 0 {
			ports.Colour = output.Warning
		}
		t.Rows = append(t.Rows, output.Row{
			ID: s.GetMeta().GetId(), Name: s.GetSpec().GetName(), Object: e,
			Cells: []output.Cell{
				id(s.GetMeta().GetId()), cell(s.GetSpec().GetName()), cell(Mode(s.GetSpec())), replicas,
				cell(Image(s.GetSpec().GetTask().GetContainer().GetImage())), ports, cell(Ago(s.GetMeta().GetUpdatedAt(), now)),
				cell(Ago(s.GetMeta().GetCreatedAt(), now)), number(s.GetRevision()), cell(p.GetReason()),
			},
		})
	}
	return t
}

// silent counts tasks that run, or did when their node was last heard of, and take no connections although none has found them
// unhealthy.
func silent(p *warrenv1.ServiceProgress) int {
	return int(p.GetRunning()) - int(p.GetServing()) - int(p.GetUnhealthy())
}

// standing says what numbers do not: that tasks are unhealthy, and that a rollout rests.
func standing(s *warrenv1.Service, p *warrenv1.ServiceProgress) string {
	var said []string
	if n := p.GetUnhealthy(); n > 0 {
		said = append(said, fmt.Sprintf("%d unhealthy", n))
	}
	if n := silent(p); n > 0 {
		said = append(said, fmt.Sprintf("%d not serving", n))
	}
	switch s.GetRollout().GetState() {
	case warrenv1.RolloutState_ROLLOUT_STATE_RUNNING:
		said = append(said, fmt.Sprintf("%d updated", p.GetUpdated()))
	case warrenv1.RolloutState_ROLLOUT_STATE_PAUSED:
		said = append(said, fmt.Sprintf("%d updated, paused", p.GetUpdated()))
	case warrenv1.RolloutState_ROLLOUT_STATE_WAITING:
		said = append(said, "waits to be promoted")
	}
	if len(said) == 0 {
		return ""
	}
	return " (" + strings.Join(said, ", ") + ")"
}

// Tasks is the table of `service ps`, `node ps` and `task ls`. The tasks of one slot follow each other,
// those that live before those that have ended, the newest first; all but the first indented.
func Tasks(entries []*warrenv1.TaskEntry, now time.Time) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "ID", Key: "ID"}, {Title: "NAME", Key: "Name"}, {Title: "IMAGE", Key: "Image", Elastic: true},
		{Title: "NODE", Key: "Node"}, {Title: "DESIRED STATE", Key: "DesiredState"}, {Title: "CURRENT STATE", Key: "CurrentState"},
		{Title: "ERROR", Key: "Error", Elastic: true},
		{Title: "DIGEST", Key: "Digest", Wide: true}, {Title: "EXIT CODE", Key: "ExitCode", Wide: true},
		{Title: "RESTARTS", Key: "Restarts", Wide: true}, {Title: "PID", Key: "PID", Wide: true},
		{Title: "CONTAINER", Key: "Container", Wide: true}, {Title: "ADDRESS", Key: "Address", Wide: true},
		{Title: "SERVING", Key: "Serving", Wide: true}, {Title: "HEALTH", Key: "Health", Wide: true},
	}}
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, bySlotThenAge)
	for i, e := range entries {
		task, status := e.GetTask(), e.GetTask().GetStatus()
		name := cell(TaskName(task, e.GetNodeHostname()))
		if i > 0 && slotOf(entries[i-1]) == slotOf(e) {
			name.Short = ` \_ ` + name.Text
		}
		exit := ""
		if status.GetExit() != nil {
			exit = strconv.FormatUint(uint64(status.GetExit().GetCode()), 10)
		}
		pid := ""
		if status.GetPid() != 0 {
			pid = strconv.FormatUint(uint64(status.GetPid()), 10)
		}
		t.Rows = append(t.Rows, output.Row{
			ID: task.GetMeta().GetId(), Name: name.Text, Object: e,
			Cells: []output.Cell{
				id(task.GetMeta().GetId()), name, cell(Image(e.GetImage())), cell(e.GetNodeHostname()),
				cell(capital(Desired(task.GetDesired()))),
				{Text: CurrentState(status, now), Colour: healthColour(status)},
				{Text: Problem(status), Colour: problemColour(status)},
				id(status.GetImageDigest()), cell(exit), number(restarts(status)), cell(pid), id(status.GetContainerId()),
				cell(status.GetAddress()), cell(serving(status)), cell(Health(status.GetHealth())),
			},
		})
	}
	return t
}

// CurrentState says what a task is at and since when: Running 3 minutes ago, 2 restarts.
func CurrentState(s *warrenv1.TaskStatus, now time.Time) string {
	state := capital(State(s.GetState()))
	if h := Health(s.GetHealth()); h != "" && s.GetState() == warrenv1.TaskState_TASK_STATE_RUNNING {
		state += " (" + h + ")"
	}
	if ago := Ago(s.GetSince(), now); ago != "" {
		state += " " + ago
	}
	if n := restarts(s); n > 0 && !Ended(s.GetState()) {
		state += ", " + count(int(n), "restart", "restarts")
	}
	return state
}

// problemColour dims the problems of the past.
func problemColour(s *warrenv1.TaskStatus) output.Colour {
	if Ended(s.GetState()) || s.GetState() == warrenv1.TaskState_TASK_STATE_RUNNING && !unhealthy(s) {
		return output.Faint
	}
	return output.Bad
}

func restarts(s *warrenv1.TaskStatus) uint32 { return max(s.GetAttempt(), 1) - 1 }

type slot struct {
	service string
	number  uint32
	node    string // of a global service only, whose slots are its nodes
}

func slotOf(e *warrenv1.TaskEntry) slot {
	s := slot{service: e.GetTask().GetServiceName(), number: e.GetTask().GetSlot()}
	if s.number == 0 {
		s.node = cmp.Or(e.GetNodeHostname(), e.GetTask().GetNodeId())
	}
	return s
}

func bySlotThenAge(a, b *warrenv1.TaskEntry) int {
	x, y := slotOf(a), slotOf(b)
	return cmp.Or(
		cmp.Compare(x.service, y.service),
		cmp.Compare(x.number, y.number),
		cmp.Compare(x.node, y.node),
		cmp.Compare(endedLast(a), endedLast(b)),
		b.GetTask().GetMeta().GetCreatedAt().AsTime().Compare(a.GetTask().GetMeta().GetCreatedAt().AsTime()),
	)
}

// endedLast ranks a task that has ended behind one that has not: a replacement that was taken back is newer than the
// task that has stayed, and is not what the slot has.
func endedLast(e *warrenv1.TaskEntry) int {
	if Ended(e.GetTask().GetStatus().GetState()) {
		return 1
	}
	return 0
}

// Nodes is the table of `node ls`. A node whose machine has a manager too, by its hostname, shows how
// that one stands.
func Nodes(entries []*warrenv1.NodeEntry, managers []*warrenv1.Manager, now time.Time) *output.Table {
	managing := map[string]output.Cell{}
	for _, m := range managers {
		managing[m.GetHostname()] = output.Cell{Text: capital(ManagerStatus(m)), Colour: managerColour(m)}
	}

	t := &output.Table{Columns: []output.Column{
		{Title: "ID", Key: "ID"}, {Title: "HOSTNAME", Key: "Hostname"}, {Title: "STATUS", Key: "Status"},
		{Title: "AVAILABILITY", Key: "Availability"}, {Title: "MANAGER", Key: "ManagerStatus"}, {Title: "TASKS", Key: "Tasks"},
		{Title: "CPUS RESERVED", Key: "CPUs"}, {Title: "MEMORY RESERVED", Key: "Memory"}, {Title: "VERSION", Key: "Version"},
		{Title: "ADDRESS", Key: "Address", Wide: true}, {Title: "PLATFORM", Key: "Platform", Wide: true},
		{Title: "OS", Key: "OS", Wide: true}, {Title: "KERNEL", Key: "Kernel", Wide: true},
		{Title: "CONTAINERD", Key: "Containerd", Wide: true}, {Title: "SINCE", Key: "Since", Wide: true},
		{Title: "SUBNET", Key: "Subnet", Wide: true}, {Title: "OVERLAY", Key: "Overlay", Wide: true},
		{Title: "MESSAGE", Key: "Message", Wide: true},
	}}
	for _, e := range entries {
		n, f := e.GetNode(), e.GetNode().GetFacts()
		t.Rows = append(t.Rows, output.Row{
			ID: n.GetMeta().GetId(), Name: f.GetHostname(), Object: e,
			Cells: []output.Cell{
				id(n.GetMeta().GetId()), cell(f.GetHostname()),
				{Text: capital(NodeState(n.GetStatus().GetState())), Colour: nodeColour(n.GetStatus().GetState())},
				{Text: capital(Availability(n.GetSpec().GetAvailability())), Colour: availabilityColour(n.GetSpec().GetAvailability())},
				managing[f.GetHostname()], number(e.GetTasks()),
				cell(CPUs(e.GetReserved().GetNanoCpus()) + "/" + CPUs(f.GetResources().GetNanoCpus())),
				cell(Memory(e.GetReserved().GetMemoryBytes()) + "/" + Memory(f.GetResources().GetMemoryBytes())),
				cell(f.GetAgentVersion()),
				cell(n.GetStatus().GetAddr()), cell(f.GetOs() + "/" + f.GetArch()), cell(f.GetOsName()), cell(f.GetKernel()),
				cell(f.GetContainerdVersion()), cell(Ago(n.GetStatus().GetSince(), now)),
				cell(n.GetNetwork().GetSubnet()), OverlayState(n), cell(n.GetStatus().GetMessage()),
			},
		})
	}
	return t
}

func nodeColour(s warrenv1.NodeState) output.Colour {
	switch s {
	case warrenv1.NodeState_NODE_STATE_READY:
		return output.Good
	case warrenv1.NodeState_NODE_STATE_DOWN:
		return output.Bad
	default:
		return output.Warning
	}
}

func availabilityColour(a warrenv1.NodeAvailability) output.Colour {
	switch a {
	case warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE, warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN:
		return output.Warning
	default:
		return 0
	}
}
