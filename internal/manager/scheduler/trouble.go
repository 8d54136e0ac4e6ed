package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// A node on which a service failed so often within so long is chosen last for it, as Swarm does it.
const (
	failuresTolerated = 5
	failuresRemain    = 5 * time.Minute
)

// trouble is what a service has had of late on one node. Nodes with enough of it are chosen last for it: what is wrong may be
// the node, and others may do better.
type trouble struct {
	// failures are the times of the latest, oldest first: no more than are tolerated.
	failures []time.Time
	// rejected is when the node last could not start a task (its image could not be pulled there, a mount was missing, a
	// port in use), and revision whose: another revision may have been made for that very reason. Once is enough, since
	// a node that cannot will not the next time.
	rejected time.Time
	revision uint64
}

// noteFailure remembers that a task failed on its node.
func (v *view) noteFailure(before, after *warrenv1.Task) {
	is := after.GetStatus().GetState()
	if is != warrenv1.TaskState_TASK_STATE_FAILED && is != warrenv1.TaskState_TASK_STATE_REJECTED {
		return
	}
	s := v.services[after.GetServiceId()]
	if s == nil || after.GetNodeId() == "" || before != nil && lifecycle.Ended(before.GetStatus().GetState()) {
		return
	}
	at := after.GetStatus().GetSince().AsTime()
	if known := after.GetMeta().GetUpdatedAt(); known != nil && known.AsTime().Before(at) {
		at = known.AsTime() // the node's clock is ahead
	}
	if s.troubles == nil {
		s.troubles = map[string]trouble{}
	}
	maps.DeleteFunc(s.troubles, func(_ string, t trouble) bool { return at.Sub(t.latest()) >= failuresRemain })
	t := s.troubles[after.GetNodeId()]
	times := append(slices.Clone(t.failures), at)
	slices.SortFunc(times, time.Time.Compare)
	t.failures = times[max(0, len(times)-failuresTolerated):]
	if is == warrenv1.TaskState_TASK_STATE_REJECTED && !at.Before(t.rejected) {
		t.rejected, t.revision = at, after.GetRevision()
	}
	s.troubles[after.GetNodeId()] = t
}

func (t trouble) latest() time.Time {
	if len(t.failures) == 0 {
		return time.Time{}
	}
	return t.failures[len(t.failures)-1]
}

// failsOften tells whether the service has failed too often there of late.
func (t trouble) failsOften(now time.Time) bool {
	return len(t.failures) == failuresTolerated && now.Sub(t.failures[0]) < failuresRemain
}

// refuses tells whether the node could not start a task of that revision of late.
func (t trouble) refuses(revision uint64, now time.Time) bool {
	return t.revision == revision && !t.rejected.IsZero() && now.Sub(t.rejected) < failuresRemain
}

// failing tells whether g's tasks go to n only where they fit nowhere else.
func (g *group) failing(n *node, now time.Time) bool {
	if g.service.troubles == nil {
		return false
	}
	t, some := g.service.troubles[n.id]
	return some && (t.failsOften(now) || t.refuses(g.revision, now))
}

// resort says in words why one would rather have had another node than n; empty where that is not so.
func (g *group) resort(n *node, now time.Time) string {
	if !g.failing(n, now) {
		return ""
	}
	t := g.service.troubles[n.id]
	if t.refuses(g.revision, now) {
		return fmt.Sprintf("no other node fits than %s, which could not start it %s ago", n.name(), now.Sub(t.rejected).Round(time.Second))
	}
	return fmt.Sprintf("no other node fits than %s, where the service failed %d times in the last %s",
		n.name(), failuresTolerated, max(time.Second, now.Sub(t.failures[0]).Round(time.Second)))
}
