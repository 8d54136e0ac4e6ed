package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/cuemby/warren/internal/agent"
	"github.com/cuemby/warren/internal/agent/membership"
	"github.com/cuemby/warren/internal/agent/overlay/wireguard"
	"github.com/cuemby/warren/internal/daemonflags"
	"github.com/cuemby/warren/internal/metrics"
	"github.com/cuemby/warren/internal/tracing"
)

// flags is the single definition of what can be said to an agent: as a flag, as WARREN_AGENT_… in the
// environment, or as a key of the configuration file. The first of these that says it wins.
type flags struct {
	Config daemonflags.ConfigFile `default:"/etc/warren/agent.yaml" env:"WARREN_AGENT_CONFIG" placeholder:"FILE" help:"YAML file with any of these flags as keys, without the dashes. The default file may be missing."`

	DataDir string `type:"path" default:"/var/lib/warren/agent" placeholder:"DIR" help:"What must survive a reboot: the node's identity, its assignments, its tasks' output."`
	RunDir  string `type:"path" default:"/run/warren/agent" placeholder:"DIR" help:"What must survive a restart of the agent: the containers' pipes and small files."`

	Socket string `default:"/run/warren/agent.sock" placeholder:"PATH" help:"Unix socket for warrenctl on this machine; root and the group warren may use it."`

	JoinToken     string   `placeholder:"TOKEN" help:"Join the cluster that this token is of, as soon as a --manager lets this machine in. Better in the environment, or in a file, than on the command line, which others can read."`
	JoinTokenFile string   `type:"path" placeholder:"FILE" help:"A file with the token. Without either, systemd's credential join-token is looked for. Without any, the agent waits for warrenctl cluster join."`
	Manager       []string `placeholder:"HOST:PORT" help:"A manager to join at, and to try beside those that the cluster tells. Repeat it for each."`

	Hostname string            `placeholder:"NAME" help:"The node's name. Default: the machine's."`
	Label    map[string]string `placeholder:"KEY=VALUE" help:"A label of this node for placement constraints, as engine.labels.KEY. Repeat it for each."`

	ContainerdAddress   string   `default:"/run/containerd/containerd.sock" placeholder:"PATH" help:"containerd's socket."`
	ContainerdNamespace string   `default:"warren" placeholder:"NAME" help:"containerd's namespace for this agent's containers. Agents that share a containerd need one each."`
	Snapshotter         string   `default:"overlayfs" placeholder:"NAME" help:"containerd's snapshotter for root file systems."`
	CgroupParent        string   `default:"/warren" placeholder:"PATH" help:"Control group above those of the containers."`
	InsecureRegistry    []string `placeholder:"HOST[:PORT]|CIDR" help:"A registry to speak to by plain HTTP; those on this machine's loopback always are. Repeat it for each."`
	DockerConfig        string   `default:"/root/.docker/config.json" placeholder:"FILE" help:"Docker config.json with the credentials of registries. It may be missing."`

	ImageRetention retention `default:"24h" placeholder:"DURATION" help:"How long an image that was pulled for a task stays when no task uses it any more. On a disk that is fuller than 85 % those go before that, the longest unused first. 0: images stay until warrenctl system prune removes them."`

	Wireguard       string `default:"auto" enum:"auto,kernel,userspace" placeholder:"KIND" help:"Whose WireGuard connects this node to others: the kernel's, or that of a process beside the agent (userspace), as kernels without one need it. One of ${enum}."`
	WireguardSocket string `default:"${wireguard}" placeholder:"PATH" help:"Where that process listens: warren-wireguard.socket starts it when it is asked for."`
	PacketRules     string `default:"auto" enum:"auto,nftables,iptables" placeholder:"KIND" help:"What balances connections in the kernel. One of ${enum}."`

	MetricsAddr string `default:"${metrics}" placeholder:"HOST:PORT" help:"Where Prometheus reads metrics, as http://HOST:PORT/metrics, without TLS: see docs/metrics.md. Empty: nowhere."`

	MaxParallelStarts int     `default:"${starts}" placeholder:"N" help:"How many containers are started at once; further ones wait their turn. The default grows with the processors."`
	ReserveCPU        float64 `name:"reserve-cpu" default:"0" placeholder:"CPUS" help:"Processors kept back from tasks, such as 0.5."`
	ReserveMemory     size    `default:"0" placeholder:"SIZE" help:"Memory kept back from tasks, such as 512m."`

	daemonflags.Tracing
	daemonflags.Logging
	Version bool `env:"-" help:"Print the version."`
}

// defaultMetricsAddr is that of the flag.
const defaultMetricsAddr = "127.0.0.1:7423"

// program is what the flags are of.
func program() daemonflags.Program {
	return daemonflags.Program{
		Name:        "warren-agent",
		Description: "The Warren agent runs the containers that the managers assign to this machine. As \"warren-agent wireguard\" it is the process of the WireGuard device instead, which has a --help of its own; \"warren-agent disconnect\", with the agent stopped, takes down what agents have left up of the cluster's network.",
		Env:         "WARREN_AGENT",
		Vars: map[string]string{
			"wireguard": wireguard.DefaultSocket,
			"metrics":   defaultMetricsAddr,
			// 4 to 8 at a time is best on two processors; more of them bear more.
			"starts": strconv.Itoa(min(max(8, 4*runtime.NumCPU()), 32)),
		},
	}
}

