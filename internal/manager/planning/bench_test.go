package planning_test

import (
	"fmt"
	"testing"

	"github.com/cuemby/warren/internal/manager/planning"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
)

// large is a service of 10,000 tasks on half of 1,000 nodes.
func large(b *testing.B) state.Snapshot {
	b.Helper()
	web := statetest.Replicated("web", 10_000)
	objects := []state.Object{web, statetest.Revision(web)}
	for i := range 1000 {
		objects = append(objects, statetest.Node(fmt.Sprintf("n%d", i)))
	}
	for i := range 10_000 {
		objects = append(objects, statetest.Task(fmt.Sprintf("t%d", i), "web", uint32(i+1), fmt.Sprintf("n%d", i%500)))
	}
	return statetest.New(b, objects...).Snapshot()
}

func BenchmarkPlanOf10000Tasks(b *testing.B) {
	s := large(b)
	for b.Loop() {
		planned(b, s, "web", image)
	}
}

func BenchmarkRebalanceOf10000Tasks(b *testing.B) {
	s := large(b)
	for b.Loop() {
		planning.Rebalance(s, s.Service("web"), statetest.Epoch, 1000)
	}
}
