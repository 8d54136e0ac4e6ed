package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cuemby/warren/packaging/document"
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
	var plain, read flags
	model, err := document.Model(program(), new(flags))
	if err != nil {
		t.Fatal(err)
	}
	text := document.Config(model, "/etc/warren/manager.yaml")
	for _, flag := range model.Flags {
		switch {
		case flag.Name == "help" || flag.Name == "version" || flag.Name == "config":
		case !strings.Contains(text, "\n#"+flag.Name+": "):
			t.Errorf("no key %s in\n%s", flag.Name, text)
		case flag.HasDefault: // it says so without the comment sign, too
			text = strings.Replace(text, "\n#"+flag.Name+": ", "\n"+flag.Name+": ", 1)
		}
	}
	path := filepath.Join(t.TempDir(), "manager.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"config", "check", "--config", path}, &stdout, &stderr); code != exitDone || !strings.Contains(stdout.String(), path+" is in order") {
		t.Fatalf("exit code %d, said %q and %q", code, &stdout, &stderr)
	}
	if err := program().Parse(&read, []string{"--config", path}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := program().Parse(&plain, nil, io.Discard); err != nil {
		t.Fatal(err)
	}
	read.Config = plain.Config
	if !reflect.DeepEqual(plain, read) {
		t.Errorf("with the file\n%+v\nwithout\n%+v", read, plain)
	}
}
