package consensus

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// alarm has this node stand for election soon after the leader fell silent. Raft alone waits for once to
// twice the timeout and only then looks whether there was word meanwhile, so that most of a failover is
// spent in noticing: up to three times the timeout, on most members, as none gets a vote from one that
// has not noticed. It ends with the watch.
func (n *Node) alarm(closing <-chan struct{}) {
	limit := n.timings.HeartbeatTimeout
	// The others do the same. Whoever is second to notice is elected, unless both stand at once.
	patience := func() time.Duration { return limit + rand.N(limit/4) }
	for wait := patience(); ; {
		changed := n.Changed()
		var due <-chan time.Time
		if _, leader := n.raft.LeaderWithID(); leader != "" && leader != n.id && !n.journal.failing.Load() {
			left := time.Until(n.raft.LastContact().Add(wait))
			if left <= 0 {
				if err := n.nudge(); err != nil {
					n.options.Logger.Error("raft could not be told to look for the leader", "error", err)
				}
				wait, left = patience(), limit
			}
			due = time.After(left)
		}
		select {
		case <-due:
		case <-changed:
		case <-closing:
			return
		}
	}
}

// nudge has raft look at once whether the leader is silent. It does when its timeout is made shorter.
func (n *Node) nudge() error {
	n.timing.Lock()
	defer n.timing.Unlock()
	timings := n.raft.ReloadableConfig()
	for _, change := range []time.Duration{-time.Millisecond, time.Millisecond} {
		timings.HeartbeatTimeout += change
		if err := n.raft.ReloadConfig(timings); err != nil {
			return fmt.Errorf("adjust raft's timings: %w", err)
		}
	}
	return nil
}

// reluctance is how many times longer than others a member waits that cannot write its log: it would win
// elections, having all that was written, and lose the lead with its first write.
const reluctance = 10

// ease has a member that cannot write its log let others stand first, and be as the others again when it
// can. Where it is the only one that votes, nobody else will.
func (n *Node) ease() {
	n.timing.Lock()
	defer n.timing.Unlock()
	wanted := n.timings
	if voters := n.voters(); n.journal.failing.Load() && (len(voters) != 1 || voters[0].ID != n.id) {
		wanted.HeartbeatTimeout *= reluctance
		wanted.ElectionTimeout *= reluctance
	}
	if n.raft.ReloadableConfig() == wanted {
		return
	}
	if err := n.raft.ReloadConfig(wanted); err != nil {
		n.options.Logger.Error("raft's timings could not be adjusted", "error", err)
	}
}
