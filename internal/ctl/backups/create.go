package backups

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"filippo.io/age"
)

// ErrExists says that there is a file of that name.
var ErrExists = errors.New("there is a file of that name: choose another name, or give --force to replace it")

// Writer is a backup file that is being written. Commit or Abort it.
type Writer struct {
	to    io.Writer // through encryption, where there is any
	inner io.WriteCloser
	sum   hash.Hash
	size  int64

	file  *os.File // nil where it is no file
	path  string
	force bool
}

// Create begins a file that its owner alone may read. It fails with ErrExists where there is one and force
// is not set. With a passphrase it is encrypted.
func Create(path string, force bool, passphrase string) (*Writer, error) {
	w := &Writer{path: path, force: force}
	if err := w.free(); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // with mode 0600
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	w.file = file
	if err := w.begin(file, passphrase); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	return w, nil
}

// Stream begins a backup that goes to a stream.
func Stream(to io.Writer, passphrase string) (*Writer, error) {
	w := &Writer{}
	return w, w.begin(to, passphrase)
}

func (w *Writer) begin(to io.Writer, passphrase string) error {
	w.sum = sha256.New()
	w.to = io.MultiWriter(to, w.sum, (*counter)(&w.size))
	if passphrase == "" {
		return nil
	}
	recipient, err := age.NewScryptRecipient(passphrase)
	if err == nil {
		w.inner, err = age.Encrypt(w.to, recipient)
	}
	if err != nil {
		return fmt.Errorf("encrypt the backup: %w", err)
	}
	w.to = w.inner
	return nil
}

// free tells whether the name may be used.
func (w *Writer) free() error {
	info, err := os.Lstat(w.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("write %s: %w", w.path, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("write %s: it is there and is no file", w.path)
	case !w.force:
		return fmt.Errorf("write %s: %w", w.path, ErrExists)
	}
	return nil
}

// Write implements io.Writer.
func (w *Writer) Write(b []byte) (int, error) { return w.to.Write(b) }

// Commit puts the file in its place when it is safe on the disk.
func (w *Writer) Commit() error {
	if w.inner != nil {
		if err := w.inner.Close(); err != nil {
			return errors.Join(fmt.Errorf("encrypt the backup: %w", err), w.Abort())
		}
	}
	if w.file == nil {
		return nil
	}
	err := errors.Join(w.file.Sync(), w.file.Close())
	if err == nil {
		err = w.free()
	}
	if err == nil {
		err = os.Rename(w.file.Name(), w.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", w.path, err), os.Remove(w.file.Name()))
	}
	return syncDir(filepath.Dir(w.path))
}

// Abort removes what was written.
func (w *Writer) Abort() error {
	if w.file == nil {
		return nil
	}
	_ = w.file.Close() // what is in it is not wanted
	return os.Remove(w.file.Name())
}

// Size is how many bytes were written.
func (w *Writer) Size() int64 { return w.size }

// Sum is the SHA-256 of what was written, as sha256sum prints it.
func (w *Writer) Sum() string { return hex.EncodeToString(w.sum.Sum(nil)) }

// counter counts what is written to it.
type counter int64

// Write implements io.Writer.
func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// syncDir makes a rename last. Windows knows no such thing.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
