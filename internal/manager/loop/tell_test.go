package loop

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestDecisionsAreToldToDevelopersAlone(t *testing.T) {
	pending := statetest.Task("a", "web", 3, "", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING))
	old := statetest.Task("b", "web", 2, "n1")
	service := statetest.Replicated("web", 3)
	node := statetest.Node("n1")
	s := statetest.New(t, pending, old, service, node).Snapshot()
	made := statetest.Task("c", "web", 4, "", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING))
	transaction := state.New(statetest.Epoch)
	transaction.Create(made)
	state.Update(transaction, s.Task("a"), func(t *warrenv1.Task) {
		t.NodeId, t.Status.State, t.Status.Message = "n1", warrenv1.TaskState_TASK_STATE_ASSIGNED, "although a task of it failed there"
	})
	state.Update(transaction, s.Task("b"), func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN })
	state.Update(transaction, s.Service(service.GetMeta().GetId()), func(s *warrenv1.Service) {
		s.Rollout = &warrenv1.Rollout{From: 1, To: 2, State: warrenv1.RolloutState_ROLLOUT_STATE_PAUSED, Message: "1 of 3 failed"}
	})
	state.Update(transaction, s.Node("n1"), func(n *warrenv1.Node) {
		n.Status.State, n.Status.Message = warrenv1.NodeState_NODE_STATE_DOWN, "silent"
	})
	for level, want := range map[slog.Level][]string{
		slog.LevelInfo: nil,
		slog.LevelDebug: {
			`msg="makes a task" service=web task=web.4 id=c revision=1`,
			`msg="places a task" service=web task=web.3 id=a node=n1 hostname=n1 of_its_service_there=1 tasks_there=1 note="although a task of it failed there"`,
			`msg="wants a task no more" service=web task=web.2 id=b node=n1 hostname=n1 desired=DESIRED_STATE_SHUTDOWN`,
			`msg="takes a rollout a step further" service=web from=1 to=2 state=ROLLOUT_STATE_PAUSED weight=0 failed=0 why="1 of 3 failed"`,
			`msg="judges a node anew" node=n1 hostname=n1 state=NODE_STATE_DOWN why=silent`,
		},
	} {
		var said bytes.Buffer
		tell(t.Context(), slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: level})), s, Proposal{Transaction: transaction})
		lines := strings.Split(strings.TrimSuffix(said.String(), "\n"), "\n")
		if want == nil && said.Len() > 0 || want != nil && len(lines) != len(want) {
			t.Fatalf("at %v it says\n%s", level, said.String())
		}
		for i := range want {
			if !strings.Contains(lines[i], want[i]) {
				t.Errorf("got  %s\nwant %s", lines[i], want[i])
			}
		}
	}
}
