package storage

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// folder tells what the files below a folder take up, without those below another, and how many entries the folder
// itself has. Files come and go meanwhile; one that is not there takes nothing.
func folder(ctx context.Context, root, without string) (bytes uint64, entries uint32, err error) {
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case path == without:
			return fs.SkipDir
		case filepath.Dir(path) == root:
			entries++
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if stat, is := info.Sys().(*syscall.Stat_t); is {
			bytes += uint64(stat.Blocks) * 512 // the unit of st_blocks, whatever the file system's
		}
		return nil
	})
	return bytes, entries, err
}
