package initproc

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets the test's own binary be the init, under the name a container would give it.
func TestMain(m *testing.M) {
	if Invoked(os.Args) {
		os.Exit(Run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// command runs a shell script under the init.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Args = append([]string{Path}, args...)
	return c
}

func code(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return 0
}

func TestTheProgramsEndIsTheInits(t *testing.T) {
	for _, test := range []struct {
		args []string
		want int
	}{
		{[]string{"true"}, 0},
		{[]string{"sh", "-c", "exit 7"}, 7},
		{[]string{"sh", "-c", "kill -9 $$"}, 137},
		{[]string{"no-such-program"}, 127},
		{[]string{"/no/such/program"}, 127},
		{[]string{"/etc"}, 126},
		{nil, 127},
	} {
		if got := code(command(t, test.args...).Run()); got != test.want {
			t.Errorf("%q ended with %d, want %d", test.args, got, test.want)
		}
	}
}

func TestSignalsReachTheProgram(t *testing.T) {
	c := command(t, "sh", "-c", "trap 'echo got it; exit 3' TERM; echo ready; while :; do :; done")
	output, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(output)
	for lines.Scan() && !strings.Contains(lines.Text(), "ready") {
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != "got it" {
		t.Errorf("heard %q", lines.Text())
	}
	if got := code(c.Wait()); got != 3 {
		t.Errorf("ended with %d", got)
	}
}
