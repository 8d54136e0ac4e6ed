package runtime

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Info describes what containers run on.
type Info struct {
	ContainerdVersion string
	// RuncVersion is empty where runc does not say.
	RuncVersion string
	// DiskBytes and DiskFreeBytes are of the file system that holds images and containers; 0 where
	// containerd does not say where that is.
	DiskBytes, DiskFreeBytes uint64
	// CgroupVersion is 1 or 2.
	CgroupVersion int
}

// Info asks containerd and runc about themselves.
func (r *Runtime) Info(ctx context.Context) (Info, error) {
	info := Info{CgroupVersion: r.cgroups, RuncVersion: runcVersion(ctx)}
	err := r.do(ctx, func(ctx context.Context) error {
		version, err := r.client.Version(ctx)
		if err != nil {
			return err
		}
		info.ContainerdVersion = version.Version
		plugins, err := r.client.IntrospectionService().Plugins(ctx,
			"type==io.containerd.snapshotter.v1,id=="+r.options.Snapshotter)
		if err != nil {
			return err
		}
		for _, plugin := range plugins.GetPlugins() {
			info.DiskBytes, info.DiskFreeBytes = diskSize(plugin.GetExports()["root"])
		}
		return nil
	})
	if err != nil {
		return Info{}, fmt.Errorf("describe containerd: %w", err)
	}
	return info, nil
}

func diskSize(path string) (whole, free uint64) {
	var fs unix.Statfs_t
	if path == "" || unix.Statfs(path, &fs) != nil {
		return 0, 0
	}
	return fs.Blocks * uint64(fs.Bsize), fs.Bavail * uint64(fs.Bsize)
}

// runcVersion asks the binary, which no API tells of.
func runcVersion(ctx context.Context) string {
	output, err := exec.CommandContext(ctx, "runc", "--version").Output()
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(output), "\n")
	return strings.TrimSpace(strings.TrimPrefix(first, "runc version "))
}
