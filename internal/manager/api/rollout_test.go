package api_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// withImage is the spec of web with another image.
func withImage(image string) *warrenv1.ServiceSpec {
	return spec("web", func(s *warrenv1.ServiceSpec) { s.Task.Container.Image = image })
}

// history creates web and updates it to each image in turn.
func history(s *served, images ...string) *warrenv1.Service {
	s.t.Helper()
	service := must(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: withImage(images[0])}).GetService()
	for _, image := range images[1:] {
		service = must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: withImage(image)}).GetService()
	}
	return service
}

// put changes a stored service as a loop does.
func (s *served) put(edit func(*warrenv1.Service)) {
	s.t.Helper()
	transaction := state.New(time.Now())
	state.Update(transaction, s.store.Snapshot().ServiceByName("web"), func(service *warrenv1.Service) {
		if service.GetWrittenAt() == 0 {
			service.WrittenAt = service.GetMeta().GetVersion()
		}
		edit(service)
	})
	statetest.Commit(s.t, s.proposer.Proposer, transaction)
}

func (s *served) fail(number uint64) {
	s.t.Helper()
	transaction, now := state.New(time.Now()), s.store.Snapshot()
	state.Update(transaction, now.Revision(now.ServiceByName("web").GetMeta().GetId(), number), func(r *warrenv1.Revision) { r.Failure = "2 of 2 tasks failed" })
	statetest.Commit(s.t, s.proposer.Proposer, transaction)
}

func revisionsOf(s *served) (listed []string) {
	s.t.Helper()
	for _, e := range must(s, s.services.ListRevisions, &warrenv1.ListRevisionsRequest{Ref: "web"}).GetRevisions() {
		text := fmt.Sprintf("%d %s by %s", e.GetRevision().GetNumber(), e.GetRevision().GetTask().GetContainer().GetImage(), e.GetRevision().GetWrittenBy())
		if e.GetCurrent() {
			text += ", current"
		}
		if e.GetRunning() > 0 {
			text += fmt.Sprintf(", %d running", e.GetRunning())
		}
		listed = append(listed, text)
	}
	return listed
}

func TestAnUpdateBackToAKeptTemplateTakesItsRevisionAgain(t *testing.T) {
	s := serve(t)
	history(s, "a", "b")
	s.caller.Name = "olga"
	back := must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: withImage("a")}).GetService()
	if back.GetReverted() || back.GetRevision() != 1 || back.GetPreviousRevision() != 2 || back.GetLastRevision() != 2 || back.GetWrittenBy() != "olga" {
		t.Errorf("back at %v", back)
	}
	next := must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: withImage("c")}).GetService()
	if next.GetRevision() != 3 || next.GetPreviousRevision() != 1 || next.GetLastRevision() != 3 {
		t.Errorf("then at %v", next)
	}
	statetest.Put(t, s.store, statetest.Task("t1", next.GetMeta().GetId(), 1, "n1"))
	if got, want := revisionsOf(s), []string{"3 c by olga, current", "2 b by root", "1 a by root, 1 running"}; !slices.Equal(got, want) {
		t.Errorf("revisions %q, want %q", got, want)
	}
}

func TestAnUpdateOfNoTemplateMakesNoRevision(t *testing.T) {
	s := serve(t)
	history(s, "a", "b")
	scaled := must(s, s.services.ScaleService, &warrenv1.ScaleServiceRequest{Ref: "web", Replicas: 9}).GetService()
	if scaled.GetRevision() != 2 || scaled.GetPreviousRevision() != 1 || len(revisionsOf(s)) != 2 {
		t.Errorf("scaled to %v", scaled)
	}
}

func TestAServiceFromBeforeNumbersWereKeptGoesOnCounting(t *testing.T) {
	old := statetest.Replicated("web", 2, func(s *warrenv1.Service) { s.Revision = 7 })
	s := serve(t, old, statetest.Revision(old))
	next := must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: withImage("b")}).GetService()
	if next.GetRevision() != 8 || next.GetLastRevision() != 8 || next.GetPreviousRevision() != 7 {
		t.Errorf("then at %v", next)
	}
}

