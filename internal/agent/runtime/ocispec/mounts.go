package ocispec

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// buildMounts returns the mounts every container has, then Warren's own files, then the user's, outer
// folders before what is mounted inside them. A user's mount takes the place of any other of the same target.
func buildMounts(in Input) ([]specs.Mount, error) {
	var user []specs.Mount
	taken := make(map[string]bool)
	for _, m := range in.Spec.GetContainer().GetMounts() {
		mount, err := buildMount(in.Names, m)
		if err != nil {
			return nil, err
		}
		if taken[mount.Destination] {
			return nil, fmt.Errorf("mount %s: two mounts have this target", mount.Destination)
		}
		taken[mount.Destination] = true
		user = append(user, mount)
	}
	slices.SortStableFunc(user, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	own := append(standardMounts(), fileMounts(in)...)
	own = slices.DeleteFunc(own, func(m specs.Mount) bool { return taken[m.Destination] })
	return append(own, user...), nil
}

func buildMount(names Names, m *warrenv1.Mount) (specs.Mount, error) {
	target, err := names.Expand(m.GetTarget())
	if err != nil {
		return specs.Mount{}, fmt.Errorf("mount %s: target: %w", m.GetTarget(), err)
	}
	target = path.Clean(target)
	if !path.IsAbs(target) || target == "/" {
		return specs.Mount{}, fmt.Errorf("mount %s: target must be an absolute path below /", m.GetTarget())
	}
	if target == InitTarget {
		return specs.Mount{}, fmt.Errorf("mount %s: this path is Warren's own; choose another target", target)
	}
	access := "rw"
	if m.GetReadOnly() {
		access = "ro"
	}
	if m.GetType() == warrenv1.MountType_MOUNT_TYPE_TMPFS {
		mode := m.GetTmpfsMode()
		if mode == 0 {
			mode = 0o1777
		}
		options := []string{"nosuid", "nodev", "noexec", access, "mode=" + strconv.FormatUint(uint64(mode), 8)}
		if size := m.GetTmpfsSizeBytes(); size > 0 {
			options = append(options, "size="+strconv.FormatInt(size, 10))
		}
		return specs.Mount{Destination: target, Type: "tmpfs", Source: "tmpfs", Options: options}, nil
	}
	source, err := names.Expand(m.GetSource())
	if err != nil {
		return specs.Mount{}, fmt.Errorf("mount %s: source: %w", target, err)
	}
	if !path.IsAbs(source) {
		return specs.Mount{}, fmt.Errorf("mount %s: source %q must be an absolute path on the node", target, source)
	}
	return bind(path.Clean(source), target, access), nil
}

// fileMounts returns the mounts of the files that Warren keeps for the container.
func fileMounts(in Input) []specs.Mount {
	access := "rw"
	if in.Spec.GetNetwork() == warrenv1.NetworkMode_NETWORK_MODE_HOST {
		access = "ro" // these are the node's own files
	}
	var mounts []specs.Mount
	for _, file := range []struct{ source, target, access string }{
		{in.Files.Hosts, "/etc/hosts", access},
		{in.Files.Hostname, "/etc/hostname", "rw"},
		{in.Files.ResolvConf, "/etc/resolv.conf", access},
	} {
		if file.source != "" {
			mounts = append(mounts, bind(file.source, file.target, file.access))
		}
	}
	if in.Spec.GetContainer().GetInit() {
		mounts = append(mounts, bind(in.Files.Init, InitTarget, "ro"))
	}
	return mounts
}

func bind(source, target, access string) specs.Mount {
	return specs.Mount{
		Destination: target,
		Type:        "bind",
		Source:      source,
		Options:     []string{"rbind", "rprivate", access},
	}
}

func standardMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		// Programs read here how much memory and processor they may use.
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
}
