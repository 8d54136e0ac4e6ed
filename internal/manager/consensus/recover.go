package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/manager/raftlog"
	"github.com/cuemby/warren/internal/manager/state"
)

// Recover makes this manager the only member of its cluster, which others will reach at addr, with the
// state that it has, including what was written to its log and not confirmed by others. The node must
// not be open. None of the other members may ever come back with what they have: they would be another
// cluster of the same name.
func Recover(o Options, addr string) error {
	disk, err := o.disk()
	if err != nil {
		return err
	}
	known, err := raft.HasExistingState(disk.Log, disk.Stable, disk.Snapshots)
	if err == nil && !known {
		err = errors.New("this manager belongs to no cluster")
	}
	if err == nil {
		members := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(o.ID), Address: raft.ServerAddress(addr)}}}
		// What the machine learns here is thrown away: opening the node reads it again.
		err = raft.RecoverCluster(o.config(raftlog.New(o.Logger), nil), state.NewMachine(state.NewStore()), disk.Log, disk.Stable, disk.Snapshots, o.Transport, members)
	}
	if err = errors.Join(err, disk.Close()); err != nil {
		return fmt.Errorf("make this manager the only one: %w", err)
	}
	return nil
}

// RestoreState replaces the whole state by a snapshot that state.Snapshot.Save wrote, here and on all other
// members. The membership stays as it is. It fails with ErrNotLeader, and where the snapshot is damaged,
// before anything is touched; with ErrUnknownOutcome where the lead is lost meanwhile.
func (n *Node) RestoreState(ctx context.Context, from io.Reader) error {
	if !n.Leading() {
		return ErrNotLeader
	}
	// Raft must be told the size, and does not survive a snapshot that cannot be read.
	kept, err := os.CreateTemp(n.options.DataDir, ".restore-*")
	if err != nil {
		return fmt.Errorf("keep the state to restore: %w", err)
	}
	done := make(chan error, 1)
	go func() { // which goes on when ctx has ended: what raft was told cannot be taken back
		defer os.Remove(kept.Name())
		defer kept.Close()
		done <- n.restore(kept, from)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
	}
}

func (n *Node) restore(kept *os.File, from io.Reader) error {
	size, err := io.Copy(kept, from)
	if err != nil {
		return fmt.Errorf("keep the state to restore: %w", err)
	}
	index, err := check(kept)
	if err != nil {
		return err
	}
	if _, err := kept.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read the state to restore: %w", err)
	}
	// Raft goes on behind the index of the snapshot, so that no object gets a version that it had before.
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: index, Size: size}
	if err := n.raft.Restore(meta, kept, 0); err != nil {
		return fmt.Errorf("restore the state: %w", outcome(err))
	}
	return nil
}

// check reads a snapshot as the state machine will and returns the index of the newest entry in it.
func check(f *os.File) (uint64, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read the state to restore: %w", err)
	}
	store := state.NewStore()
	if err := store.Load(f); err != nil {
		return 0, err
	}
	return store.Snapshot().Index(), nil
}
