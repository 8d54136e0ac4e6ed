package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func parse(t *testing.T, args ...string) (*flags, error) {
	t.Helper()
	var f flags
	parser, err := newParser(&f, io.Discard, io.Discard, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(args)
	return &f, err
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
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no manager":          {nil, "give --manager HOST:PORT"},
		"no port":             {[]string{"--manager", "10.0.0.1"}, "it must be HOST:PORT"},
		"another machine":     {[]string{"--manager", "10.0.0.1:1"}, "--insecure"},
		"no such port":        {[]string{"--manager", "localhost:99999"}, "it must be HOST:PORT"},
		"a blank in the name": {[]string{"--manager", "localhost:1", "--hostname", "a b"}, "--hostname"},
		"a label without key": {[]string{"--manager", "localhost:1", "--label", "=v"}, "--label"},
		"namespace":           {[]string{"--manager", "localhost:1", "--containerd-namespace", "a b"}, "--containerd-namespace"},
		"group above":         {[]string{"--manager", "localhost:1", "--cgroup-parent", "/../x"}, "--cgroup-parent"},
		"too large":           {[]string{"--manager", "localhost:1", "--reserve-memory", "1e99"}, "not a size"},
		"unknown key":         {[]string{"--config", file(t, "managers: []")}, `unknown key "managers"`},
		"missing file":        {[]string{"--config", "/nowhere.yaml"}, "/nowhere.yaml"},
		"not a size":          {[]string{"--manager", "localhost:1", "--reserve-memory", "much"}, "not a size"},
		"no starts":           {[]string{"--manager", "localhost:1", "--max-parallel-starts", "0"}, "at least 1"},
	} {
		if _, err := parse(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want something with %q", name, err, c.want)
		}
	}
	if _, err := parse(t, "--manager", "10.0.0.1:1", "--insecure"); err != nil {
		t.Error(err)
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
	} {
		var out, errs bytes.Buffer
		if got := run(c.args, &out, &errs); got != c.want {
			t.Errorf("%s: exit code %d, want %d: %s%s", name, got, c.want, &out, &errs)
		}
	}
}
