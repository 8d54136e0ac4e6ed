package consensus

import (
	"context"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/manager/state"
)

// machine is the state machine as raft sees it: it also keeps account of how far the state has come, and
// passes on that the membership has changed.
type machine struct {
	*state.Machine
	applied *applied
	watch   *watch
	since   int // transactions since the last snapshot
}

var (
	_ raft.FSM                = (*machine)(nil)
	_ raft.ConfigurationStore = (*machine)(nil)
)

func newMachine(m *state.Machine, w *watch) *machine {
	return &machine{Machine: m, applied: &applied{}, watch: w}
}

// Apply implements raft.FSM.
func (m *machine) Apply(log *raft.Log) any {
	results := m.Machine.Apply(log)
	m.applied.reach(log.Index)
	if done, ok := results.([]error); ok {
		m.since += len(done)
	}
	if m.since >= snapshotTransactions {
		m.since = 0
		m.watch.compact()
	}
	return results
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.since = 0
	return m.Machine.Snapshot()
}

// StoreConfiguration implements raft.ConfigurationStore.
func (m *machine) StoreConfiguration(index uint64, _ raft.Configuration) {
	m.applied.reach(index)
	m.watch.look()
}

// Restore implements raft.FSM.
func (m *machine) Restore(from io.ReadCloser) error {
	index := indexOf(from)
	if err := m.Machine.Restore(from); err != nil {
		return err
	}
	m.since = 0
	m.applied.reach(index)
	m.watch.lookAgain()
	return nil
}

// applied is how far the state has come, for those who wait for it.
type applied struct {
	mu      sync.Mutex
	index   uint64
	waiting map[chan struct{}]uint64 // closed when the state has come so far
}

func (a *applied) get() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.index
}

func (a *applied) reach(index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.index = max(a.index, index)
	for ready, wanted := range a.waiting {
		if wanted <= a.index {
			close(ready)
			delete(a.waiting, ready)
		}
	}
}

func (a *applied) await(ctx context.Context, index uint64) error {
	a.mu.Lock()
	if a.index >= index {
		a.mu.Unlock()
		return nil
	}
	ready := make(chan struct{})
	if a.waiting == nil {
		a.waiting = map[chan struct{}]uint64{}
	}
	a.waiting[ready] = index
	a.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.waiting, ready)
		return ctx.Err()
	}
}

// snapshotStore is a store of snapshots that, once opened, still know the index that they go up to: raft
// does not tell the state machine.
type snapshotStore struct{ raft.SnapshotStore }

// Open implements raft.SnapshotStore.
func (s snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, content, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, snapshot{content, meta.Index}, nil
}

type snapshot struct {
	io.ReadCloser
	index uint64
}

// indexOf returns the index of an opened snapshot that raft may have wrapped.
func indexOf(r io.ReadCloser) uint64 {
	if w, ok := r.(raft.ReadCloserWrapper); ok {
		r = w.WrappedReadCloser()
	}
	if s, ok := r.(snapshot); ok {
		return s.index
	}
	return 0
}
