package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/backupfile"
	"github.com/cuemby/warren/internal/ctl/backups"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// pieceBytes is how much of a backup one message carries.
const pieceBytes = 256 << 10

// ClusterBackup are the commands about backups.
type ClusterBackup struct {
	Save   BackupSave   `cmd:"" default:"withargs" help:"Save the whole state of the cluster in a file."`
	Verify BackupVerify `cmd:"" aliases:"check,inspect" help:"Check a backup and show what is in it; no manager is needed."`
}

// BackupSave is `cluster backup FILE`.
type BackupSave struct {
	File    string `arg:"" help:"File to write, or - for standard output."`
	Encrypt bool   `xor:"passphrase" help:"Encrypt it with a passphrase, which is asked for."`
	Force   bool   `short:"f" help:"Replace the file if it is there."`
	passphraseFile
}

// Help is the text below the usage line.
func (BackupSave) Help() string {
	return "The cluster goes on meanwhile. Whoever has an unencrypted backup can be the cluster: keep it as you keep its keys.\n\n" +
		"Examples:\n\n    warrenctl cluster backup --encrypt shop.backup\n\n    warrenctl cluster backup --passphrase-file key - | ssh store 'cat > shop.backup'"
}

// Run does it.
func (c *BackupSave) Run(ctx context.Context, s *Session) error {
	if c.Encrypt && c.PassphraseFile != "" {
		return failure.Usagef("give --encrypt or --passphrase-file, not both")
	}
	toStdout := c.File == "-"
	if toStdout && s.Out.Terminal {
		return failure.Usagef("a backup is not for a terminal: name a file, or send standard output elsewhere")
	}
	passphrase, err := c.read()
	if err == nil && c.Encrypt {
		passphrase, err = s.choosePassphrase(ctx)
	}
	if err != nil {
		return err
	}
	var w *backups.Writer
	if toStdout {
		w, err = backups.Stream(s.Out, passphrase)
	} else {
		w, err = backups.Create(c.File, c.Force, passphrase)
	}
	if err != nil {
		return err
	}
	contents, err := s.save(ctx, w)
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	if err := w.Commit(); err != nil {
		return err
	}
	say := s.print
	if toStdout {
		say = func(line string) error { s.Err.Printf("%s", line); return nil }
	}
	if passphrase == "" {
		s.warn([]string{"the backup is not encrypted and holds the cluster's keys: whoever reads it can be the cluster; --encrypt protects it"})
	}
	return say(fmt.Sprintf("Cluster %s is saved as of index %d: %s, sha256 %s", contents.Header.GetClusterName(), contents.Header.GetIndex(), view.Memory(w.Size()), w.Sum()))
}

// save writes what the manager sends, and checks it on the way.
func (s *Session) save(ctx context.Context, w io.Writer) (*backupfile.Contents, error) {
	stream, err := s.Cluster.BackupCluster(ctx, connect.NewRequest(&warrenv1.BackupClusterRequest{}))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	read, write := io.Pipe()
	type checked struct {
		contents *backupfile.Contents
		err      error
	}
	done := make(chan checked, 1)
	go func() {
		c, err := backupfile.Check(read)
		done <- checked{c, err}
		_, _ = io.Copy(io.Discard, read) // what is sent goes on to the file, whatever is wrong with it
	}()
	meter := newMeter(s.Err, "saved")
	both := io.MultiWriter(w, write, meter)
	for err == nil && stream.Receive() {
		_, err = both.Write(stream.Msg().GetPiece())
	}
	meter.end()
	write.Close()
	verdict := <-done
	switch {
	case err != nil:
		return nil, fmt.Errorf("write the backup: %w", err)
	case stream.Err() != nil:
		return nil, stream.Err()
	case verdict.err != nil:
		return nil, fmt.Errorf("what the manager sent is no good: %w", verdict.err)
	}
	return verdict.contents, nil
}

// BackupVerify is `cluster backup verify`.
type BackupVerify struct {
	Output string `short:"o" enum:"pretty,json,yaml" default:"pretty" help:"pretty, json or yaml." placeholder:"FORM"`
	File   string `arg:"" help:"The backup, or - for standard input."`
	passphraseFile
}

