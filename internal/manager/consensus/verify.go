package consensus

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// witness is a transport that keeps account of which messages the other members have answered as those
// of their leader.
//
// Raft's own check that it still leads counts every answer that comes in after the question, also one to
// a message from before it, which may have been on its way while another leader was elected: after a
// pause of the machine all of them are there to be counted.
type witness struct {
	raft.Transport
	mu       sync.Mutex
	sent     uint64 // messages so far
	answered map[raft.ServerID]answer
}

// answer is the newest message that a member has answered, and the term it was of.
type answer struct{ term, message uint64 }

var (
	_ raft.WithPreVote = (*witness)(nil)
	_ raft.WithClose   = (*witness)(nil)
)

func newWitness(t raft.Transport) *witness {
	return &witness{Transport: t, answered: map[raft.ServerID]answer{}}
}

// AppendEntries implements raft.Transport. Heartbeats go this way.
func (w *witness) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	w.mu.Lock()
	w.sent++
	message := w.sent
	w.mu.Unlock()
	if err := w.Transport.AppendEntries(id, addr, args, resp); err != nil {
		return err
	}
	if resp.Term == args.Term {
		w.mu.Lock()
		defer w.mu.Unlock()
		if last := w.answered[id]; last.term <= args.Term && last.message < message {
			w.answered[id] = answer{args.Term, message}
		}
	}
	return nil
}

// RequestPreVote implements raft.WithPreVote.
func (w *witness) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	voting, ok := w.Transport.(raft.WithPreVote)
	if !ok {
		return fmt.Errorf("%T knows no pre-votes", w.Transport)
	}
	return voting.RequestPreVote(id, addr, args, resp)
}

// Close implements raft.WithClose.
func (w *witness) Close() error {
	if c, ok := w.Transport.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

// now is the number of messages sent so far.
func (w *witness) now() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent
}

// confirm tells whether most of the voters, self among them, have answered a message of the term that was
// sent after so many others.
func (w *witness) confirm(voters []raft.Server, self raft.ServerID, term, after uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, v := range voters {
		if last := w.answered[v.ID]; v.ID == self || last.term == term && last.message > after {
			n++
		}
	}
	return n > len(voters)/2
}

// verifier finds out whether the node still leads, once for all who ask at the same time.
type verifier struct {
	node    *Node
	ready   uint64 // the term in which everything committed before is known to be applied
	mu      sync.Mutex
	next    *round // for those who ask now; nil where nobody has
	running bool
	closed  bool
	done    sync.WaitGroup
}

// round is one inquiry.
type round struct {
	done chan struct{} // closed when err is set
	err  error
}

func newVerifier(n *Node) *verifier { return &verifier{node: n} }

func (v *verifier) verify(ctx context.Context) error {
	r, err := v.join()
	if err != nil {
		return err
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join returns the inquiry that begins next, which is made as soon as the one under way is over.
func (v *verifier) join() (*round, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, ErrClosed
	}
	if v.next == nil {
		v.next = &round{done: make(chan struct{})}
	}
	if !v.running {
		v.running = true
		v.done.Go(v.run)
	}
	return v.next, nil
}

// stop returns when the last inquiry is over. Raft must still be running.
func (v *verifier) stop() {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.done.Wait()
}

func (v *verifier) run() {
	for {
		v.mu.Lock()
		r := v.next
		v.next = nil
		if r == nil {
			v.running = false
			v.mu.Unlock()
			return
		}
		v.mu.Unlock()
		r.err = v.inquire()
		close(r.done)
	}
}

func (v *verifier) inquire() error {
	n := v.node
	term := n.raft.CurrentTerm()
	if !n.Leading() || n.raft.CurrentTerm() != term {
		return ErrNotLeader
	}
	if v.ready != term {
		if err := n.raft.Barrier(enqueueTimeout).Error(); err != nil {
			return question(err)
		}
		v.ready = term
	}
	for after := n.witness.now(); ; {
		if voters := n.voters(); n.witness.confirm(voters, n.id, term, after) {
			return nil
		}
		// Raft sends everybody a heartbeat at once, and returns when most have answered that or something
		// from before.
		if err := n.raft.VerifyLeader().Error(); err != nil {
			return question(err)
		}
	}
}
