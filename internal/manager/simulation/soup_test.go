package simulation

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/manager/liveness"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/replicas"
	"github.com/cuemby/warren/internal/manager/retention"
	"github.com/cuemby/warren/internal/manager/rollout"
	"github.com/cuemby/warren/internal/manager/scheduler"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// However odd the state that the loops find, together they come to rest: none undoes what another
// does, and each decides the same on the same, refuses nothing it has decided itself, and
// keeps what must hold of every task.
func TestFromAnyStateTheLoopsComeToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := statetest.Epoch.Add(time.Hour)
		store := state.NewStore()
		proposer := statetest.NewProposer(store)
		begin := state.New(statetest.Epoch)
		for _, o := range soup(t, now) {
			begin.Create(o)
		}
		commit(t, proposer, begin)
		_, feed := store.Watch()
		for round := 0; ; round++ {
			before := store.Snapshot().Index()
			for _, d := range decisions(round) {
				s := store.Snapshot()
				decided := d.decide(s, now)
				if again := d.decide(s, now); !same(decided, again) {
					t.Fatalf("%s decided differently on the same", d.loop)
				}
				for _, p := range decided.Proposals {
					commit(t, proposer, p.Transaction)
				}
				for _, c := range feed.Take().Changes {
					b, _ := c.Before.(*warrenv1.Task)
					a, _ := c.After.(*warrenv1.Task)
					if b == nil || a == nil {
						continue
					}
					if err := checkStep(b, a); err != nil {
						t.Fatalf("%s: task %s %v", d.loop, a.GetMeta().GetId(), err)
					}
				}
			}
			if store.Snapshot().Index() == before {
				return
			}
			if round == 50 {
				t.Fatal("the loops do not come to rest")
			}
		}
	})
}

// decision is one loop's decision about a whole state.
type decision struct {
	loop   string
	decide func(state.Snapshot, time.Time) loop.Decision
}

// decisions are those of all loops, with ids that depend on the round alone.
func decisions(round int) []decision {
	var all []decision
	for i, build := range []func(newID func() string) loop.Loop{
		replicas.New,
		func(newID func() string) loop.Loop { return rollout.New(newID, time.Time{}) },
		func(func() string) loop.Loop { return scheduler.New() },
		func(func() string) loop.Loop { return liveness.New(statetest.Epoch) },
		func(func() string) loop.Loop { return retention.New() },
	} {
		ids := fmt.Sprintf("%d-%d-", round, i)
		all = append(all, decision{build(nil).Name(), func(s state.Snapshot, now time.Time) loop.Decision {
			l := build(statetest.Counter(ids))
			l.Reset(s)
			return l.Decide(s, now)
		}})
	}
	return all
}

// same tells whether two decisions propose the same.
func same(a, b loop.Decision) bool {
	entry := func(d loop.Decision) proto.Message {
		e := &statev1.Entry{}
		for _, p := range d.Proposals {
			e.Transactions = append(e.Transactions, p.Transaction.Message())
		}
		return e
	}
	return proto.Equal(entry(a), entry(b)) && a.Wake.Equal(b.Wake)
}

func commit(t *rapid.T, p *statetest.Proposer, transaction *state.Transaction) {
	results, err := p.Propose(t.Context(), transaction)
	if err != nil || results != nil {
		t.Fatalf("refused: %v, %v", results, err)
	}
}

