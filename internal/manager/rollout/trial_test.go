package rollout

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestANewLeaderHearsOfATaskForTheWholeMonitorTimeBeforeItIsGood(t *testing.T) {
	store := statetest.New(t, statetest.Task("a", "web", 1, "n1"))
	task := store.Snapshot().Task("a")
	told := task.GetMeta().GetUpdatedAt().AsTime()
	for leading, want := range map[time.Time]time.Time{
		{}:                        told.Add(5 * time.Second),
		told.Add(-time.Minute):    told.Add(5 * time.Second),
		told.Add(3 * time.Second): told.Add(8 * time.Second),
	} {
		tr := trial{monitor: 5 * time.Second, leading: leading}
		if got := tr.goodAt(task); !got.Equal(want) {
			t.Errorf("led since %v, good at %v, want %v", leading, got, want)
		}
	}
}

func TestACrashCountsFromWhenItsProgramBeganHoweverLongItsImageWasPulled(t *testing.T) {
	tr := trial{monitor: 5 * time.Second, watch: 5 * time.Second}
	for ran, fails := range map[time.Duration]bool{time.Second: true, time.Minute: false} {
		pulled := statetest.Epoch.Add(10 * time.Minute)
		restarted := statetest.Task("a", "web", 1, "n1", func(t *warrenv1.Task) {
			t.Status.Attempt, t.Status.StartedAt = 2, timestamppb.New(pulled.Add(2*time.Minute))
			t.Status.Incidents = []*warrenv1.Incident{{
				Kind: warrenv1.IncidentKind_INCIDENT_KIND_EXIT, Attempt: 1, StartedAt: timestamppb.New(pulled), At: timestamppb.New(pulled.Add(ran)),
			}}
		})
		if tr.failed(restarted) != fails {
			t.Errorf("after it had run for %v the crash is a failure: %v", ran, !fails)
		}
	}
}
