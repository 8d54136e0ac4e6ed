package ocispec

import (
	"fmt"
	"slices"
	"strings"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Kernel parameters of System V IPC, which belong to the IPC namespace every container has of its own.
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
	"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

// buildSysctls refuses parameters that would reach beyond the container.
func buildSysctls(sysctls map[string]string, network warrenv1.NetworkMode) (map[string]string, error) {
	if len(sysctls) == 0 {
		return nil, nil
	}
	built := make(map[string]string, len(sysctls))
	for key, value := range sysctls {
		// Both spellings of sysctl(8) are good.
		name := strings.ReplaceAll(key, "/", ".")
		switch {
		case strings.HasPrefix(name, "net."):
			if network == warrenv1.NetworkMode_NETWORK_MODE_HOST {
				return nil, fmt.Errorf("sysctl %s: with network host it would change the node itself; set it on the node, or use another network", key)
			}
		case strings.HasPrefix(name, "fs.mqueue."), slices.Contains(ipcSysctls, name):
		default:
			return nil, fmt.Errorf("sysctl %s: not a parameter of the container's own namespaces (net.*, fs.mqueue.*, kernel.shm*, kernel.msg*, kernel.sem); set it on the node", key)
		}
		built[name] = value
	}
	return built, nil
}
