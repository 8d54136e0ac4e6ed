package traffictest

import (
	"maps"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

// Told is the services and tasks that changes, one after the other, come to.
type Told struct {
	services map[string]traffic.Service
	tasks    map[netip.Addr]traffic.Task
}

// Nothing is what is told before the first change.
func Nothing() *Told {
	return &Told{services: map[string]traffic.Service{}, tasks: map[netip.Addr]traffic.Task{}}
}

// Add takes a change in.
func (a *Told) Add(c traffic.Change) {
	for _, id := range c.RemovedServices {
		delete(a.services, id)
	}
	for _, addr := range c.RemovedTasks {
		delete(a.tasks, addr)
	}
	for _, s := range c.Services {
		a.services[s.ID] = s
	}
	for _, t := range c.Tasks {
		a.tasks[t.Addr] = t
	}
}

// Set is all of it.
func (a *Told) Set() traffic.Set {
	return traffic.Set{Services: slices.Collect(maps.Values(a.services)), Tasks: slices.Collect(maps.Values(a.tasks))}
}

// Once is all of it as one change, in an order of its own.
func (a *Told) Once(t *rapid.T) traffic.Change {
	all := a.Set()
	return traffic.Change{
		Services: rapid.Permutation(all.Services).Draw(t, "all services"),
		Tasks:    rapid.Permutation(all.Tasks).Draw(t, "all tasks"),
	}
}