func TestARollbackGoesToTheRevisionBeforeOrToAnyKept(t *testing.T) {
	s := serve(t)
	history(s, "a", "b", "c")
	scaled := must(s, s.services.ScaleService, &warrenv1.ScaleServiceRequest{Ref: "web", Replicas: 5}).GetService()
	back := must(s, s.services.RollBackService, &warrenv1.RollBackServiceRequest{Ref: "web"}).GetService()
	if back.GetRevision() != 2 || back.GetSpec().GetTask().GetContainer().GetImage() != "b" || back.GetSpec().GetReplicated().GetReplicas() != 5 || back.GetPreviousRevision() != 3 {
		t.Errorf("back at %v", back)
	}
	_, err := call(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Version: scaled.GetMeta().GetVersion(), Spec: withImage("d")})
	refused(t, err, connect.CodeAborted, "read it again")
	named := must(s, s.services.RollBackService, &warrenv1.RollBackServiceRequest{Ref: "web", Revision: 1}).GetService()
	if !back.GetReverted() || !named.GetReverted() || named.GetRevision() != 1 || named.GetPreviousRevision() != 2 || named.GetLastRevision() != 3 {
		t.Errorf("then at %v", named)
	}
}

func TestARollbackThatCannotBeSaysWhatCan(t *testing.T) {
	s := serve(t)
	history(s, "a")
	_, err := call(s, s.services.RollBackService, &warrenv1.RollBackServiceRequest{Ref: "web"})
	refused(t, err, connect.CodeFailedPrecondition, "has no revision before 1", "no other revision is kept")
	must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: withImage("b")})
	must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: withImage("c")})
	_, err = call(s, s.services.RollBackService, &warrenv1.RollBackServiceRequest{Ref: "web", Revision: 9})
	refused(t, err, connect.CodeFailedPrecondition, "revision 9 of service web is not kept", "kept are 2, 1")
	_, err = call(s, s.services.RollBackService, &warrenv1.RollBackServiceRequest{Ref: "web", Revision: 3})
	refused(t, err, connect.CodeFailedPrecondition, "is at revision 3 already")
	s.fail(2)
	_, err = call(s, s.services.RollBackService, &warrenv1.RollBackServiceRequest{Ref: "web"})
	refused(t, err, connect.CodeFailedPrecondition, "revision 2", "failed: 2 of 2 tasks failed", "kept are 2 (failed), 1")
	forced := must(s, s.services.RollBackService, &warrenv1.RollBackServiceRequest{Ref: "web", Revision: 2}).GetService()
	kept := s.store.Snapshot().Revision(forced.GetMeta().GetId(), 2)
	if forced.GetRevision() != 2 || kept.GetFailure() != "" {
		t.Errorf("forced to %v, of which is kept %v", forced, kept)
	}
}

func TestARolloutGivenUpOnItsWayIsNotWhatARollbackGoesTo(t *testing.T) {
	s := serve(t)
	history(s, "a", "b")
	s.put(func(s *warrenv1.Service) {
		s.Rollout = &warrenv1.Rollout{From: 1, To: 2, State: warrenv1.RolloutState_ROLLOUT_STATE_PAUSED}
	})
	next := must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: withImage("c")}).GetService()
	if next.GetRevision() != 3 || next.GetPreviousRevision() != 1 {
		t.Errorf("updated to %v", next)
	}
}

