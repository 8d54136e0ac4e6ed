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
			e.Defer(func() {
				m.Close()
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			})
			e.Setenv("WARREN_SOCKET", socket)
			e.Values[managerKey{}] = m
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"manager":   manage,
			"exitcode":  exitCode,
			"interrupt": interrupt,
		},
	})
}

// manage steers the manager in memory: manager release | page N | conflict N | break |
// write TASK stdout|stderr LINE….
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
	case "page":
		m.LimitPages(number(1))
	case "conflict":
		m.Conflict(number(1))
	case "break":
		m.BreakStreams()
	case "write":
		stream := warrenv1.OutputStream_OUTPUT_STREAM_STDOUT
		if args[2] == "stderr" {
			stream = warrenv1.OutputStream_OUTPUT_STREAM_STDERR
		}
		for _, line := range args[3:] {
			m.Write(args[1], stream, line, time.Now())
		}
	default:
		ts.Fatalf("manager %s is not known", args[0])
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
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	read, write, err := os.Pipe()
	ts.Check(err)
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Env = append(os.Environ(), "WARREN_SOCKET="+ts.Getenv("WARREN_SOCKET"))
	cmd.Stdout, cmd.Stderr = write, write
	ts.Check(cmd.Start())
	ts.Check(write.Close())
	var said strings.Builder
	for lines := bufio.NewScanner(read); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if pattern.MatchString(lines.Text()) {
			ts.Check(cmd.Process.Signal(os.Interrupt))
		}
	}
	_ = cmd.Wait()
	ts.Check(os.WriteFile(ts.MkAbs("interrupted"), []byte(said.String()), 0o644))
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		ts.Fatalf("the exit code is %d, not 130; output:\n%s", code, said.String())
	}
}