// Validate checks what was said as a whole.
func (f *flags) Validate() error {
	if f.Version {
		return nil
	}
	for _, manager := range f.Manager {
		if err := membership.CheckAddr(manager); err != nil {
			return fmt.Errorf("--manager %w", err)
		}
	}
	if err := metrics.CheckAddr(f.MetricsAddr); err != nil {
		return err
	}
	if err := f.tracing().Validate(); err != nil {
		return err
	}
	if f.JoinToken != "" && f.JoinTokenFile != "" {
		return errors.New("--join-token and --join-token-file: give one of them")
	}
	if f.JoinToken != "" {
		if _, err := membership.ParseToken(f.JoinToken); err != nil {
			return fmt.Errorf("--join-token: %w", err)
		}
	}
	if (f.JoinToken != "" || f.JoinTokenFile != "") && len(f.Manager) == 0 {
		return errors.New("a join token and no manager to join at: give --manager HOST:PORT, or WARREN_AGENT_MANAGER, or manager in " + string(f.Config))
	}
	if f.Hostname != "" && !hostname.MatchString(f.Hostname) {
		return fmt.Errorf("--hostname %q: it must be letters, digits and . _ -, beginning and ending with a letter or digit", f.Hostname)
	}
	for key := range f.Label {
		if key == "" || strings.ContainsAny(key, "=! \t\n") {
			return fmt.Errorf("--label %q: it must be KEY=VALUE, with a key that has no blanks", key)
		}
	}
	if !namespace.MatchString(f.ContainerdNamespace) {
		return fmt.Errorf("--containerd-namespace %q: it must be words of letters and digits, joined by . _ or -", f.ContainerdNamespace)
	}
	if path.Clean(f.CgroupParent) != f.CgroupParent || !path.IsAbs(f.CgroupParent) || f.CgroupParent == "/" {
		return fmt.Errorf("--cgroup-parent %q: it must be an absolute path below /, such as /warren", f.CgroupParent)
	}
	if f.MaxParallelStarts < 1 {
		return fmt.Errorf("--max-parallel-starts %d: it must be at least 1", f.MaxParallelStarts)
	}
	return nil
}

var (
	hostname = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)
	// namespace is what containerd takes as one.
	namespace = regexp.MustCompile(`^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$`)
)

// credential is the join token among the credentials that systemd has handed to the service; empty where
// there is none.
func credential() string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return ""
	}
	path := filepath.Join(dir, "join-token")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// tracing names the node as it is listed.
func (f *flags) tracing() tracing.Options {
	host := f.Hostname
	if host == "" {
		host, _ = os.Hostname() // whose failure ends the agent elsewhere
	}
	return f.Tracing.Options("warren-agent", host)
}

func (f *flags) agent(logger *slog.Logger) agent.Config {
	tokenFile := f.JoinTokenFile
	if f.JoinToken == "" && tokenFile == "" && len(f.Manager) > 0 {
		tokenFile = credential()
	}
	return agent.Config{
		DataDir:             f.DataDir,
		RunDir:              f.RunDir,
		Socket:              f.Socket,
		JoinToken:           f.JoinToken,
		JoinTokenFile:       tokenFile,
		Managers:            f.Manager,
		Hostname:            f.Hostname,
		Labels:              f.Label,
		ReserveCPUs:         f.ReserveCPU,
		ReserveMemory:       int64(f.ReserveMemory),
		ContainerdAddress:   f.ContainerdAddress,
		ContainerdNamespace: f.ContainerdNamespace,
		Snapshotter:         f.Snapshotter,
		CgroupParent:        f.CgroupParent,
		InsecureRegistries:  f.InsecureRegistry,
		DockerConfig:        f.DockerConfig,
		ImageRetention:      time.Duration(f.ImageRetention),
		MaxParallelStarts:   f.MaxParallelStarts,
		WireGuard:           f.Wireguard,
		WireGuardSocket:     f.WireguardSocket,
		PacketRules:         f.PacketRules,
		MetricsAddr:         f.MetricsAddr,
		MetricsOptional:     f.MetricsAddr == defaultMetricsAddr, // several agents may share a machine
		Tracing:             f.tracing(),
		Logger:              logger,
	}
}

// size is a number of bytes, written as people do: 512m, 2GiB.
type size int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *size) UnmarshalText(text []byte) error {
	bytes, err := units.RAMInBytes(string(text))
	if err != nil || bytes < 0 {
		return fmt.Errorf("%q is not a size: write it as 512m or 2g", text)
	}
	*s = size(bytes)
	return nil
}

// retention is how long something stays, 0 for ever.
type retention time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *retention) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if days, is := strings.CutSuffix(string(text), "d"); is {
		var n float64
		n, err = strconv.ParseFloat(days, 64)
		d = time.Duration(n * float64(24*time.Hour))
	}
	if err != nil || d < 0 {
		return fmt.Errorf("it must be a time such as 24h or 7d, or 0 for ever, not %q", text)
	}
	*r = retention(d)
	return nil
}
