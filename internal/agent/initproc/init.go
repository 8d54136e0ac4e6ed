package initproc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// Path is where the init program stands in a container, and its argument zero.
const Path = "/.warren-init"

// Exit codes shells use for a program that cannot be run, and one that is not there.
const (
	codeCannotRun = 126
	codeNotFound  = 127
)

// Invoked tells from a program's arguments whether it was started as an init.
func Invoked(args []string) bool { return len(args) > 0 && args[0] == Path }

// Run starts the program of args (the arguments of the init without its own name), serves it until it
// ends, and returns the exit code for the container: the program's, or 128 plus the signal that ended it.
func Run(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "init: no program was given")
		return codeNotFound
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals) // before there is a child, so that none is missed
	path, err := exec.LookPath(args[0])
	if err == nil {
		var child *os.Process
		if child, err = start(path, args); err == nil {
			go forward(signals, child.Pid)
			return reap(child.Pid)
		}
	}
	fmt.Fprintf(os.Stderr, "init: cannot run %s: %v\n", args[0], err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return codeNotFound
	}
	return codeCannotRun
}

// start runs the program in a process group of its own, which has the terminal where there is one.
func start(path string, args []string) (*os.Process, error) {
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if info, err := os.Stdin.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && isTerminal() {
		attributes.Foreground, attributes.Ctty = true, int(os.Stdin.Fd())
	}
	return os.StartProcess(path, args, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   attributes,
	})
}

// forward passes signals on, but for those that are this process's own affair.
func forward(signals <-chan os.Signal, child int) {
	for s := range signals {
		switch s {
		case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU:
		default:
			// The child may just have ended; then there is nobody to tell.
			_ = syscall.Kill(child, s.(syscall.Signal))
		}
	}
}

// reap collects every process that ends below this one until the child does.
func reap(child int) int {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			fmt.Fprintf(os.Stderr, "init: wait: %v\n", err)
			return codeCannotRun
		case pid != child:
		case status.Signaled():
			return 128 + int(status.Signal())
		default:
			return status.ExitStatus()
		}
	}
}
