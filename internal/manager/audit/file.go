package audit

import (
	"fmt"
	"log/slog"
	"os"
)

// File is a file that lines are appended to, each in one write.
type File struct {
	file   *os.File
	logger *slog.Logger
}

// Open opens a file to append to, and makes it with mode 0600 if it is missing. As every write goes to
// where the file ends then, it may be truncated meanwhile (copytruncate of logrotate).
func Open(path string, logger *slog.Logger) (*File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w: make its folder, or choose another path with --audit-log", err)
	}
	return &File{f, logger}, nil
}

// Write implements io.Writer. That a line is lost is told to the manager's log, which has the line too.
func (f *File) Write(line []byte) (int, error) {
	n, err := f.file.Write(line)
	if err != nil {
		f.logger.Error("a line of the audit log is lost", "path", f.file.Name(), "error", err)
	}
	return n, err
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }
