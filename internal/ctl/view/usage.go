package view

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/docker/go-units"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Usage is what nodes and their tasks use, as far as they have told.
type Usage struct {
	nodes map[string]*warrenv1.WatchUsageResponse
}

// Hear takes in what a node tells.
func (u *Usage) Hear(m *warrenv1.WatchUsageResponse) {
	if u.nodes == nil {
		u.nodes = map[string]*warrenv1.WatchUsageResponse{}
	}
	switch {
	case m.GetNodeId() == "":
	case m.GetGone():
		delete(u.nodes, m.GetNodeId())
	default:
		u.nodes[m.GetNodeId()] = m
	}
}

// Heard tells how many nodes have told something, or why they do not.
func (u *Usage) Heard() int { return len(u.nodes) }

// Silent are the nodes that do not tell, with why, by name.
func (u *Usage) Silent() (said []string) {
	for _, m := range u.sorted() {
		if m.GetError() != "" {
			said = append(said, nodeName(m.GetHostname(), m.GetNodeId())+": "+m.GetError())
		}
	}
	return said
}

// Messages are what each node has told last.
func (u *Usage) Messages() []proto.Message {
	var all []proto.Message
	for _, m := range u.sorted() {
		all = append(all, m)
	}
	return all
}

func (u *Usage) sorted() []*warrenv1.WatchUsageResponse {
	return slices.SortedFunc(maps.Values(u.nodes), func(a, b *warrenv1.WatchUsageResponse) int {
		return cmp.Or(cmp.Compare(a.GetHostname(), b.GetHostname()), cmp.Compare(a.GetNodeId(), b.GetNodeId()))
	})
}

// burden is what a node or a task uses, to sort by.
type burden struct {
	cpu     int64
	memory  uint64
	network uint64
}

func (b burden) compare(to burden, by string) int {
	switch by { // the largest first
	case "cpu":
		return cmp.Compare(to.cpu, b.cpu)
	case "memory":
		return cmp.Compare(to.memory, b.memory)
	case "network":
		return cmp.Compare(to.network, b.network)
	}
	return 0 // by name
}

// Nodes is the table of `top nodes`, sorted by cpu, memory, network or name.
func (u *Usage) Nodes(by string) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "NODE", Key: "Node"}, {Title: "CPU", Key: "CPU"}, {Title: "CPUS", Key: "CPUs"},
		{Title: "MEMORY", Key: "Memory"}, {Title: "OF", Key: "TotalMemory"}, {Title: "USED", Key: "MemoryPercent"},
		{Title: "RECEIVED/S", Key: "Received"}, {Title: "SENT/S", Key: "Sent"}, {Title: "TASKS", Key: "Tasks"},
		{Title: "PROBLEM", Key: "Problem", Elastic: true},
	}}
	all := u.sorted()
	slices.SortStableFunc(all, func(a, b *warrenv1.WatchUsageResponse) int {
		return nodeBurden(a.GetUsage()).compare(nodeBurden(b.GetUsage()), by)
	})
	problems := false
	for _, m := range all {
		row := output.Row{ID: m.GetNodeId(), Name: m.GetHostname(), Object: m, Cells: make([]output.Cell, len(t.Columns))}
		row.Cells[0] = cell(nodeName(m.GetHostname(), m.GetNodeId()))
		if n := m.GetUsage(); n != nil {
			row.Cells[1] = share(float64(n.GetNanoCpus()), float64(n.GetTotalNanoCpus()))
			row.Cells[2] = cell(cpus(n.GetNanoCpus()) + "/" + CPUs(n.GetTotalNanoCpus()))
			row.Cells[3] = cell(Memory(int64(n.GetMemoryBytes())))
			row.Cells[4] = cell(Memory(int64(n.GetTotalMemoryBytes())))
			row.Cells[5] = share(float64(n.GetMemoryBytes()), float64(n.GetTotalMemoryBytes()))
			row.Cells[6], row.Cells[7] = speed(n.GetReceivedPerSecond()), speed(n.GetSentPerSecond())
			row.Cells[8] = number(uint32(len(n.GetTasks())))
		}
		if m.GetError() != "" {
			problems = true
			row.Cells[9] = output.Cell{Text: m.GetError(), Colour: output.Bad}
		}
		t.Rows = append(t.Rows, row)
	}
	if !problems {
		t.Columns[9].Wide = true
	}
	return t
}