// Who pauses a rollout to look at it, and then gives it up, does not want the way back to be paused.
func TestARollbackOfAPausedRolloutIsNotPausedItself(t *testing.T) {
	for state, paused := range map[warrenv1.RolloutState]bool{
		warrenv1.RolloutState_ROLLOUT_STATE_PAUSED:   false,
		warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE: true, // what is paused is the next one
	} {
		s := serve(t)
		history(s, "a", "b")
		s.put(func(s *warrenv1.Service) {
			s.Rollout = &warrenv1.Rollout{From: 1, To: 2, State: state}
			s.Orders = &warrenv1.RolloutOrders{Paused: true, Resumes: 3, By: "olga"}
		})
		s.caller.Name = "pat"
		orders := must(s, s.services.RollBackService, &warrenv1.RollBackServiceRequest{Ref: "web", Revision: 1}).GetService().GetOrders()
		if orders.GetPaused() != paused || orders.GetResumes() != 3 || orders.GetBy() != map[bool]string{true: "olga", false: "pat"}[paused] {
			t.Errorf("%v: %v", state, orders)
		}
	}
}

func TestARollbackOfAServiceThatIsChangedMeanwhileLooksAgain(t *testing.T) {
	s := serve(t)
	history(s, "a", "b")
	s.proposer.before = func() { s.put(func(s *warrenv1.Service) { s.Spec.Labels = map[string]string{"a": "b"} }) }
	back := must(s, s.services.RollBackService, &warrenv1.RollBackServiceRequest{Ref: "web"}).GetService()
	if back.GetRevision() != 1 || back.GetSpec().GetLabels()["a"] != "b" {
		t.Errorf("back at %v", back)
	}
}

func TestOrdersForARolloutAreKeptAndDoNotAgeWhatWasRead(t *testing.T) {
	s := serve(t)
	read := history(s, "a", "b")
	roll := func(state warrenv1.RolloutState) {
		s.put(func(s *warrenv1.Service) {
			s.Rollout = &warrenv1.Rollout{From: 1, To: 2, State: state, Resumes: s.GetOrders().GetResumes(), Promotes: s.GetOrders().GetPromotes()}
		})
	}
	s.caller.Name = "olga"
	roll(warrenv1.RolloutState_ROLLOUT_STATE_RUNNING)
	_, err := call(s, s.services.ResumeRollout, &warrenv1.ResumeRolloutRequest{Ref: "web"})
	refused(t, err, connect.CodeFailedPrecondition, "no rollout of service web is paused", "to revision 2, is running")
	_, err = call(s, s.services.PromoteRollout, &warrenv1.PromoteRolloutRequest{Ref: "web"})
	refused(t, err, connect.CodeFailedPrecondition, "a rolling one")

	orders := must(s, s.services.PauseRollout, &warrenv1.PauseRolloutRequest{Ref: "web"}).GetService().GetOrders()
	if !orders.GetPaused() || orders.GetBy() != "olga" {
		t.Errorf("paused: %v", orders)
	}
	version := s.store.Snapshot().ServiceByName("web").GetMeta().GetVersion()
	must(s, s.services.PauseRollout, &warrenv1.PauseRolloutRequest{Ref: "web"})
	if s.store.Snapshot().ServiceByName("web").GetMeta().GetVersion() != version {
		t.Error("the same order was written again")
	}
	roll(warrenv1.RolloutState_ROLLOUT_STATE_PAUSED)
	orders = must(s, s.services.ResumeRollout, &warrenv1.ResumeRolloutRequest{Ref: "web"}).GetService().GetOrders()
	if orders.GetPaused() || orders.GetResumes() != 1 {
		t.Errorf("resumed: %v", orders)
	}
	if again := must(s, s.services.ResumeRollout, &warrenv1.ResumeRolloutRequest{Ref: "web"}).GetService().GetOrders(); again.GetResumes() != 1 {
		t.Errorf("resumed again before that was followed: %v", again)
	}
	updated := must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Version: read.GetMeta().GetVersion(), Spec: spec("web", func(s *warrenv1.ServiceSpec) {
		s.Task.Container.Image = "b"
		s.Update = &warrenv1.UpdatePolicy{Strategy: warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY}
	})}).GetService()
	if updated.GetOrders().GetResumes() != 1 {
		t.Errorf("updated to %v", updated)
	}
	_, err = call(s, s.services.PromoteRollout, &warrenv1.PromoteRolloutRequest{Ref: "web"})
	refused(t, err, connect.CodeFailedPrecondition, "is paused", "service resume web")
	roll(warrenv1.RolloutState_ROLLOUT_STATE_WAITING)
	orders = must(s, s.services.PromoteRollout, &warrenv1.PromoteRolloutRequest{Ref: "web"}).GetService().GetOrders()
	if again := must(s, s.services.PromoteRollout, &warrenv1.PromoteRolloutRequest{Ref: "web"}).GetService().GetOrders(); orders.GetPromotes() != 1 || again.GetPromotes() != 1 {
		t.Errorf("promoted: %v, then %v", orders, again)
	}
	roll(warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE)
	_, err = call(s, s.services.PromoteRollout, &warrenv1.PromoteRolloutRequest{Ref: "web"})
	refused(t, err, connect.CodeFailedPrecondition, "no rollout to promote", "is complete")
}

