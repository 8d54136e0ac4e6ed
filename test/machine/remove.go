//go:build linux

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	idPrefix  = "wlab"     // of everything of a lab's that has a name on the host
	lockName  = "lock"     // held in the lab's directory while its process lives
	disksName = "machines" // one directory per machine
)

// nspawnDirs are where systemd-nspawn leaves traces of a machine that was killed.
var nspawnDirs = []string{"/run/systemd/nspawn/propagate", "/run/systemd/nspawn/unix-export", "/run/systemd/nspawn/locks"}

// sweep removes the labs whose process is gone. The caller keeps others from making labs meanwhile.
func sweep() error {
	entries, err := os.ReadDir(labsDir)
	if err != nil {
		return err
	}
	var failed []error
	for _, entry := range entries {
		if !entry.IsDir() || !strings.HasPrefix(entry.Name(), idPrefix) {
			continue
		}
		lock, err := lockFile(filepath.Join(labsDir, entry.Name(), lockName), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue // in use
		}
		if err == nil {
			err = errors.Join(remove(entry.Name()), lock.Close())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("%s: %w", entry.Name(), err))
		}
	}
	return errors.Join(failed...)
}

// remove takes a lab off the host, whatever state it is in. It goes by what the host shows, not by
// what this process remembers, so that it serves labs of other processes too.
func remove(id string) error {
	dir := filepath.Join(labsDir, id)
	failed := []error{killCgroups(id), removeNetworks(id), removeCgroups(id), removeNspawnTraces(id)}
	if err := unmountUnder(dir); err != nil {
		// What is mounted there must not be removed with the directory.
		return errors.Join(append(failed, err)...)
	}
	return errors.Join(append(failed, os.RemoveAll(dir))...)
}

func removeNetworks(id string) error {
	entries, err := os.ReadDir(namespacesDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var failed []error
	for _, entry := range entries {
		if entry.Name() == id || strings.HasPrefix(entry.Name(), id+"-") {
			failed = append(failed, removeNetwork(filepath.Join(namespacesDir, entry.Name())))
		}
	}
	return errors.Join(failed...)
}

func removeNspawnTraces(id string) error {
	var failed []error
	for _, dir := range nspawnDirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		failed = append(failed, err)
		for _, entry := range entries {
			if !strings.Contains(entry.Name(), id) {
				continue
			}
			path := filepath.Join(dir, entry.Name())
			failed = append(failed, unmountUnder(path), os.Remove(path))
		}
	}
	return errors.Join(failed...)
}
