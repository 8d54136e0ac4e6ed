package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/cuemby/warren/internal/daemonflags"
	"github.com/cuemby/warren/internal/manager"
)

// flags is the single definition of what can be said to a manager: as a flag, as WARREN_MANAGER_… in
// the environment, or as a key of the configuration file. The first of these that says it wins.
type flags struct {
	Config daemonflags.ConfigFile `default:"/etc/warren/manager.yaml" env:"WARREN_MANAGER_CONFIG" placeholder:"FILE" help:"YAML file with any of these flags as keys, without the dashes. The default file may be missing."`

	DataDir string `type:"path" default:"/var/lib/warren/manager" placeholder:"DIR" help:"The manager's identity and the cluster's state."`
	Socket  string `default:"/run/warren/manager.sock" placeholder:"PATH" help:"Unix socket for warrenctl on this machine; root and the group warren may use it."`

	ListenAddr    string `default:":7420" placeholder:"HOST:PORT" help:"Where agents, users and the other managers connect, over TLS. Without a host: at every address of the machine, of IPv4 and IPv6. Empty: nowhere but the unix socket."`
	AdvertiseAddr string `placeholder:"HOST:PORT" help:"Under what address others reach --listen-addr. Default: that address, or with 0.0.0.0 this machine's first."`

	Join           []string `placeholder:"HOST:PORT" help:"A manager of the cluster to join, for unattended installs; with a token, and until it works. Repeat it for each."`
	JoinToken      string   `placeholder:"TOKEN" help:"The token to join with, from 'warrenctl cluster join-token manager'. Better in a file: the command line can be read by all."`
	JoinTokenFile  string   `type:"path" placeholder:"FILE" help:"A file with the token. Default: systemd's credential join-token, where there is one."`
	RaftMultiplier int      `default:"1" placeholder:"N" help:"Stretches how long managers wait for each other: 1 for one network, up to 10 for links that are slow or far. The same on every manager."`
	MetricsAddr    string   `default:"${metrics}" placeholder:"HOST:PORT" help:"Where Prometheus reads metrics, as http://HOST:PORT/metrics, without TLS: see docs/metrics.md. Empty: nowhere."`
	AuditLog       string   `type:"path" placeholder:"FILE" help:"File for the audit log, in JSON lines. The log has it in any case, with audit=true."`

	daemonflags.Tracing
	daemonflags.Logging
	Version bool `env:"-" help:"Print the version."`
}

// defaultMetricsAddr is that of the flag.
const defaultMetricsAddr = "127.0.0.1:7422"

// program is what the flags are of.
func program() daemonflags.Program {
	return daemonflags.Program{
		Name:        "warren-manager",
		Description: "The Warren manager keeps the cluster's state, serves its API and decides what runs where.",
		Env:         "WARREN_MANAGER",
		Vars:        map[string]string{"metrics": defaultMetricsAddr},
	}
}

// Validate checks what was said as a whole.
func (f *flags) Validate() error {
	if f.Version {
		return nil
	}
	return f.manager(nil).Validate()
}

func (f *flags) manager(logger *slog.Logger) manager.Options {
	return manager.Options{
		DataDir:       f.DataDir,
		Socket:        f.Socket,
		ListenAddr:    f.ListenAddr,
		AdvertiseAddr: f.AdvertiseAddr,
		Join:          f.Join,
		JoinToken:     f.joinToken(),

		RaftMultiplier: f.RaftMultiplier,
		MetricsAddr:    f.MetricsAddr,
		// Several managers may share a machine, and who has not asked for metrics does not miss them.
		MetricsOptional: f.MetricsAddr == defaultMetricsAddr,
		Tracing:         f.Tracing.Options("warren-manager", host()),
		AuditLog:        f.AuditLog,
		Logger:          logger,
	}
}

// host is this machine's name, as spans tell it.
func host() string {
	name, _ := os.Hostname() // which has none only where the kernel says so
	return name
}

// joinToken returns what reads the token to join with, nil where none was given. A file is read when the
// token is needed, so that it may come later and go again.
func (f *flags) joinToken() func() (string, error) {
	path := f.JoinTokenFile
	if path == "" && f.JoinToken == "" {
		credential := filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), "join-token")
		if _, err := os.Stat(credential); os.Getenv("CREDENTIALS_DIRECTORY") == "" || err != nil {
			return nil
		}
		path = credential
	}
	return func() (string, error) {
		if path == "" {
			return f.JoinToken, nil
		}
		text, err := daemonflags.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read the join token: %w", err)
		}
		return strings.TrimSpace(string(text)), nil
	}
}
