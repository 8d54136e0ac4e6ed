package consensus

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// journal is the raft log as it is written: it knows whether it can be, and leaves nothing behind of what
// could not. A write that failed may be on disk all the same; raft believes that it is not, and after a
// restart would take up what is left of it behind entries of a later term.
type journal struct {
	raft.LogStore
	failing atomic.Bool
	turned  func(err error) // told when writing begins to fail, and with nil when it works again

	mu       sync.Mutex
	from, to uint64 // entries that may be there and must not; none where from is 0
}

// StoreLog implements raft.LogStore.
func (j *journal) StoreLog(log *raft.Log) error { return j.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (j *journal) StoreLogs(logs []*raft.Log) error {
	j.mu.Lock()
	err := j.store(logs)
	j.mu.Unlock()
	if failing := err != nil; j.failing.Swap(failing) != failing {
		j.turned(err)
	}
	return err
}

func (j *journal) store(logs []*raft.Log) error {
	if j.from != 0 {
		if err := j.LogStore.DeleteRange(j.from, j.to); err != nil {
			return err
		}
		j.from, j.to = 0, 0
	}
	err := j.LogStore.StoreLogs(logs)
	if err != nil && len(logs) > 0 {
		j.from, j.to = logs[0].Index, logs[len(logs)-1].Index
	}
	return err
}
