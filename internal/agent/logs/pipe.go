package logs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// pipeSize is how much output a stream can hold while nobody reads it: the most the kernel allows
// without being told otherwise.
const pipeSize = 1 << 20

// MakePipe makes a named pipe, in a folder made where it is missing, and opens its reading end. There
// is nothing to read, and no end, until a writer has opened it: pump it only after that.
func MakePipe(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make output pipe: %w", err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make output pipe %s: %w", path, err)
	}
	return OpenPipe(path)
}

// OpenPipe opens the reading end of a pipe that was made before.
func OpenPipe(path string) (*os.File, error) {
	// Non-blocking: opening waits for no writer, and reading sleeps in Go's poller and not in a thread.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open output pipe: %w", err)
	}
	raw, err := file.SyscallConn()
	if err == nil {
		// A smaller pipe is no reason to do without: the system's limit may be lower.
		err = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open output pipe: %w", err)
	}
	return file, nil
}
