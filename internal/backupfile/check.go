package backupfile

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protodelim"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
)

var (
	// ErrNotBackup says that a file is something else.
	ErrNotBackup = errors.New("it is not a backup of a cluster")
	// ErrTruncated says that the end of a backup is missing.
	ErrTruncated = errors.New("the backup is cut short: its end is missing")
	// ErrAltered says that a backup is not as it was written.
	ErrAltered = errors.New("the backup is damaged or was altered: its checksum is wrong")
	// ErrNewer says that a backup is of a format that is not known yet.
	ErrNewer = errors.New("the backup was made by a newer Warren")
)

const (
	// snapshotFormat is the newest format of the state that can be read.
	snapshotFormat = 1
	// maxHeaderBytes and maxObjectBytes bound what is read at once, so that a wrong length cannot exhaust
	// memory.
	maxHeaderBytes = 64 << 10
	maxObjectBytes = 16 << 20

	bufferBytes = 64 << 10
)

// Contents is what a backup holds.
type Contents struct {
	Header *statev1.BackupHeader
	// Of the state: how much there is of it, and the ids of the managers that the cluster had.
	Objects, Nodes, Services, Tasks, Users int
	Managers                               []string
	// Size is the length of the whole backup in bytes.
	Size int64

	from, to int64 // where in it the state is
}

// State returns the state in a file that was checked, in the form of a raft snapshot.
func (c *Contents) State(file io.ReaderAt) io.Reader {
	return io.NewSectionReader(file, c.from, c.to-c.from)
}

// Check reads a backup to its end and tells what is in it. It fails with ErrNotBackup, ErrTruncated,
// ErrAltered, ErrNewer, or the reader's error. Memory does not grow with the backup.
func Check(r io.Reader) (*Contents, error) {
	sum := sha256.New()
	if err := checkLead(io.TeeReader(r, sum)); err != nil {
		return nil, err
	}
	b := &body{from: r, sum: sum, size: int64(leadBytes)}
	c, broken := count(b)
	// To the end, whatever is wrong with it: that it was altered is the better explanation.
	if _, err := io.Copy(io.Discard, b); err != nil {
		return nil, err
	}
	if err := b.checkFooter(); err != nil {
		return nil, err
	}
	if broken != nil {
		return nil, broken
	}
	c.Size = b.size + int64(footerBytes)
	return c, nil
}

// checkLead reads what stands before the header.
func checkLead(r io.Reader) error {
	lead := make([]byte, leadBytes)
	n, err := io.ReadFull(r, lead)
	switch ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF); {
	case ended && (strings.HasPrefix(magic, string(lead[:n])) || bytes.HasPrefix(lead, []byte(magic))):
		return ErrTruncated
	case ended:
		return ErrNotBackup
	case err != nil:
		return err
	case !bytes.HasPrefix(lead, []byte(magic)):
		return ErrNotBackup
	}
	if format := binary.BigEndian.Uint32(lead[len(magic):]); format > Format {
		return fmt.Errorf("%w: its format is %d, this program knows %d: upgrade Warren first", ErrNewer, format, Format)
	}
	return nil
}

// body reads a backup up to its footer, which it keeps back, and sums up what it gives.
type body struct {
	from io.Reader
	sum  hash.Hash
	size int64
	held []byte // read and not given yet
	err  error  // why there is no more
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.held == nil {
		b.held = make([]byte, 0, bufferBytes+footerBytes)
	}
	for b.err == nil && len(b.held) <= footerBytes {
		n, err := b.from.Read(b.held[len(b.held):cap(b.held)])
		b.held, b.err = b.held[:len(b.held)+n], err
	}
	ready := len(b.held) - footerBytes
	if ready <= 0 {
		return 0, b.err
	}
	n := copy(p, b.held[:ready])
	b.sum.Write(p[:n])
	b.size += int64(n)
	b.held = b.held[:copy(b.held, b.held[n:])]
	return n, nil
}

// checkFooter checks what is held at the end.
func (b *body) checkFooter() error {
	if !bytes.HasPrefix(b.held, []byte(endMagic)) || len(b.held) != footerBytes {
		return ErrTruncated
	}
	b.sum.Write([]byte(endMagic))
	if subtle.ConstantTimeCompare(b.sum.Sum(nil), b.held[len(endMagic):]) != 1 {
		return ErrAltered
	}
	return nil
}

// place is a reader that knows how far it has come.
type place struct {
	*bufio.Reader
	at int64
}

// Read implements io.Reader.
func (p *place) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.at += int64(n)
	return n, err
}

// ReadByte implements io.ByteReader.
func (p *place) ReadByte() (byte, error) {
	b, err := p.Reader.ReadByte()
	if err == nil {
		p.at++
	}
	return b, err
}

// count reads header and state.
func count(r io.Reader) (*Contents, error) {
	at := &place{bufio.NewReaderSize(r, bufferBytes), int64(leadBytes)}
	c := &Contents{Header: &statev1.BackupHeader{}}
	if err := (protodelim.UnmarshalOptions{MaxSize: maxHeaderBytes}).UnmarshalFrom(at, c.Header); err != nil {
		return nil, fmt.Errorf("read backup: header: %w", err)
	}
	c.from = at.at
	limits := protodelim.UnmarshalOptions{MaxSize: maxObjectBytes}
	var header statev1.SnapshotHeader
	if err := limits.UnmarshalFrom(at, &header); err != nil {
		return nil, fmt.Errorf("read backup: state: %w", err)
	}
	if header.GetFormat() > snapshotFormat {
		return nil, fmt.Errorf("%w: the format of its state is %d, this program knows %d: upgrade Warren first", ErrNewer, header.GetFormat(), snapshotFormat)
	}
	for i := range header.GetObjects() {
		var o statev1.Object
		if err := limits.UnmarshalFrom(at, &o); err != nil {
			return nil, fmt.Errorf("read backup: object %d of %d: %w", i+1, header.GetObjects(), err)
		}
		c.add(&o)
	}
	if _, err := at.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read backup: there is more in it than the %d objects of its state", header.GetObjects())
	}
	c.to = at.at
	return c, nil
}

func (c *Contents) add(o *statev1.Object) {
	c.Objects++
	switch o := o.GetKind().(type) {
	case *statev1.Object_Node:
		c.Nodes++
	case *statev1.Object_Service:
		c.Services++
	case *statev1.Object_Task:
		c.Tasks++
	case *statev1.Object_User:
		c.Users++
	case *statev1.Object_Member:
		c.Managers = append(c.Managers, o.Member.GetMeta().GetId())
	}
}