func TestRebalancingMarksTheTasksToBeMoved(t *testing.T) {
	web := statetest.Replicated("web", 4)
	s := serve(t, statetest.Node("n1"), statetest.Node("n2"), web, statetest.Revision(web),
		statetest.Task("t1", "web", 1, "n1"), statetest.Task("t2", "web", 2, "n1"), statetest.Task("t3", "web", 3, "n1"), statetest.Task("t4", "web", 4, "n1"))
	moving := func() uint32 {
		return must(s, s.services.RebalanceService, &warrenv1.RebalanceServiceRequest{Ref: "web"}).GetMoving()
	}
	if got := moving(); got != 2 {
		t.Errorf("moves %d", got)
	}
	index := s.store.Snapshot().Index()
	if got := moving(); got != 2 || s.store.Snapshot().Index() != index {
		t.Errorf("then moves %d", got)
	}
	displaced := 0
	for task := range s.store.Snapshot().Tasks() {
		if task.GetDisplaced() {
			displaced++
		}
	}
	if displaced != 2 {
		t.Errorf("%d are displaced", displaced)
	}
}

func TestWhatCannotBeRebalancedSaysWhy(t *testing.T) {
	global := statetest.Global("agents")
	web := statetest.Replicated("web", 1, func(s *warrenv1.Service) { s.Revision = 2 })
	s := serve(t, global, web, statetest.Task("t1", "web", 1, "n1"))
	_, err := call(s, s.services.RebalanceService, &warrenv1.RebalanceServiceRequest{Ref: "agents"})
	refused(t, err, connect.CodeFailedPrecondition, "service agents is global")
	_, err = call(s, s.services.RebalanceService, &warrenv1.RebalanceServiceRequest{Ref: "web"})
	refused(t, err, connect.CodeFailedPrecondition, "are being replaced by those of revision 2")
}

func TestADryRunTellsWhatWouldComeAndWritesNothing(t *testing.T) {
	web := statetest.Replicated("web", 2)
	s := serve(t, statetest.Node("n1"), statetest.Node("n2"), web, statetest.Revision(web), statetest.Task("t1", "web", 1, "n1"), statetest.Task("t2", "web", 2, "n2"))
	index := s.store.Snapshot().Index()
	version := s.store.Snapshot().ServiceByName("web").GetMeta().GetVersion()
	res := must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", DryRun: true, Spec: spec("web", func(s *warrenv1.ServiceSpec) {
		s.GetReplicated().Replicas = 3
		s.Task.Reservations = &warrenv1.Resources{NanoCpus: 5e9}
	})})
	if s.store.Snapshot().Index() != index {
		t.Error("it was written")
	}
	plan := res.GetPlan()
	if plan.GetVersion() != version || plan.GetRevision() != 2 || res.GetService().GetRevision() != 2 || len(plan.GetTasks()) != 3 {
		t.Fatalf("plan %v of %v", plan, res.GetService())
	}
	for i, p := range plan.GetTasks() {
		want := []warrenv1.PlannedAction{warrenv1.PlannedAction_PLANNED_ACTION_REPLACE, warrenv1.PlannedAction_PLANNED_ACTION_REPLACE, warrenv1.PlannedAction_PLANNED_ACTION_CREATE}[i]
		if p.GetAction() != want || !strings.Contains(p.GetProblem(), "2 lack 5 cpus") {
			t.Errorf("slot %d: %v", p.GetSlot(), p)
		}
	}
	unchanged := must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", DryRun: true, Spec: proto.CloneOf(web.GetSpec())})
	for _, p := range unchanged.GetPlan().GetTasks() {
		if p.GetAction() != warrenv1.PlannedAction_PLANNED_ACTION_KEEP {
			t.Errorf("slot %d: %v", p.GetSlot(), p)
		}
	}
	_, err := call(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", DryRun: true, Version: version + 9, Spec: spec("web")})
	refused(t, err, connect.CodeAborted, "read it again")
}

