//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A lab lasts as long as the process that made it. A cluster that is to stay up is therefore made, and
// shown, by a process of its own, which goes on in the background when the story is told.
const holderFile = "/run/warren-demo.pid"

// showAndKeep has another process show the cluster and keep it.
func showAndKeep(ctx context.Context, repository string) error {
	if pid, err := holder(); err != nil || pid != 0 {
		return errors.Join(err, errors.New("a cluster is up already: remove it with \"make demo-rm\""))
	}
	told, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer told.Close()
	command := exec.CommandContext(ctx, "/proc/self/exe", "-hold", "-apt", repository)
	command.Args[0] = os.Args[0]
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.ExtraFiles = []*os.File{tell}
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) } // and it cleans up
	err = command.Start()
	tell.Close()
	if err != nil {
		return err
	}
	if n, _ := told.Read(make([]byte, 1)); n == 1 {
		return command.Process.Release()
	}
	if err := command.Wait(); err != nil {
		return errors.New("the cluster does not stay up")
	}
	return nil
}

// hold shows the cluster, says on file descriptor 3 that it is done, and keeps the cluster until it is
// told to stop.
func hold(ctx context.Context, repository string) (err error) {
	d, err := newDemo(ctx, repository)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.lab.Close()) }()
	if err := d.tell(ctx, d.start, d.run, d.crash); err != nil {
		return err
	}
	if err := os.WriteFile(holderFile, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	defer os.Remove(holderFile)
	d.sayHowToGoOn()
	if err := leaveTerminal(); err != nil {
		return err
	}
	told := os.NewFile(3, "told")
	_, err = told.Write([]byte{1})
	if err := errors.Join(err, told.Close()); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (d *demo) sayHowToGoOn() {
	d.heading("The cluster stays up")
	fmt.Println("Go to a machine, and use warrenctl there (on m1), or from here:")
	for _, m := range d.machines {
		fmt.Printf("  sudo nsenter -t %d -a bash   # %s, %s\n", m.Leader(), m.Name(), m.IP())
	}
	fmt.Printf("  sudo bin/warrenctl --socket /proc/%d/root/run/warren/manager.sock service ps web\n", d.machines[0].Leader())
	fmt.Printf("The image is %s. Remove it all with:\n  make demo-rm\n", d.image)
}

// leaveTerminal lets go of the terminal or pipe that the story was told to, so that whoever reads it
// sees its end.
func leaveTerminal() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for descriptor := range 3 {
		if err := unix.Dup3(int(null.Fd()), descriptor, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}

// holder is the process that holds a cluster, or 0.
func holder() (int, error) {
	content, err := os.ReadFile(holderFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(string(content))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", holderFile, err)
	}
	// The number may have been given to another process since.
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
		return 0, err
	}
	if !slices.Contains(strings.Split(string(command), "\x00"), "-hold") {
		return 0, nil
	}
	return pid, nil
}

// removeKept has the holder of a cluster remove it, and returns when that is done.
func removeKept(ctx context.Context) error {
	pid, err := holder()
	if err != nil {
		return err
	}
	if pid == 0 {
		fmt.Println("no cluster is up")
		return nil
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(process)
	if err := unix.PidfdSendSignal(process, unix.SIGTERM, nil, 0); err != nil {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	for ctx.Err() == nil {
		ended, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, 200)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if ended > 0 {
			fmt.Println("the cluster is removed")
			return nil
		}
	}
	return nil
}
