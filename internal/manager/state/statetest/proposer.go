package statetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
)

// Proposer writes transactions to a store without raft: each call is one log entry. It is safe
// for concurrent use as long as nothing else writes the store.
type Proposer struct {
	mu       sync.Mutex
	store    *state.Store
	machine  *state.Machine
	observer func(before, after state.Snapshot)
}

// NewProposer returns the proposer that writes s.
func NewProposer(s *state.Store) *Proposer {
	return &Proposer{store: s, machine: state.NewMachine(s)}
}

// OnCommit has f called after every entry, in order, with the states before and after it. Set it
// before the first proposal.
func (p *Proposer) OnCommit(f func(before, after state.Snapshot)) { p.observer = f }

// Propose implements loop.Proposer.
func (p *Proposer) Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entry := &statev1.Entry{}
	for _, t := range transactions {
		entry.Transactions = append(entry.Transactions, t.Message())
	}
	data, err := proto.Marshal(entry)
	if err != nil {
		return nil, fmt.Errorf("encode transactions: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.store.Snapshot()
	results := p.machine.Apply(&raft.Log{Index: before.Index() + 1, Data: data}).([]error)
	if p.observer != nil {
		p.observer(before, p.store.Snapshot())
	}
	for _, why := range results {
		if why != nil {
			return results, nil
		}
	}
	return nil, nil
}

// Epoch is when tests begin unless they say otherwise: the first moment of a synctest bubble.
var Epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// New returns a store that holds the objects, put there as Put does.
func New(t testing.TB, objects ...state.Object) *state.Store {
	t.Helper()
	s := state.NewStore()
	Put(t, s, objects...)
	return s
}

// Put writes each object into the store as an entry of its own, whether one of its key is there or
// not. What is created bears the times that its meta names, or Epoch. The objects given are neither
// changed nor kept.
func Put(t testing.TB, s *state.Store, objects ...state.Object) {
	t.Helper()
	p := NewProposer(s)
	for _, o := range objects {
		o = proto.Clone(o).(state.Object)
		transaction := state.New(Epoch)
		if there := Lookup(s.Snapshot(), state.KeyOf(o)); there == nil {
			created, updated := o.GetMeta().GetCreatedAt(), o.GetMeta().GetUpdatedAt()
			transaction.Create(o)
			if created != nil {
				o.GetMeta().CreatedAt, o.GetMeta().UpdatedAt = created, created
			}
			if updated != nil {
				o.GetMeta().UpdatedAt = updated
			}
		} else {
			state.Update(transaction, there, func(stored state.Object) {
				o.GetMeta().Version = stored.GetMeta().GetVersion()
				proto.Reset(stored)
				proto.Merge(stored, o)
			})
		}
		Commit(t, p, transaction)
	}
}

// Remove deletes the objects of those keys from the store.
func Remove(t testing.TB, s *state.Store, keys ...state.Key) {
	t.Helper()
	transaction := state.New(Epoch)
	for _, k := range keys {
		transaction.Delete(Lookup(s.Snapshot(), k))
	}
	Commit(t, NewProposer(s), transaction)
}

// Commit proposes the transactions and fails the test where one is refused.
func Commit(t testing.TB, p *Proposer, transactions ...*state.Transaction) {
	t.Helper()
	results, err := p.Propose(context.Background(), transactions...)
	if err != nil {
		t.Fatal(err)
	}
	for _, why := range results {
		if why != nil {
			t.Fatal(why)
		}
	}
}
