package manager

import (
	"cmp"

	"github.com/cuemby/warren/internal/manager/forward"
)

// leadership tells who leads, to the one who passes calls on.
type leadership struct{ m *Manager }

var _ forward.Leadership = leadership{}

// Leader implements forward.Leadership.
func (l leadership) Leader() (forward.Leader, <-chan struct{}) {
	s := l.m.standing.look()
	leader := forward.Leader{ID: s.follows, Since: s.since}
	if s.now == leading {
		leader.ID, leader.Here = l.m.self(), true
		return leader, s.changed
	}
	if initialized, err := l.m.initialized(); err == nil && !initialized {
		leader.Here = true
		return leader, s.changed
	}
	if s.follows == l.m.self() { // elected, and ready in a moment: the API waits for it
		leader.Here = true
		return leader, s.changed
	}
	if s.follows != "" {
		leader.Addr = l.m.addrOf(s.follows, s.followAt)
	}
	return leader, s.changed
}

// Peers implements forward.Leadership.
func (l leadership) Peers() []forward.Peer {
	node, err := l.m.core.get()
	if err != nil {
		return nil
	}
	// Those that agree, by raft's own account: the state may lag, and is empty after a start.
	var peers []forward.Peer
	for _, s := range node.Servers() {
		if s.Voter && s.ID != l.m.self() {
			told := l.m.store.Snapshot().Member(s.ID)
			peers = append(peers, forward.Peer{ID: s.ID, Name: cmp.Or(told.GetHostname(), s.ID), Addr: cmp.Or(told.GetAddr(), s.Addr)})
		}
	}
	return peers
}
