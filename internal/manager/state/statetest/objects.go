package statetest

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// ClusterID is the id of Cluster.
const ClusterID = "cluster"

// Cluster returns a cluster whose settings are all at their defaults.
func Cluster(edits ...func(*warrenv1.Cluster)) *warrenv1.Cluster {
	return edited(&warrenv1.Cluster{
		Meta: &warrenv1.Meta{Id: ClusterID},
		Spec: &warrenv1.ClusterSpec{Name: "test"},
	}, edits)
}

// Node returns a ready, active linux/amd64 node of four processors and 8 GiB. Its id is its hostname.
func Node(id string, edits ...func(*warrenv1.Node)) *warrenv1.Node {
	return edited(&warrenv1.Node{
		Meta:   &warrenv1.Meta{Id: id},
		Spec:   &warrenv1.NodeSpec{Availability: warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE},
		Status: &warrenv1.NodeStatus{State: warrenv1.NodeState_NODE_STATE_READY, Since: timestamppb.New(Epoch)},
		Facts: &warrenv1.NodeFacts{
			Hostname: id, Os: "linux", Arch: "amd64",
			Resources: &warrenv1.Resources{NanoCpus: 4e9, MemoryBytes: 8 << 30},
		},
	}, edits)
}

// Replicated returns a service of that many replicas, at revision 1. Its id is its name.
func Replicated(name string, replicas uint32, edits ...func(*warrenv1.Service)) *warrenv1.Service {
	return service(name, &warrenv1.ServiceSpec{
		Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: replicas}},
	}, edits)
}

// Global returns a global service, at revision 1. Its id is its name.
func Global(name string, edits ...func(*warrenv1.Service)) *warrenv1.Service {
	return service(name, &warrenv1.ServiceSpec{
		Mode: &warrenv1.ServiceSpec_Global{Global: &warrenv1.GlobalMode{}},
	}, edits)
}

func service(name string, spec *warrenv1.ServiceSpec, edits []func(*warrenv1.Service)) *warrenv1.Service {
	spec.Name = name
	spec.Task = &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "image"}}
	return edited(&warrenv1.Service{Meta: &warrenv1.Meta{Id: name}, Spec: spec, Revision: 1}, edits)
}

// Revision returns the service's current revision, as the API stores it beside the service.
func Revision(s *warrenv1.Service) *warrenv1.Revision {
	return &warrenv1.Revision{
		Meta:      &warrenv1.Meta{Id: state.RevisionID(s.GetMeta().GetId(), s.GetRevision())},
		ServiceId: s.GetMeta().GetId(), Number: s.GetRevision(), Task: s.GetSpec().GetTask(),
	}
}

// Task returns a running and serving task of revision 1 in a slot of the service whose id and name are given, on
// that node.
func Task(id, service string, slot uint32, node string, edits ...func(*warrenv1.Task)) *warrenv1.Task {
	return edited(&warrenv1.Task{
		Meta:      &warrenv1.Meta{Id: id},
		ServiceId: service, ServiceName: service, Slot: slot, Revision: 1, NodeId: node,
		Desired: warrenv1.DesiredState_DESIRED_STATE_RUNNING,
		Status: &warrenv1.TaskStatus{
			State: warrenv1.TaskState_TASK_STATE_RUNNING, Attempt: 1, Serving: true,
			Since: timestamppb.New(Epoch), StartedAt: timestamppb.New(Epoch),
		},
	}, edits)
}

// In has a task be in that state.
func In(s warrenv1.TaskState) func(*warrenv1.Task) {
	return func(t *warrenv1.Task) {
		t.Status.State, t.Status.Serving = s, s == warrenv1.TaskState_TASK_STATE_RUNNING
	}
}

// NotServing has a task run and take no connections.
func NotServing(t *warrenv1.Task) {
	t.Status.State, t.Status.Serving = warrenv1.TaskState_TASK_STATE_RUNNING, false
}

// Desired has that be wanted of a task.
func Desired(d warrenv1.DesiredState) func(*warrenv1.Task) {
	return func(t *warrenv1.Task) { t.Desired = d }
}

// Of has a task be of that revision.
func Of(revision uint64) func(*warrenv1.Task) {
	return func(t *warrenv1.Task) { t.Revision = revision }
}

func edited[T any](o T, edits []func(T)) T {
	for _, edit := range edits {
		edit(o)
	}
	return o
}

// Ended has a task have ended in that state at a time, by the managers' clock and its node's.
func Ended(s warrenv1.TaskState, at time.Time) func(*warrenv1.Task) {
	return func(t *warrenv1.Task) {
		t.Status.State, t.Status.Since, t.Status.Serving = s, timestamppb.New(at), false
		t.Meta.UpdatedAt = timestamppb.New(at)
	}
}

// Created has a task have been created at a time.
func Created(at time.Time) func(*warrenv1.Task) {
	return func(t *warrenv1.Task) {
		t.Meta.CreatedAt = timestamppb.New(at)
		t.Status.StartedAt = timestamppb.New(at)
	}
}

// Counter returns a source of ids: prefix1, prefix2 and so on.
func Counter(prefix string) func() string {
	n := 0
	return func() string { n++; return fmt.Sprintf("%s%d", prefix, n) }
}
