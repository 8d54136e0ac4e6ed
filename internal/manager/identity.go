package manager

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cuemby/warren/internal/id"
)

// identity returns the manager's identifier, which it draws when it first starts and keeps for good in
// a file of its data folder.
func identity(dataDir string) (string, error) {
	path := filepath.Join(dataDir, "manager-id")
	kept, err := os.ReadFile(path)
	switch {
	case err == nil:
		mine := strings.TrimSpace(string(kept))
		if len(mine) != id.Length || !id.IsPrefix(mine) {
			return "", fmt.Errorf("read the manager's identity: %s holds %q, which is none: restore it from a backup of the data folder", path, mine)
		}
		return mine, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read the manager's identity: %w", err)
	}
	mine := id.New()
	if err := keep(path, mine+"\n"); err != nil {
		return "", fmt.Errorf("keep the manager's identity: %w", err)
	}
	return mine, nil
}

// keep writes a file so that after a crash it is there whole or not at all.
func keep(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(content)
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