// Help is the text below the usage line.
func (BackupVerify) Help() string {
	return "Example:\n\n    warrenctl cluster backup verify shop.backup"
}

// Run does it.
func (c *BackupVerify) Run(ctx context.Context, s *Session) error {
	in, _, err := openBackup(s, c.File)
	if err != nil {
		return err
	}
	defer in.Close()
	contents, r, err := c.check(ctx, s, in)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	if c.Output != "pretty" {
		return output.Value(s.Out, c.Output, view.NewBackupFacts(contents, r.Encrypted, r.Size(), r.Sum()))
	}
	_, err = fmt.Fprint(s.Out, view.Backup(contents, r.Encrypted, r.Size(), r.Sum(), s.Now()))
	return err
}

// openBackup opens a file, or standard input. Its size is 0 where it is not known.
func openBackup(s *Session, path string) (io.ReadCloser, int64, error) {
	if path == "-" {
		return io.NopCloser(s.In), 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	if !info.Mode().IsRegular() {
		return f, 0, nil
	}
	return f, info.Size(), nil
}

// check reads a backup to its end.
func (p passphraseFile) check(ctx context.Context, s *Session, from io.Reader) (*backupfile.Contents, *backups.Reader, error) {
	r, err := backups.Open(from, func() (string, error) { return p.ask(ctx, s) })
	if err != nil {
		return nil, nil, err
	}
	contents, err := backupfile.Check(r)
	return contents, r, err
}

// ClusterRestore is `cluster restore`.
type ClusterRestore struct {
	File          string `arg:"" help:"The backup, or - for standard input."`
	Force         bool   `short:"f" help:"Replace the cluster that this manager is in."`
	AdvertiseAddr string `help:"Where others reach this manager, in place of what its configuration says." placeholder:"HOST:PORT"`
	ListenAddr    string `help:"Where this manager listens, in place of what its configuration says." placeholder:"HOST:PORT"`
	passphraseFile
}

// Help is the text below the usage line.
func (ClusterRestore) Help() string {
	return "The manager on this machine becomes the only one of the cluster that the backup is of. Managers that the cluster had are members no more: " +
		"run `warrenctl cluster leave --force` on those that still run before, and let them join anew after.\n\n" +
		"Example:\n\n    warrenctl cluster restore shop.backup"
}

// Run does it.
func (c *ClusterRestore) Run(ctx context.Context, s *Session) error {
	in, size, err := openBackup(s, c.File)
	if err != nil {
		return err
	}
	defer in.Close()
	r, err := backups.Open(in, func() (string, error) { return c.ask(ctx, s) })
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	stream := s.Managers.RestoreManager(ctx)
	meter := newMeter(s.Err, "sent")
	meter.total = size
	err = send(stream, &warrenv1.RestoreOptions{Force: c.Force, AdvertiseAddr: c.AdvertiseAddr, ListenAddr: c.ListenAddr}, io.TeeReader(r, meter))
	meter.end()
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	res, err := stream.CloseAndReceive()
	if err != nil {
		return err
	}
	name := res.Msg.GetClusterName()
	if err := s.print("Cluster " + name + " is restored; this is its only manager."); err != nil {
		return err
	}
	return s.print("Nodes come back when their agents reach it. Other managers join anew: see `warrenctl cluster join-token manager`.")
}

// send sends a backup. That the manager has ended the call is no error: why, it says with its answer.
func send(stream *connect.ClientStreamForClient[warrenv1.RestoreManagerRequest, warrenv1.RestoreManagerResponse], o *warrenv1.RestoreOptions, from io.Reader) error {
	err := stream.Send(&warrenv1.RestoreManagerRequest{Message: &warrenv1.RestoreManagerRequest_Options{Options: o}})
	piece := make([]byte, pieceBytes)
	for err == nil {
		n, ended := io.ReadFull(from, piece)
		if n > 0 {
			err = stream.Send(&warrenv1.RestoreManagerRequest{Message: &warrenv1.RestoreManagerRequest_Piece{Piece: piece[:n]}})
		}
		if errors.Is(ended, io.EOF) || errors.Is(ended, io.ErrUnexpectedEOF) {
			return nil
		}
		if ended != nil {
			return ended
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
