package consensus

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
)

// committer is the group commit: one goroutine that writes what has gathered, waits for it, and
// takes what has gathered meanwhile.
type committer struct {
	raft    *raft.Raft
	wrote   func(transactions, refused int, took time.Duration, err error)
	queue   chan *proposal
	closing chan struct{} // closed when no more are taken in
	closed  chan struct{} // closed when what had been taken in is settled
	done    sync.WaitGroup
}

// proposal is one caller's transactions on their way.
type proposal struct {
	message []*statev1.Transaction
	bytes   int
	results []error
	err     error
	done    chan struct{} // closed when results and err are set
}

// queued bounds the proposals waiting for their turn; callers beyond it wait to get in.
const queued = 1024

func startCommitter(r *raft.Raft, wrote func(transactions, refused int, took time.Duration, err error)) *committer {
	if wrote == nil {
		wrote = func(int, int, time.Duration, error) {}
	}
	c := &committer{raft: r, wrote: wrote, queue: make(chan *proposal, queued), closing: make(chan struct{}), closed: make(chan struct{})}
	c.done.Go(c.run)
	return c
}

func (c *committer) propose(ctx context.Context, transactions []*state.Transaction) ([]error, error) {
	p := &proposal{done: make(chan struct{})}
	for _, t := range transactions {
		p.message = append(p.message, t.Message())
		p.bytes += proto.Size(t.Message())
	}
	select {
	case c.queue <- p:
	case <-c.closing:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-p.done:
		return p.results, p.err
	case <-c.closed:
		select {
		case <-p.done:
			return p.results, p.err
		default: // it got into the queue after the last look at it
			return nil, ErrClosed
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// stop refuses what is queued and returns when the goroutine has ended.
func (c *committer) stop() {
	close(c.closing)
	c.done.Wait()
	defer close(c.closed)
	for {
		select {
		case p := <-c.queue:
			p.settle(nil, ErrClosed)
		default:
			return
		}
	}
}

func (c *committer) run() {
	for {
		select {
		case p := <-c.queue:
			// Those whom the last commit has woken may be about to propose again: let them, or this one
			// goes alone and they wait for two commits.
			runtime.Gosched()
			c.commit(c.gather(p))
		case <-c.closing:
			return
		}
	}
}

// gather takes what waits behind first, up to the size of an entry.
func (c *committer) gather(first *proposal) []*proposal {
	group, size := []*proposal{first}, first.bytes
	for size < maxEntryBytes {
		select {
		case p := <-c.queue:
			group, size = append(group, p), size+p.bytes
		default:
			return group
		}
	}
	return group
}

// overdue is when a write that most members have not confirmed is given up by those who wait for it. A
// leader that cannot reach them steps down much sooner; this is about members that answer, and do not
// write.
const overdue = 10 * time.Second

// commit writes a group as one raft entry and tells each proposer its part of the outcome.
func (c *committer) commit(group []*proposal) {
	var entry statev1.Entry
	for _, p := range group {
		entry.Transactions = append(entry.Transactions, p.message...)
	}
	data, err := proto.Marshal(&entry)
	if err != nil {
		settle(group, nil, fmt.Errorf("encode transactions: %w", err))
		return
	}
	type result struct {
		refusals []error
		err      error
	}
	written := make(chan result, 1)
	go func() {
		began := time.Now()
		refusals, err := c.write(data, len(entry.GetTransactions()))
		c.wrote(len(entry.GetTransactions()), refused(refusals), time.Since(began), err)
		written <- result{refusals, err}
	}()
	limit := time.NewTimer(overdue)
	defer limit.Stop()
	select {
	case r := <-written:
		settle(group, r.refusals, r.err)
		return
	case <-limit.C:
		settle(group, nil, fmt.Errorf("%w: %w", ErrUnknownOutcome, ErrStalled))
	case <-c.closing:
		select {
		case r := <-written:
			settle(group, r.refusals, r.err)
		case <-time.After(patience):
			settle(group, nil, fmt.Errorf("%w: %w", ErrUnknownOutcome, ErrClosed))
		}
		return
	}
	for {
		select {
		case <-written:
			return
		case p := <-c.queue:
			p.settle(nil, ErrStalled)
		case <-c.closing:
			return
		}
	}
}

// patience is how long a node that is closed waits for what it is writing.
const patience = 2 * time.Second

// enqueueTimeout bounds how long raft may be too busy to take up an entry.
const enqueueTimeout = 10 * time.Second

// write has raft write an entry of so many transactions and returns why each was refused.
func (c *committer) write(entry []byte, transactions int) ([]error, error) {
	future := c.raft.Apply(entry, enqueueTimeout)
	if err := future.Error(); err != nil {
		return nil, outcome(err)
	}
	results, ok := future.Response().([]error)
	if !ok || len(results) != transactions {
		return nil, fmt.Errorf("apply transactions: unexpected response %v", future.Response())
	}
	return results, nil
}

func refused(results []error) (n int) {
	for _, why := range results {
		if why != nil {
			n++
		}
	}
	return n
}

// settle tells each proposer of a group its part of the outcome.
func settle(group []*proposal, results []error, err error) {
	for _, p := range group {
		if err != nil {
			p.settle(nil, err)
			continue
		}
		p.settle(results[:len(p.message)], nil)
		results = results[len(p.message):]
	}
}

// settle wakes the proposer. Its results are nil where nothing was refused.
func (p *proposal) settle(results []error, err error) {
	p.err = err
	for _, r := range results {
		if r != nil {
			p.results = results
		}
	}
	close(p.done)
}
