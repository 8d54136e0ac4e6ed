package events_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	running  = warrenv1.RolloutState_ROLLOUT_STATE_RUNNING
	paused   = warrenv1.RolloutState_ROLLOUT_STATE_PAUSED
	waiting  = warrenv1.RolloutState_ROLLOUT_STATE_WAITING
	complete = warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE
)

// service is web at revision 2 of 2, written by olga, with edits.
func service(edits ...func(*warrenv1.Service)) *warrenv1.Service {
	return statetest.Replicated("web", 3, append([]func(*warrenv1.Service){func(s *warrenv1.Service) {
		s.Revision, s.LastRevision, s.WrittenBy = 2, 2, "olga"
	}}, edits...)...)
}

func rolling(state warrenv1.RolloutState, edits ...func(*warrenv1.Rollout)) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) {
		s.Rollout = &warrenv1.Rollout{From: 1, To: 2, State: state, StartedAt: timestamppb.New(statetest.Epoch)}
		for _, edit := range edits {
			edit(s.Rollout)
		}
	}
}

func orders(paused bool, resumes, promotes uint64) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) {
		s.Orders = &warrenv1.RolloutOrders{Paused: paused, Resumes: resumes, Promotes: promotes, By: "pat"}
	}
}

func why(text string) func(*warrenv1.Rollout) {
	return func(r *warrenv1.Rollout) { r.Message = text }
}

func TestRolloutsAreToldWithWhoHasOrderedWhat(t *testing.T) {
	template := func(s *warrenv1.Service) { s.Spec.Task.Container.Image = "other" }
	back := func(s *warrenv1.Service) {
		s.Revision, s.PreviousRevision = 1, 2
		s.Spec.Task.Container.Image = "older"
		s.Rollout = &warrenv1.Rollout{From: 2, To: 1, Rollback: true, State: running, Message: "going back from revision 2: 1 of 3 tasks failed", StartedAt: timestamppb.New(statetest.Epoch.Add(time.Minute))}
	}
	for name, c := range map[string]struct {
		before, after *warrenv1.Service
		want          []string // action, who, message
	}{
		"updated": {service(), service(template, func(s *warrenv1.Service) { s.Revision, s.LastRevision = 3, 3 }),
			[]string{"updated by olga: service web updated to revision 3"}},
		"updated back": {service(), service(template, func(s *warrenv1.Service) { s.Revision = 1 }),
			[]string{"updated by olga: service web updated, back to revision 1"}},
		"started":  {service(), service(rolling(running)), []string{"rollout-started by : service web is rolled out from revision 1 to 2"}},
		"progress": {service(rolling(running)), service(rolling(running, func(r *warrenv1.Rollout) { r.Failed = 1 })), nil},
		"paused by a user": {service(rolling(running), orders(true, 0, 0)), service(rolling(paused, why("paused by pat")), orders(true, 0, 0)),
			[]string{"rollout-paused by pat: service web has its rollout to revision 2 paused"}},
		"paused by a failure": {service(rolling(running)), service(rolling(paused, why("1 of 3 tasks failed"))),
			[]string{"rollout-paused by : service web has its rollout to revision 2 paused: 1 of 3 tasks failed"}},
		"resumed after a failure": {service(rolling(paused), orders(false, 1, 0)), service(rolling(running, func(r *warrenv1.Rollout) { r.Resumes = 1 }), orders(false, 1, 0)),
			[]string{"rollout-resumed by pat: service web goes on with its rollout to revision 2"}},
		"no longer paused": {service(rolling(paused), orders(false, 0, 0)), service(rolling(running), orders(false, 0, 0)),
			[]string{"rollout-resumed by pat: service web goes on with its rollout to revision 2"}},
		"canary": {service(rolling(running)), service(rolling(waiting, func(r *warrenv1.Rollout) { r.Weight = 10 })), []string{
			"rollout-weighted by : service web sends 10 % of new connections to revision 2",
			"rollout-waiting by : service web waits for its rollout to revision 2 to be promoted"}},
		"promoted": {service(rolling(waiting), orders(false, 0, 1)), service(rolling(running, func(r *warrenv1.Rollout) { r.Promotes = 1 }), orders(false, 0, 1)),
			[]string{"rollout-promoted by pat: service web has its rollout to revision 2 promoted"}},
		"complete": {service(rolling(running)), service(rolling(complete)), []string{"rollout-complete by : service web is at revision 2 as a whole"}},
		"failed and gone back": {service(rolling(running)), service(back),
			[]string{"rollback-started by : service web goes back from revision 2 to 1: 1 of 3 tasks failed"}},
		"back": {service(back), service(back, func(s *warrenv1.Service) { s.Rollout.State = complete }), []string{"rolled-back by : service web is back at revision 1"}},
		"given up": {service(rolling(running)), service(rolling(warrenv1.RolloutState_ROLLOUT_STATE_ABANDONED, why("the service was changed"))),
			[]string{"rollout-abandoned by : service web has its rollout to revision 2 given up: the service was changed"}},
		"paused before it begins": {service(), service(orders(true, 0, 0)), []string{"rollout-held by pat: service web has its next rollout wait until it is resumed"}},
		"let begin":               {service(orders(true, 0, 0)), service(orders(false, 0, 0)), []string{"rollout-released by pat: service web lets its next rollout begin by itself again"}},
		"ordered":                 {service(rolling(running)), service(rolling(running), orders(true, 0, 0)), nil},
	} {
		var got []string
		for _, e := range events.From(statetest.New(t).Snapshot(), state.Change{Before: c.before, After: c.after}, statetest.Epoch) {
			got = append(got, e.GetAction()+" by "+e.GetBy()+": "+e.GetMessage())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, c.want)
		}
	}
}

