package usage

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/agent/runtime"
	"github.com/cuemby/warren/internal/agent/supervisor"
	"github.com/cuemby/warren/internal/agent/traffic"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	// firstLook is how long the first sample is measured: whoever looks wants to see something soon.
	firstLook = 300 * time.Millisecond
	// shortest keeps a node from being kept busy with being watched.
	shortest = 200 * time.Millisecond
)

// Sources are what is asked.
type Sources struct {
	// Tasks tells how the node's tasks stand.
	Tasks func() []supervisor.Look
	// Container tells what a running container has used.
	Container func(id string) (runtime.Usage, error)
	// Program tells what a program's network namespace has carried.
	Program func(pid uint32) (traffic.Traffic, error)
	// Machine tells what the whole machine has used.
	Machine func() (Machine, error)
}

// Meter measures what the node and its tasks use.
type Meter struct{ sources Sources }

// New returns a meter. Sources that are nil are the kernel's own.
func New(s Sources) *Meter {
	if s.Program == nil {
		s.Program = traffic.OfProgram
	}
	if s.Machine == nil {
		s.Machine = readMachine
	}
	return &Meter{s}
}

// Watch emits what is used, the first time soon and then every interval, until ctx ends or emit fails. Of the tasks
// those of one service, or all where that is empty.
func (m *Meter) Watch(ctx context.Context, interval time.Duration, service string, emit func(*warrenv1.NodeUsage) error) error {
	interval = max(interval, shortest)
	before, err := m.look(service)
	if err != nil {
		return err
	}
	timer := time.NewTimer(min(firstLook, interval))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		timer.Reset(interval)
		now, err := m.look(service)
		if err != nil {
			return err
		}
		if err := emit(between(before, now)); err != nil {
			return err
		}
		before = now
	}
}

// look is what has been used up to a moment.
type look struct {
	at      time.Time
	machine Machine
	tasks   map[string]taskLook // by container
}

type taskLook struct {
	supervisor.Look
	usage   runtime.Usage
	traffic *traffic.Traffic
}

func (m *Meter) look(service string) (*look, error) {
	machine, err := m.sources.Machine()
	if err != nil {
		return nil, err
	}
	l := &look{at: time.Now(), machine: machine, tasks: map[string]taskLook{}}
	for _, t := range m.sources.Tasks() {
		if t.Status.GetPid() == 0 || service != "" && t.ServiceID != service {
			continue
		}
		used, err := m.sources.Container(t.Status.GetContainerId())
		if err != nil {
			continue // it has just ended
		}
		seen := taskLook{Look: t, usage: used}
		if t.OwnNetwork {
			if carried, err := m.sources.Program(t.Status.GetPid()); err == nil {
				seen.traffic = &carried
			}
		}
		l.tasks[t.Status.GetContainerId()] = seen
	}
	return l, nil
}

// between is what was used between two looks. A container that was not there at the first has begun at zero.
func between(before, now *look) *warrenv1.NodeUsage {
	elapsed := now.at.Sub(before.at)
	u := &warrenv1.NodeUsage{
		At:            timestamppb.New(now.at),
		NanoCpus:      busy(before.machine, now.machine),
		TotalNanoCpus: int64(now.machine.CPUs) * 1e9, MemoryBytes: now.machine.Memory, TotalMemoryBytes: now.machine.TotalMemory,
		ReceivedPerSecond: rate(before.machine.Received, now.machine.Received, elapsed),
		SentPerSecond:     rate(before.machine.Sent, now.machine.Sent, elapsed),
	}
	for container, t := range now.tasks {
		was := before.tasks[container]
		used := &warrenv1.TaskUsage{
			TaskId: t.ID, Name: t.Name, ServiceId: t.ServiceID, ServiceName: t.Service,
			NanoCpus:      int64(rate(uint64(was.usage.CPU), uint64(t.usage.CPU), elapsed)),
			LimitNanoCpus: t.LimitNanoCPUs, MemoryBytes: t.usage.Memory, LimitMemoryBytes: t.usage.MemoryLimit,
		}
		if t.traffic != nil {
			earlier := traffic.Traffic{}
			if was.traffic != nil {
				earlier = *was.traffic
			}
			received := rate(earlier.Received, t.traffic.Received, elapsed)
			sent := rate(earlier.Sent, t.traffic.Sent, elapsed)
			used.ReceivedPerSecond, used.SentPerSecond = &received, &sent
		}
		u.Tasks = append(u.Tasks, used)
	}
	slices.SortFunc(u.Tasks, func(a, b *warrenv1.TaskUsage) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetTaskId(), b.GetTaskId()))
	})
	return u
}

// rate is how much a counter has grown per second. One that has begun anew tells what it counts since.
func rate(before, now uint64, elapsed time.Duration) uint64 {
	if elapsed <= 0 {
		return 0
	}
	grown := now
	if now >= before {
		grown = now - before
	}
	return uint64(float64(grown) / elapsed.Seconds())
}

// busy is how many billionths of processors were busy. The kernel's own clock ticks tell the time too, so that this
// cannot come to more than there are.
func busy(before, now Machine) int64 {
	if now.Ticks <= before.Ticks || now.Idle < before.Idle {
		return 0
	}
	all, idle := now.Ticks-before.Ticks, min(now.Idle-before.Idle, now.Ticks-before.Ticks)
	return int64(float64(all-idle) / float64(all) * float64(now.CPUs) * 1e9)
}
