package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cuemby/warren/internal/daemonflags/daemonflagstest"
)

func TestFlagsWinOverTheEnvironmentAndThatOverTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "manager.yaml")
	if err := os.WriteFile(file, []byte("socket: file\ndata-dir: file\nlisten-addr: 127.0.0.1:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("WARREN_MANAGER_DATA_DIR", "environment")
	t.Setenv("WARREN_MANAGER_SOCKET", "environment")
	var f flags
	if err := program().Parse(&f, []string{"--config", file, "--socket", "flag"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	inEnvironment, err := filepath.Abs("environment") // paths are as of where the manager is started
	if err != nil {
		t.Fatal(err)
	}
	if f.Socket != "flag" || f.DataDir != inEnvironment || f.ListenAddr != "127.0.0.1:1" {
		t.Errorf("got %+v", f)
	}
}

func TestExitCodesAndWhatIsSaid(t *testing.T) {
	dir := t.TempDir()
	unknown := filepath.Join(dir, "unknown.yaml")
	if err := os.WriteFile(unknown, []byte("sockt: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{[]string{"--version"}, exitDone, "warren-manager ", ""},
		{[]string{"--help"}, exitDone, "--data-dir", ""},
		{[]string{"--no-such-flag"}, exitUsage, "", "--help"},
		{[]string{"config", "check", "--config", unknown}, exitUsage, "", `unknown key "sockt"`},
		{[]string{"--config", unknown}, exitUsage, "", `unknown key "sockt"`},
		{[]string{"--config", filepath.Join(dir, "missing")}, exitUsage, "", "no such file"},
		{[]string{"--log-level", "loud"}, exitUsage, "", "debug"},
		{[]string{"--data-dir", dir, "--socket", filepath.Join(dir, "s"), "--listen-addr", "7420"}, exitUsage, "", "HOST:PORT"},
		{[]string{"--data-dir", dir, "--socket", unknown}, exitFailed, "", "no socket"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(c.args, &stdout, &stderr); code != c.code {
			t.Errorf("%q: exit code %d, want %d", c.args, code, c.code)
		}
		if !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("%q: said %q and %q", c.args, &stdout, &stderr)
		}
	}
}

func TestTheConfigurationFileOfThePackageIsInOrderAndSaysTheDefaults(t *testing.T) {
	daemonflagstest.CheckConffile[flags](t, program(), run)
}
