package rollout

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/rollout/policy"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var (
	blueGreen = policyOf(func(p *warrenv1.UpdatePolicy) {
		p.Strategy = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN
	})
	manual = policyOf(func(p *warrenv1.UpdatePolicy) { p.Manual = true })
)

func canaryOf(steps ...*warrenv1.CanaryStep) func(*warrenv1.Service) {
	return policyOf(func(p *warrenv1.UpdatePolicy) {
		p.Strategy, p.Canary = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY, steps
	})
}

func step(weight uint32, hold time.Duration) *warrenv1.CanaryStep {
	return &warrenv1.CanaryStep{Weight: weight, Hold: durationpb.New(hold)}
}

func promoted(n uint64) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) { s.Orders = &warrenv1.RolloutOrders{Promotes: n} }
}

// weighs has the rollout be at a step and weight since that long ago.
func weighs(weight, step uint32, since time.Duration) func(*warrenv1.Service) {
	return rollout(func(r *warrenv1.Rollout) {
		r.Weight, r.Step, r.StepSince = weight, step, timestamppb.New(now.Add(-since))
	})
}

// both are the tasks of slots that have one of each revision.
func both(slots ...uint32) []state.Object {
	tasks := []state.Object{n1}
	for _, number := range slots {
		id := string(rune('a' + number - 1))
		tasks = append(tasks, task(id, number), task(id+"2", number, of2))
	}
	return tasks
}

