package simulation

import (
	"slices"
	"testing"

	"github.com/cuemby/warren/internal/manager/format"
	"github.com/cuemby/warren/internal/manager/liveness"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/replicas"
	"github.com/cuemby/warren/internal/manager/retention"
	"github.com/cuemby/warren/internal/manager/rollout"
	"github.com/cuemby/warren/internal/manager/rotation"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestLoopsWatchTheTablesTheyDeclareAndNoOthers(t *testing.T) {
	web := statetest.Replicated("web", 1, func(s *warrenv1.Service) { s.Revision = 2 })
	s := statetest.New(t, statetest.Cluster(), statetest.Node("n1"), statetest.Task("a", "web", 1, "n1"), statetest.Task("b", "web", 2, "gone"),
		web, statetest.Global("log"), statetest.Revision(web),
		&statev1.Authority{Meta: &warrenv1.Meta{Id: "ca"}, Roots: [][]byte{{1}, {2}}}, &statev1.Member{Meta: &warrenv1.Meta{Id: "m1"}}).Snapshot()
	for _, c := range []struct {
		loop   loop.Loop
		inputs []statev1.Table
	}{
		{replicas.New(nil), replicas.Inputs},
		{rollout.New(nil, statetest.Epoch), rollout.Inputs},
		{liveness.New(statetest.Epoch), liveness.Inputs},
		{retention.New(), retention.Inputs},
		{rotation.New(), rotation.Inputs},
		{format.New(1), format.Inputs},
	} {
		watched := map[statev1.Table]bool{}
		for o := range s.Objects() {
			for _, change := range []state.Change{{After: o}, {Before: o}} {
				if len(slices.Collect(c.loop.(*loop.Keyed).Affected(s, change))) > 0 {
					watched[state.KeyOf(o).Table] = true
				}
			}
		}
		for table := statev1.Table_TABLE_CLUSTER; table <= statev1.Table_TABLE_NETWORK; table++ {
			if declared := slices.Contains(c.inputs, table); declared != watched[table] {
				t.Errorf("%s: declares %v: %v; watches it: %v", c.loop.Name(), table, declared, watched[table])
			}
		}
	}
}
