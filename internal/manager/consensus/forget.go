package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The files of a data folder that are this package's. Snapshots are in a folder that raft names.
const (
	logFile         = "raft.db"
	ballotFile      = "raft-vote"
	snapshotsFolder = "snapshots"
)

// Forget removes all that a node keeps in a data folder, so that the next to be opened there belongs to no
// cluster. The node must be closed. The log goes last: without it nobody is taken for a member.
func Forget(dataDir string) error {
	for _, name := range []string{snapshotsFolder, ballotFile, logFile} {
		if err := os.RemoveAll(filepath.Join(dataDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget what raft keeps: %w", err)
		}
	}
	return nil
}
