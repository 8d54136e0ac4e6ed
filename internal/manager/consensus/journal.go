package consensus

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// journal is the raft log as it is written: it knows whether it can be, and keeps what is on disk and what
// raft believes of it the same where it cannot.
type journal struct {
	raft.LogStore
	reserve func() error // makes sure of room for the next write
	turned  func(error)  // told when writing begins to fail, and with nil when it works again
	failing atomic.Bool

	mu       sync.Mutex
	from, to uint64 // entries that may be there and must not; none where from is 0
	cut      bool   // what conflicted with the next write was deleted to make way for it
}

// StoreLog implements raft.LogStore.
func (j *journal) StoreLog(log *raft.Log) error { return j.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (j *journal) StoreLogs(logs []*raft.Log) error {
	j.mu.Lock()
	err := j.store(logs)
	j.mu.Unlock()
	j.tell(err)
	return err
}

func (j *journal) tell(err error) {
	if failing := err != nil; j.failing.Swap(failing) != failing {
		j.turned(err)
	}
}

func (j *journal) store(logs []*raft.Log) error {
	if err := j.purge(); err != nil {
		return err
	}
	err := j.LogStore.StoreLogs(logs)
	if err != nil && j.cut {
		// Raft now takes the entries that were deleted for the end of its log, and could win an election
		// by them. It learns what is there when it is started.
		panic(fmt.Errorf("write to the raft log in place of what conflicted: %w: the manager must be restarted", err))
	}
	if err != nil && len(logs) > 0 {
		j.from, j.to = logs[0].Index, logs[len(logs)-1].Index
	}
	j.cut = false
	return err
}

// purge deletes what a write that failed may have left. Raft believes that it is not there, and after a
// restart would take up what is left of it behind entries of a later term.
func (j *journal) purge() error {
	if j.from == 0 {
		return nil
	}
	last, err := j.LogStore.LastIndex()
	if err == nil && last >= j.from {
		err = j.LogStore.DeleteRange(j.from, j.to)
	}
	if err == nil {
		j.from, j.to = 0, 0
	}
	return err
}

// DeleteRange implements raft.LogStore. What raft deletes at the end of the log it replaces at once, and
// would not know what it has if only half of that could be done.
func (j *journal) DeleteRange(from, to uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	last, err := j.LogStore.LastIndex()
	if err != nil {
		return err
	}
	if to < last {
		return j.LogStore.DeleteRange(from, to)
	}
	if err := j.reserve(); err != nil {
		j.tell(err)
		return err
	}
	if err := j.LogStore.DeleteRange(from, to); err != nil {
		return err
	}
	j.cut = true
	return nil
}
