package consensus

import (
	"time"

	"github.com/hashicorp/raft"
)

// Figures are how a node stands, in numbers.
type Figures struct {
	Leading bool
	// Voters and Members are how many of the cluster's managers have a vote, and how many there are.
	Voters, Members int
	Term            uint64
	// LastIndex is that of the newest entry in this node's log, CommitIndex of the newest that most have, AppliedIndex of the newest
	// that is in the state.
	LastIndex, CommitIndex, AppliedIndex uint64
	// Waiting proposals have not been taken up yet.
	Waiting int
	// Silence is how long nothing has been heard of the leader; 0 for the leader itself, and where none was ever heard of.
	Silence time.Duration
}

// Figures returns how the node stands now.
func (n *Node) Figures() Figures {
	f := Figures{
		Leading: n.Leading(), Voters: len(n.voters()), Members: len(n.servers()), Term: n.raft.CurrentTerm(),
		LastIndex: n.raft.LastIndex(), CommitIndex: n.raft.CommitIndex(), AppliedIndex: n.AppliedIndex(), Waiting: len(n.commits.queue),
	}
	if last := n.raft.LastContact(); !last.IsZero() && n.raft.State() != raft.Leader {
		f.Silence = time.Since(last)
	}
	return f
}
