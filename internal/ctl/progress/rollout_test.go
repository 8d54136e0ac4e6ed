package progress

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	going    = warrenv1.RolloutState_ROLLOUT_STATE_RUNNING
	paused   = warrenv1.RolloutState_ROLLOUT_STATE_PAUSED
	waiting  = warrenv1.RolloutState_ROLLOUT_STATE_WAITING
	finished = warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE
)

// webTo3 is web as it was ordered to go to revision 3.
var webTo3 = Target{Name: "web", ID: "webid", Version: 10, Revision: 3}

// rolling is a message of a rollout from revision 2 to 3, in which updated of five tasks are of revision 3; change
// changes the rest.
func rolling(updated uint32, state warrenv1.RolloutState, change func(s *warrenv1.Service, r *warrenv1.Rollout)) *warrenv1.WatchServiceResponse {
	m := told(running, running, running, running, running)
	m.Progress.Updated, m.Progress.Converged = updated, updated == 5
	m.Service.Revision = 3
	m.Service.Rollout = &warrenv1.Rollout{From: 2, To: 3, State: state, AdvancedAt: timestamppb.New(epoch.Add(time.Duration(updated) * time.Second))}
	m.Service.Spec.Update = &warrenv1.UpdatePolicy{Parallelism: 2}
	if change != nil {
		change(m.Service, m.Service.GetRollout())
	}
	return m
}

// observed is a step in which a message comes.
func observed(at time.Duration, what string, m *warrenv1.WatchServiceResponse) step {
	return step{at, what, func(tr *Tracker, now time.Time) { tr.Observe(m, nil, now) }}
}

func TestPicturesOfARolloutThatGoesWell(t *testing.T) {
	before := rolling(0, finished, func(_ *warrenv1.Service, r *warrenv1.Rollout) { r.From, r.To = 1, 2 })
	tellStory(t, "rollout-", webTo3, []step{
		observed(0, "ordered, not begun", before),
		observed(time.Second, "the first batch", rolling(1, going, nil)),
		observed(2*time.Second, "it runs", rolling(2, going, nil)),
		observed(8*time.Second, "the others", rolling(4, going, nil)),
		observed(12*time.Second, "all", rolling(5, going, func(_ *warrenv1.Service, r *warrenv1.Rollout) { r.Failed = 1 })),
		observed(16*time.Second, "all are good", rolling(5, finished, nil)),
		{20 * time.Second, "over", nil},
	})
}

func TestPicturesOfARolloutThatIsTakenBack(t *testing.T) {
	back := func(state warrenv1.RolloutState) func(*warrenv1.Service, *warrenv1.Rollout) {
		return func(s *warrenv1.Service, r *warrenv1.Rollout) {
			s.Revision = 2
			r.From, r.To, r.Rollback, r.State, r.Message = 3, 2, true, state, "going back from revision 3: 1 of 5 slots failed: web.1: exit code 1"
		}
	}
	fails := rolling(4, going, back(going))
	fails.Progress.Reason = fails.GetService().GetRollout().GetMessage()
	tellStory(t, "back-", webTo3, []step{
		observed(0, "the first batch", rolling(1, going, nil)),
		observed(time.Second, "it fails", fails),
		observed(2*time.Second, "back", rolling(5, finished, back(finished))),
		{4 * time.Second, "over", nil},
	})
}

func TestPicturesOfACanary(t *testing.T) {
	at := func(step uint32, since time.Duration) func(*warrenv1.Service, *warrenv1.Rollout) {
		return func(s *warrenv1.Service, r *warrenv1.Rollout) {
			s.Spec.Update.Strategy = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY
			s.Spec.Update.Canary = []*warrenv1.CanaryStep{{Weight: 10, Hold: durationpb.New(4 * time.Minute)}, {Weight: 50}}
			r.Step, r.Weight = step, []uint32{10, 50, 0}[step]
			r.StepSince = timestamppb.New(epoch.Add(since))
		}
	}
	tellStory(t, "canary-", webTo3, []step{
		observed(0, "its tasks", rolling(0, going, func(s *warrenv1.Service, r *warrenv1.Rollout) {
			at(0, 0)(s, r)
			r.Weight = 0
		})),
		observed(0, "the first step", rolling(1, going, at(0, 0))),
		{time.Minute, "a minute later", nil},
		observed(4*time.Minute, "the second step", rolling(3, waiting, at(1, 4*time.Minute))),
	})
	promoted := Target{Name: "web", ID: "webid", Version: 10, Revision: 3}
	tellStory(t, "promoted-", promoted, []step{
		observed(0, "the order is not followed yet", rolling(3, waiting, func(s *warrenv1.Service, r *warrenv1.Rollout) {
			at(1, 0)(s, r)
			s.Orders = &warrenv1.RolloutOrders{Promotes: 1}
		})),
		observed(time.Second, "the rest follows", rolling(4, going, at(2, time.Second))),
		observed(2*time.Second, "all are good", rolling(5, finished, at(2, time.Second))),
		{3 * time.Second, "over", nil},
	})
}

