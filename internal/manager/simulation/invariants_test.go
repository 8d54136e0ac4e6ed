package simulation

import (
	"fmt"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// checkCommit checks what must hold after every commit, given what it changed.
func checkCommit(s state.Snapshot, changes []state.Change) error {
	nodes := map[string]bool{}
	for _, c := range changes {
		after, ok := c.After.(*warrenv1.Task)
		if !ok {
			continue
		}
		if before, ok := c.Before.(*warrenv1.Task); ok {
			if err := checkStep(before, after); err != nil {
				return fmt.Errorf("task %s of %s: %w", after.GetMeta().GetId(), lifecycle.Name(after, after.GetNodeId()), err)
			}
		}
		if err := checkSlot(s, after); err != nil {
			return fmt.Errorf("slot %s: %w", lifecycle.Name(after, after.GetNodeId()), err)
		}
		nodes[after.GetNodeId()] = true
	}
	for id := range nodes {
		if err := checkCapacity(s, id); err != nil {
			return fmt.Errorf("node %s: %w", id, err)
		}
	}
	return nil
}

// checkStep: a task only ever moves on, what is wanted of it only down, and it is never moved.
func checkStep(before, after *warrenv1.Task) error {
	b, a := before.GetStatus(), after.GetStatus()
	switch {
	case lifecycle.Compare(a, b) < 0:
		return fmt.Errorf("went back from attempt %d %v to attempt %d %v", b.GetAttempt(), b.GetState(), a.GetAttempt(), a.GetState())
	case lifecycle.Ended(b.GetState()) && a.GetState() != b.GetState():
		return fmt.Errorf("had ended as %v and became %v", b.GetState(), a.GetState())
	case after.GetDesired() < before.GetDesired():
		return fmt.Errorf("was wanted %v and is now wanted %v", before.GetDesired(), after.GetDesired())
	case before.GetNodeId() != "" && after.GetNodeId() != before.GetNodeId():
		return fmt.Errorf("was moved from %s to %s", before.GetNodeId(), after.GetNodeId())
	}
	return nil
}

// checkSlot: two tasks of one slot may run at once only where an update starts the new one first, and
// never more than two are wanted.
func checkSlot(s state.Snapshot, t *warrenv1.Task) error {
	service := s.Service(t.GetServiceId())
	if service == nil {
		return fmt.Errorf("the service is gone")
	}
	of := slot.At(s, t.GetServiceId(), slot.KeyOf(t))
	if len(of.Live) > 2 {
		return fmt.Errorf("%d tasks are wanted", len(of.Live))
	}
	placed := 0
	for _, t := range append(of.Live, of.Ending...) {
		if !slot.Unassigned(t) {
			placed++
		}
	}
	if slot.StopFirst(service) && placed > 1 {
		return fmt.Errorf("%d tasks may run although the old one is to be stopped first", placed)
	}
	return nil
}

// checkCapacity: what is reserved on a node is not more than it has.
func checkCapacity(s state.Snapshot, nodeID string) error {
	var cpus, memory int64
	for t := range s.TasksByNode(nodeID) {
		if slot.Unassigned(t) || lifecycle.Ended(t.GetStatus().GetState()) {
			continue
		}
		revision := s.Revision(t.GetServiceId(), t.GetRevision())
		if revision == nil {
			return fmt.Errorf("revision %d of task %s is gone", t.GetRevision(), t.GetMeta().GetId())
		}
		cpus += revision.GetTask().GetReservations().GetNanoCpus()
		memory += revision.GetTask().GetReservations().GetMemoryBytes()
	}
	if n := s.Node(nodeID); n != nil && (cpus > n.GetFacts().GetResources().GetNanoCpus() || memory > n.GetFacts().GetResources().GetMemoryBytes()) {
		return fmt.Errorf("%d cpus and %d bytes are reserved of %v", cpus, memory, n.GetFacts().GetResources())
	}
	return nil
}

// converged tells why the cluster is not yet as its services say.
func converged(s state.Snapshot) error {
	for service := range s.Services() {
		if err := settled(s, service); err != nil {
			return fmt.Errorf("service %s: %w", service.GetSpec().GetName(), err)
		}
	}
	for t := range s.Tasks() {
		if s.Service(t.GetServiceId()) == nil {
			return fmt.Errorf("task %s outlived its service", t.GetMeta().GetId())
		}
	}
	return nil
}

func settled(s state.Snapshot, service *warrenv1.Service) error {
	if service.GetRemoving() {
		return fmt.Errorf("is still being removed")
	}
	want := int(service.GetSpec().GetReplicated().GetReplicas())
	if service.GetSpec().GetGlobal() != nil {
		want = 0
		for n := range s.Nodes() {
			if placement.Open(n) && placement.Admits(service.GetSpec().GetPlacement(), n) {
				want++
			}
		}
	}
	have := 0
	for _, of := range slot.Of(s, service.GetMeta().GetId()) {
		switch {
		case len(of.Live) > 1:
			return fmt.Errorf("%d tasks are wanted in slot %v", len(of.Live), of.Key)
		case len(of.Ending) > 0 || len(of.Spent) > 0:
			return fmt.Errorf("tasks of slot %v are still to go", of.Key)
		case len(of.Live) == 0:
			continue
		}
		t := of.Live[0]
		n := s.Node(t.GetNodeId())
		switch {
		case !slot.Running(t) || t.GetRevision() != service.GetRevision():
			return fmt.Errorf("the task in slot %v is %v at revision %d of %d: %s", of.Key, t.GetStatus().GetState(), t.GetRevision(), service.GetRevision(), t.GetStatus().GetMessage())
		case n == nil || !placement.Open(n) || !placement.Admits(service.GetSpec().GetPlacement(), n):
			return fmt.Errorf("the task in slot %v is on node %s, where it may not be", of.Key, t.GetNodeId())
		}
		have++
	}
	if have != want {
		return fmt.Errorf("has %d tasks of %d", have, want)
	}
	return nil
}
