package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cuemby/warren/internal/agent/control"
	"github.com/cuemby/warren/internal/agent/facts"
	"github.com/cuemby/warren/internal/agent/fdstore"
	"github.com/cuemby/warren/internal/agent/logs"
	"github.com/cuemby/warren/internal/agent/membership"
	"github.com/cuemby/warren/internal/agent/metrics"
	"github.com/cuemby/warren/internal/agent/overlay"
	"github.com/cuemby/warren/internal/agent/overlay/names"
	"github.com/cuemby/warren/internal/agent/overlay/rules"
	"github.com/cuemby/warren/internal/agent/overlay/wireguard"
	"github.com/cuemby/warren/internal/agent/prober"
	"github.com/cuemby/warren/internal/agent/runtime"
	"github.com/cuemby/warren/internal/agent/session"
	"github.com/cuemby/warren/internal/agent/storage"
	"github.com/cuemby/warren/internal/agent/store"
	"github.com/cuemby/warren/internal/agent/supervisor"
	"github.com/cuemby/warren/internal/agent/traces"
	"github.com/cuemby/warren/internal/agent/usage"
	"github.com/cuemby/warren/internal/dataformat"
	scrape "github.com/cuemby/warren/internal/metrics"
	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/tracing"
	"github.com/cuemby/warren/internal/unixsocket"
)

// firstWord is how long the tasks of a machine that has booted wait for a manager's word: longer than it takes to connect where
// there is one, and short beside the boot where there is none.
const firstWord = 2 * time.Second

// Config is what an operator says about an agent.
type Config struct {
	// DataDir keeps what must survive a reboot, RunDir what must survive a restart of the agent.
	DataDir, RunDir string
	// Socket is the path of the unix socket for those who administer this machine.
	Socket string
	// Managers are addresses, HOST:PORT, to try beside those that the cluster tells.
	Managers []string
	// JoinToken, or what is in the file JoinTokenFile, makes the machine join by itself; both may be empty.
	JoinToken, JoinTokenFile string
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
	// ImageRetention is how long an image stays that no task uses any more; 0 for ever.
	ImageRetention time.Duration
	// MaxParallelStarts bounds how many containers are created and started at once.
	MaxParallelStarts int
	// WireGuard is which device to take, WireGuardSocket where the process of a device of userspace listens.
	WireGuard, WireGuardSocket string
	// PacketRules is what the packet rules are made of.
	PacketRules string
	// Status, if set, is told how the agent stands, in words, whenever that may have changed.
	Status func(string)
	// MetricsAddr is the host:port where Prometheus may read metrics, by plain HTTP; empty for none. MetricsOptional says that
	// the agent does without where the address is not to be had.
	MetricsAddr     string
	MetricsOptional bool
	// Tracing says where spans are sent, if anywhere.
	Tracing tracing.Options
	Logger  *slog.Logger
}