func TestPicturesOfABlueGreenRollout(t *testing.T) {
	green := func(s *warrenv1.Service, r *warrenv1.Rollout) {
		s.Spec.Update.Strategy = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN
		if r.GetState() == finished {
			r.KeepUntil, r.Weight = timestamppb.New(epoch.Add(5*time.Minute)), 100
		}
	}
	kept := rolling(5, finished, green)
	kept.Progress.Converged, kept.Progress.Stopping = false, 5
	tellStory(t, "green-", webTo3, []step{
		observed(0, "all new ones beside the old", rolling(3, going, green)),
		observed(time.Second, "switched", rolling(5, going, func(s *warrenv1.Service, r *warrenv1.Rollout) {
			green(s, r)
			r.Weight = 100
		})),
		observed(6*time.Second, "and good", kept),
	})
}

func TestAPausedRolloutEndsTheWaitingWithTheReason(t *testing.T) {
	m := rolling(1, paused, func(_ *warrenv1.Service, r *warrenv1.Rollout) { r.Message = "web.1: exit code 1" })
	tr := NewTracker(webTo3, Limits{}, epoch)
	tr.Observe(m, nil, epoch)
	_, why := tr.Verdict(epoch)
	if err := tr.stuck(why); err == nil || err.Error() != "web: paused: web.1: exit code 1 (1/5 updated); see `warrenctl why service web`, and go on with `warrenctl service resume web` or back with `warrenctl service abort web`" {
		t.Errorf("error is %v", err)
	}

	m.Service.Rollout.Message = "paused by anna"
	tr = NewTracker(webTo3, Limits{}, epoch)
	tr.Observe(m, nil, epoch)
	if _, why := tr.Verdict(epoch); !strings.HasPrefix(why, "paused by anna (1/5 updated)") {
		t.Errorf("by a user: %s", why)
	}

	// But not before the order to go on has been followed.
	m.Service.Orders = &warrenv1.RolloutOrders{Resumes: 1}
	tr = NewTracker(webTo3, Limits{}, epoch)
	tr.Observe(m, nil, epoch)
	verdictIs(t, tr, time.Hour, Working)
}

func TestAPausedRollbackSaysSo(t *testing.T) {
	m := rolling(1, paused, func(s *warrenv1.Service, r *warrenv1.Rollout) { s.Revision, r.From, r.To, r.Rollback = 2, 3, 2, true })
	tr := NewTracker(webTo3, Limits{}, epoch)
	tr.Observe(m, nil, epoch)
	if verdict, why := tr.Verdict(epoch); verdict != Stuck || !strings.HasPrefix(why, "the rollback is paused (1/5 updated)") ||
		!strings.HasSuffix(why, "or to revision 3 with `warrenctl service rollback web --to 3`") {
		t.Errorf("verdict %d: %s", verdict, why)
	}
}

func TestAScaleDoesNotWaitForARolloutThatRests(t *testing.T) {
	for _, state := range []warrenv1.RolloutState{paused, waiting} {
		tr := NewTracker(web, Limits{}, epoch)
		short := rolling(1, state, nil)
		short.Progress.Running = 4
		tr.Observe(short, nil, epoch)
		verdictIs(t, tr, time.Minute, Working)
		tr.Observe(rolling(1, state, nil), nil, epoch)
		verdictIs(t, tr, time.Minute, Arrived)
	}
}

func TestARolloutIsNotDoneBeforeItsTasksWereFoundGood(t *testing.T) {
	tr := NewTracker(webTo3, Limits{}, epoch)
	tr.Observe(rolling(5, going, nil), nil, epoch)
	verdictIs(t, tr, time.Hour, Working)
	tr.Observe(rolling(5, finished, nil), nil, epoch)
	verdictIs(t, tr, time.Hour, Arrived)
}

func TestAStepThatLastsIsNoStall(t *testing.T) {
	m := rolling(1, going, func(s *warrenv1.Service, r *warrenv1.Rollout) {
		s.Spec.Update.Strategy = warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY
		s.Spec.Update.Canary = []*warrenv1.CanaryStep{{Weight: 10, Hold: durationpb.New(time.Hour)}}
		r.Weight, r.StepSince = 10, timestamppb.New(epoch)
	})
	tr := NewTracker(webTo3, Limits{Stall: time.Minute}, epoch)
	tr.Observe(m, nil, epoch)
	verdictIs(t, tr, 59*time.Minute, Working)
	if next := tr.Next(); !next.After(epoch.Add(59 * time.Minute)) {
		t.Errorf("the next verdict is due at %v, which is past", next)
	}
}

func TestTasksThatAreToBeMovedAreWaitedFor(t *testing.T) {
	target := web
	target.Moving = true
	tr := NewTracker(target, Limits{Monitor: time.Second}, epoch)
	tr.Move(2)
	tr.Observe(told(running, running), nil, epoch)
	verdictIs(t, tr, time.Minute, Working)
	if got := tr.Counts(); got != "2/2 running, 2 to move" {
		t.Errorf("it says %q", got)
	}
	tr.Move(0)
	tr.Observe(told(running, running), nil, epoch.Add(time.Minute))
	verdictIs(t, tr, time.Minute+time.Second, Arrived)
}
