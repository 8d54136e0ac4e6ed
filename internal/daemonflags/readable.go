package daemonflags

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/caller"
)

// folder is where what daemons are told belongs.
const folder = "/etc/warren"

// ReadFile reads a file that an administrator has made for a daemon. Where it is not for the daemon's user to read, the
// error says what to do about it.
func ReadFile(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: %s", err, remedy(path))
	}
	return text, err
}

// remedy tells how this process's user comes to read a file that it may not.
func remedy(path string) string {
	whom := "user " + strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil {
		whom = "user " + u.Username
	}
	switch closed := closedAbove(path); {
	case closed == folder:
		return fmt.Sprintf("%s may not enter %s: run \"chmod 755 %[2]s\"", whom, closed)
	case closed != "": // also /root and /home, which the manager's unit hides, whatever their mode
		return fmt.Sprintf("%s may not enter %s: put the file elsewhere, such as into %s", whom, closed, folder)
	}
	open := fmt.Sprintf("\"chgrp %s %s && chmod 640 %[2]s\"", caller.SocketGroup, path)
	if inGroup() {
		return fmt.Sprintf("%s is in group %s, which is to read it: run %s", whom, caller.SocketGroup, open)
	}
	return fmt.Sprintf("%s may not read it: be root, or a member of group %s and run %s", whom, caller.SocketGroup, open)
}

// closedAbove is the first folder on the way to a path that this process may not enter, or empty.
func closedAbove(path string) string {
	dir := filepath.Dir(path)
	if dir == path || unix.Faccessat(unix.AT_FDCWD, dir, unix.X_OK, unix.AT_EACCESS) == nil {
		return ""
	}
	if above := closedAbove(dir); above != "" {
		return above
	}
	return dir
}

// inGroup tells whether this process is in the daemons' group.
func inGroup() bool {
	g, err := user.LookupGroup(caller.SocketGroup)
	if err != nil {
		return false
	}
	if g.Gid == strconv.Itoa(os.Getegid()) {
		return true
	}
	others, err := os.Getgroups()
	if err != nil {
		return false
	}
	for _, gid := range others {
		if g.Gid == strconv.Itoa(gid) {
			return true
		}
	}
	return false
}

// As makes this process one of a user of the machine, in that user's group alone, if it is root's and there is the user: root
// may read what a daemon that is not root may not.
func As(name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(name)
	if unknown := user.UnknownUserError(""); errors.As(err, &unknown) {
		return nil
	}
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return fmt.Errorf("user %s: %w", name, err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return fmt.Errorf("user %s: %w", name, err)
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return fmt.Errorf("become user %s: %w", name, err)
	}
	return nil
}
