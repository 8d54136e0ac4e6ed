package backupfile

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protodelim"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
)

// Format is the format of backups that Write writes, and the newest that Check reads.
const Format = 1

const (
	magic       = "WRNBKUP\n"
	endMagic    = "WRNBKEND"
	leadBytes   = len(magic) + 4
	footerBytes = len(endMagic) + sha256.Size
)

// State is what a backup is made of: a snapshot, which does not change while it is written.
type State interface {
	// Save writes a SnapshotHeader and as many objects as it says.
	Save(w io.Writer) error
}

// Write writes a backup.
func Write(w io.Writer, header *statev1.BackupHeader, s State) error {
	sum := sha256.New()
	both := io.MultiWriter(sum, w)
	if _, err := both.Write(binary.BigEndian.AppendUint32([]byte(magic), Format)); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if _, err := protodelim.MarshalTo(both, header); err != nil {
		return fmt.Errorf("write backup: header: %w", err)
	}
	if err := s.Save(both); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	_, err := io.WriteString(both, endMagic)
	if err == nil {
		_, err = w.Write(sum.Sum(nil))
	}
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}