func TestWhatTheManagersNoteOfANodeIsNoChangeToWhoHasReadIt(t *testing.T) {
	s := serve(t, statetest.Node("n1"))
	read := s.store.Snapshot().Node("n1").GetMeta().GetVersion()
	note := func() {
		transaction := state.New(time.Now())
		state.Update(transaction, s.store.Snapshot().Node("n1"), func(n *warrenv1.Node) { n.Status.Message = n.GetStatus().GetMessage() + "." })
		statetest.Commit(t, s.proposer.Proposer, transaction)
	}
	label := func(version uint64, label string) error {
		_, err := call(s, s.nodes.UpdateNode, &warrenv1.UpdateNodeRequest{Ref: "n1", Version: version, Spec: &warrenv1.NodeSpec{Labels: map[string]string{"is": label}}})
		return err
	}
	note()
	note()
	if err := label(read, "first"); err != nil {
		t.Fatal(err)
	}
	written := s.store.Snapshot().Node("n1")
	note()
	refused(t, label(read, "second"), connect.CodeAborted, "read it again")
	refused(t, label(written.GetMeta().GetVersion()-1, "second"), connect.CodeAborted, "read it again")
	refused(t, label(s.store.Snapshot().Index()+9, "second"), connect.CodeAborted, "read it again")
	if err := label(written.GetMeta().GetVersion(), "second"); err != nil || written.GetWrittenBy() != "root" {
		t.Errorf("%v; written by %q", err, written.GetWrittenBy())
	}
}

func TestADrainHasADeadlineUntilItEnds(t *testing.T) {
	s := serve(t, statetest.Node("n1"))
	drain := &warrenv1.NodeSpec{Availability: warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN}
	before := time.Now()
	drained := must(s, s.nodes.UpdateNode, &warrenv1.UpdateNodeRequest{Ref: "n1", Spec: drain, DrainWithin: durationpb.New(time.Hour)}).GetNode()
	deadline := drained.GetSpec().GetDrainDeadline().AsTime()
	if deadline.Before(before.Add(time.Hour)) || deadline.After(time.Now().Add(time.Hour)) {
		t.Errorf("until %v", deadline)
	}
	kept := must(s, s.nodes.UpdateNode, &warrenv1.UpdateNodeRequest{Ref: "n1", Spec: drained.GetSpec()}).GetNode()
	if !proto.Equal(kept.GetSpec().GetDrainDeadline(), timestamppb.New(deadline)) {
		t.Errorf("then until %v", kept.GetSpec().GetDrainDeadline())
	}
	active := proto.CloneOf(kept.GetSpec())
	active.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE
	if back := must(s, s.nodes.UpdateNode, &warrenv1.UpdateNodeRequest{Ref: "n1", Spec: active}).GetNode(); back.GetSpec().GetDrainDeadline() != nil {
		t.Errorf("active until %v", back.GetSpec().GetDrainDeadline())
	}
	_, err := call(s, s.nodes.UpdateNode, &warrenv1.UpdateNodeRequest{Ref: "n1", Spec: active, DrainWithin: durationpb.New(time.Hour)})
	refused(t, err, connect.CodeInvalidArgument, "drain_within", "set the availability to drain")
}

