package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/agent/runtime/ocispec"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupVersion is that of the control groups the kernel uses: 1 or 2.
func cgroupVersion() int {
	var mounted unix.Statfs_t
	if unix.Statfs(cgroupRoot, &mounted) == nil && mounted.Type == unix.CGROUP2_SUPER_MAGIC {
		return 2
	}
	return 1
}

// inspectHost asks the kernel what it can do.
func inspectHost(cgroups int) ocispec.Host {
	host := ocispec.Host{LastCapability: 40, MaxFiles: 1 << 20}
	if text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if last, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			host.LastCapability = last
		}
	}
	// runc cannot give more than it has, which is containerd's; ours stands for it.
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		host.MaxFiles = files.Max
	}
	// The root of version 2 has no such file itself.
	swap := filepath.Join(cgroupRoot, "*", "memory.swap.max")
	if cgroups == 1 {
		swap = filepath.Join(cgroupRoot, "memory", "memory.memsw.limit_in_bytes")
	}
	found, err := filepath.Glob(swap)
	host.LimitsSwap = err == nil && len(found) > 0
	return host
}

// RemoveCgroupParent removes the control group that containers' are made in, which nobody does with the last of them. It
// stays where others have theirs in it.
func (r *Runtime) RemoveCgroupParent() error {
	parents := []string{filepath.Join(cgroupRoot, r.options.CgroupParent)}
	if r.cgroups == 1 {
		var err error
		if parents, err = filepath.Glob(filepath.Join(cgroupRoot, "*", r.options.CgroupParent)); err != nil {
			return fmt.Errorf("find control groups %s: %w", r.options.CgroupParent, err)
		}
	}
	var failed []error
	for _, parent := range parents {
		err := unix.Rmdir(parent)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
			failed = append(failed, &fs.PathError{Op: "remove control group", Path: parent, Err: err})
		}
	}
	return errors.Join(failed...)
}

// memoryKills returns how many processes of a control group the kernel killed for want of memory.
func memoryKills(version int, cgroup string) uint64 {
	path := filepath.Join(cgroupRoot, cgroup, "memory.events")
	if version == 1 {
		path = filepath.Join(cgroupRoot, "memory", cgroup, "memory.oom_control")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0 // no group, no kills: the container never started, or nothing counts memory here
	}
	return parseMemoryKills(string(text))
}

// parseMemoryKills finds the count in memory.oom_control or memory.events, which both call it oom_kill.
func parseMemoryKills(text string) uint64 {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "oom_kill" {
			kills, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return 0
			}
			return kills
		}
	}
	return 0
}

// firstProcess finds the process of a control group that is number 1 in a process namespace of its own, as every container's is;
// 0 where there is none. starts says that it is runc yet, which waits to become the container's program.
func firstProcess(version int, cgroup string) (pid uint32, starts bool) {
	for _, pid := range processes(version, cgroup) {
		status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		if err != nil {
			continue // it has ended
		}
		var name, state string
		var numbers []string // one for each namespace, from this one inwards
		for line := range strings.Lines(string(status)) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(line), ":"); key {
			case "Name":
				name = strings.TrimSpace(value)
			case "State":
				state = strings.TrimSpace(value)
			case "NSpid":
				numbers = strings.Fields(value)
			}
		}
		if len(numbers) == 2 && numbers[1] == "1" && !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X") {
			return uint32(pid), strings.HasPrefix(name, "runc:[")
		}
	}
	return 0, false
}

// processes are those of a control group.
func processes(version int, cgroup string) (pids []int) {
	lists := []string{filepath.Join(cgroupRoot, cgroup, "cgroup.procs")}
	if version == 1 { // it is in every hierarchy that there is
		lists, _ = filepath.Glob(filepath.Join(cgroupRoot, "*", cgroup, "cgroup.procs"))
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
		if len(pids) > 0 {
			break
		}
	}
	return pids
}
