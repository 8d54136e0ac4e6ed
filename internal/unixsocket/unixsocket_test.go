package unixsocket

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestASocketThatWasLeftBehindIsTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "s.sock")
	first, err := Listen(t.Context(), path, "warren-agent")
	if err != nil {
		t.Fatal(err)
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	second, err := Listen(t.Context(), path, "warren-agent")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestASocketInUseAndAFileAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	used, file := filepath.Join(dir, "used"), filepath.Join(dir, "file")
	l, err := Listen(t.Context(), used, "warren-agent")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{used: "is another warren-agent running?", file: "is no socket"} {
		if _, err := Listen(t.Context(), path, "warren-agent"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}
