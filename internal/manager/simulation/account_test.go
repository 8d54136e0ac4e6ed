package simulation

import (
	"fmt"
	"strings"

	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// account tells all there is to know of a service when something is wrong with it: what it wants, what its rollout has come to, and
// every task by slot.
func account(s state.Snapshot, service *warrenv1.Service) string {
	var b strings.Builder
	fmt.Fprintf(&b, "service %s at revision %d of %d\n  rollout: %v\n  update: %v\n", service.GetSpec().GetName(),
		service.GetRevision(), service.GetLastRevision(), service.GetRollout(), service.GetSpec().GetUpdate())
	for _, of := range slot.Of(s, service.GetMeta().GetId()) {
		for _, part := range []struct {
			name  string
			tasks []*warrenv1.Task
		}{{"live", of.Live}, {"ending", of.Ending}, {"ended", of.Ended}, {"spent", of.Spent}} {
			for _, t := range part.tasks {
				status, n := t.GetStatus(), s.Node(t.GetNodeId())
				fmt.Fprintf(&b, "  %d%s %s %s of %d: %v, serving %v, attempt %d, displaced %v, on %s (%v, %v), made %s: %s\n",
					of.Number, of.NodeID, part.name, t.GetMeta().GetId(), t.GetRevision(), status.GetState(), status.GetServing(), status.GetAttempt(), t.GetDisplaced(),
					n.GetFacts().GetHostname(), n.GetSpec().GetAvailability(), n.GetStatus().GetState(),
					t.GetMeta().GetCreatedAt().AsTime().Format("04:05.000"), status.GetMessage()+status.GetError())
			}
		}
	}
	return b.String()
}