func TestBlueGreen(t *testing.T) {
	deadline := policy.DefaultProgressDeadline - 30*time.Second
	with := func(tasks []state.Object, service *warrenv1.Service, more ...state.Object) []state.Object {
		return append(append([]state.Object{service}, tasks...), more...)
	}
	kept := rollout(func(r *warrenv1.Rollout) { r.KeepUntil = timestamppb.New(now.Add(time.Minute)) })
	over := rollout(func(r *warrenv1.Rollout) { r.KeepUntil = timestamppb.New(now) })
	backOnce := func(s *warrenv1.Service) { s.Revision, s.Reverted = 1, true }
	again := func(s *warrenv1.Service) { s.Revision = 1 } // by an update
	onN2 := func(id string, slot uint32, edits ...func(*warrenv1.Task)) *warrenv1.Task {
		return statetest.Task(id, "web", slot, "n2", edits...)
	}
	revisions := []state.Object{statetest.Revision(web()), statetest.Revision(web(at(2)))}
	play(t, []scene{
		{"what befalls a new task after the switch has all connections go back", append(with(both(1), web(at(2), blueGreen, weighs(100, 1, time.Second)), task("b", 2, stateIs(isPreparing)), task("b2", 2, of2, crashed(40*time.Second))), revisions...),
			[]string{"1 running 100%", "blame 2", "shutdown a2"}, policy.DefaultProgressDeadline},
		{"all new tasks are started beside the old ones", []state.Object{web(at(2), blueGreen), n1, task("a", 1), task("b", 2)}, []string{"create web.1@2", "create web.2@2"}, deadline},
		{"which are not touched while one new one is not good", with(both(1), web(at(2), blueGreen), task("b", 2), task("b2", 2, of2, young)), nil, 4 * time.Second},
		{"then all connections go to the new ones", with(both(1, 2), web(at(2), blueGreen)), []string{"2 running 100%"}, 5 * time.Second},
		{"which are watched", with(both(1, 2), web(at(2), blueGreen, weighs(100, 1, 4*time.Second))), nil, time.Second},
		{"before it is complete, with the old ones kept", with(both(1, 2), web(at(2), blueGreen, weighs(100, 1, 5*time.Second))), []string{"2 complete 100% keeping"}, policy.DefaultKeep - 5*time.Second},
		{"for a while", with(both(1, 2), web(at(2), blueGreen, weighs(100, 1, 5*time.Second), in(complete), kept)), nil, time.Minute},
		{"and stopped then", with(both(1, 2), web(at(2), blueGreen, weighs(100, 1, 5*time.Second), in(complete), over)), []string{"2 complete 100%", "shutdown a", "shutdown b"}, 0},
		{"what is kept leaves a node that is drained and is not replaced", []state.Object{web(at(2), blueGreen, weighs(100, 1, 0), in(complete), kept), statetest.Node("n1", isDrained), n2, task("a", 1), onN2("a2", 1, of2)},
			[]string{"shutdown a"}, time.Minute},
		{"it takes no new task's place, as it is sent no connections", []state.Object{web(at(2), blueGreen, weighs(100, 1, 0), in(complete), kept), statetest.Node("n1", isDrained), n2, onN2("a", 1), task("a2", 1, of2)},
			[]string{"create web.1@2"}, time.Minute},
		{"a new task that is lost then is replaced", []state.Object{web(at(2), blueGreen, weighs(100, 1, 0), in(complete), kept), n1, task("a", 1)}, []string{"create web.1@2"}, time.Minute},

		{"a manual one waits", with(both(1, 2), web(at(2), blueGreen, manual)), []string{"2 waiting"}, 0},
		{"however long", with(both(1, 2), web(at(2), blueGreen, manual, in(waiting))), nil, 0},
		{"until it is promoted", with(both(1, 2), web(at(2), blueGreen, manual, in(waiting), promoted(1))), []string{"2 running 100%"}, 5 * time.Second},
		{"also where that comes early", with(both(1), web(at(2), blueGreen, manual, promoted(1)), task("b", 2)), []string{"2 running", "create web.2@2"}, policy.DefaultProgressDeadline},
		{"both halves of a slot leave a node that is drained", []state.Object{web(at(2), blueGreen), statetest.Node("n1", isDrained), n2, task("a", 1), task("a2", 1, of2, young)},
			[]string{"create web.1@1", "create web.1@2"}, 4 * time.Second},
		{"an old task that is lost comes back", []state.Object{web(at(2), blueGreen, manual, in(waiting)), n1, task("a", 1, stateIs(isLost), notWanted), task("a2", 1, of2)}, []string{"create web.1@1"}, 0},
		{"a middle revision goes at once", []state.Object{web(at(2), blueGreen, func(s *warrenv1.Service) { s.Revision, s.Rollout.To = 3, 3 }), n1, task("a", 1), task("a2", 1, of2)},
			[]string{"create web.1@3", "shutdown a2"}, deadline},
		{"but stays where nothing else serves", []state.Object{web(at(2), blueGreen, func(s *warrenv1.Service) { s.Revision, s.Rollout.To = 3, 3 }), n1, task("a", 1, statetest.NotServing), task("a2", 1, of2),
			task("a3", 1, statetest.Of(3), stateIs(isPreparing))}, nil, deadline},
		{"and what does not serve beside it does not stay for its replacement", []state.Object{web(at(2), blueGreen, func(s *warrenv1.Service) { s.Revision, s.Rollout.To = 3, 3 }), statetest.Node("n1", isDrained), n2,
			task("a", 1, statetest.NotServing), onN2("a2", 1, of2), task("a3", 1, statetest.Of(3), statetest.NotServing)}, []string{"create web.1@1", "shutdown a", "create web.1@3", "shutdown a3"}, deadline},
		{"stop-first knows no side by side", []state.Object{web(at(2), blueGreen, stopFirst), n1, task("a", 1), task("b", 2)}, []string{"shutdown a"}, deadline},

		{"going back before the switch only stops the new tasks", with(both(1, 2), web(at(2), blueGreen, backOnce, in(abandoned))), []string{"1 complete 100%", "shutdown a2", "shutdown b2"}, 0},
		{"going back after it switches back first", with(both(1, 2), web(at(2), blueGreen, backOnce, in(complete), weighs(100, 1, time.Second), kept)),
			[]string{"1 complete 100%", "shutdown a2", "shutdown b2"}, 0},
		{"an update to what an older revision holds is no way back: it is by the policy for updates", with(both(1, 2), web(at(2), blueGreen, manual, again, in(complete), weighs(100, 1, time.Second), kept)),
			[]string{"1 waiting"}, 0},
		{"and switches over", with(both(1, 2), web(at(2), blueGreen, again, in(complete), weighs(100, 1, time.Second), kept)), []string{"1 running 100%"}, 5 * time.Second},
		{"unless it gives up a rollout that came from there", with(both(1, 2), web(at(2), blueGreen, manual, again, in(abandoned))), []string{"1 complete 100%", "shutdown a2", "shutdown b2"}, 0},
		{"where the old ones are gone they are started again", []state.Object{web(at(2), blueGreen, backOnce, in(complete), weighs(100, 1, time.Hour)), n1, task("a2", 1, of2), task("b2", 2, of2)},
			[]string{"1 running", "create web.1@1", "create web.2@1"}, policy.DefaultProgressDeadline},
	})
}