func TestHealthWaitsAndDrainsAreTold(t *testing.T) {
	health := func(s warrenv1.HealthState, output string) func(*warrenv1.Task) {
		return func(t *warrenv1.Task) { t.Status.Health = &warrenv1.TaskHealth{State: s, Output: output} }
	}
	const (
		starting  = warrenv1.HealthState_HEALTH_STATE_STARTING
		healthy   = warrenv1.HealthState_HEALTH_STATE_HEALTHY
		unhealthy = warrenv1.HealthState_HEALTH_STATE_UNHEALTHY
	)
	task := func(edits ...func(*warrenv1.Task)) *warrenv1.Task {
		return statetest.Task("a", "web", 3, "n1", edits...)
	}
	pending := func(message string) func(*warrenv1.Task) {
		return func(t *warrenv1.Task) {
			t.NodeId, t.Status = "", &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_PENDING, Message: message}
		}
	}
	node := func(availability warrenv1.NodeAvailability, s warrenv1.NodeState) *warrenv1.Node {
		return statetest.Node("n1", func(n *warrenv1.Node) { n.Spec.Availability, n.Status.State = availability, s })
	}
	const (
		active = warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE
		drain  = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
		ready  = warrenv1.NodeState_NODE_STATE_READY
		down   = warrenv1.NodeState_NODE_STATE_DOWN
	)
	ended := task(statetest.In(warrenv1.TaskState_TASK_STATE_SHUTDOWN))
	keeps := statetest.Replicated("web", 1, func(s *warrenv1.Service) {
		s.Spec.NodeLoss = &warrenv1.NodeLossPolicy{Action: warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT, Wait: durationpb.New(time.Hour)}
	})
	network := func(label string) *warrenv1.Network {
		return &warrenv1.Network{Meta: &warrenv1.Meta{Id: "shop"}, Spec: &warrenv1.NetworkSpec{Name: "shop", Labels: map[string]string{"a": label}}}
	}
	for name, c := range map[string]struct{ got, want []string }{
		"healthy":            {told(t, task(health(starting, "")), task(health(healthy, ""))), []string{"healthy: task web.3 is healthy"}},
		"unhealthy":          {told(t, task(health(healthy, "")), task(health(unhealthy, "500\nmore"))), []string{"unhealthy: task web.3 is unhealthy: 500"}},
		"still unhealthy":    {told(t, task(health(unhealthy, "500")), task(health(unhealthy, "502"))), nil},
		"next attempt":       {told(t, task(health(unhealthy, "500")), task(health(starting, ""))), nil},
		"waits for a node":   {told(t, task(pending("")), task(pending("no node fits"))), []string{"waiting: task web.3 waits: no node fits"}},
		"waits on":           {told(t, task(pending("no node fits")), task(pending("no node fits: 2"))), nil},
		"displaced":          {told(t, task(), task(func(t *warrenv1.Task) { t.Displaced = true })), []string{"displaced: task web.3 is to be moved to balance its service"}},
		"waits for its node": {told(t, node(active, ready), node(active, down), keeps, task()), []string{"down: node n1 is down", "waiting: task web.3 waits for node n1 to come back, 1h0m0s at the most"}},
		"lost with its node": {told(t, node(active, ready), node(active, down), statetest.Replicated("web", 1), task()), []string{"down: node n1 is down"}},
		"one of a drain":     {told(t, task(), ended, node(drain, ready), ended, statetest.Task("b", "web", 4, "n1")), []string{"shutdown: task web.3 was shut down"}},
		"on no drained node": {told(t, task(), ended, node(active, ready), ended), []string{"shutdown: task web.3 was shut down"}},
		"network created":    {told(t, nil, network("b")), []string{"created: network shop created"}},
		"network changed":    {told(t, network("b"), network("c")), []string{"updated: network shop updated"}},
		"network touched":    {told(t, network("b"), network("b")), nil},
		"network removed":    {told(t, network("b"), nil), []string{"removed: network shop removed"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: got %q, want %q", name, c.got, c.want)
		}
	}
}

func TestOfManyTasksThatEndTogetherTheLastTellsOfTheDrain(t *testing.T) {
	ended := func(id string, slot uint32) *warrenv1.Task {
		return statetest.Task(id, "web", slot, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_SHUTDOWN))
	}
	s := statetest.New(t, statetest.Node("n1", func(n *warrenv1.Node) {
		n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
	}), ended("a", 1), ended("b", 2), ended("c", 3)).Snapshot()
	said := 0
	for _, id := range []string{"a", "b", "c"} {
		for _, e := range events.From(s, state.Change{Before: statetest.Task(id, "web", 1, "n1"), After: s.Task(id)}, statetest.Epoch) {
			if e.GetMessage() == "node n1 is drained: its last task has ended" {
				said++
			}
		}
	}
	if said != 1 {
		t.Errorf("told %d times", said)
	}
}

func TestWhoHasDrainedANodeIsTold(t *testing.T) {
	drained := statetest.Node("n1", func(n *warrenv1.Node) {
		n.Spec.Availability, n.WrittenBy = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN, "anna"
		n.Spec.DrainDeadline = timestamppb.New(statetest.Epoch)
	})
	got := events.From(statetest.New(t).Snapshot(), state.Change{Before: statetest.Node("n1"), After: drained}, statetest.Epoch)
	if len(got) == 0 || got[0].GetBy() != "anna" || got[0].GetMessage() != "node n1 is being drained of its tasks, which are stopped at 2000-01-01T00:00:00Z at the latest" {
		t.Errorf("told %v", got)
	}
}
