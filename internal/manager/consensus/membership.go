package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// MaxManagers is how many managers a cluster may have. Every write waits for most of them; seven outlive
// the loss of three.
const MaxManagers = 7

// changeTimeout bounds how long a change of the membership may wait for its turn.
const changeTimeout = 10 * time.Second

// Server is a member of the raft cluster.
type Server struct {
	ID, Addr string
	// Voter tells whether it has a say; a manager that is on its way in has none.
	Voter bool
}

func (n *Node) servers() []raft.Server { return n.raft.GetConfiguration().Configuration().Servers }

func (n *Node) voters() []raft.Server {
	return slices.DeleteFunc(slices.Clone(n.servers()), func(s raft.Server) bool { return s.Suffrage != raft.Voter })
}

// Servers returns the members as far as this node knows, none where it belongs to no cluster.
func (n *Node) Servers() []Server {
	var all []Server
	for _, s := range n.servers() {
		all = append(all, Server{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return all
}

// Leader returns who leads as far as this node knows and where it is reached, empty where nobody does.
func (n *Node) Leader() (id, addr string) {
	_, leader := n.raft.LeaderWithID()
	for _, s := range n.servers() {
		if s.ID == leader {
			addr = string(s.Address)
		}
	}
	return string(leader), addr
}

// AddNonvoter lets a manager in that receives what is written and has no say yet, or changes the address of
// one that is in. It returns the index that the newcomer must have applied to have caught up with the
// moment that it was let in. It fails with ErrNotLeader, ErrTooMany or ErrUnknownOutcome.
func (n *Node) AddNonvoter(ctx context.Context, id, addr string) (index uint64, err error) {
	return n.change(ctx, func() (raft.IndexFuture, error) {
		if err := n.Room(id); err != nil {
			return nil, err
		}
		return n.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(addr), 0, changeTimeout), nil
	})
}

// AddVoter gives a manager a say, or changes the address of one that has. It fails with ErrNotLeader,
// ErrTooMany or ErrUnknownOutcome.
func (n *Node) AddVoter(ctx context.Context, id, addr string) error {
	_, err := n.change(ctx, func() (raft.IndexFuture, error) {
		if err := n.Room(id); err != nil {
			return nil, err
		}
		return n.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(addr), 0, changeTimeout), nil
	})
	return err
}

// Remove takes a manager out, which may be this one: it then steps down. Removing one that is none does
// nothing. It fails with ErrNotLeader or ErrUnknownOutcome, and where it is the last that votes.
func (n *Node) Remove(ctx context.Context, id string) error {
	_, err := n.change(ctx, func() (raft.IndexFuture, error) {
		if !n.member(id) {
			return nil, nil
		}
		return n.raft.RemoveServer(raft.ServerID(id), 0, changeTimeout), nil
	})
	return err
}

func (n *Node) member(id string) bool {
	return slices.ContainsFunc(n.servers(), func(s raft.Server) bool { return string(s.ID) == id })
}

// Room tells whether there is a place for a manager, which one that is in has. It fails with ErrTooMany.
func (n *Node) Room(id string) error {
	if !n.member(id) && len(n.servers()) >= MaxManagers {
		return fmt.Errorf("%w, %d: remove one first", ErrTooMany, MaxManagers)
	}
	return nil
}

// change makes one change of the membership, when those before it are done.
func (n *Node) change(ctx context.Context, begin func() (raft.IndexFuture, error)) (uint64, error) {
	select {
	case n.changing <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	type result struct {
		index uint64
		err   error
	}
	done := make(chan result, 1)
	go func() { // which goes on when ctx has ended: what raft was told cannot be taken back
		defer func() { <-n.changing }()
		index, err := n.changeNow(begin)
		done <- result{index, err}
	}()
	select {
	case r := <-done:
		return r.index, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (n *Node) changeNow(begin func() (raft.IndexFuture, error)) (uint64, error) {
	if !n.Leading() {
		return 0, ErrNotLeader
	}
	// Raft takes on a change that it could not write, so the log is tried first. That also makes sure that
	// the change before is committed.
	if err := n.raft.Barrier(changeTimeout).Error(); err != nil {
		return 0, question(err)
	}
	future, err := begin()
	if err != nil || future == nil {
		return 0, err
	}
	if err := future.Error(); err != nil {
		return 0, fmt.Errorf("change the membership: %w", outcome(err))
	}
	return future.Index(), nil
}

// TransferLeadership gives the lead to another manager that can be reached and votes, so that nobody has to
// wait for an election. It fails with ErrNotLeader, or ErrAlone where there is none.
func (n *Node) TransferLeadership(ctx context.Context) error {
	select {
	case n.changing <- struct{}{}:
		defer func() { <-n.changing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	reachable := n.Reachable()
	if reachable == nil {
		return ErrNotLeader
	}
	err := ErrAlone
	for _, s := range n.voters() {
		if s.ID == n.id || !reachable[string(s.ID)] || !n.offer(s.ID) {
			continue
		}
		err = await(ctx, n.raft.LeadershipTransferToServer(s.ID, s.Address))
		if err == nil || ctx.Err() != nil {
			return err
		}
		if errors.Is(err, raft.ErrNotLeader) {
			return ErrNotLeader
		}
		err = fmt.Errorf("give the lead to manager %s: %w", s.ID, err)
	}
	return err
}

// offer tells whether the lead may be offered to a manager, which it may once in a term. Where an offer
// fails because the manager lags, raft is left with a question to whoever sends it the entries; a second
// one could wait for ever behind it, and this manager would refuse all writes until it is restarted,
// whenever it leads.
func (n *Node) offer(to raft.ServerID) bool {
	if term := n.raft.CurrentTerm(); n.offers.term != term {
		n.offers.term, n.offers.made = term, map[raft.ServerID]bool{}
	}
	if n.offers.made[to] {
		return false
	}
	n.offers.made[to] = true
	return true
}

// offers are the managers to which the lead was offered in a term.
type offers struct {
	term uint64
	made map[raft.ServerID]bool
}