func nodeBurden(n *warrenv1.NodeUsage) burden {
	return burden{n.GetNanoCpus(), n.GetMemoryBytes(), n.GetReceivedPerSecond() + n.GetSentPerSecond()}
}

func taskBurden(t *warrenv1.TaskUsage) burden {
	return burden{t.GetNanoCpus(), t.GetMemoryBytes(), t.GetReceivedPerSecond() + t.GetSentPerSecond()}
}

// Tasks is the table of `top tasks`, sorted by cpu, memory, network or name.
func (u *Usage) Tasks(by string) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "TASK", Key: "Task"}, {Title: "NODE", Key: "Node"}, {Title: "CPUS", Key: "CPUs"}, {Title: "LIMIT", Key: "CPULimit"},
		{Title: "MEMORY", Key: "Memory"}, {Title: "LIMIT", Key: "MemoryLimit"}, {Title: "USED", Key: "MemoryPercent"},
		{Title: "RECEIVED/S", Key: "Received"}, {Title: "SENT/S", Key: "Sent"}, {Title: "ID", Key: "ID", Wide: true},
	}}
	type placed struct {
		*warrenv1.TaskUsage
		on string
	}
	var all []placed
	for _, m := range u.sorted() {
		for _, task := range m.GetUsage().GetTasks() {
			all = append(all, placed{task, nodeName(m.GetHostname(), m.GetNodeId())})
		}
	}
	slices.SortStableFunc(all, func(a, b placed) int {
		return cmp.Or(taskBurden(a.TaskUsage).compare(taskBurden(b.TaskUsage), by),
			cmp.Compare(a.GetServiceName(), b.GetServiceName()), cmp.Compare(len(a.GetName()), len(b.GetName())), cmp.Compare(a.GetName(), b.GetName()))
	})
	for _, task := range all {
		cpuLimit, memoryLimit, used := cell("-"), cell("-"), cell("")
		if task.GetLimitNanoCpus() > 0 {
			cpuLimit = cell(CPUs(task.GetLimitNanoCpus()))
		}
		if task.GetLimitMemoryBytes() > 0 {
			memoryLimit = cell(Memory(int64(task.GetLimitMemoryBytes())))
			used = share(float64(task.GetMemoryBytes()), float64(task.GetLimitMemoryBytes()))
		}
		received, sent := cell("-"), cell("-") // on the node's own network
		if task.ReceivedPerSecond != nil {
			received, sent = speed(task.GetReceivedPerSecond()), speed(task.GetSentPerSecond())
		}
		t.Rows = append(t.Rows, output.Row{
			ID: task.GetTaskId(), Name: task.GetName(), Object: task.TaskUsage,
			Cells: []output.Cell{
				cell(task.GetName()), cell(task.on), cell(cpus(task.GetNanoCpus())), cpuLimit,
				cell(Memory(int64(task.GetMemoryBytes()))), memoryLimit, used, received, sent, cell(task.GetTaskId()),
			},
		})
	}
	return t
}

// Summary says in a line what there is to be seen.
func (u *Usage) Summary() string {
	tasks := 0
	var busy, all int64
	var used, memory uint64
	for _, m := range u.nodes {
		n := m.GetUsage()
		tasks += len(n.GetTasks())
		busy, all = busy+n.GetNanoCpus(), all+n.GetTotalNanoCpus()
		used, memory = used+n.GetMemoryBytes(), memory+n.GetTotalMemoryBytes()
	}
	return fmt.Sprintf("%s, %s; processors %s of %s busy, memory %s of %s used",
		count(len(u.nodes), "node", "nodes"), count(tasks, "task", "tasks"), cpus(busy), CPUs(all), Memory(int64(used)), Memory(int64(memory)))
}

// cpus writes processors that are busy to a hundredth: 0.25.
func cpus(nano int64) string { return strconv.FormatFloat(float64(nano)/1e9, 'f', 2, 64) }

// speed writes bytes per second: 1.5kB.
func speed(bytes uint64) output.Cell { return cell(units.HumanSize(float64(bytes))) }

const (
	// much and nearlyAll are the shares that catch the eye.
	much      = 0.75
	nearlyAll = 0.9
)

// share writes a part of a whole in percent.
func share(part, whole float64) output.Cell {
	if whole <= 0 {
		return cell("")
	}
	c := cell(strconv.FormatFloat(100*part/whole, 'f', 0, 64) + "%")
	switch {
	case part >= nearlyAll*whole:
		c.Colour = output.Bad
	case part >= much*whole:
		c.Colour = output.Warning
	}
	return c
}
