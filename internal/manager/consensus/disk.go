package consensus

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/cuemby/warren/internal/manager/raftlog"
)

// Disk is what a node keeps for good: the log, its term and vote, and snapshots of the state.
type Disk struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	// Reserve makes sure that the next write to the log finds room.
	Reserve func() error
	Close   func() error
}

// disk returns the disk that the options ask for.
func (o Options) disk() (*Disk, error) {
	if o.Disk != nil {
		return o.Disk, nil
	}
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	path := filepath.Join(o.DataDir, logFile)
	log, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions})
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w (is another warren-manager using this data folder?)", path, err)
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(o.DataDir, snapshotsRetained, raftlog.New(o.Logger))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft snapshots: %w", err), log.Close())
	}
	ballot, err := openBallot(filepath.Join(o.DataDir, ballotFile), func() (map[string][]byte, error) { return votes(log) })
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return &Disk{
		Log: log, Stable: ballot, Snapshots: snapshots,
		Reserve: func() error { return reserve(log) },
		Close:   func() error { return errors.Join(ballot.close(), log.Close()) },
	}, nil
}

// reserved is how much room is made sure of before a part of the log is replaced.
const reserved = 4 << 20

// reserve makes sure that the log's file has room, which it keeps once it has it.
func reserve(log *raftboltdb.BoltStore) error {
	key := []byte("Reserve")
	return cmp.Or(log.Set(key, make([]byte, reserved)), log.Set(key, nil))
}

// votes returns the term and vote that a manager has kept in the log's file, where they were kept before
// they had their own.
func votes(log *raftboltdb.BoltStore) (map[string][]byte, error) {
	kept := map[string][]byte{}
	for _, key := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"} {
		value, err := log.Get([]byte(key))
		if errors.Is(err, raftboltdb.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		kept[key] = value
	}
	return kept, nil
}
