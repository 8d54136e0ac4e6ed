package runtime

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cuemby/warren/internal/agent/logs"
	"github.com/cuemby/warren/internal/agent/runtime/ocispec"
)

// Options say where containerd is and how to use it.
type Options struct {
	// Address is containerd's socket.
	Address string
	// Namespace is containerd's name for what is ours; default "warren".
	Namespace string
	// Snapshotter keeps the containers' root file systems; default "overlayfs".
	Snapshotter string
	// StateDir holds pipes, mounted files, and images while they are looked into. It must outlive the
	// agent's process, not a reboot, and be this agent's alone.
	StateDir string
	// CgroupParent is the control group above those of the containers, such as /warren.
	CgroupParent string
	// InsecureRegistries are spoken to by plain HTTP: host, host:port, or an address range (CIDR) for
	// registries named by address. This machine's loopback always is.
	InsecureRegistries []string
	// DockerConfig is the path of a Docker config.json with registry credentials; it may be missing.
	DockerConfig string
	// InitBinary is the program that becomes process 1 of containers that ask for an init: the agent's
	// own, see package initproc. Empty: they are refused.
	InitBinary string
	// Logs takes the containers' output.
	Logs *logs.Store
	// Keeper holds the containers' pipes while the agent is away; nil: nobody does.
	Keeper Keeper
	Logger *slog.Logger
}

// Runtime is the node's containers. Its methods may be called at the same time, for one container
// one at a time.
type Runtime struct {
	options   Options
	logger    *slog.Logger
	client    *client.Client
	run       string // of the agent, unlike any other
	cgroups   int    // their version
	host      ocispec.Host
	images    imageCache
	insecure  insecureRegistries
	collector *collector
	silence   *log.Entry

	mu         sync.Mutex
	containers map[string]*output // whose output is being read
	// The process whose exit is of interest, by container: 0 while there is none. Containers from before
	// the agent started are not in it; any exit of theirs is told.
	pids map[string]uint32
}

// Open returns the runtime. It does not fail where containerd is down: it connects when there is
// something to ask.
func Open(ctx context.Context, o Options) (*Runtime, error) {
	if o.Namespace == "" {
		o.Namespace = "warren"
	}
	if o.Snapshotter == "" {
		o.Snapshotter = "overlayfs"
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Logs == nil {
		return nil, errors.New("open runtime: a log store is needed")
	}
	if o.Keeper == nil {
		o.Keeper = keptNothing{}
	}
	insecureRegistries, err := parseInsecureRegistries(o.InsecureRegistries)
	if err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(o.StateDir, "containers"), 0o711); err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	c, err := client.New(o.Address, client.WithDefaultNamespace(o.Namespace), client.WithDefaultRuntime(shim), client.WithDialOpts(dialOptions()))
	if err != nil {
		return nil, fmt.Errorf("open runtime: containerd at %s: %w", o.Address, err)
	}
	cgroups := cgroupVersion()
	r := &Runtime{
		options:    o,
		logger:     o.Logger,
		client:     c,
		run:        rand.Text(),
		cgroups:    cgroups,
		host:       inspectHost(cgroups),
		images:     newImageCache(),
		insecure:   insecureRegistries,
		containers: make(map[string]*output),
		pids:       make(map[string]uint32),
		silence:    logrus.NewEntry(&logrus.Logger{Out: io.Discard, Formatter: new(logrus.TextFormatter), Level: logrus.PanicLevel}),
	}
	if err := r.unmountImages(); err != nil {
		r.logger.Warn("the last run of the agent left an image mounted", "error", err)
	}
	r.collector = startCollector(context.WithoutCancel(ctx), r.collectGarbage)
	r.collector.poke() // the last run of the agent may have left something
	return r, nil
}

// expect says which process of a container is of interest now.
func (r *Runtime) expect(id string, pid uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pids[id] = pid
}

func (r *Runtime) expectAny(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pids, id)
}

// expects tells whether the exit of a container's process is news. It comes without a pid where containerd could not clean up
// after a shim that died.
func (r *Runtime) expects(id string, pid uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	expected, known := r.pids[id]
	return !known || expected != 0 && (pid == expected || pid == 0)
}

// shim is containerd's name for the runtime that keeps each container's process.
const shim = "io.containerd.runc.v2"

// dialOptions make a restart of containerd short: it is looked for several times a second, and calls
// made meanwhile wait for it.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 250 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", trimUnix(address))
		}),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
	}
}

func trimUnix(address string) string {
	const scheme = "unix://"
	if len(address) > len(scheme) && address[:len(scheme)] == scheme {
		return address[len(scheme):]
	}
	return address
}

// Close stops reading the containers' output, which waits in its pipes from then on, and disconnects.
// Containers run on.
func (r *Runtime) Close() error {
	r.collector.stop()
	r.mu.Lock()
	outputs := r.containers
	r.containers = make(map[string]*output)
	r.mu.Unlock()
	for _, o := range outputs {
		o.close()
	}
	if err := r.client.Close(); err != nil {
		return fmt.Errorf("close runtime: %w", err)
	}
	return nil
}

// context speaks for our namespace, and keeps the client library from printing: what it has to say is in
// its errors.
func (r *Runtime) context(ctx context.Context) context.Context {
	return log.WithLogger(namespaces.WithNamespace(ctx, r.options.Namespace), r.silence)
}

// do runs one operation against containerd, again where containerd went away under it: operations
// are written to be repeated.
func (r *Runtime) do(ctx context.Context, operation func(context.Context) error) error {
	ctx = r.context(ctx)
	for {
		err := operation(ctx)
		if err == nil || !errdefs.IsUnavailable(err) {
			return err
		}
		r.logger.Debug("containerd went away during a call; trying again", "error", err)
		// The next call waits for the connection. Where containerd answers that something else is
		// unavailable, this keeps from asking without pause.
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
