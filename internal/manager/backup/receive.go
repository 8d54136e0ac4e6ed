package backup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cuemby/warren/internal/backupfile"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
)

// maxBytes bounds a backup: a hundred times the state of the largest cluster.
const maxBytes = 64 << 30

// Restoration is a backup that was checked, ready to be restored. Close it.
type Restoration struct {
	// Header says what it is a backup of.
	Header *statev1.BackupHeader
	// Key is the cluster's key.
	Key authority.Key
	// state has no name any more: it goes when it is closed, or with the process.
	state *os.File
}

// State returns the state to restore, in the form of a raft snapshot and from its beginning.
func (r *Restoration) State() (io.Reader, error) {
	if _, err := r.state.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the backup again: %w", err)
	}
	return r.state, nil
}

// Close removes what was received.
func (r *Restoration) Close() error { return r.state.Close() }

// Receive reads a backup to its end, checks it, and gets it ready to be restored to the manager of the id
// self, which will be the cluster's only one. Meanwhile the backup lies in the folder, where its owner
// alone may read it. It fails as backupfile.Check does, and where the backup's parts do not fit together.
func Receive(folder string, from io.Reader, self string, now time.Time) (_ *Restoration, err error) {
	received, err := nameless(folder)
	if err != nil {
		return nil, fmt.Errorf("receive the backup: %w", err)
	}
	defer received.Close()
	limited := &io.LimitedReader{R: from, N: maxBytes}
	contents, err := backupfile.Check(io.TeeReader(limited, received))
	if err != nil && limited.N <= 0 {
		err = fmt.Errorf("it has more than %d bytes, which no backup has", int64(maxBytes))
	}
	if err != nil {
		return nil, fmt.Errorf("check the backup: %w", err)
	}
	r := &Restoration{Header: contents.Header}
	if r.Key, err = authority.ParseKey(contents.Header.GetClusterKey()); err != nil {
		return nil, fmt.Errorf("check the backup: %w", err)
	}
	if r.state, err = nameless(folder); err != nil {
		return nil, fmt.Errorf("get the backup ready: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	out := bufio.NewWriterSize(r.state, 1<<20)
	err = alone{self: self, managers: contents.Managers, now: now}.rewrite(out, contents.State(received))
	if err = errors.Join(err, out.Flush()); err != nil {
		return nil, fmt.Errorf("get the backup ready: %w", err)
	}
	if err := r.try(); err != nil {
		return nil, fmt.Errorf("check the backup: %w", err)
	}
	return r, nil
}

// try loads the state, and compares it with what the header says.
func (r *Restoration) try() error {
	from, err := r.State()
	if err != nil {
		return err
	}
	trial := state.NewStore()
	if err := trial.Load(from); err != nil {
		return err
	}
	s := trial.Snapshot()
	if s.Cluster().GetMeta().GetId() != r.Header.GetClusterId() || s.Cluster() == nil {
		return errors.New("its state is not that of the cluster which its header names")
	}
	return authority.Fits(s.Authority(), r.Key)
}

// nameless makes a file that only this process can find.
func nameless(folder string) (*os.File, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(folder, ".restore-*") // with mode 0600
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
