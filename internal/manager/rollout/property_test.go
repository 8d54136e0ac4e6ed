package rollout

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/manager/rollout/policy"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Whatever a service and its rollout are at, one decision never stops a task that serves, where new tasks are started first,
// unless another that serves stays in the slot; it takes no more slots at a time than the policy lets it; and it is applied as a whole.
func TestOneDecisionTakesNothingAwayThatServes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := statetest.New(quiet{}, scenery(t)...)
		s := store.Snapshot()
		o := decide(s, "web", now, time.Time{}, statetest.Counter("new"))
		if results, err := statetest.NewProposer(store).Propose(t.Context(), o.transaction); err != nil || results != nil {
			t.Fatalf("refused: %v, %v", results, err)
		}
		if again := decide(s, "web", now, time.Time{}, statetest.Counter("new")); !proto.Equal(again.transaction.Message(), o.transaction.Message()) || !again.wake.Equal(o.wake) {
			t.Fatal("decided differently on the same")
		}
		after := store.Snapshot()
		service := after.Service("web")
		p := policy.Of(service)
		for _, op := range o.transaction.Message().GetOperations() {
			update, ok := op.GetAction().(*statev1.Operation_Update)
			if !ok || update.Update.GetTask() == nil {
				continue
			}
			was := s.Task(update.Update.GetTask().GetMeta().GetId())
			overdueSince := s.Node(was.GetNodeId()).GetSpec().GetDrainDeadline()
			if p.StopFirst || !slot.Serving(was) || overdueSince != nil && !overdueSince.AsTime().After(now) {
				continue
			}
			if of := slot.At(after, "web", slot.KeyOf(was)); len(of.Live) == 0 || !slot.Serving(of.Live[0]) {
				t.Fatalf("%s of slot %d was stopped, and nothing else serves there: %q", was.GetMeta().GetId(), was.GetSlot(), told(s, o))
			}
		}
		if p.StopFirst || p.Strategy != rollingOnly || !underway(service) {
			return
		}
		begun := 0
		for _, op := range o.transaction.Message().GetOperations() {
			if create, ok := op.GetAction().(*statev1.Operation_Create); ok && create.Create.GetTask().GetRevision() == service.GetRevision() {
				of := slot.At(s, "web", slot.KeyOf(create.Create.GetTask()))
				if len(of.Live) > 0 && slot.Serving(of.Live[0]) && of.Live[0].GetRevision() != service.GetRevision() && s.Node(of.Live[0].GetNodeId()).GetSpec().GetAvailability() != drainedNode {
					begun++
				}
			}
		}
		if begun > p.Parallelism {
			t.Fatalf("takes %d slots at once: %q", begun, told(s, o))
		}
	})
}

const (
	rollingOnly = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING
	drainedNode = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
)

// quiet is a test that cannot fail: what is put into a store by a property is fit to be there.
type quiet struct{ testing.TB }

func (quiet) Helper() {}

// scenery draws a service in the middle of something, with nodes and tasks.
func scenery(t *rapid.T) []state.Object {
	service := web(at(uint64(rapid.IntRange(2, 3).Draw(t, "revision"))), policyOf(func(p *warrenv1.UpdatePolicy) {
		p.Parallelism = rapid.Uint32Range(0, 3).Draw(t, "parallelism")
		p.Order = warrenv1.UpdateOrder(rapid.IntRange(0, 2).Draw(t, "order"))
		p.Strategy = warrenv1.RolloutStrategy(rapid.IntRange(0, 3).Draw(t, "strategy"))
		p.FailureAction = warrenv1.FailureAction(rapid.IntRange(0, 3).Draw(t, "action"))
		p.MaxFailureRatio = rapid.SampledFrom([]float64{0, 0, 1}).Draw(t, "ratio")
	}), in(warrenv1.RolloutState(rapid.IntRange(1, 5).Draw(t, "state"))))
	objects := []state.Object{service}
	for number := range uint64(3) {
		r := statetest.Revision(service)
		r.Meta.Id, r.Number = state.RevisionID("web", number+1), number+1
		r.ImageDigest = rapid.SampledFrom([]string{"", "sha256:1"}).Draw(t, "pin")
		objects = append(objects, r)
	}
	for i := range 3 {
		objects = append(objects, statetest.Node(fmt.Sprint("n", i), rapid.SampledFrom([]func(*warrenv1.Node){
			func(*warrenv1.Node) {}, func(*warrenv1.Node) {}, isDrained, until(now), until(now.Add(time.Minute)), isPaused,
		}).Draw(t, "node")))
	}
	for i := range rapid.IntRange(0, 10).Draw(t, "tasks") {
		objects = append(objects, statetest.Task(fmt.Sprint("t", i), "web", rapid.Uint32Range(1, 4).Draw(t, "slot"), rapid.SampledFrom([]string{"n0", "n1", "n2"}).Draw(t, "on"),
			statetest.Of(uint64(rapid.IntRange(1, 3).Draw(t, "of"))),
			stateIs(rapid.SampledFrom([]warrenv1.TaskState{isPending, isPreparing, warrenv1.TaskState_TASK_STATE_RUNNING, warrenv1.TaskState_TASK_STATE_RUNNING, hasFailed, isLost, isShutDown}).Draw(t, "is")),
			func(task *warrenv1.Task) {
				ago(time.Duration(rapid.IntRange(1, 50).Draw(t, "ago")) * time.Second)(task)
				switch task.Status.State {
				case isPending:
					task.NodeId = ""
				case warrenv1.TaskState_TASK_STATE_RUNNING:
					task.Status.Serving = rapid.Bool().Draw(t, "serving")
					task.Status.ImageDigest = rapid.SampledFrom([]string{"", "sha256:1", "sha256:2"}).Draw(t, "digest")
				case isLost, isShutDown:
					task.Desired = toShutDown
				}
				task.Displaced = rapid.IntRange(0, 4).Draw(t, "displaced") == 0
				if rapid.IntRange(0, 4).Draw(t, "restarted") == 0 {
					crashed(time.Second)(task)
				}
			}))
	}
	service.Rollout.KeepUntil = rapid.SampledFrom([]*timestamppb.Timestamp{nil, nil, timestamppb.New(now.Add(time.Minute))}).Draw(t, "keep")
	if service.Rollout.GetState() != complete {
		service.Rollout.KeepUntil = nil
	}
	return objects
}
