//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// vm is one run of the machine, from power-on to power-off.
type vm struct {
	image   string // directory of its disk, kernel and initial RAM disk; nothing is written there
	drive   string // file that is its second drive
	console string // file for what it says on its serial console
}

// endWord begins the last line of run.sh's output, before the test's exit status.
const endWord = "guest-exit-status:"

// run boots the machine, copies what its test prints to output, and fails where the test failed or
// did not come to its end.
func (v vm) run(ctx context.Context, output io.Writer) error {
	start := time.Now()
	fmt.Fprintln(os.Stderr, "booting; its console speaks in", v.console)
	var complaints bytes.Buffer
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", v.arguments()...)
	qemu.Stderr = &complaints
	port, err := qemu.StdoutPipe()
	if err != nil {
		return err
	}
	if err := qemu.Start(); err != nil {
		return fmt.Errorf("boot: %w: run \"make test-kernel\", which installs QEMU", err)
	}
	status, copyErr := copyResults(output, port)
	if copyErr != nil {
		// Nobody would read on, and the machine would wait for who does.
		_ = qemu.Process.Kill()
	}
	if err := qemu.Wait(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		copyErr = errors.Join(copyErr, fmt.Errorf("QEMU: %w: %s", err, bytes.TrimSpace(complaints.Bytes())))
	}
	fmt.Fprintf(os.Stderr, "the machine was on for %v\n", time.Since(start).Round(time.Second))
	switch {
	case copyErr != nil:
		return fmt.Errorf("the machine did not end well; its last words are in %s: %w", v.console, copyErr)
	case status != 0:
		return fmt.Errorf("the test in the machine failed with exit status %d; its console's words are in %s", status, v.console)
	}
	return nil
}

// arguments are QEMU's. The processors are emulated: hardware virtualisation is not to be had
// everywhere, and a test should find the same everywhere.
func (v vm) arguments() []string {
	kernel := []string{
		"root=/dev/vda", "rw", "console=ttyS0",
		"panic=-1",        // ends the run at once
		"mitigations=off", // nobody to be kept apart, and they are slow to emulate
		"systemd.journald.forward_to_console=yes", // the daemons' words among the kernel's
	}
	return []string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-kernel", filepath.Join(v.image, "vmlinuz"),
		"-initrd", filepath.Join(v.image, "initrd.img"),
		"-append", strings.Join(kernel, " "),
		"-serial", "file:" + v.console,
		"-drive", "if=virtio,format=raw,snapshot=on,cache=unsafe,file=" + filepath.Join(v.image, "disk.img"),
		"-drive", "if=virtio,format=raw,readonly=on,file=" + v.drive,
		"-device", "virtio-serial",
		"-chardev", "file,id=results,path=/dev/stdout",
		"-device", "virtserialport,chardev=results,name=results",
	}
}

var errCutShort = errors.New("its test did not come to an end")

// copyResults copies what the machine's test prints and returns the exit status that comes last.
func copyResults(output io.Writer, port io.Reader) (status int, err error) {
	lines := bufio.NewReader(port)
	for {
		line, err := lines.ReadString('\n')
		if after, last := strings.CutPrefix(line, endWord); last {
			return strconv.Atoi(strings.TrimSpace(after))
		}
		if _, err := io.WriteString(output, line); err != nil {
			return 0, err
		}
		if errors.Is(err, io.EOF) {
			return 0, errCutShort
		}
		if err != nil {
			return 0, err
		}
	}
}