func TestHealthChecksAndPoliciesThatMakeNoSenseAreRefused(t *testing.T) {
	health := func(h *warrenv1.HealthCheck) func(*warrenv1.ServiceSpec) {
		return func(s *warrenv1.ServiceSpec) { s.Task.Health = h }
	}
	http := func(edit func(*warrenv1.HttpProbe)) func(*warrenv1.ServiceSpec) {
		p := &warrenv1.HttpProbe{Port: 80}
		edit(p)
		return health(&warrenv1.HealthCheck{Probe: &warrenv1.HealthCheck_Http{Http: p}})
	}
	exec := func(shell bool, command ...string) func(*warrenv1.ServiceSpec) {
		return health(&warrenv1.HealthCheck{Probe: &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{Command: command, Shell: shell}}})
	}
	update := func(p *warrenv1.UpdatePolicy, more ...func(*warrenv1.ServiceSpec)) func(*warrenv1.ServiceSpec) {
		return func(s *warrenv1.ServiceSpec) {
			s.Update = p
			for _, edit := range more {
				edit(s)
			}
		}
	}
	rollback := func(p *warrenv1.UpdatePolicy) func(*warrenv1.ServiceSpec) {
		return func(s *warrenv1.ServiceSpec) { s.Rollback = p }
	}
	host := func(s *warrenv1.ServiceSpec) { s.Task.Network = warrenv1.NetworkMode_NETWORK_MODE_HOST }
	port := func(s *warrenv1.ServiceSpec) { s.Task.HostPorts = []*warrenv1.PortSpec{{Target: 80}} }
	weights := func(weights ...uint32) (steps []*warrenv1.CanaryStep) {
		for _, w := range weights {
			steps = append(steps, &warrenv1.CanaryStep{Weight: w})
		}
		return steps
	}
	const (
		blueGreen = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN
		canary    = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY
		stopFirst = warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST
	)
	dns := func(s *warrenv1.ServiceSpec) {
		s.Endpoint = &warrenv1.EndpointSpec{Mode: warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR}
	}
	loss := func(action warrenv1.NodeLossAction, wait time.Duration) func(*warrenv1.ServiceSpec) {
		return func(s *warrenv1.ServiceSpec) {
			s.NodeLoss = &warrenv1.NodeLossPolicy{Action: action, Wait: durationpb.New(wait)}
		}
	}
	restart := func(first, longest time.Duration) func(*warrenv1.ServiceSpec) {
		return func(s *warrenv1.ServiceSpec) {
			s.Task.Restart = &warrenv1.RestartPolicy{Delay: durationpb.New(first), MaxDelay: durationpb.New(longest)}
		}
	}
	s := serve(t)
	for name, c := range map[string]struct {
		edit func(*warrenv1.ServiceSpec)
		want []string // what the refusal says; none where it is in order
	}{
		"disabled with a probe": {health(&warrenv1.HealthCheck{Disabled: true, Probe: &warrenv1.HealthCheck_Tcp{Tcp: &warrenv1.TcpProbe{Port: 80}}}),
			[]string{"spec.task.health.disabled: ", "leave one of the two out"}},
		"disabled": {health(&warrenv1.HealthCheck{Disabled: true}), nil},
		"no overlay": {func(s *warrenv1.ServiceSpec) {
			http(func(*warrenv1.HttpProbe) {})(s)
			s.Task.Network = warrenv1.NetworkMode_NETWORK_MODE_NONE
		}, nil},
		"slow probe":           {health(&warrenv1.HealthCheck{Interval: durationpb.New(time.Second), Timeout: durationpb.New(time.Minute)}), nil},
		"status":               {http(func(p *warrenv1.HttpProbe) { p.Status = "200-299,204" }), nil},
		"status the wrong way": {http(func(p *warrenv1.HttpProbe) { p.Status = "200,399-300" }), []string{"spec.task.health.http.status: ", "write 300-399"}},
		"status that is none":  {http(func(p *warrenv1.HttpProbe) { p.Status = "999" }), []string{"spec.task.health.http.status: must be statuses from 100 to 599"}},
		"body":                 {http(func(p *warrenv1.HttpProbe) { p.Body = "(ok" }), []string{"spec.task.health.http.body: ", "missing closing )", "RE2"}},
		"verify without TLS":   {http(func(p *warrenv1.HttpProbe) { p.TlsSkipVerify = true }), []string{"spec.task.health.http.tls_skip_verify: ", "set tls"}},
		"name without TLS":     {http(func(p *warrenv1.HttpProbe) { p.ServerName = "x" }), []string{"spec.task.health.http.server_name: ", "set tls"}},
		"shell":                {exec(true, "curl localhost"), nil},
		"shell of two":         {exec(true, "curl", "localhost"), []string{"spec.task.health.exec.command[1]: ", "as one"}},
		"no command":           {exec(false, " "), []string{"spec.task.health.exec.command[0]: ", "name the program"}},

		"ratio":              {update(&warrenv1.UpdatePolicy{MaxFailureRatio: 0.5}), nil},
		"ratio that is none": {update(&warrenv1.UpdatePolicy{MaxFailureRatio: math.NaN()}), []string{"spec.update.max_failure_ratio: "}},
		"ratio above":        {update(&warrenv1.UpdatePolicy{MaxFailureRatio: 1.5}), []string{"spec.update.max_failure_ratio: "}},
		"deadline": {update(&warrenv1.UpdatePolicy{Monitor: durationpb.New(time.Hour)}),
			[]string{"spec.update.progress_deadline: the deadline, 10m, is over before", "the monitor time, 1h: "}},
		"canary":              {update(&warrenv1.UpdatePolicy{Strategy: canary, Canary: weights(10, 50, 100)}), nil},
		"canary that rests":   {update(&warrenv1.UpdatePolicy{Strategy: canary, Canary: weights(10, 50, 50)}), []string{"spec.update.canary[2].weight: ", "more than 50"}},
		"steps of no canary":  {update(&warrenv1.UpdatePolicy{Canary: weights(10)}), []string{"spec.update.canary: ", "set the strategy to canary"}},
		"keep":                {update(&warrenv1.UpdatePolicy{Keep: durationpb.New(0)}), []string{"spec.update.keep: ", "blue-green"}},
		"manual":              {update(&warrenv1.UpdatePolicy{Strategy: canary, Manual: true}), []string{"spec.update.manual: ", "blue-green"}},
		"blue-green":          {update(&warrenv1.UpdatePolicy{Strategy: blueGreen, Manual: true, Keep: durationpb.New(time.Hour)}), nil},
		"stopped first":       {update(&warrenv1.UpdatePolicy{Strategy: blueGreen, Order: stopFirst}), []string{"spec.update.order: ", "start-first"}},
		"on the host":         {update(&warrenv1.UpdatePolicy{Strategy: blueGreen}, host), []string{"spec.update.strategy: ", "another network mode"}},
		"on ports of nodes":   {update(&warrenv1.UpdatePolicy{Strategy: canary}, port), []string{"spec.task.host_ports[0].published: ", "mode=ingress"}},
		"rolling on ports":    {update(&warrenv1.UpdatePolicy{}, port), nil},
		"canary by DNS":       {update(&warrenv1.UpdatePolicy{Strategy: canary}, dns), []string{"spec.update.strategy: ", "endpoint mode vip", "blue-green or rolling"}},
		"back so by DNS":      {update(nil, dns, rollback(&warrenv1.UpdatePolicy{Strategy: canary})), []string{"spec.rollback.strategy: ", "endpoint mode vip"}},
		"blue-green by DNS":   {update(&warrenv1.UpdatePolicy{Strategy: blueGreen}, dns), nil},
		"monitored too long":  {update(&warrenv1.UpdatePolicy{Monitor: durationpb.New(1000 * time.Hour)}), []string{"spec.update.monitor: ", "24h"}},
		"probed too often":    {health(&warrenv1.HealthCheck{Interval: durationpb.New(time.Nanosecond)}), []string{"spec.task.health.interval: ", "1ms", "24h"}},
		"back by stop-first":  {update(&warrenv1.UpdatePolicy{Strategy: blueGreen}, rollback(&warrenv1.UpdatePolicy{Order: stopFirst})), []string{"spec.rollback.order: "}},
		"back by rolling":     {update(&warrenv1.UpdatePolicy{Strategy: blueGreen}, rollback(&warrenv1.UpdatePolicy{Order: stopFirst, Strategy: warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING})), nil},
		"back from a failure": {rollback(&warrenv1.UpdatePolicy{FailureAction: warrenv1.FailureAction_FAILURE_ACTION_ROLLBACK}), []string{"spec.rollback.failure_action: ", "pause or continue"}},

		"waits from the first on": {restart(time.Minute, time.Minute), nil},
		"longest wait that is shorter than the first": {restart(10*time.Second, 5*time.Second),
			[]string{"spec.task.restart.max_delay: the longest wait, 5s, is shorter than the first, 10s", "--restart-delay"}},

		"waits":              {loss(warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT, time.Hour), nil},
		"waits and replaces": {loss(warrenv1.NodeLossAction_NODE_LOSS_ACTION_REPLACE, time.Hour), []string{"spec.node_loss.wait: ", "set the action to wait"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := call(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec("web", c.edit)})
			if len(c.want) > 0 {
				refused(t, err, connect.CodeInvalidArgument, c.want...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			transaction := state.New(time.Now())
			now := s.store.Snapshot()
			for r := range now.Revisions(now.ServiceByName("web").GetMeta().GetId()) {
				transaction.Delete(r)
			}
			transaction.Delete(now.ServiceByName("web"))
			statetest.Commit(t, s.proposer.Proposer, transaction)
		})
	}
}

