package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

func newBallot(t *testing.T, path string) *ballot {
	t.Helper()
	b, err := openBallot(path, func() (map[string][]byte, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.close() })
	return b
}

func TestTheVoteIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vote")
	b := newBallot(t, path)
	if _, err := b.Get([]byte("LastVoteCand")); err == nil || err.Error() != "not found" {
		t.Errorf("what was never set: %v", err)
	}
	if _, err := b.GetUint64([]byte("CurrentTerm")); err == nil || err.Error() != "not found" {
		t.Errorf("what was never set: %v", err)
	}
	for term := range uint64(5) {
		if err := errors.Join(b.SetUint64([]byte("CurrentTerm"), term), b.Set([]byte("LastVoteCand"), fmt.Append(nil, "m", term))); err != nil {
			t.Fatal(err)
		}
		again := newBallot(t, path)
		kept, err := again.GetUint64([]byte("CurrentTerm"))
		candidate, err2 := again.Get([]byte("LastVoteCand"))
		if kept != term || string(candidate) != fmt.Sprint("m", term) || err != nil || err2 != nil {
			t.Errorf("in term %d it knows term %d and the vote for %q: %v, %v", term, kept, candidate, err, err2)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 2*slotBytes || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	if err := b.Set([]byte("LastVoteCand"), make([]byte, slotBytes)); err == nil {
		t.Error("it kept more than fits")
	}
}

func TestAVoteThatWasNotWrittenWholeDoesNotCount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vote")
	b := newBallot(t, path)
	if err := errors.Join(b.SetUint64([]byte("CurrentTerm"), 1), b.SetUint64([]byte("CurrentTerm"), 2)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newest := int(b.turn%2) * slotBytes
	for _, at := range []int{0, 7, 9, 13, slotHeader, slotHeader + 5, slotBytes - 1} {
		torn := append([]byte(nil), whole...)
		torn[newest+at] ^= 0xff
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if term, err := newBallot(t, path).GetUint64([]byte("CurrentTerm")); term != 1 || err != nil {
			t.Errorf("with byte %d damaged the term is %d, %v", at, term, err)
		}
	}
	if err := os.WriteFile(path, make([]byte, 2*slotBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openBallot(path, nil); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("an empty file: %v", err)
	}
}

func TestTheVoteOfAnOlderManagerIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	log, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, "raft.db"), BoltOptions: boltOptions})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(log.SetUint64([]byte("CurrentTerm"), 42), log.Set([]byte("LastVoteCand"), []byte("m7")), log.Close()); err != nil {
		t.Fatal(err)
	}
	disk, err := Options{DataDir: dir}.disk()
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	term, err := disk.Stable.GetUint64([]byte("CurrentTerm"))
	candidate, err2 := disk.Stable.Get([]byte("LastVoteCand"))
	if term != 42 || string(candidate) != "m7" || err != nil || err2 != nil {
		t.Errorf("it knows term %d and the vote for %q: %v, %v", term, candidate, err, err2)
	}
}

// lying is a log that keeps what it says it could not.
type lying struct {
	*raft.InmemStore
	lies bool
}

// StoreLogs implements raft.LogStore.
func (l *lying) StoreLogs(logs []*raft.Log) error {
	if err := l.InmemStore.StoreLogs(logs); err != nil {
		return err
	}
	if l.lies {
		return syscall.EIO
	}
	return nil
}

func TestNothingIsLeftOfAWriteThatFailed(t *testing.T) {
	disk := &lying{InmemStore: raft.NewInmemStore()}
	var said []error
	j := &journal{LogStore: disk, turned: func(err error) { said = append(said, err) }}
	entries := func(term uint64, indexes ...uint64) (logs []*raft.Log) {
		for _, i := range indexes {
			logs = append(logs, &raft.Log{Index: i, Term: term})
		}
		return logs
	}
	if err := j.StoreLogs(entries(1, 1, 2)); err != nil {
		t.Fatal(err)
	}
	disk.lies = true
	for range 2 {
		if err := j.StoreLogs(entries(1, 3, 4, 5)); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
	}
	disk.lies = false
	if err := j.StoreLogs(entries(2, 3)); err != nil {
		t.Fatal(err)
	}
	if last, err := j.LastIndex(); last != 3 || err != nil {
		t.Errorf("the log ends with %d, %v", last, err)
	}
	var third raft.Log
	if err := j.GetLog(3, &third); err != nil || third.Term != 2 {
		t.Errorf("the third entry is %v, %v", third, err)
	}
	if len(said) != 2 || said[0] == nil || said[1] != nil {
		t.Errorf("it said %v", said)
	}
}

func TestAManagerGoesOnWhenItsFullDiskHasRoomAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	m := alone(t, dir, nil)
	if err := m.create(t.Context(), "n1"); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 8<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	written := []string{"n1"}
	var failed error
	for i := 0; failed == nil; i++ { // what the file has room for still fits
		id := fmt.Sprintf("f%d", i)
		if failed = m.create(t.Context(), id); failed == nil {
			written = append(written, id)
		}
	}
	if !errors.Is(failed, ErrUnknownOutcome) || !strings.Contains(failed.Error(), "no space left") {
		t.Errorf("after %d writes: %v", len(written), failed)
	}
	stop := make(chan struct{})
	var draining sync.WaitGroup
	draining.Go(func() {
		for {
			select {
			case <-m.Leadership():
			case <-stop:
				return
			}
		}
	})
	lost := m.Changed()
	<-lost // it tries to take the lead again, and cannot hold it
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for {
		changed := m.Changed()
		if m.create(t.Context(), "n2") == nil {
			break
		}
		<-changed
	}
	close(stop)
	draining.Wait()
	m.close(t)
	m = alone(t, dir, nil)
	defer m.close(t)
	for _, id := range append(written, "n2") {
		if m.store.Snapshot().Node(id) == nil {
			t.Errorf("%s was acknowledged and is gone", id)
		}
	}
}
