package main

import (
	"io"
	"log/slog"

	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/daemonflags"
	"github.com/cuemby/warren/internal/manager"
)

// flags is the single definition of what can be said to a manager: as a flag, as WARREN_MANAGER_… in
// the environment, or as a key of the configuration file. The first of these that says it wins.
type flags struct {
	Config daemonflags.ConfigFile `default:"/etc/warren/manager.yaml" env:"WARREN_MANAGER_CONFIG" placeholder:"FILE" help:"YAML file with any of these flags as keys, without the dashes. The default file may be missing."`

	DataDir string `type:"path" default:"/var/lib/warren/manager" placeholder:"DIR" help:"The manager's identity and the cluster's state."`
	Socket  string `default:"/run/warren/manager.sock" placeholder:"PATH" help:"Unix socket for warrenctl on this machine; root and the group warren may use it."`

	ListenAddr    string `default:"127.0.0.1:7420" placeholder:"HOST:PORT" help:"Where agents and remote users connect. Empty: nowhere but the unix socket."`
	AdvertiseAddr string `placeholder:"HOST:PORT" help:"Under what address others reach --listen-addr. Default: that address, or with 0.0.0.0 this machine's first."`
	Insecure      bool   `help:"Listen beyond this machine although nothing is encrypted or checked yet. Only for networks where everyone is trusted."`

	daemonflags.Logging
	Version bool `env:"-" help:"Print the version."`
}

// newParser makes the parser of f. exit is called where parsing itself was all there is to do.
func newParser(f *flags, stdout, stderr io.Writer, exit func(int)) (*kong.Kong, error) {
	return kong.New(f,
		kong.Name("warren-manager"),
		kong.Description("The Warren manager keeps the cluster's state, serves its API and decides what runs where."),
		kong.DefaultEnvars("WARREN_MANAGER"),
		kong.ValueFormatter(daemonflags.HelpWithDefault),
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
	)
}

// Validate implements kong's check of what was said as a whole.
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
		Insecure:      f.Insecure,
		Logger:        logger,
	}
}
