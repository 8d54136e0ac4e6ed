package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a container has used and uses.
type Usage struct {
	// CPU is processor time, Throttled how long its limit has held it back.
	CPU, Throttled time.Duration
	// Memory is what could not be had back at once: without pages of files that are not in use. MemoryLimit is 0 for none.
	Memory, MemoryLimit uint64
	// MemoryKills are processes that the kernel killed for want of memory.
	MemoryKills uint64
}

// Usage reads what the control group of a container tells. It asks the kernel alone, so it is cheap; it fails
// for one that is not running.
func (r *Runtime) Usage(id string) (Usage, error) {
	return readUsage(cgroupRoot, r.cgroups, r.cgroup(id))
}

func readUsage(root string, version int, cgroup string) (u Usage, err error) {
	if version == 1 {
		err = u.readFirst(root, cgroup)
	} else {
		err = u.readSecond(filepath.Join(root, cgroup))
	}
	if err != nil {
		return Usage{}, fmt.Errorf("read the usage of %s: %w", cgroup, err)
	}
	return u, nil
}

// noLimit is from where on version 1 has no limit of memory: it tells the largest number of pages there is.
const noLimit = 1 << 60

func (u *Usage) readFirst(root, cgroup string) error {
	memory := filepath.Join(root, "memory", cgroup)
	spent, err := readNumber(filepath.Join(root, "cpuacct", cgroup, "cpuacct.usage"))
	if err != nil {
		return err
	}
	used, err := readNumber(filepath.Join(memory, "memory.usage_in_bytes"))
	if err != nil {
		return err
	}
	if limit, err := readNumber(filepath.Join(memory, "memory.limit_in_bytes")); err == nil && limit < noLimit {
		u.MemoryLimit = limit
	}
	u.CPU = time.Duration(spent)
	u.Throttled = time.Duration(readField(filepath.Join(root, "cpu", cgroup, "cpu.stat"), "throttled_time"))
	u.Memory = less(used, readField(filepath.Join(memory, "memory.stat"), "total_inactive_file"))
	u.MemoryKills = readField(filepath.Join(memory, "memory.oom_control"), "oom_kill")
	return nil
}

func (u *Usage) readSecond(dir string) error {
	stat, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return err
	}
	used, err := readNumber(filepath.Join(dir, "memory.current"))
	if err != nil {
		return err
	}
	if limit, err := readNumber(filepath.Join(dir, "memory.max")); err == nil { // else it is the word max
		u.MemoryLimit = limit
	}
	u.CPU = time.Duration(field(string(stat), "usage_usec")) * time.Microsecond
	u.Throttled = time.Duration(field(string(stat), "throttled_usec")) * time.Microsecond
	u.Memory = less(used, readField(filepath.Join(dir, "memory.stat"), "inactive_file"))
	u.MemoryKills = readField(filepath.Join(dir, "memory.events"), "oom_kill")
	return nil
}

func less(a, b uint64) uint64 { return a - min(a, b) }

func readNumber(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

// readField is field of a file, 0 where there is none.
func readField(path, name string) uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	return field(string(text), name)
}

// field finds the number behind a name in lines of such pairs; 0 where it is not there.
func field(text, name string) uint64 {
	for line := range strings.Lines(text) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key == name {
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
