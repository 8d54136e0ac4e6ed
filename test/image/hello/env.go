package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// describe prints the program's surroundings, one thing a line, so that a test can tell whether what
// a container was asked to be is what it is.
func describe(ctx context.Context, w io.Writer, dirs []string) error {
	environ := os.Environ()
	slices.Sort(environ)
	for _, variable := range environ {
		fmt.Fprintln(w, variable)
	}
	workdir, err := os.Getwd()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	fmt.Fprintln(w, "arguments:", strings.Join(os.Args, " "))
	fmt.Fprintln(w, "working directory:", workdir)
	fmt.Fprintln(w, "host name:", host)
	fmt.Fprintf(w, "process %d, parent %d, user %d:%d, groups %v\n", os.Getpid(), os.Getppid(), os.Getuid(), os.Getgid(), groups)
	fmt.Fprintln(w, "open files:", files.Max)
	if err := describeProcess(w); err != nil {
		return err
	}
	for _, dir := range dirs {
		describeDir(w, dir)
	}
	<-ctx.Done()
	return nil
}

// describeProcess prints what the kernel tells of this process alone.
func describeProcess(w io.Writer) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if slices.Contains([]string{"CapEff", "NoNewPrivs", "Seccomp"}, key) {
			fmt.Fprintf(w, "%s: %s\n", key, strings.TrimSpace(value))
		}
	}
	return nil
}

func describeDir(w io.Writer, dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		fmt.Fprintln(w, err)
		return
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	fmt.Fprintf(w, "%s holds: %s\n", dir, strings.Join(names, " "))
	path := filepath.Join(dir, "written")
	if err := os.WriteFile(path, []byte("by hello\n"), 0o600); err != nil {
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintln(w, "wrote", path)
}
