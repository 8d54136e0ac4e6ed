package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cuemby/warren/internal/ctl/fakemanager"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"warrenctl": main})
}

type managerKey struct{}

// TestCommands runs the stories of testdata/script against a manager in memory, one each.
func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			dir, err := os.MkdirTemp("", "ctl") //nolint:usetesting // short: a socket's path has a hundred characters at most
			if err != nil {
				return err
			}
			socket := filepath.Join(dir, "m.sock")
			m, err := fakemanager.Start(socket)
			if err != nil {
				return err
			}
			agentSocket := filepath.Join(dir, "a.sock")
			agent, err := fakemanager.StartAgent(agentSocket)
			if err != nil {
				return err
			}
			e.Defer(func() {
				m.Close()
				agent.Close()
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			})
			e.Setenv("WARREN_SOCKET", socket)
			e.Setenv("WARREN_AGENT_SOCKET", agentSocket)
			e.Setenv("WARREN_RESOLVE_IMAGE", "never") // no test asks a registry of the world
			e.Setenv("GORACE", "atexit_sleep_ms=10")  // with the race detector hundreds of commands would sleep a second each
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			e.Values[managerKey{}] = m
			e.Values[registryKey{}] = &fakeRegistry{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"manager":   manage,
			"exitcode":  exitCode,
			"interrupt": interrupt,
			"mode":      mode,
			"meanwhile": meanwhile,
			"registry":  registry,
		},
	})
}

// manage steers the manager in memory: manager release | advance | stay | lock | page N | conflict N | break |
// write TASK stdout|stderr LINE… | rotate | rotated | issued-ago DURATION | fail-renewals TEXT | renewals N, which
// checks how many there were | renew HOST | lose HOST | cut HOST | mend HOST | silence HOST |
// down HOST | take HOST PORT.
func manage(ts *testscript.TestScript, _ bool, args []string) {
	m := ts.Value(managerKey{}).(*fakemanager.Manager)
	number := func(i int) int {
		n, err := strconv.Atoi(args[i])
		ts.Check(err)
		return n
	}
	switch args[0] {
	case "release":
		m.Release()
	case "advance":
		m.Advance()
	case "stay":
		m.Stay()
	case "lock":
		m.Lock()
	case "page":
		m.LimitPages(number(1))
	case "conflict":
		m.Conflict(number(1))
	case "break":
		m.BreakStreams()
	case "renew":
		m.Renew(args[1])
	case "cut", "mend":
		m.Cut(args[1], args[0] == "cut")
	case "take":
		m.Take(args[1], uint32(number(2)))
	case "silence":
		m.Silence(args[1])
	case "down":
		m.Down(args[1])
	case "lose":
		m.Lose(args[1])
	case "write":
		stream := warrenv1.OutputStream_OUTPUT_STREAM_STDOUT
		if args[2] == "stderr" {
			stream = warrenv1.OutputStream_OUTPUT_STREAM_STDERR
		}
		for _, line := range args[3:] {
			m.Write(args[1], stream, line, time.Now())
		}
	case "rotate":
		ts.Check(m.RotateCA())
	case "rotated":
		ts.Check(m.EndRotation())
	case "issued-ago":
		ago, err := time.ParseDuration(args[1])
		ts.Check(err)
		m.IssuedAgo(ago)
	case "fail-renewals":
		m.FailRenewals(args[1])
	case "renewals":
		if got := m.Renewals(); got != number(1) {
			ts.Fatalf("%d certificates were renewed, not %d", got, number(1))
		}
	default:
		ts.Fatalf("manager %s is not known", args[0])
	}
}

// mode checks the permissions of a file: mode 600 FILE.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); got != args[0] {
		ts.Fatalf("%s has mode %s, not %s", args[1], got, args[0])
	}
}

// exitCode runs a program and checks the code it ends with: exitcode N PROGRAM ARG….
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exited *exec.ExitError
		if !errors.As(err, &exited) {
			ts.Fatalf("%v", err)
		}
		got = exited.ExitCode()
	}
	if got != want {
		ts.Fatalf("the exit code is %d, not %d", got, want)
	}
}

// interrupt runs a program, presses Ctrl-C when a line of its output matches, and checks that it ends
// as interrupted: interrupt REGEXP PROGRAM ARG…. Its output is left in the file interrupted.
func interrupt(ts *testscript.TestScript, _ bool, args []string) {
	code, said := runUntil(ts, args[0], args[1:], func(cmd *exec.Cmd) { ts.Check(cmd.Process.Signal(os.Interrupt)) })
	ts.Check(os.WriteFile(ts.MkAbs("interrupted"), []byte(said), 0o644))
	if code != 130 {
		ts.Fatalf("the exit code is %d, not 130; output:\n%s", code, said)
	}
}

// meanwhile runs a program, steers the manager as manage does when a line of its output matches, and checks
// that the program succeeds: meanwhile REGEXP STEP[;STEP…] PROGRAM ARG…. Its output is left in the file looked.
func meanwhile(ts *testscript.TestScript, _ bool, args []string) {
	code, said := runUntil(ts, args[0], args[2:], func(*exec.Cmd) {
		for step := range strings.SplitSeq(args[1], ";") {
			manage(ts, false, strings.Fields(step))
		}
	})
	ts.Check(os.WriteFile(ts.MkAbs("looked"), []byte(said), 0o644))
	if code != 0 {
		ts.Fatalf("the exit code is %d; output:\n%s", code, said)
	}
}

// runUntil runs a program, does something when a line of its output matches for the first time, and returns
// how it ended and what it said.
func runUntil(ts *testscript.TestScript, match string, args []string, do func(*exec.Cmd)) (code int, said string) {
	pattern, err := regexp.Compile(match)
	ts.Check(err)
	read, write, err := os.Pipe()
	ts.Check(err)
	defer read.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "WARREN_SOCKET="+ts.Getenv("WARREN_SOCKET"), "WARREN_RESOLVE_IMAGE=never")
	cmd.Stdout, cmd.Stderr = write, write
	ts.Check(cmd.Start())
	ts.Check(write.Close())
	var all strings.Builder
	matched := false
	for lines := bufio.NewScanner(read); lines.Scan(); {
		all.WriteString(lines.Text() + "\n")
		if !matched && pattern.MatchString(lines.Text()) {
			matched = true
			do(cmd)
		}
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), all.String()
}
