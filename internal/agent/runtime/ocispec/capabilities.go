package ocispec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Every capability by its number in linux/capability.h.
var capabilityNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// The set users of Docker know.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD",
	"CAP_AUDIT_WRITE", "CAP_SETFCAP",
}

// buildCapabilities applies what is added and dropped to the default set; a name given on both sides is
// dropped, and ALL on one side leaves the other to name the exceptions.
func buildCapabilities(add, drop []string, last int) (*specs.LinuxCapabilities, error) {
	known := capabilityNames[:min(last+1, len(capabilityNames))]
	added, addAll, err := parseCapabilities("cap_add", add, known)
	if err != nil {
		return nil, err
	}
	dropped, dropAll, err := parseCapabilities("cap_drop", drop, known)
	if err != nil {
		return nil, err
	}
	set := []string{}
	for _, name := range known {
		base := slices.Contains(defaultCapabilities, name)
		switch {
		case slices.Contains(dropped, name):
			continue
		case slices.Contains(added, name), addAll, base && !dropAll:
			set = append(set, name)
		}
	}
	// Not inheritable and not ambient: a program that gives up root gives these up as well.
	return &specs.LinuxCapabilities{Bounding: set, Effective: set, Permitted: set}, nil
}

func parseCapabilities(field string, given, known []string) (names []string, all bool, err error) {
	for _, text := range given {
		name := strings.ToUpper(text)
		if name == "ALL" || name == "CAP_ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if !slices.Contains(known, name) {
			return nil, false, fmt.Errorf("%s: this node's kernel has no capability %s; capabilities(7) lists them", field, text)
		}
		names = append(names, name)
	}
	return names, all, nil
}
