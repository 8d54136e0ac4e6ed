package runtime

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/cuemby/warren/internal/agent/runtime/ocispec"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// writeFiles makes the files to be mounted into a container and returns all of them, in.Files' init
// included. On the node's network the node's own files serve.
func (r *Runtime) writeFiles(in ocispec.Input, place Place) (ocispec.Files, error) {
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
	if err := os.WriteFile(files.Hosts, []byte(hostsFile(hostname, place.Address)), 0o644); err != nil {
		return files, fmt.Errorf("write hosts file: %w", err)
	}
	if len(place.ResolvConf) > 0 {
		files.ResolvConf = r.containerPath(in.ID, "resolv.conf")
		if err := os.WriteFile(files.ResolvConf, place.ResolvConf, 0o644); err != nil {
			return files, fmt.Errorf("write resolv.conf: %w", err)
		}
	}
	return files, nil
}

// hostsFile has the container's name mean the address that others reach it by, where there is one: a program
// that tells others where it is looks there.
func hostsFile(hostname string, address netip.Addr) string {
	const loopback = "127.0.0.1\tlocalhost%s\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if !address.IsValid() {
		return fmt.Sprintf(loopback, " "+hostname)
	}
	return fmt.Sprintf(loopback, "") + fmt.Sprintf("%s\t%s\n", address, hostname)
}

// existing returns the file a path leads to, or nothing.
func existing(path string) string {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	return target
}
