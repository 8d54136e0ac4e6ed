package rollout

import (
	"testing"
	"time"

	"github.com/cuemby/warren/internal/manager/state/statetest"
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
