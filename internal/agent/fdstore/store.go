package fdstore

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// patience bounds how long a systemd that does not listen holds up who keeps or drops a file.
const patience = time.Second

// Store is systemd's store of this process's files. Its methods may be called at the same time.
type Store struct {
	socket string // of systemd; empty where there is none

	mu        sync.Mutex
	conn      *net.UnixConn         // made when there is first something to say
	inherited map[string][]*os.File // by name; those that nobody has taken yet
}

// Inherit returns the store with what an earlier process has kept. It must be called once, before
// this process starts others: what speaks of the files is taken out of the environment.
func Inherit() *Store {
	s := &Store{socket: os.Getenv("NOTIFY_SOCKET"), inherited: map[string][]*os.File{}}
	for _, file := range activation.Files(true) {
		s.inherited[file.Name()] = append(s.inherited[file.Name()], file)
	}
	return s
}

// Keep has systemd hold a file under a name, beside this process. A file that systemd holds already may
// be kept again. Names are of ASCII, without colons, of 255 characters at most.
func (s *Store) Keep(name string, file *os.File) error {
	if s.socket == "" {
		return nil
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	var sent error
	// Unless told not to poll, systemd drops a pipe when its last writer is gone: just when it is needed.
	err = raw.Control(func(fd uintptr) {
		sent = s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(int(fd)))
	})
	if err := errors.Join(err, sent); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return nil
}

// Drop has systemd close what it holds under a name, and closes what nobody has taken of it here.
func (s *Store) Drop(name string) error {
	if file := s.Take(name); file != nil {
		file.Close()
	}
	if s.socket == "" {
		return nil
	}
	if err := s.send("FDSTOREREMOVE=1\nFDNAME="+name, nil); err != nil {
		return fmt.Errorf("drop %s: %w", name, err)
	}
	return nil
}

// Take returns the file that an earlier process has kept under a name; nil if there is none, or it
// has been taken. systemd goes on holding it.
func (s *Store) Take(name string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.inherited[name]
	delete(s.inherited, name)
	if len(files) == 0 {
		return nil
	}
	// Of one name there is one, unless an earlier process lost count. The last is as good as any.
	for _, file := range files[:len(files)-1] {
		file.Close()
	}
	return files[len(files)-1]
}

// Inherited lists the names of what an earlier process has kept and nobody has taken, in order.
func (s *Store) Inherited() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.inherited))
	for name := range s.inherited {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Close closes what nobody has taken. systemd goes on holding all that is kept.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, files := range s.inherited {
		for _, file := range files {
			file.Close()
		}
		delete(s.inherited, name)
	}
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// send sends systemd one message, with files.
func (s *Store) send(message string, rights []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: strings.TrimPrefix(s.socket, "unix:")})
		if err != nil {
			return fmt.Errorf("speak to systemd: %w", err)
		}
		s.conn = conn
	}
	if err := s.write([]byte(message), rights); err != nil {
		s.conn.Close() // a systemd that was started anew listens on another socket of that name
		s.conn = nil
		return fmt.Errorf("speak to systemd: %w", err)
	}
	return nil
}

// write is what net offers for sockets that are not connected only. The caller holds s.mu.
func (s *Store) write(message, rights []byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), message, rights, nil, unix.MSG_NOSIGNAL)
		return sent != unix.EAGAIN
	})
	return errors.Join(err, sent)
}
