package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cuemby/warren/internal/daemonflags/daemonflagstest"
	"github.com/cuemby/warren/internal/jointoken"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func parse(t *testing.T, args ...string) (*flags, error) {
	t.Helper()
	var f flags
	return &f, program().Parse(&f, args, io.Discard)
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFlagWinsOverTheEnvironmentAndThatOverTheFile(t *testing.T) {
	path := file(t, "manager: [127.0.0.1:1, 127.0.0.1:2]\nlabel: {zone: a}\nreserve-memory: 512m\nhostname: file\nlog-level: debug\nsnapshotter: file\n")
	t.Setenv("WARREN_AGENT_HOSTNAME", "environment")
	t.Setenv("WARREN_AGENT_SNAPSHOTTER", "environment")
	f, err := parse(t, "--config", path, "--snapshotter", "flag")
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Manager) != 2 || f.Label["zone"] != "a" || f.ReserveMemory != 512<<20 || f.LogLevel != "debug" ||
		f.Hostname != "environment" || f.Snapshotter != "flag" {
		t.Errorf("parsed %+v", f)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	worker := jointoken.Token{Digest: strings.Repeat("a", 52), Role: warrenv1.Role_ROLE_AGENT, Secret: make([]byte, jointoken.SecretBytes)}
	manager := worker
	manager.Role = warrenv1.Role_ROLE_MANAGER
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no such port":        {[]string{"--manager", "localhost:99999"}, "it must be HOST:PORT"},
		"a blank in the name": {[]string{"--manager", "localhost:1", "--hostname", "a b"}, "--hostname"},
		"a label without key": {[]string{"--manager", "localhost:1", "--label", "=v"}, "--label"},
		"namespace":           {[]string{"--manager", "localhost:1", "--containerd-namespace", "a b"}, "--containerd-namespace"},
		"group above":         {[]string{"--manager", "localhost:1", "--cgroup-parent", "/../x"}, "--cgroup-parent"},
		"too large":           {[]string{"--manager", "localhost:1", "--reserve-memory", "1e99"}, "not a size"},
		"no port":             {[]string{"--manager", "10.0.0.1"}, "it must be HOST:PORT"},
		"no manager":          {[]string{"--join-token", worker.String()}, "give --manager HOST:PORT"},
		"not a token":         {[]string{"--manager", "10.0.0.1:1", "--join-token", "secret"}, "it is not a join token"},
		"for a manager":       {[]string{"--manager", "10.0.0.1:1", "--join-token", manager.String()}, "it is a manager's join token"},
		"two tokens":          {[]string{"--manager", "10.0.0.1:1", "--join-token", worker.String(), "--join-token-file", "f"}, "give one of them"},
		"unknown key":         {[]string{"--config", file(t, "managers: []")}, `unknown key "managers"`},
		"missing file":        {[]string{"--config", "/nowhere.yaml"}, "/nowhere.yaml"},
		"not a size":          {[]string{"--manager", "localhost:1", "--reserve-memory", "much"}, "not a size"},
		"no starts":           {[]string{"--manager", "localhost:1", "--max-parallel-starts", "0"}, "at least 1"},
	} {
		if _, err := parse(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want something with %q", name, err, c.want)
		}
	}
	for _, args := range [][]string{nil, {"--manager", "10.0.0.1:1"}, {"--manager", "10.0.0.1:1", "--join-token", worker.String()}} {
		if _, err := parse(t, args...); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestSystemdsCredentialIsUsedWhereNothingElseIsGiven(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "join-token")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for want, args := range map[string][]string{
		path: {"--manager", "10.0.0.1:1"},
		"/f": {"--manager", "10.0.0.1:1", "--join-token-file", "/f"},
		"":   nil, // nowhere to join
	} {
		f, err := parse(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.agent(nil).JoinTokenFile; got != want {
			t.Errorf("%q: got %q, want %q", args, got, want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"help":    {[]string{"--help"}, exitDone},
		"version": {[]string{"--version"}, exitDone},
		"usage":   {[]string{"--no-such-flag"}, exitUsage},

		"check":              {[]string{"config", "check", "--config", file(t, "log-level: debug")}, exitDone},
		"check of a mistake": {[]string{"config", "check", "--config", file(t, "log-level: loud")}, exitUsage},
		"check, and a word":  {[]string{"config", "chekc"}, exitUsage},
		"tasks, and a word":  {[]string{"end-tasks", "now"}, exitUsage},

		"help on WireGuard":       {[]string{"wireguard", "--help"}, exitDone},
		"WireGuard, and a flag":   {[]string{"wireguard", "--data-dir", "/d"}, exitUsage},
		"WireGuard, and a word":   {[]string{"wireguard", "wg0"}, exitUsage},
		"WireGuard, and a size":   {[]string{"wireguard", "--memory-limit", "much"}, exitUsage},
		"WireGuard, and nowhere":  {[]string{"wireguard"}, exitFailed},
		"WireGuard, and no place": {[]string{"wireguard", "--socket", "/proc/nowhere/s"}, exitFailed},
	} {
		var out, errs bytes.Buffer
		if got := run(c.args, &out, &errs); got != c.want {
			t.Errorf("%s: exit code %d, want %d: %s%s", name, got, c.want, &out, &errs)
		}
	}
}

func TestTheConfigurationFileOfThePackageIsInOrderAndSaysTheDefaults(t *testing.T) {
	daemonflagstest.CheckConffile[flags](t, program(), run)
}
