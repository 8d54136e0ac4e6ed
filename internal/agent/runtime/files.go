package runtime

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/cuemby/warren/internal/agent/runtime/ocispec"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// writeFiles makes the files to be mounted into a container and returns all of them, in.Files' init
// included. On the node's network the node's own files serve.
func (r *Runtime) writeFiles(in ocispec.Input) (ocispec.Files, error) {
	files := in.Files
	hostname, err := ocispec.Hostname(in.Names, in.Spec.GetContainer())
	if err != nil {
		return files, err
	}
	if err := os.MkdirAll(r.containerPath(in.ID), 0o711); err != nil {
		return files, fmt.Errorf("make the container's folder: %w", err)
	}
	files.Hostname = r.containerPath(in.ID, "hostname")
	if err := os.WriteFile(files.Hostname, []byte(hostname+"\n"), 0o644); err != nil {
		return files, fmt.Errorf("write hostname file: %w", err)
	}
	if in.Spec.GetNetwork() == warrenv1.NetworkMode_NETWORK_MODE_HOST {
		files.Hosts = existing("/etc/hosts")
		files.ResolvConf = existing("/etc/resolv.conf")
		return files, nil
	}
	files.Hosts = r.containerPath(in.ID, "hosts")
	hosts := fmt.Sprintf("127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", hostname)
	if err := os.WriteFile(files.Hosts, []byte(hosts), 0o644); err != nil {
		return files, fmt.Errorf("write hosts file: %w", err)
	}
	return files, nil
}

// existing returns the file a path leads to, or nothing.
func existing(path string) string {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	return target
}
