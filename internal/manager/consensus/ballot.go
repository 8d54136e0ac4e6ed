package consensus

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"
)

// ballot keeps raft's term and vote in a file of fixed size that is written in place, so that it can be
// written when the disk is full: raft ends the process where it cannot. There are two slots, written in
// turn, and the newest that is whole counts.
type ballot struct {
	mu     sync.Mutex
	file   *os.File
	turn   uint64 // of the newest slot
	values map[string][]byte
}

var _ raft.StableStore = (*ballot)(nil)

const (
	slotBytes  = 4096
	slotHeader = 8 + 4 + 4 // turn, length, checksum of all but itself
)

// errNoValue is what raft takes for "not set", by its text.
var errNoValue = errors.New("not found")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openBallot opens the file, or makes it with what initial returns.
func openBallot(path string, initial func() (map[string][]byte, error)) (*ballot, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeBallot(path, initial); err == nil {
			f, err = os.OpenFile(path, os.O_RDWR, 0)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open raft's term and vote: %w", err)
	}
	b := &ballot{file: f}
	if err := b.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("read raft's term and vote: %s: %w", path, err), f.Close())
	}
	return b, nil
}

// makeBallot makes the file so that after a crash it is there whole or not at all.
func makeBallot(path string, initial func() (map[string][]byte, error)) error {
	values, err := initial()
	if err != nil {
		return err
	}
	slot, err := encodeSlot(1, values)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(make([]byte, slotBytes), slot...)) // turn 1 is in the second slot
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func encodeSlot(turn uint64, values map[string][]byte) ([]byte, error) {
	text, err := json.Marshal(values)
	if err != nil {
		return nil, err
	}
	if len(text) > slotBytes-slotHeader {
		return nil, fmt.Errorf("%d bytes do not fit", len(text))
	}
	slot := make([]byte, slotBytes)
	binary.BigEndian.PutUint64(slot, turn)
	binary.BigEndian.PutUint32(slot[8:], uint32(len(text)))
	copy(slot[slotHeader:], text)
	binary.BigEndian.PutUint32(slot[12:], checksum(slot))
	return slot, nil
}

func checksum(slot []byte) uint32 {
	return crc32.Update(crc32.Checksum(slot[:12], castagnoli), castagnoli, slot[slotHeader:])
}

// decodeSlot returns what a slot holds, and false where it is empty or was not written whole.
func decodeSlot(slot []byte) (turn uint64, values map[string][]byte, whole bool) {
	turn, length := binary.BigEndian.Uint64(slot), binary.BigEndian.Uint32(slot[8:])
	if turn == 0 || length > slotBytes-slotHeader || binary.BigEndian.Uint32(slot[12:]) != checksum(slot) {
		return 0, nil, false
	}
	err := json.Unmarshal(slot[slotHeader:slotHeader+length], &values)
	return turn, values, err == nil
}

func (b *ballot) read() error {
	both := make([]byte, 2*slotBytes)
	if _, err := io.ReadFull(io.NewSectionReader(b.file, 0, 2*slotBytes), both); err != nil {
		return err
	}
	for _, slot := range [][]byte{both[:slotBytes], both[slotBytes:]} {
		if turn, values, whole := decodeSlot(slot); whole && turn > b.turn {
			b.turn, b.values = turn, values
		}
	}
	if b.turn == 0 {
		return errors.New("it is damaged: take this manager out of the cluster and join it again")
	}
	return nil
}

func (b *ballot) close() error { return b.file.Close() }

// Set implements raft.StableStore.
func (b *ballot) Set(key, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	values := maps.Clone(b.values)
	if values == nil {
		values = map[string][]byte{}
	}
	values[string(key)] = value
	slot, err := encodeSlot(b.turn+1, values)
	if err == nil {
		_, err = b.file.WriteAt(slot, int64((b.turn+1)%2)*slotBytes)
	}
	if err == nil {
		err = b.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write raft's term and vote: %w", err)
	}
	b.turn, b.values = b.turn+1, values
	return nil
}

// Get implements raft.StableStore.
func (b *ballot) Get(key []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	value, ok := b.values[string(key)]
	if !ok {
		return nil, errNoValue
	}
	return value, nil
}

// SetUint64 implements raft.StableStore.
func (b *ballot) SetUint64(key []byte, value uint64) error {
	return b.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (b *ballot) GetUint64(key []byte) (uint64, error) {
	value, err := b.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("raft's %s has %d bytes", key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}
