package consensus

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// watch sees who leads, who is a member and, as the leader, who can be reached.
type watch struct {
	logger    *slog.Logger
	kick      chan struct{} // look: something may have changed
	installed chan struct{} // look, once raft has taken on a snapshot
	grown     chan struct{} // take a snapshot
	closing   chan struct{}
	done      sync.WaitGroup

	mu      sync.Mutex
	seen    view
	changed chan struct{} // closed at the next change of what is seen
	away    map[raft.ServerID]bool
}

// view is what the watch has seen.
type view struct {
	servers []raft.Server
	leader  raft.ServerID
}

func (v view) equal(other view) bool {
	return v.leader == other.leader && slices.Equal(v.servers, other.servers)
}

func newWatch(o Options) *watch {
	return &watch{
		logger: o.Logger, kick: make(chan struct{}, 1), installed: make(chan struct{}, 1), grown: make(chan struct{}, 1), closing: make(chan struct{}),
		changed: make(chan struct{}), away: map[raft.ServerID]bool{},
	}
}

// start begins to watch n's raft.
func (w *watch) start(n *Node) {
	// The filter is called where the thing happens; it has nothing pass that a channel could be too full for.
	n.raft.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		w.observe(o.Data)
		return false
	}))
	w.done.Go(func() {
		for {
			w.compare(n)
			n.ease()
			select {
			case <-w.kick:
			case <-w.installed:
				// Raft takes on the members that a snapshot names after it has given the state to the
				// machine, and answers nothing in between.
				_ = n.raft.VerifyLeader().Error()
			case <-w.closing:
				return
			}
		}
	})
	w.done.Go(func() { n.alarm(w.closing) })
	w.done.Go(func() {
		for {
			select {
			case <-w.grown:
				if err := n.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
					w.logger.Error("no snapshot of the state could be taken", "error", err)
				}
			case <-w.closing:
				return
			}
		}
	})
}

// stop ends the watching. Raft must still be running.
func (w *watch) stop() {
	close(w.closing)
	w.done.Wait()
}

// look has the watch look whether something has changed.
func (w *watch) look() { signal(w.kick) }

// lookAgain has it look when raft has taken on a snapshot.
func (w *watch) lookAgain() { signal(w.installed) }

// compact has a snapshot taken, so that raft can forget what is in it.
func (w *watch) compact() { signal(w.grown) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is about to look
	}
}

// writing hears that the log cannot be written, or with nil that it can be again.
func (w *watch) writing(err error) {
	if err != nil {
		w.logger.Error("the raft log cannot be written", "error", err)
	} else {
		w.logger.Info("the raft log can be written again")
	}
	w.look()
}

func (w *watch) observe(what any) {
	switch what := what.(type) {
	case raft.LeaderObservation, raft.PeerObservation:
		w.look()
	case raft.RaftState:
		w.mu.Lock()
		defer w.mu.Unlock()
		clear(w.away)
	case raft.FailedHeartbeatObservation:
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.away[what.PeerID] {
			w.away[what.PeerID] = true
			w.logger.Warn("a manager cannot be reached", "manager", string(what.PeerID))
		}
	case raft.ResumedHeartbeatObservation:
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.away[what.PeerID] {
			delete(w.away, what.PeerID)
			w.logger.Info("a manager can be reached again", "manager", string(what.PeerID))
		}
	}
}

func (w *watch) compare(n *Node) {
	now := view{servers: n.servers()}
	_, now.leader = n.raft.LeaderWithID()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen.equal(now) {
		return
	}
	w.seen = now
	close(w.changed)
	w.changed = make(chan struct{})
}

// Changed returns a channel that is closed when somebody else leads, or nobody, or when the membership has
// changed. Ask for it before looking at what it is about.
func (n *Node) Changed() <-chan struct{} {
	n.watch.mu.Lock()
	defer n.watch.mu.Unlock()
	return n.watch.changed
}

// Reachable tells of each member whether it answers this node's heartbeats, while this node leads; nil
// while it does not.
func (n *Node) Reachable() map[string]bool {
	if !n.Leading() {
		return nil
	}
	n.watch.mu.Lock()
	away := maps.Clone(n.watch.away)
	n.watch.mu.Unlock()
	reachable := map[string]bool{}
	for _, s := range n.servers() {
		reachable[string(s.ID)] = !away[s.ID]
	}
	return reachable
}
