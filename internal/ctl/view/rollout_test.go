package view

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// rolled is a service half-way through a canary, with everything about health and rollouts that a service can have.
func rolled() *warrenv1.ServiceEntry {
	return &warrenv1.ServiceEntry{
		Service: &warrenv1.Service{
			Meta: meta("rolledrolledroll", time.Hour), Revision: 4, PreviousRevision: 3, WrittenBy: "anna",
			Spec: &warrenv1.ServiceSpec{
				Name: "shop",
				Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: 10}},
				Task: &warrenv1.TaskSpec{
					Container: &warrenv1.ContainerSpec{Image: "shop:4@" + digest},
					Health: &warrenv1.HealthCheck{
						Probe: &warrenv1.HealthCheck_Http{Http: &warrenv1.HttpProbe{
							Port: 8443, Path: "/healthz", Headers: []string{"Host: shop.example"}, Status: "200-299", Body: "ok", Tls: true, TlsSkipVerify: true,
						}},
						Interval: durationpb.New(5 * time.Second), Timeout: durationpb.New(time.Second), Retries: 2, SuccessThreshold: 3,
						StartPeriod: durationpb.New(time.Minute), StartInterval: durationpb.New(time.Second), OnFailure: warrenv1.UnhealthyAction_UNHEALTHY_ACTION_WITHDRAW,
					},
				},
				Update: &warrenv1.UpdatePolicy{
					Parallelism: 2, Delay: durationpb.New(time.Second), Order: warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST, Monitor: durationpb.New(10 * time.Second),
					MaxFailureRatio: 0.25, FailureAction: warrenv1.FailureAction_FAILURE_ACTION_PAUSE, ProgressDeadline: durationpb.New(20 * time.Minute), MaxUnavailable: 3,
					Strategy: warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY, Canary: []*warrenv1.CanaryStep{{Weight: 10, Hold: durationpb.New(5 * time.Minute)}, {Weight: 50}},
				},
				Rollback: &warrenv1.UpdatePolicy{Parallelism: 10},
				NodeLoss: &warrenv1.NodeLossPolicy{Action: warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT, Wait: durationpb.New(time.Hour)},
			},
			Rollout: &warrenv1.Rollout{
				From: 3, To: 4, State: warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, StartedAt: ago(10 * time.Minute), Since: ago(time.Minute),
				Message: "1 of 10 failed: shop.1: exit code 1", Failed: 1, Weight: 10, Step: 0, StepSince: ago(5 * time.Minute),
			},
			Orders: &warrenv1.RolloutOrders{Paused: true, By: "otto"},
		},
		Progress: &warrenv1.ServiceProgress{Desired: 10, Running: 10, Updated: 1, Unhealthy: 2, Serving: 8},
	}
}

func TestARolloutAsPeopleSeeIt(t *testing.T) {
	paused := rolled()
	waiting, going, green := proto.CloneOf(paused), proto.CloneOf(paused), proto.CloneOf(paused)
	waiting.Service.Rollout.State, waiting.Progress.Unhealthy = warrenv1.RolloutState_ROLLOUT_STATE_WAITING, 0
	going.Service.Rollout.State, going.Service.Orders = warrenv1.RolloutState_ROLLOUT_STATE_RUNNING, nil
	going.Service.Rollout.Rollback = true
	green.Service.Spec.Update = &warrenv1.UpdatePolicy{
		Strategy: warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN, Keep: durationpb.New(time.Minute), Manual: true, FailureAction: warrenv1.FailureAction_FAILURE_ACTION_ROLLBACK,
	}
	green.Service.Spec.Task.Health = &warrenv1.HealthCheck{Disabled: true}
	green.Service.Spec.NodeLoss = &warrenv1.NodeLossPolicy{Action: warrenv1.NodeLossAction_NODE_LOSS_ACTION_REPLACE}
	green.Service.Rollout = &warrenv1.Rollout{From: 3, To: 4, State: warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE, Weight: 100, KeepUntil: timestamppb.New(now.Add(time.Minute))}
	green.Progress = &warrenv1.ServiceProgress{Desired: 10, Running: 10, Updated: 10, Serving: 10, Converged: true}
	table(t, "rollouts", Services([]*warrenv1.ServiceEntry{paused, waiting, going, green}, now))
	golden(t, "rollout-canary", Service(paused, nil, now))
	golden(t, "rollout-green", Service(green, nil, now))
}

