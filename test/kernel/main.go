//go:build linux

// Kernel boots a machine with a kernel of its own, Debian's, under QEMU, and tells Warren's stories
// there that need one: those of cgroup v2, whatever the host has, and of what the host's kernel may
// lack, such as WireGuard, of which the agent's own tests run there too. "make test-kernel RUN=regexp" runs it; it
// needs neither root nor hardware virtualisation.
//
// The machine is one of a kind: no network, one disk that forgets, and a second drive with the
// packages it is to install, the scripts and the test that runs them (package guest), whose output it
// sends back through a port. What the machine's console says is kept in a file.
//
// Start reading at run, below; then drive.go for what goes in, vm.go for what comes out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// runAtMost is several times what all stories take where two processors emulate two others. The test
// inside gives up first, and says where it was.
const runAtMost = 35 * time.Minute

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "test-kernel:", err)
		os.Exit(1)
	}
}

func run() error {
	pattern := flag.String("run", "", "run the scripts whose name matches this regular expression, and the tests of WireGuard if \"wireguard\" does")
	image := flag.String("image", "", "`directory` of the machine's disk and kernel, as diskimage.sh built it")
	packageDir := flag.String("packages", "build/packages", "`directory` of the .deb packages of warren-manager, warren-agent and warrenctl")
	workDir := flag.String("dir", "build/kernel", "`directory` for the second drive and what the console says")
	flag.Parse()
	chosen, err := regexp.Compile(*pattern)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if *image == "" {
		return errors.New("-image: which machine is to be booted? \"make test-kernel\" gives the one that diskimage.sh builds")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, runAtMost, fmt.Errorf("it had not ended after %v", runAtMost))
	defer cancel()

	if err := os.MkdirAll(*workDir, 0o755); err != nil {
		return err
	}
	vm := vm{
		image:   *image,
		drive:   filepath.Join(*workDir, "drive.tar"),
		console: filepath.Join(*workDir, "console.log"),
	}
	if err := buildDrive(ctx, vm.drive, *packageDir, chosen); err != nil {
		return fmt.Errorf("fill the second drive: %w", err)
	}
	return vm.run(ctx, os.Stdout)
}