// soup draws a state: services, nodes, and tasks that may contradict both.
func soup(t *rapid.T, now time.Time) []state.Object {
	var objects []state.Object
	services := rapid.IntRange(1, 3).Draw(t, "services")
	nodes := rapid.IntRange(0, 4).Draw(t, "nodes")
	moment := rapid.Custom(func(t *rapid.T) *timestamppb.Timestamp {
		return timestamppb.New(now.Add(-time.Duration(rapid.Int64Range(0, int64(10*time.Minute)).Draw(t, "ago"))))
	})
	for i := range nodes {
		objects = append(objects, statetest.Node(fmt.Sprint("n", i), func(n *warrenv1.Node) {
			n.Status.State = warrenv1.NodeState(rapid.IntRange(1, 4).Draw(t, "node state"))
			n.Status.Since = moment.Draw(t, "since")
			n.Spec.Availability = warrenv1.NodeAvailability(rapid.IntRange(0, 3).Draw(t, "availability"))
			n.Spec.Labels = map[string]string{"zone": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone")}
		}))
	}
	edit := func(s *warrenv1.Service) {
		s.Revision = uint64(rapid.IntRange(1, 3).Draw(t, "revision"))
		s.Removing = rapid.IntRange(0, 4).Draw(t, "removing") == 0
		s.Spec.Update = &warrenv1.UpdatePolicy{
			Parallelism: uint32(rapid.IntRange(0, 3).Draw(t, "parallelism")),
			Order:       warrenv1.UpdateOrder(rapid.IntRange(0, 2).Draw(t, "order")),

			MaxFailureRatio: rapid.SampledFrom([]float64{0, 0.5, 1}).Draw(t, "ratio"),
			FailureAction:   warrenv1.FailureAction(rapid.IntRange(0, 3).Draw(t, "action")),
			Strategy:        warrenv1.RolloutStrategy(rapid.IntRange(0, 3).Draw(t, "strategy")),
			Manual:          rapid.Bool().Draw(t, "manual"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "steps") {
			s.Spec.Update.Canary = append(s.Spec.Update.Canary, &warrenv1.CanaryStep{Weight: rapid.Uint32Range(1, 100).Draw(t, "weight")})
		}
		if rapid.Bool().Draw(t, "rolls") {
			s.Rollout = &warrenv1.Rollout{
				From: rapid.Uint64Range(1, 3).Draw(t, "from"), To: rapid.Uint64Range(1, 3).Draw(t, "to"),
				State: warrenv1.RolloutState(rapid.IntRange(1, 5).Draw(t, "rollout")), Rollback: rapid.Bool().Draw(t, "rollback"),
				Since: moment.Draw(t, "since"), AdvancedAt: moment.Draw(t, "advanced"), StepSince: moment.Draw(t, "step since"),
				Weight: rapid.Uint32Range(0, 100).Draw(t, "weight"), Step: rapid.Uint32Range(0, 4).Draw(t, "step"),
			}
			if rapid.Bool().Draw(t, "keeps") {
				s.Rollout.KeepUntil = moment.Draw(t, "keep until")
			}
		}
		s.Orders = &warrenv1.RolloutOrders{Paused: rapid.Bool().Draw(t, "paused"), Resumes: rapid.Uint64Range(0, 1).Draw(t, "resumes"), Promotes: rapid.Uint64Range(0, 2).Draw(t, "promotes")}
		s.Spec.Task.Restart = &warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition(rapid.IntRange(0, 3).Draw(t, "condition"))}
		if rapid.Bool().Draw(t, "constrained") {
			s.Spec.Placement = &warrenv1.Placement{Constraints: []string{"node.labels.zone == a"}}
		}
	}
	for i := range services {
		name := fmt.Sprint("s", i)
		service := statetest.Global(name, edit)
		if rapid.Bool().Draw(t, "replicated") {
			service = statetest.Replicated(name, uint32(rapid.IntRange(0, 5).Draw(t, "replicas")), edit)
		}
		objects = append(objects, service)
		for revision := uint64(1); revision <= service.GetRevision(); revision++ {
			r := statetest.Revision(service)
			r.Meta.Id, r.Number = state.RevisionID(name, revision), revision
			objects = append(objects, r)
		}
	}
	for i := range rapid.IntRange(0, 16).Draw(t, "tasks") {
		node := rapid.SampledFrom([]string{"n0", "n1", "n2", "n3", "n4"}).Draw(t, "node")
		service := fmt.Sprint("s", rapid.IntRange(0, services-1).Draw(t, "service"))
		objects = append(objects, statetest.Task(fmt.Sprint("t", i), service, uint32(rapid.IntRange(0, 4).Draw(t, "slot")), node, func(task *warrenv1.Task) {
			task.Revision = uint64(rapid.IntRange(1, 3).Draw(t, "task revision"))
			task.Desired = warrenv1.DesiredState(rapid.IntRange(1, 3).Draw(t, "desired"))
			task.Status.State = warrenv1.TaskState(rapid.IntRange(1, 11).Draw(t, "state"))
			task.Displaced = rapid.IntRange(0, 5).Draw(t, "displaced") == 0
			task.Status.Serving = task.Status.State == warrenv1.TaskState_TASK_STATE_RUNNING && rapid.Bool().Draw(t, "serving")
			task.Status.ImageDigest = rapid.SampledFrom([]string{"", "", "sha256:a", "sha256:b"}).Draw(t, "digest")
			task.Status.Attempt = uint32(rapid.IntRange(0, 3).Draw(t, "attempt"))
			task.Status.Since, task.Status.StartedAt = moment.Draw(t, "since"), moment.Draw(t, "started")
			if task.Slot > 0 && task.Status.State == warrenv1.TaskState_TASK_STATE_PENDING {
				task.NodeId = ""
			}
		}))
	}
	return objects
}
