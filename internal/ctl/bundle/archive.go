package bundle

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"
)

// Archive writes the file. Its methods are for one goroutine.
type Archive struct {
	folder  string
	at      time.Time
	zip     *gzip.Writer
	tar     *tar.Writer
	Entries []Entry
}

// Entry is what the file holds of one thing.
type Entry struct {
	Name  string
	Bytes int
}

// NewArchive returns an archive whose entries are all in one folder.
func NewArchive(to io.Writer, folder string, at time.Time) *Archive {
	zip := gzip.NewWriter(to)
	return &Archive{folder: folder, at: at, zip: zip, tar: tar.NewWriter(zip)}
}

// Add adds a file.
func (a *Archive) Add(name string, text []byte) error {
	err := a.tar.WriteHeader(&tar.Header{Name: a.folder + "/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: a.at, Typeflag: tar.TypeReg})
	if err == nil {
		_, err = a.tar.Write(text)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	a.Entries = append(a.Entries, Entry{name, len(text)})
	return nil
}

// Close ends the file.
func (a *Archive) Close() error { return errors.Join(a.tar.Close(), a.zip.Close()) }
