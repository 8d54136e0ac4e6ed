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
	"spec.update.order":                     "--update-order",
	"spec.update.monitor":                   "--update-monitor",
	"spec.update.max_failure_ratio":         "--update-max-failure-ratio",
	"spec.update.failure_action":            "--update-failure-action",
	"spec.update.progress_deadline":         "--update-progress-deadline",
	"spec.update.max_unavailable":           "--update-max-unavailable",
	"spec.update.strategy":                  "--update-strategy",
	"spec.update.canary":                    "--update-canary",
	"spec.update.keep":                      "--update-keep",
	"spec.update.manual":                    "--update-manual",
	"spec.rollback.parallelism":             "--rollback-parallelism",
	"spec.rollback.progress_deadline":       "--update-progress-deadline",
	"spec.rollback.delay":                   "--rollback-delay",
	"spec.rollback.order":                   "--rollback-order",
	"spec.rollback.monitor":                 "--rollback-monitor",
	"spec.rollback.max_failure_ratio":       "--rollback-max-failure-ratio",
	"spec.rollback.failure_action":          "--rollback-failure-action",
	"spec.node_loss":                        "--on-node-loss",
	"spec.task.health.exec":                 "--health-cmd",
	"spec.task.health.http":                 "--health-http",
	"spec.task.health.http.method":          "--health-method",
	"spec.task.health.http.headers":         "--health-header",
	"spec.task.health.http.status":          "--health-status",
	"spec.task.health.http.body":            "--health-body",
	"spec.task.health.http.server_name":     "--health-server-name",
	"spec.task.health.tcp":                  "--health-tcp",
	"spec.task.health.grpc":                 "--health-grpc",
	"spec.task.health.interval":             "--health-interval",
	"spec.task.health.timeout":              "--health-timeout",
	"spec.task.health.start_period":         "--health-start-period",
	"spec.task.health.start_interval":       "--health-start-interval",
	"spec.task.health.retries":              "--health-retries",
	"spec.task.health.success_threshold":    "--health-success-threshold",
	"spec.task.health.on_failure":           "--health-on-failure",
	"drain_within":                          "--deadline",
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
