package dataformat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/version"
)

// The formats that this build knows, as text since tests of upgrades build programs that know others
// (go build -ldflags "-X github.com/cuemby/warren/internal/dataformat.manager=2").
var (
	manager = "1"
	agent   = "1"
)

// Manager is the newest format of a cluster's state that this build's manager reads.
func Manager() uint32 { return number(manager) }

// Agent is the format of this build's agent's data.
func Agent() uint32 { return number(agent) }

func number(text string) uint32 {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		panic("dataformat: built with the format " + strconv.Quote(text))
	}
	return uint32(n)
}

// File is the file in a data folder that tells its format.
const File = "format.json"

// record is what the file says.
type record struct {
	Format uint32 `json:"format"`
	// Version is the release whose program has written data of this format first.
	Version string `json:"version"`
}

// Check refuses a folder whose data are of a newer format than a program knows. Nothing is changed. A folder without
// a record, or that is not there, has no data or data of format 1.
func Check(dir, program string, known uint32) error {
	told, err := read(dir)
	if err != nil {
		return err
	}
	if told.Format > known {
		return fmt.Errorf("%s was written by %s %s, in format %d, and this is %s %s, which knows formats up to %d: install %s or newer again; nothing was changed",
			dir, program, told.Version, told.Format, program, version.Version, known, told.Version)
	}
	return nil
}

// Record notes in a folder that its data are of a format from now on, unless it says so already. It returns when that
// is on disk.
func Record(dir string, format uint32) error {
	told, err := read(dir)
	if err != nil || told.Format == format {
		return err
	}
	text, err := json.Marshal(record{Format: format, Version: version.Version})
	if err != nil {
		return fmt.Errorf("record the data's format: %w", err)
	}
	if err := pki.WriteSecret(filepath.Join(dir, File), append(text, '\n')); err != nil {
		return fmt.Errorf("record the data's format: %w", err)
	}
	return nil
}

func read(dir string) (record, error) {
	path := filepath.Join(dir, File)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, fmt.Errorf("read the data's format: %w", err)
	}
	var told record
	if err := json.Unmarshal(text, &told); err != nil || told.Format == 0 {
		return record{}, fmt.Errorf("read the data's format: %s does not tell it: take it back from a backup of the folder", path)
	}
	return told, nil
}
