package consensustest

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/manager/consensus"
)

// Disk is a disk in memory, which outlives the node that writes it.
type Disk struct {
	*raft.InmemStore
	snapshots *snapshots
	mu        sync.Mutex
	full      bool
}

// NewDisk returns an empty disk.
func NewDisk() *Disk { return &Disk{InmemStore: raft.NewInmemStore(), snapshots: &snapshots{}} }

// Open returns the disk for a node that starts.
func (d *Disk) Open() *consensus.Disk {
	return &consensus.Disk{Log: d, Stable: d, Snapshots: d.snapshots, Close: func() error { return nil }}
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
	return d.InmemStore.StoreLogs(logs)
}

// snapshots keeps the newest snapshot that is whole.
type snapshots struct {
	mu     sync.Mutex
	newest *sink
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
	if s.newest == nil {
		return nil, nil
	}
	meta := s.newest.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open implements raft.SnapshotStore.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == nil || s.newest.meta.ID != id {
		return nil, nil, fmt.Errorf("there is no snapshot %s", id)
	}
	meta := s.newest.meta
	return &meta, io.NopCloser(bytes.NewReader(s.newest.content.Bytes())), nil
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
	s.store.newest = s
	return nil
}