// Run is an agent's life. It returns when ctx ends, which stops no container, or when it cannot begin.
// ready is called once the agent does its work, whether or not it is a member of a cluster.
func Run(ctx context.Context, c Config, ready func()) (err error) {
	// Containers' mounts and pipes are named by these, from elsewhere than the agent's working folder.
	for _, dir := range []*string{&c.DataDir, &c.RunDir} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return fmt.Errorf("find the agent's folders: %w", err)
		}
	}
	if err := dataformat.Check(c.DataDir, "warren-agent", dataformat.Agent()); err != nil {
		return err
	}
	if err := dataformat.Record(c.DataDir, dataformat.Agent()); err != nil {
		return err
	}
	scrapes, err := scrape.Listen(ctx, c.MetricsAddr, c.MetricsOptional, c.Logger)
	if err != nil {
		return err
	}
	defer closing(&err, scrapes.Close)
	measured := metrics.New()
	tracer, stopTracing, err := c.traces(ctx)
	if err != nil {
		return err
	}
	defer closing(&err, stopTracing)
	state, err := store.Open(c.DataDir, c.Logger)
	if err != nil {
		return err
	}
	defer closing(&err, state.Close)

	member, err := membership.Open(membership.Options{Dir: c.DataDir, Record: state, Seeds: c.Managers, Logger: c.Logger})
	if err != nil {
		return err
	}
	outputDir := filepath.Join(c.DataDir, "logs")
	output, err := logs.Open(outputDir)
	if err != nil {
		return fmt.Errorf("open the tasks' output: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the agent's own program: %w", err)
	}
	kept := fdstore.Inherit()
	defer closing(&err, kept.Close)
	// Before the runtime, which lets go of whatever nobody has taken.
	asked := names.Recall(kept, c.Logger)
	defer asked.Close()
	about := c.runtime(output)
	about.InitBinary, about.Keeper = self, kept
	containerd, err := runtime.Open(ctx, about)
	if err != nil {
		return err
	}
	defer closing(&err, containerd.Close)
	engine := containers{containerd}
	probes, err := prober.New(prober.Options{Executor: engine, Observe: measured.Probed})
	if err != nil {
		return err
	}
	defer closing(&err, probes.Close)

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

	place := c.overlay(state, member, machine.Name())
	place.Sockets = asked
	network, err := overlay.Open(place)
	if err != nil {
		return err
	}

	socket, err := unixsocket.Listen(ctx, c.Socket, "warren-agent")
	if err != nil {
		return err
	}
	defer socket.Close() // again, where it has been served

	// The session ends before the supervisor, which it hands assignments to; both before what they use.
	networking, stopNetworking := context.WithCancel(context.WithoutCancel(ctx))
	var connecting sync.WaitGroup
	connecting.Go(func() { network.Run(networking) })
	defer connecting.Wait()
	defer stopNetworking()
	supervising, stopSupervising := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSupervising()
	supervisor, err := supervisor.Start(supervising, supervisor.Options{
		Runtime:           engine,
		Output:            output,
		Network:           places{network},
		Prober:            probes,
		Journal:           state,
		NodeID:            member.NodeID,
		Hostname:          machine.Name(),
		MaxParallelStarts: c.MaxParallelStarts,
		FirstWord:         firstWord,
		Resynced:          machine.Recheck,
		Observer:          measured,
		Tracer:            tracer,
		Logger:            c.Logger,
	})
	if err != nil {
		return err
	}
	defer supervisor.Wait()
	defer stopSupervising()

	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() {
		if err := machine.Watch(ctx); err != nil {
			c.Logger.Warn("changes of the machine's addresses go unseen until the next session", "error", err)
		}
	})

	look := inside{
		Meter: usage.New(usage.Sources{Tasks: supervisor.Look, Container: containerd.Usage}),
		Keeper: storage.New(storage.Options{
			Engine: containerd, Tasks: supervisor.Look, Retention: c.ImageRetention, DataDir: c.DataDir, OutputDir: outputDir, Logger: c.Logger,
		}),
	}
	watching.Go(func() { look.Run(ctx) })

	here := &node{
		ctx: ctx, membership: member, tasks: supervisor, disconnect: network.Remove, forget: state.Reset, status: c.Status, logger: c.Logger,
		hold: func(ctx context.Context, mine *pki.Credentials, standing func(string, error)) {
			session.Run(ctx, session.Options{
				Managers:  member,
				NodeID:    mine.Identity().Name,
				ClusterID: mine.Identity().Cluster,
				TLS:       member.Holder().ClientConfig,
				Fresh:     member.Fresh(),
				Tasks:     supervisor,
				Reports:   supervisor.Outbox(),
				Facts:     machine,
				Logs:      output,
				Network:   network,
				Inside:    look,
				Standing:  standing,
				Logger:    c.Logger,
			})
		},
	}
	var serving sync.WaitGroup
	var served error
	serving.Go(func() {
		defer cancel()
		served = control.Serve(ctx, socket, here, c.Logger)
	})
	measured.Ask(metrics.Sources{
		Tasks: supervisor.Look, Usage: containerd.Usage, Overlay: network.Figures, Connected: here.connected,
		CertificateExpires: func() time.Time {
			if mine := member.Holder().Get(); mine != nil {
				return mine.NotAfter()
			}
			return time.Time{}
		},
	})
	serving.Go(func() { scrapes.Serve(ctx, measured.Gatherer()) })
	unattended := membership.Unattended{Token: c.JoinToken, TokenFile: c.JoinTokenFile, Managers: c.Managers}
	if unattended.Given() {
		serving.Go(func() { member.JoinUnattended(ctx, unattended, here.cannotJoin) })
	}
	if id := member.NodeID(); id != "" {
		c.Logger.Info("agent started", "node", id, "hostname", machine.Name(), "managers", member.Addrs())
	} else {
		c.Logger.Info("agent started; it waits to join a cluster", "hostname", machine.Name(), "socket", c.Socket)
	}
	ready()
	here.run(ctx)
	serving.Wait()
	c.Logger.Info("agent leaves; its tasks run on")
	return served
}

