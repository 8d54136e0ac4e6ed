package forward

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
)

// Leader is who leads the cluster, as far as this manager knows. Where nobody is known to, ID is empty and
// Here is false.
type Leader struct {
	ID string
	// Addr is the host:port where the other managers reach it.
	Addr string
	// Here tells that this manager answers itself: it leads, or it belongs to no cluster yet.
	Here bool
	// Since is when that began: where nobody leads, since when.
	Since time.Time
}

// Known tells whether there is somebody to answer.
func (l Leader) Known() bool { return l.Here || l.ID != "" && l.Addr != "" }

// Peer is another manager of the cluster.
type Peer struct{ ID, Name, Addr string }

// Leadership knows who leads. Its methods return at once.
type Leadership interface {
	// Leader returns who leads, and a channel that is closed when that changes.
	Leader() (Leader, <-chan struct{})
	// Peers returns the other managers of the cluster, as far as this one knows them.
	Peers() []Peer
}

// errDeposed ends streams to a manager that leads no longer.
var errDeposed = connect.NewError(connect.CodeUnavailable, errors.New("the manager that led the cluster leads no longer: try again"))

// errNoLeader says that nobody leads, and that this lasts longer than an election.
var errNoLeader = errors.New("nobody leads the cluster")

// reign is the time in which one manager leads. It outlasts moments in which nobody is known to lead, but
// not those of this manager itself, which knows.
type reign struct {
	leader Leader
	over   context.Context // ends with errDeposed
	end    context.CancelCauseFunc
	link   *link // nil where this manager leads
}

// look returns who leads with the reign, nil where nobody does, and a channel that is closed when that
// changes. Streams of a reign that is over end here.
func (f *Forwarder) look() (Leader, *reign, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	leader, changed := f.leadership.Leader()
	now := f.reign
	if now != nil && (!leader.Known() && now.leader.Here || leader.Known() && !sameManager(now.leader, leader)) {
		now.end(errDeposed)
		if now.link != nil {
			now.link.retire()
		}
		f.reign, now = nil, nil
	}
	if !leader.Known() || f.closed.Err() != nil {
		return leader, nil, changed
	}
	if now == nil {
		now = &reign{}
		now.over, now.end = context.WithCancelCause(f.closed)
		f.reign = now
	}
	now.leader = leader
	if mine := f.credentials.Get(); !leader.Here && (now.link == nil || !now.link.serves(leader, mine)) {
		if now.link != nil {
			now.link.retire() // its streams go on
		}
		now.link = newLink(leader, f.credentials, mine, f.pingTimeout)
	}
	// A copy: the next look may change the reign's link.
	return leader, &reign{leader, now.over, now.end, now.link}, changed
}

func sameManager(a, b Leader) bool { return a.ID == b.ID && a.Here == b.Here }

// await returns the reign of whoever leads. It waits for an election that is under way, but not beyond
// until, and fails with errNoLeader or the error of ctx.
func (f *Forwarder) await(ctx context.Context, until time.Time) (*reign, error) {
	for {
		leader, now, changed := f.look()
		if now != nil {
			return now, nil
		}
		if f.closed.Err() != nil {
			return nil, errClosing
		}
		// Whoever comes long after the leader was lost need not wait as long again.
		if lost := leader.Since.Add(f.patience); !leader.Since.IsZero() && lost.Before(until) {
			until = lost
		}
		if err := wait(ctx, changed, time.Until(until)); err != nil {
			return nil, err
		}
		if time.Now().Before(until) {
			continue
		}
		if _, now, _ := f.look(); now != nil {
			return now, nil
		}
		return nil, errNoLeader
	}
}

// wait returns when changed is closed or the time is over, or with the error of ctx.
func wait(ctx context.Context, changed <-chan struct{}, atMost time.Duration) error {
	if atMost <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follow ends the streams of each reign when it is over, until ctx ends.
func (f *Forwarder) follow(ctx context.Context) {
	for {
		_, _, changed := f.look()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
