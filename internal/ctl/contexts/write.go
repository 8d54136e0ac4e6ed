package contexts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Draft is a context file that is being made. That it can be is known before there is anything to put
// into it: what is made along with a file must not be lost for want of one.
type Draft struct {
	path  string
	force bool
	temp  *os.File
}

// NewDraft begins a file. It fails with fs.ErrExist where there is one, unless force says to replace it.
func NewDraft(path string, force bool) (*Draft, error) {
	if err := vacant(path, force); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // with mode 0600
	if err != nil {
		return nil, fmt.Errorf("make the context file %s: %w", path, err)
	}
	return &Draft{path, force, f}, nil
}

func vacant(path string, force bool) error {
	_, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && force:
		return nil
	case err == nil:
		return fmt.Errorf("%s: %w: choose another file, or replace it with --force", path, fs.ErrExist)
	}
	return err
}

// Commit writes the context and puts the file in place.
func (d *Draft) Commit(c *Context) error {
	defer d.Discard()
	text, err := c.Encode()
	if err != nil {
		return err
	}
	_, err = d.temp.Write(text)
	if err = errors.Join(err, d.temp.Sync(), d.temp.Close()); err == nil {
		err = d.place()
	}
	if err != nil {
		return fmt.Errorf("write the context file %s: %w", d.path, err)
	}
	return nil
}

// place gives the file its name. Without force a link does it, which fails where somebody was faster; a
// file system that has none is asked beforehand.
func (d *Draft) place() error {
	if d.force {
		return os.Rename(d.temp.Name(), d.path)
	}
	err := os.Link(d.temp.Name(), d.path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := vacant(d.path, false); err != nil {
		return err
	}
	return os.Rename(d.temp.Name(), d.path)
}

// Discard forgets a draft that was not committed.
func (d *Draft) Discard() {
	_ = d.temp.Close() // it may be closed already
	_ = os.Remove(d.temp.Name())
}

// WriteFile writes a context file that its owner alone may read. It fails as NewDraft does.
func WriteFile(path string, c *Context, force bool) error {
	d, err := NewDraft(path, force)
	if err != nil {
		return err
	}
	return d.Commit(c)
}