func TestWhatIsAskedAboutIsExplained(t *testing.T) {
	web := statetest.Replicated("web", 1)
	s := serve(t, statetest.Node("n1"), web, statetest.Revision(web), statetest.Task("aaaaaaaaaaaaaaaa", "web", 1, "n1"))
	for ref, want := range map[string]warrenv1.EventObject{
		"web": warrenv1.EventObject_EVENT_OBJECT_SERVICE, "web.1": warrenv1.EventObject_EVENT_OBJECT_TASK,
		"aaaaaaaa": warrenv1.EventObject_EVENT_OBJECT_TASK, "n1": warrenv1.EventObject_EVENT_OBJECT_NODE,
	} {
		res := must(s, s.explain.Explain, &warrenv1.ExplainRequest{Ref: ref})
		named := must(s, s.explain.Explain, &warrenv1.ExplainRequest{Ref: ref, Object: want})
		if res.GetObject() != want || named.GetId() != res.GetId() || res.GetWanted() == "" || res.GetActual() == "" {
			t.Errorf("%s: %v", ref, res)
		}
	}
	_, err := call(s, s.explain.Explain, &warrenv1.ExplainRequest{Ref: "nope"})
	refused(t, err, connect.CodeNotFound, "no service, task or node is named")
	_, err = call(s, s.explain.Explain, &warrenv1.ExplainRequest{Ref: "web", Object: warrenv1.EventObject_EVENT_OBJECT_NODE})
	refused(t, err, connect.CodeNotFound, "node ls")
	_, err = call(s, s.explain.Explain, &warrenv1.ExplainRequest{Ref: "web", Object: warrenv1.EventObject_EVENT_OBJECT_CLUSTER})
	refused(t, err, connect.CodeInvalidArgument, "object: only a service, a task or a node")
}
