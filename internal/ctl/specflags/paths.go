package specflags

import "strings"

// paths are the fields of requests and the flags they come from; a path also covers what is below it.
var paths = map[string]string{
	"spec.name":                             "--name",
	"spec.labels":                           "--label",
	"spec.replicated.replicas":              "--replicas",
	"replicas":                              "the number of replicas",
	"spec.task.container.image":             "IMAGE",
	"spec.task.container.command":           "--entrypoint",
	"spec.task.container.args":              "the arguments",
	"spec.task.container.env":               "--env",
	"spec.task.container.workdir":           "--workdir",
	"spec.task.container.user":              "--user",
	"spec.task.container.groups":            "--group",
	"spec.task.container.hostname":          "--hostname",
	"spec.task.container.mounts":            "--mount",
	"spec.task.container.labels":            "--container-label",
	"spec.task.container.cap_add":           "--cap-add",
	"spec.task.container.cap_drop":          "--cap-drop",
	"spec.task.container.ulimits":           "--ulimit",
	"spec.task.container.sysctls":           "--sysctl",
	"spec.task.container.stop_signal":       "--stop-signal",
	"spec.task.container.stop_grace_period": "--stop-grace-period",
	"spec.task.container.drain_period":      "--stop-drain-period",
	"spec.task.host_ports":                  "--publish",
	"spec.task.network":                     "--network",
	"spec.networks":                         "--network",
	"spec.endpoint.ports":                   "--publish",
	"spec.endpoint.mode":                    "--endpoint-mode",
	"spec.task.limits.nano_cpus":            "--limit-cpu",
	"spec.task.limits.memory_bytes":         "--limit-memory",
	"spec.task.limits.pids":                 "--limit-pids",
	"spec.task.reservations.nano_cpus":      "--reserve-cpu",
	"spec.task.reservations.memory_bytes":   "--reserve-memory",
	"spec.task.restart.delay":               "--restart-delay",
	"spec.task.restart.max_delay":           "--restart-max-delay",
	"spec.task.restart.window":              "--restart-window",
	"spec.task.log.max_size_bytes":          "--log-opt max-size",
	"spec.task.log.max_files":               "--log-opt max-file",
	"spec.placement.constraints":            "--constraint",
	"spec.placement.spread":                 "--placement-pref",
	"spec.placement.platforms":              "--platform",
	"spec.update.parallelism":               "--update-parallelism",
	"spec.update.delay":                     "--update-delay",
	"spec.heartbeat_interval":               "--heartbeat-interval",
	"spec.node_grace":                       "--node-grace",
	"spec.restart_grace":                    "--restart-grace",
	"spec.network.node_range":               "--node-range",
	"spec.network.node_prefix":              "--node-prefix",
	"spec.network.vip_range":                "--vip-range",
	"spec.network.wireguard_port":           "--wireguard-port",
	"spec.network.key_life":                 "--key-life",
	"spec.wireguard_endpoint":               "--wireguard-endpoint",
	"spec.task_history":                     "--task-history",
	"ttl":                                   "--ttl",
	"life":                                  "--ttl",
}

// FlagOf returns the flag that a field of a request comes from, followed by what the field's path
// says beyond it ("--env [2]", "--mount [0].target"); empty if no flag sets the field.
func FlagOf(path string) string {
	for end := len(path); end > 0; end = strings.LastIndexAny(path[:end], ".[") {
		flag, ok := paths[path[:end]]
		if !ok {
			continue
		}
		if rest := strings.TrimPrefix(path[end:], "."); rest != "" {
			return flag + " " + rest
		}
		return flag
	}
	return ""
}
