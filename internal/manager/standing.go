package manager

import (
	"context"
	"sync"
	"time"

	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/keyring"
)

// electionWait is how long a call waits for an election before it is refused. Most take less than one
// second, and a caller who is refused can only try again.
const electionWait = 3 * time.Second

// soleWait is how long the only manager of a cluster may take to lead it. It needs nobody for that; what
// takes time is reading what it has, on a slow or busy machine.
const soleWait = time.Minute

// stand is what a manager is at the moment.
type stand int

const (
	following stand = iota
	leading         // and knows everything that was committed before
	stopping        // for good
)

// standing is how a manager stands, for those who wait for it to change.
type standing struct {
	mu       sync.Mutex
	now      stand
	follows  string        // the manager that leads, as far as raft knows; empty for none
	followAt string        // its address, as raft knows it
	since    time.Time     // since when it does, or nobody does
	changed  chan struct{} // closed at the next change
}

func newStanding() *standing { return &standing{changed: make(chan struct{}), since: time.Now()} }

func (s *standing) set(to stand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == to || s.now == stopping {
		return
	}
	s.now = to
	s.tell()
}

// tell says that something has changed. The caller holds s.mu.
func (s *standing) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// follow notes who leads.
func (s *standing) follow(id, addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.follows == id && s.followAt == addr {
		return
	}
	if s.follows != id {
		s.since = time.Now()
	}
	s.follows, s.followAt = id, addr
	s.tell()
}

// anew notes that the manager begins to look who leads. Until now nobody could tell: that counts as no time without a leader, or a
// manager that takes long to read what it has would refuse, as soon as it answers, what it could do in a moment.
func (s *standing) anew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follows, s.followAt, s.since = "", "", time.Now()
	s.tell()
}

// followed returns the id and address of the manager that leads, empty where none does.
func (s *standing) followed() (id, addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.follows, s.followAt
}

// stood is a copy of how a manager stands.
type stood struct {
	now               stand
	follows, followAt string
	since             time.Time
	changed           <-chan struct{}
}

func (s *standing) look() stood {
	s.mu.Lock()
	defer s.mu.Unlock()
	return stood{s.now, s.follows, s.followAt, s.since, s.changed}
}

// leader returns the id of the manager that leads, empty where none does.
func (s *standing) leader() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.follows
}

func (s *standing) get() (stand, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.changed
}

// lead waits until the manager leads. It fails with consensus.ErrClosed, with consensus.ErrNotLeader
// when that takes longer than patience, or with the error of ctx. Where self, the manager's own id, is
// given, it does not wait while another leads.
func (s *standing) lead(ctx context.Context, patience time.Duration, self string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, consensus.ErrNotLeader)
	defer cancel()
	for {
		is := s.look()
		switch {
		case is.now == leading:
			return nil
		case is.now == stopping:
			return consensus.ErrClosed
		case self != "" && is.follows != "" && is.follows != self:
			return consensus.ErrNotLeader
		}
		select {
		case <-is.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// report tells in words how the manager stands, for its service's status.
func (m *Manager) report() {
	if m.options.Status == nil {
		return
	}
	m.options.Status(m.words())
}

func (m *Manager) words() string {
	now, _ := m.standing.get()
	if m.ring.State() == keyring.Locked && now != stopping {
		return "locked: run `warrenctl cluster unlock`"
	}
	cluster := m.store.Snapshot().Cluster()
	switch initialized, err := m.initialized(); {
	case err != nil || now == stopping:
		return "stopping"
	case now == leading && cluster != nil:
		return "leading cluster " + cluster.GetSpec().GetName()
	case m.isJoining():
		return "joining a cluster"
	case !initialized || now == leading:
		return "not part of a cluster yet: run `warrenctl cluster init`, or `warrenctl cluster join`"
	}
	if leader := m.standing.leader(); leader != "" {
		return "following " + m.describe(leader) + " in cluster " + cluster.GetSpec().GetName()
	}
	return "waiting for an election"
}