func TestCanary(t *testing.T) {
	deadline := policy.DefaultProgressDeadline - 30*time.Second
	ten := func(edits ...func(*warrenv1.Service)) *warrenv1.Service {
		return statetest.Replicated("web", 10, edits...)
	}
	// old are tasks of revision 1 in slots from `first` to 10.
	old := func(first uint32, more ...state.Object) []state.Object {
		objects := append([]state.Object{n1}, more...)
		for number := first; number <= 10; number++ {
			objects = append(objects, task("o"+string(rune('a'+number)), number))
		}
		return objects
	}
	steps := canaryOf(step(10, 0), step(50, 50*time.Second))
	r1 := statetest.Revision(web())
	play(t, []scene{
		{"as many new tasks as the weight asks for are started", append(old(1), ten(at(2), canaryOf(step(25, 0)))), []string{"create web.1@2", "create web.2@2", "create web.3@2"}, deadline},
		{"ten percent where nothing is said", append(old(1), ten(at(2), canaryOf())), []string{"create web.1@2"}, deadline},
		{"when they are good they get their part", append(old(2), append(both(1)[1:], ten(at(2), steps))...), []string{"2 waiting 10%"}, 0},
		{"and it waits for promotion", append(old(2), append(both(1)[1:], ten(at(2), steps, in(waiting), weighs(10, 0, time.Hour)))...), nil, 0},
		{"which goes a step on", append(old(2), append(both(1)[1:], ten(at(2), steps, in(waiting), weighs(10, 0, time.Hour), promoted(1)))...),
			[]string{"2 running 10%", "create web.2@2", "create web.3@2", "create web.4@2", "create web.5@2"}, policy.DefaultProgressDeadline},
		{"a step with a hold is held while all is well", append(old(6), append(both(1, 2, 3, 4, 5)[1:], ten(at(2), steps, weighs(50, 1, 20*time.Second)))...), nil, 30 * time.Second},
		{"from when all were", append(old(6), append(both(1, 2, 3, 4)[1:], task("e", 5), task("e2", 5, of2, ago(15*time.Second)), ten(at(2), steps, weighs(50, 1, 20*time.Second)))...), nil, 40 * time.Second},
		{"then the rest follows as a rolling update", append(old(6), append(both(1, 2, 3, 4, 5)[1:], ten(at(2), steps, weighs(50, 1, time.Minute)))...),
			[]string{"2 running", "shutdown a", "shutdown b", "shutdown c", "shutdown d", "shutdown e", "create web.6@2"}, policy.DefaultProgressDeadline},
		{"all steps may be promoted at once", append(old(2), append(both(1)[1:], ten(at(2), steps, in(waiting), weighs(10, 0, time.Hour), promoted(9)))...),
			[]string{"2 running", "shutdown a", "create web.2@2"}, policy.DefaultProgressDeadline},
		{"whatever befalls a new task sends it back", append(old(2), task("a", 1), task("a2", 1, of2, crashed(40*time.Second)), r1, statetest.Revision(ten(at(2))), ten(at(2), steps, in(waiting), weighs(10, 0, 0))),
			[]string{"1 complete", "outcome 1", "blame 2", "shutdown a2"}, 0},
		{"new slots get the old revision from the replicas loop, and a lost new task comes back", append(old(2), task("a", 1), task("a2", 1, of2, stateIs(isLost), notWanted), ten(at(2), steps, in(waiting), weighs(10, 0, 0))),
			[]string{"create web.1@2"}, 0},
	})
}
