//go:build linux

package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Every machine starts in a cgroup of its own, in each hierarchy the host has (one with cgroup v2,
// one per controller with v1). systemd-nspawn makes that the root of the machine's cgroup namespace,
// so machines do not see each other's, and whatever a machine ran can be found and killed by it.
const cgroupBase = "warren-test"

// hierarchies lists where the host's cgroup hierarchies are mounted, and whether each is a v2 one.
func hierarchies() (map[string]bool, error) {
	points, err := mountTable()
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, point := range points {
		if under := point.path == "/sys/fs/cgroup" || strings.HasPrefix(point.path, "/sys/fs/cgroup/"); !under {
			continue
		}
		if point.kind == "cgroup" || point.kind == "cgroup2" {
			found[point.path] = point.kind == "cgroup2"
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted under /sys/fs/cgroup")
	}
	return found, nil
}

// createCgroups makes a machine's cgroups and returns their directories.
func createCgroups(lab, machine string) ([]string, error) {
	roots, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for root, unified := range roots {
		dir := root
		for _, name := range []string{cgroupBase, lab, machine} {
			if unified {
				if err := delegateControllers(dir, dir == root); err != nil {
					return nil, err
				}
			}
			parent := dir
			dir = filepath.Join(dir, name)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
			if !unified {
				if err := inheritCpuset(parent, dir); err != nil {
					return nil, err
				}
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// delegateControllers lets the children of a cgroup v2 directory have every controller it has itself.
func delegateControllers(dir string, root bool) error {
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	enabled, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	present := strings.Fields(string(enabled))
	for controller := range strings.FieldsSeq(string(controllers)) {
		if slices.Contains(present, controller) {
			continue
		}
		enable := func() error {
			return os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
		}
		err := enable()
		if errors.Is(err, syscall.EBUSY) && root {
			// A container's root cgroup is an ordinary one and may not have both processes and
			// children with controllers.
			if err = moveProcesses(dir, filepath.Join(dir, "init")); err == nil {
				err = enable()
			}
		}
		if err != nil && !errors.Is(err, syscall.EINVAL) { // a controller that is not for children
			return err
		}
	}
	return nil
}

func moveProcesses(from, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	pids, err := processesIn(from)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		if err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EINVAL) { // gone, or a kernel thread
			return err
		}
	}
	return nil
}

// inheritCpuset gives a new cgroup v1 directory the processors of its parent; the kernel would let no
// process into it without.
func inheritCpuset(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		path := filepath.Join(dir, name)
		own, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(own)) > 0 {
			continue
		}
		inherited, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, inherited, 0); err != nil {
			return err
		}
	}
	return nil
}

// killCgroups kills every process in the cgroups of that name under the base, in all hierarchies, and
// returns when all have ended.
func killCgroups(name string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for root := range roots {
		dir := filepath.Join(root, cgroupBase, name)
		for {
			pids, err := processesUnder(dir)
			if err != nil {
				return err
			}
			if len(pids) == 0 {
				break
			}
			for _, pid := range pids {
				if err := killProcess(pid); err != nil {
					return fmt.Errorf("kill process %d: %w", pid, err)
				}
			}
		}
	}
	return nil
}

// removeCgroups removes the empty cgroups of that name under the base.
func removeCgroups(name string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for root := range roots {
		var dirs []string
		top := filepath.Join(root, cgroupBase, name)
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, dir := range slices.Backward(dirs) {
			if err := removeCgroup(dir); err != nil {
				return err
			}
		}
		// The last lab takes the base with it; another's keeps it.
		_ = os.Remove(filepath.Join(root, cgroupBase))
	}
	return nil
}

// removeCgroup removes one directory. The kernel lets go of a process that has ended a moment after
// its end can be seen, and cgroup v1 has no event to wait for.
func removeCgroup(dir string) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return &fs.PathError{Op: "remove", Path: dir, Err: err}
		}
	}
}

func processesUnder(dir string) ([]int, error) {
	var all []int
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			var pids []int
			pids, err = processesIn(path)
			all = append(all, pids...)
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) { // removed meanwhile
			return nil
		}
		return err
	})
	return all, err
}

func processesIn(dir string) ([]int, error) {
	content, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, syscall.EOPNOTSUPP) { // a threaded cgroup: its processes are listed by its parent
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(content)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		if pid != 0 { // of another process namespace
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// killProcess kills a process and waits for its end.
func killProcess(pid int) error {
	handle, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(handle)
	if err := unix.PidfdSendSignal(handle, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
	}
}
