package consensustest

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/manager/consensus"
)

// Disk is a disk in memory, which outlives the node that writes it.
type Disk struct {
	*raft.InmemStore // for the term and the vote
	snapshots        *snapshots

	mu   sync.Mutex
	full bool
	logs []*raft.Log // by index, which may leave some out, as on a real disk
}

// NewDisk returns an empty disk.
func NewDisk() *Disk { return &Disk{InmemStore: raft.NewInmemStore(), snapshots: &snapshots{}} }

// Open returns the disk for a node that starts.
func (d *Disk) Open() *consensus.Disk {
	return &consensus.Disk{
		Log: d, Stable: d, Snapshots: d.snapshots,
		Reserve: func() error { return d.StoreLogs(nil) },
		Close:   func() error { return nil },
	}
}

// Fill has the log find no space, or space again.
func (d *Disk) Fill(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// StoreLog implements raft.LogStore.
func (d *Disk) StoreLog(log *raft.Log) error { return d.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (d *Disk) StoreLogs(logs []*raft.Log) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return syscall.ENOSPC
	}
	for _, log := range logs {
		at, there := d.find(log.Index)
		if there {
			d.logs[at] = log
		} else {
			d.logs = slices.Insert(d.logs, at, log)
		}
	}
	return nil
}

// find returns the place of an entry, where it is or would be.
func (d *Disk) find(index uint64) (int, bool) {
	return slices.BinarySearchFunc(d.logs, index, func(l *raft.Log, i uint64) int { return cmp.Compare(l.Index, i) })
}

// GetLog implements raft.LogStore.
func (d *Disk) GetLog(index uint64, log *raft.Log) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, there := d.find(index)
	if !there {
		return raft.ErrLogNotFound
	}
	*log = *d.logs[at]
	return nil
}

// FirstIndex implements raft.LogStore.
func (d *Disk) FirstIndex() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.logs) == 0 {
		return 0, nil
	}
	return d.logs[0].Index, nil
}

// LastIndex implements raft.LogStore.
func (d *Disk) LastIndex() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.logs) == 0 {
		return 0, nil
	}
	return d.logs[len(d.logs)-1].Index, nil
}

// DeleteRange implements raft.LogStore.
func (d *Disk) DeleteRange(from, to uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	first, _ := d.find(from)
	end, there := d.find(to)
	if there {
		end++
	}
	d.logs = slices.Delete(d.logs, first, end)
	return nil
}

// retained is how many snapshots are kept.
const retained = 2

// snapshots keeps the newest snapshots that are whole.
type snapshots struct {
	mu   sync.Mutex
	kept []*sink // newest first
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{store: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: members, ConfigurationIndex: membersIndex,
	}}, nil
}

// List implements raft.SnapshotStore.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*raft.SnapshotMeta
	for _, k := range s.kept {
		meta := k.meta
		all = append(all, &meta)
	}
	return all, nil
}

// Open implements raft.SnapshotStore.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kept {
		if meta := k.meta; meta.ID == id {
			return &meta, io.NopCloser(bytes.NewReader(k.content.Bytes())), nil
		}
	}
	return nil, nil, fmt.Errorf("there is no snapshot %s", id)
}

// sink is a snapshot that is being written.
type sink struct {
	store   *snapshots
	meta    raft.SnapshotMeta
	content bytes.Buffer
}

// Write implements raft.SnapshotSink.
func (s *sink) Write(p []byte) (int, error) { return s.content.Write(p) }

// ID implements raft.SnapshotSink.
func (s *sink) ID() string { return s.meta.ID }

// Cancel implements raft.SnapshotSink.
func (s *sink) Cancel() error { return nil }

// Close implements raft.SnapshotSink.
func (s *sink) Close() error {
	s.meta.Size = int64(s.content.Len())
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.store.kept = append(s.store.kept, s)
	slices.SortStableFunc(s.store.kept, func(a, b *sink) int {
		return cmp.Or(cmp.Compare(b.meta.Term, a.meta.Term), cmp.Compare(b.meta.Index, a.meta.Index))
	})
	s.store.kept = s.store.kept[:min(len(s.store.kept), retained)]
	return nil
}