func TestProbesAsPeopleSeeThem(t *testing.T) {
	for want, check := range map[string]*warrenv1.HealthCheck{
		"the image's own, if it has one":                          {Retries: 3},
		"TCP on port 5432":                                        {Probe: &warrenv1.HealthCheck_Tcp{Tcp: &warrenv1.TcpProbe{Port: 5432}}},
		"gRPC on port 9 of shop.Orders, TLS with any certificate": {Probe: &warrenv1.HealthCheck_Grpc{Grpc: &warrenv1.GrpcProbe{Port: 9, Service: "shop.Orders", Tls: true}}},
		"HTTP GET / on port 80":                                   {Probe: &warrenv1.HealthCheck_Http{Http: &warrenv1.HttpProbe{Port: 80}}},
		"HTTP HEAD /x on port 443, TLS":                           {Probe: &warrenv1.HealthCheck_Http{Http: &warrenv1.HttpProbe{Port: 443, Path: "/x", Method: "HEAD", Tls: true}}},
		"command, by the shell: curl -f localhost || exit 1":      {Probe: &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{Command: []string{"curl -f localhost || exit 1"}, Shell: true}}},
		`command: pg_isready -U "a b"`:                            {Probe: &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{Command: []string{"pg_isready", "-U", "a b"}}}},
	} {
		if got := probe(check); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
}

func TestTheHealthOfTasksAsPeopleSeeIt(t *testing.T) {
	task := func(id string, slot uint32, health *warrenv1.TaskHealth) *warrenv1.TaskEntry {
		return &warrenv1.TaskEntry{
			Task: &warrenv1.Task{
				Meta: meta(id, time.Hour), ServiceName: "shop", Slot: slot, NodeId: "n", Desired: warrenv1.DesiredState_DESIRED_STATE_RUNNING,
				Status: &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_RUNNING, Since: ago(time.Minute), Attempt: 2, Address: "10.0.0.1", Health: health},
			},
			NodeHostname: "n1", Image: "shop:4@" + digest,
		}
	}
	ill := task("ill", 1, &warrenv1.TaskHealth{State: warrenv1.HealthState_HEALTH_STATE_UNHEALTHY, Since: ago(30 * time.Second), Failures: 3, Output: "GET /healthz\n503 Service \x1b[1mUnavailable\n"})
	ill.Task.Status.Incidents = []*warrenv1.Incident{
		{At: ago(5 * time.Minute), Attempt: 1, Kind: warrenv1.IncidentKind_INCIDENT_KIND_EXIT, Message: "exit code 1: no database"},
		{At: ago(30 * time.Second), Attempt: 2, Kind: warrenv1.IncidentKind_INCIDENT_KIND_UNHEALTHY, Message: "unhealthy: 3 probes failed: 503"},
	}
	ended := task("ended", 5, &warrenv1.TaskHealth{State: warrenv1.HealthState_HEALTH_STATE_UNHEALTHY, Failures: 3})
	ended.Task.Status.State, ended.Task.Status.Error = warrenv1.TaskState_TASK_STATE_FAILED, "unhealthy"
	moving := task("fails", 4, &warrenv1.TaskHealth{State: warrenv1.HealthState_HEALTH_STATE_HEALTHY, Failures: 1})
	moving.Task.Displaced = true
	table(t, "health", Tasks([]*warrenv1.TaskEntry{
		ill, task("starting", 2, &warrenv1.TaskHealth{State: warrenv1.HealthState_HEALTH_STATE_STARTING}),
		task("well", 3, &warrenv1.TaskHealth{State: warrenv1.HealthState_HEALTH_STATE_HEALTHY}), moving, ended,
	}, now))
	golden(t, "task-ill", Task(&warrenv1.GetTaskResponse{Entry: ill, Spec: rolled().GetService().GetSpec().GetTask()}, now))
}

func TestRevisionsAsPeopleSeeThem(t *testing.T) {
	revision := func(number uint64, image, by, failure string, age time.Duration) *warrenv1.Revision {
		return &warrenv1.Revision{
			Meta: meta("id", age), Number: number, WrittenBy: by, Failure: failure, Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: image}},
		}
	}
	pulled := revision(1, "shop:1", "", "", 48*time.Hour)
	pulled.ImageDigest = "sha256:found"
	ended := func(r *warrenv1.Revision, state warrenv1.RolloutState, message string) *warrenv1.Revision {
		r.Outcome = &warrenv1.RolloutOutcome{State: state, Message: message}
		return r
	}
	table(t, "revisions", Revisions([]*warrenv1.RevisionEntry{
		{Revision: ended(revision(5, "shop:5", "anna", "", time.Second), warrenv1.RolloutState_ROLLOUT_STATE_ABANDONED, "given up for revision 3 by anna")},
		{Revision: revision(4, "shop:4@"+digest, "anna", "shop.1: exit code 1", time.Minute)},
		{Revision: ended(revision(3, "shop:3", "otto", "", time.Hour), warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE, ""), Current: true, Running: 9},
		{Revision: ended(revision(2, "shop:2", "otto", "", time.Hour), warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE, "")},
		{Revision: pulled, Running: 1},
	}, now))
}

