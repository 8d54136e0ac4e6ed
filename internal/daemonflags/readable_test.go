package daemonflags_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/cuemby/warren/internal/daemonflags"
)

func TestAFileThatIsNotForTheDaemonToReadIsToldWithWhatToDo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becoming another user takes root")
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	path, closed := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "closed")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		path: "open " + path + ": permission denied: user nobody may not read it: be root, or a member of group warren and run \"chgrp warren " + path +
			" && chmod 640 " + path + `"`,
		filepath.Join(closed, "a", "token"): "user nobody may not enter " + closed + ": put the file elsewhere, such as into /etc/warren",
	} {
		err := asNobody(func() error {
			_, err := daemonflags.ReadFile(path)
			return err
		})
		if !errors.Is(err, fs.ErrPermission) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got %v, want something with %q", err, want)
		}
	}
}

func TestNobodyHasToBecomeAUserThatThereIsNot(t *testing.T) {
	if err := daemonflags.As("no such user"); err != nil {
		t.Error(err)
	}
}

// asNobody calls a function on a thread that is another user's, and ends with it.
func asNobody(f func() error) error {
	const nobody = 65534
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, nobody, nobody, nobody); errno != 0 {
			result <- errno
			return
		}
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			result <- errno
			return
		}
		result <- f()
	}()
	return <-result
}