// runtime says where containers live.
func (c Config) runtime(output *logs.Store) runtime.Options {
	return runtime.Options{
		Address:            c.ContainerdAddress,
		Namespace:          c.ContainerdNamespace,
		Snapshotter:        c.Snapshotter,
		StateDir:           c.RunDir,
		CgroupParent:       c.CgroupParent,
		InsecureRegistries: c.InsecureRegistries,
		DockerConfig:       c.DockerConfig,
		Logs:               output,
		Logger:             c.Logger,
	}
}

// traces begins to send spans where the configuration says so; else there is no tracer.
func (c Config) traces(ctx context.Context) (supervisor.Tracer, func() error, error) {
	if !c.Tracing.On() {
		return nil, func() error { return nil }, nil
	}
	tracer, err := tracing.Start(ctx, c.Tracing, c.Logger)
	if err != nil {
		return nil, nil, err
	}
	return traces.New(tracer, c.Tracing.Host), tracer.Close, nil
}

// overlay says what the overlay works with.
func (c Config) overlay(record overlay.Record, member *membership.Membership, hostname string) overlay.Options {
	return overlay.Options{
		Record:          record,
		NodeID:          member.NodeID,
		Hostname:        hostname,
		NamespaceDir:    filepath.Join(c.RunDir, "netns"),
		WireGuardSocket: c.WireGuardSocket,
		Kind:            wireguard.Kind(c.WireGuard),
		Backend:         rules.Backend(c.PacketRules),
		Manager: func() string {
			if addrs := member.Addrs(); len(addrs) > 0 {
				return addrs[0]
			}
			return ""
		},
		Logger: c.Logger,
	}
}

// Disconnect takes down what agents have left up of the cluster's network on this machine: links, rules, tasks' network
// namespaces. It fails where an agent runs.
func Disconnect(ctx context.Context, c Config) (err error) {
	state, err := store.Open(c.DataDir, c.Logger)
	if err != nil {
		return err
	}
	defer closing(&err, state.Close)
	member, err := membership.Open(membership.Options{Dir: c.DataDir, Record: state, Logger: c.Logger})
	if err != nil {
		return err
	}
	network, err := overlay.Open(c.overlay(state, member, c.Hostname))
	if err != nil {
		return err
	}
	defer closing(&err, network.Close)
	if err := network.TakeDown(ctx); err != nil {
		return fmt.Errorf("take down the overlay network: %w", err)
	}
	return nil
}

// inside is what may be looked at on this node.
type inside struct {
	*usage.Meter
	*storage.Keeper
}

// closing closes something at the end of a function that returns *err.
func closing(err *error, shut func() error) {
	if closeErr := shut(); *err == nil {
		*err = closeErr
	}
}
