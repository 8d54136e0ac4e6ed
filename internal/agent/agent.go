package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/cuemby/warren/internal/agent/facts"
	"github.com/cuemby/warren/internal/agent/fdstore"
	"github.com/cuemby/warren/internal/agent/logs"
	"github.com/cuemby/warren/internal/agent/runtime"
	"github.com/cuemby/warren/internal/agent/session"
	"github.com/cuemby/warren/internal/agent/store"
	"github.com/cuemby/warren/internal/agent/supervisor"
)

// Config is what an operator says about an agent.
type Config struct {
	// DataDir keeps what must survive a reboot, RunDir what must survive a restart of the agent.
	DataDir, RunDir string
	// Managers are the addresses to attend at, HOST:PORT.
	Managers []string
	// Hostname is the node's name; empty for the machine's own.
	Hostname string
	// Labels are matched by placement constraints as engine.labels.KEY.
	Labels map[string]string
	// ReserveCPUs and ReserveMemory are kept back from tasks: processors and bytes.
	ReserveCPUs   float64
	ReserveMemory int64
	// ContainerdAddress, ContainerdNamespace, Snapshotter and CgroupParent say where containers live.
	ContainerdAddress, ContainerdNamespace, Snapshotter, CgroupParent string
	// InsecureRegistries are spoken to by plain HTTP.
	InsecureRegistries []string
	// DockerConfig is a Docker config.json with the credentials of registries; it may be missing.
	DockerConfig string
	// MaxParallelStarts bounds how many containers are created and started at once.
	MaxParallelStarts int
	Logger            *slog.Logger
}

// Run is an agent's life. It returns when ctx ends, which stops no container, or when it cannot begin.
// ready is called once the agent does its work, whether or not it has reached a manager.
func Run(ctx context.Context, c Config, ready func()) (err error) {
	// Containers' mounts and pipes are named by these, from elsewhere than the agent's working folder.
	for _, dir := range []*string{&c.DataDir, &c.RunDir} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return fmt.Errorf("find the agent's folders: %w", err)
		}
	}
	state, err := store.Open(c.DataDir, c.Logger)
	if err != nil {
		return err
	}
	defer closing(&err, state.Close)

	output, err := logs.Open(filepath.Join(c.DataDir, "logs"))
	if err != nil {
		return fmt.Errorf("open the tasks' output: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the agent's own program: %w", err)
	}
	kept := fdstore.Inherit()
	defer closing(&err, kept.Close)
	containerd, err := runtime.Open(ctx, runtime.Options{
		Address:            c.ContainerdAddress,
		Namespace:          c.ContainerdNamespace,
		Snapshotter:        c.Snapshotter,
		StateDir:           c.RunDir,
		CgroupParent:       c.CgroupParent,
		InsecureRegistries: c.InsecureRegistries,
		DockerConfig:       c.DockerConfig,
		InitBinary:         self,
		Logs:               output,
		Keeper:             kept,
		Logger:             c.Logger,
	})
	if err != nil {
		return err
	}
	defer closing(&err, containerd.Close)
	engine := containers{containerd}

	machine, err := facts.New(facts.Options{
		Hostname:      c.Hostname,
		Labels:        c.Labels,
		ReserveCPUs:   c.ReserveCPUs,
		ReserveMemory: c.ReserveMemory,
		Engine:        engine.Info,
		Logger:        c.Logger,
	})
	if err != nil {
		return err
	}

	// The session ends before the supervisor, which it hands assignments to; both before what they use.
	supervising, stopSupervising := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSupervising()
	supervisor, err := supervisor.Start(supervising, supervisor.Options{
		Runtime:           engine,
		Output:            output,
		Journal:           state,
		NodeID:            state.NodeID(),
		Hostname:          machine.Name(),
		MaxParallelStarts: c.MaxParallelStarts,
		Resynced:          machine.Recheck,
		Logger:            c.Logger,
	})
	if err != nil {
		return err
	}
	defer supervisor.Wait()
	defer stopSupervising()

	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		if err := machine.Watch(ctx); err != nil {
			c.Logger.Warn("changes of the machine's addresses go unseen until the next session", "error", err)
		}
	})

	c.Logger.Info("agent started", "node", state.NodeID(), "hostname", machine.Name(), "managers", c.Managers)
	ready()
	session.Run(ctx, session.Options{
		Managers: c.Managers,
		Identity: state,
		Tasks:    supervisor,
		Reports:  supervisor.Outbox(),
		Facts:    machine,
		Logs:     output,
		Logger:   c.Logger,
	})
	c.Logger.Info("agent leaves; its tasks run on")
	return nil
}

// closing closes something at the end of a function that returns *err.
func closing(err *error, shut func() error) {
	if closeErr := shut(); *err == nil {
		*err = closeErr
	}
}
