package usage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cuemby/warren/internal/agent/traffic"
)

// Machine is what the whole machine has used.
type Machine struct {
	// Ticks are all clock ticks of all processors since boot, Idle those in which they had nothing to do.
	Ticks, Idle uint64
	CPUs        int
	// Memory is what could not be had back at once, TotalMemory what there is: bytes.
	Memory, TotalMemory uint64
	// Received and Sent are bytes, by the links to the outside.
	Received, Sent uint64
}

func readMachine() (m Machine, err error) {
	stat, err := os.ReadFile("/proc/stat")
	if err == nil {
		err = m.parseStat(string(stat))
	}
	if err != nil {
		return Machine{}, fmt.Errorf("read what the processors did: %w", err)
	}
	memory, err := os.ReadFile("/proc/meminfo")
	if err == nil {
		err = m.parseMemory(string(memory))
	}
	if err != nil {
		return Machine{}, fmt.Errorf("read the use of memory: %w", err)
	}
	links, err := traffic.Here()
	if err != nil {
		return Machine{}, err
	}
	for _, name := range outer(links, "/sys/class/net") {
		m.Received += links[name].Received
		m.Sent += links[name].Sent
	}
	return m, nil
}

// parseStat reads lines as of /proc/stat: of all processors, cpu USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL, and
// then one of each. What follows steal is counted in user already.
func (m *Machine) parseStat(text string) error {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 6 || !strings.HasPrefix(fields[0], "cpu"):
			continue
		case fields[0] != "cpu":
			m.CPUs++
			continue
		}
		for i, field := range fields[1:min(len(fields), 9)] {
			n, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				return err
			}
			m.Ticks += n
			if i == 3 || i == 4 {
				m.Idle += n
			}
		}
	}
	if m.Ticks == 0 || m.CPUs == 0 {
		return errors.New("/proc/stat tells nothing of processors")
	}
	return nil
}

// parseMemory reads lines as of /proc/meminfo: NAME: NUMBER kB.
func (m *Machine) parseMemory(text string) error {
	found := map[string]uint64{}
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "MemTotal" && name != "MemAvailable" {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return err
		}
		found[name] = n << 10
	}
	if len(found) < 2 {
		return errors.New("/proc/meminfo does not tell MemTotal and MemAvailable")
	}
	m.TotalMemory = found["MemTotal"]
	m.Memory = m.TotalMemory - min(found["MemAvailable"], m.TotalMemory)
	return nil
}

// outer are the links to the outside: those that are devices of the machine, or where there is none, as within a
// container, those that belong to nothing else: what goes through bridges, tunnels and containers' links goes through
// one of these too, and would count twice.
func outer(links map[string]traffic.Traffic, sys string) []string {
	has := func(name, what string) bool {
		_, err := os.Lstat(filepath.Join(sys, name, what))
		return err == nil
	}
	var devices, others []string
	for name := range links {
		switch {
		case name == "lo":
		case has(name, "device"):
			devices = append(devices, name)
		case has(name, "master"), has(name, "bridge"), has(name, "tun_flags"), isKind(sys, name, "wireguard"):
		default:
			others = append(others, name)
		}
	}
	if len(devices) > 0 {
		return devices
	}
	return others
}

func isKind(sys, name, kind string) bool {
	text, err := os.ReadFile(filepath.Join(sys, name, "uevent"))
	return err == nil && strings.Contains(string(text), "DEVTYPE="+kind)
}