func TestAPlanAsPeopleSeeIt(t *testing.T) {
	plan := &warrenv1.ServicePlan{Tasks: []*warrenv1.PlannedTask{
		{Slot: 1, TaskId: "t1", NodeId: "n1id", NodeHostname: "n1", Action: warrenv1.PlannedAction_PLANNED_ACTION_REPLACE, NewNodeId: "n2id", NewNodeHostname: "n2"},
		{Slot: 2, TaskId: "t2", NodeId: "n2id", NodeHostname: "n2", Action: warrenv1.PlannedAction_PLANNED_ACTION_KEEP},
		{Slot: 3, TaskId: "t3", NodeId: "n2id", NodeHostname: "n2", Action: warrenv1.PlannedAction_PLANNED_ACTION_STOP},
		{Slot: 4, Action: warrenv1.PlannedAction_PLANNED_ACTION_CREATE, Problem: "2 nodes: 2 lack 1 GiB"},
		{NodeId: "n3id", NodeHostname: "n3", NewNodeId: "n3id", NewNodeHostname: "n3", Action: warrenv1.PlannedAction_PLANNED_ACTION_CREATE},
	}}
	table(t, "plan", Plan("web", plan))
	if got := PlanCounts(plan); got != "5 tasks: 2 created, 1 replaced, 1 stopped, 1 kept; 1 would fit nowhere now" {
		t.Errorf("it says %q", got)
	}
	if got := PlanCounts(nil); got != "no tasks" {
		t.Errorf("of none it says %q", got)
	}
}

func TestAnExplanationAsPeopleSeeIt(t *testing.T) {
	golden(t, "explanation", Explanation(output.Stream{}, &warrenv1.ExplainResponse{
		Object: warrenv1.EventObject_EVENT_OBJECT_SERVICE, Id: "webid", Name: "web", Wanted: "12 tasks of revision 2", Actual: "10 run, 2 of them of revision 2",
		Causes: []*warrenv1.Cause{
			{Message: "shop:2 cannot be pulled: not found", Remedy: "correct the tag with `warrenctl service update web --image`", Objects: []string{"web.1", "web.2"}, Count: 12},
			{Message: "node n3 is down", Objects: []string{"n3"}, Count: 1},
			{Message: "the rollout is paused"},
		},
		Happenings: []*warrenv1.Happening{
			{At: ago(26 * time.Hour), Object: warrenv1.EventObject_EVENT_OBJECT_SERVICE, ObjectName: "web", Message: "service web created", By: "anna"},
			{At: ago(3 * time.Minute), Object: warrenv1.EventObject_EVENT_OBJECT_NODE, ObjectName: "n3", Message: "down: no heartbeat\x1b[2J for 3.5s"},
			{At: ago(time.Second), Object: warrenv1.EventObject_EVENT_OBJECT_TASK, ObjectName: "web.1", Message: "rejected: pull shop:2: not found"},
		},
	}, now))
	well := Explanation(output.Stream{Colour: true}, &warrenv1.ExplainResponse{Object: warrenv1.EventObject_EVENT_OBJECT_NODE, Id: "id", Name: "n1", Wanted: "active", Actual: "ready"}, now)
	if strings.Contains(well, "Why") || strings.Contains(well, "happened") || !strings.Contains(well, "\x1b[32mready\x1b[0m") {
		t.Errorf("of a node that is well it says %q", well)
	}
}

func TestADiffOfTemplates(t *testing.T) {
	from, to := rolled().GetService().GetSpec().GetTask(), rolled().GetService().GetSpec().GetTask()
	to.Container.Image, to.Container.Env, to.Health.Retries = "shop:5", []string{"A=1"}, 0
	diff, err := Diff(output.Stream{}, "shop revision 4", "shop revision 5", from, to)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "diff", diff)
	if same, err := Diff(output.Stream{}, "a", "b", from, from); same != "" || err != nil {
		t.Errorf("of equals: %q, %v", same, err)
	}
	coloured, err := Diff(output.Stream{Colour: true}, "a", "b", from, to)
	if err != nil || !strings.Contains(coloured, "\x1b[31m-  image: shop:4") || !strings.Contains(coloured, "\x1b[32m+  image: shop:5\x1b[0m\n") {
		t.Errorf("in colour: %q, %v", coloured, err)
	}
}

func TestTheDigestOfATagIsNotShown(t *testing.T) {
	for image, want := range map[string]string{
		"nginx":                          "nginx",
		"nginx:1.27":                     "nginx:1.27",
		"nginx:1.27@" + digest:           "nginx:1.27",
		"localhost:5000/a/b:1@" + digest: "localhost:5000/a/b:1",
		"localhost:5000/a/b@" + digest:   "localhost:5000/a/b@" + digest,
		"nginx@" + digest:                "nginx@" + digest,
	} {
		if got := Image(image); got != want {
			t.Errorf("%s is shown as %s, want %s", image, got, want)
		}
	}
}
