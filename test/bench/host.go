package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/cuemby/warren/test/image"
)

// host is this machine made ready: a containerd of our own, and a network apart from the machine's, with a
// registry that has the image.
//
// Agents and their manager live on that network, a namespace for each machine they play: an agent lays bridges,
// routes and rules, and this machine's own are to stay as they are. containerd is in the machine's network
// namespace, and so are containers on "the host's network", Warren's and the floor's alike.
type host struct {
	dir        string
	containerd *process
	underlay   *underlay
	registry   *http.Server
	served     chan error
	image      string
	client     *client.Client
}

// The contestants' containers are kept apart in one containerd, and so are those of several agents.
const floorNamespace = "floor"

func warrenNamespace(node int) string { return fmt.Sprintf("warren-%d", node) }

// maxNodes is how many agents there are at most.
const maxNodes = 3

// host returns the machine, which is made at the first call.
func (b *bench) host(ctx context.Context) (*host, error) {
	if b.machine != nil {
		return b.machine, nil
	}
	dir, err := os.MkdirTemp("", "warren-bench-")
	if err != nil {
		return nil, err
	}
	h := &host{dir: dir}
	b.machine = h
	if err := h.startContainerd(ctx); err != nil {
		return nil, err
	}
	if h.underlay, err = newUnderlay(); err != nil {
		return nil, err
	}
	if err := h.serveImage(ctx); err != nil {
		return nil, err
	}
	// All have the image before anything is timed: pulling is not what is compared.
	for _, ns := range h.namespaces() {
		if err := h.pull(namespaces.WithNamespace(ctx, ns)); err != nil {
			return nil, fmt.Errorf("pull into namespace %s: %w", ns, err)
		}
	}
	return h, nil
}

func (h *host) namespaces() []string {
	all := []string{floorNamespace}
	for node := range maxNodes {
		all = append(all, warrenNamespace(node+1))
	}
	return all
}

func (h *host) registryAddress() string { return switchAddress + ":5000" }

// serveImage starts the registry and gives it the image.
func (h *host) serveImage(ctx context.Context) error {
	l, err := listen(ctx, h.underlay.handle, h.registryAddress())
	if err != nil {
		return err
	}
	h.registry = &http.Server{
		Handler:           registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		ReadHeaderTimeout: time.Minute,
	}
	h.served = make(chan error, 1)
	go func() { h.served <- h.registry.Serve(l) }()
	images, err := image.Build(ctx, "1")
	if err != nil {
		return err
	}
	h.image = h.registryAddress() + "/hello:1"
	transport := h.underlay.transport()
	defer transport.CloseIdleConnections()
	return image.Push(ctx, images["1"], h.image, transport)
}

func (h *host) startContainerd(ctx context.Context) error {
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		filepath.Join(h.dir, "containerd"), filepath.Join(h.dir, "state"), h.address())
	path := filepath.Join(h.dir, "containerd.toml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return err
	}
	var err error
	if h.containerd, err = start(h.dir, "containerd", "--config", path, "--log-level", "warn"); err != nil {
		return err
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		if h.client, err = client.New(h.address(), client.WithTimeout(time.Second)); err == nil {
			if _, err = h.client.Version(ctx); err == nil {
				return nil
			}
			err = errors.Join(err, h.client.Close())
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("containerd did not start: %w\n%s", err, h.containerd.output())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (h *host) address() string { return filepath.Join(h.dir, "containerd.sock") }

func (h *host) pull(ctx context.Context) error {
	transport := h.underlay.transport()
	defer transport.CloseIdleConnections()
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts),
			docker.WithClient(&http.Client{Transport: transport})),
	})
	_, err := h.client.Pull(ctx, h.image, client.WithPullUnpack, client.WithResolver(resolver))
	return err
}

// quiet waits until no container of the namespace is left, so that one round's clean-up is not
// counted into the next.
func (h *host) quiet(ctx context.Context, namespace string) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	deadline := time.Now().Add(time.Minute)
	for {
		left, err := h.client.Containers(ctx)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d containers of namespace %s are still there after a minute", len(left), namespace)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// clear removes what containers of a namespace a measurement that failed has left.
func (h *host) clear(ctx context.Context, namespace string) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	left, err := h.client.Containers(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range left {
		if task, err := c.Task(ctx, nil); err == nil {
			_, err = task.Delete(ctx, client.WithProcessKill)
			errs = append(errs, err)
		}
		errs = append(errs, c.Delete(ctx, client.WithSnapshotCleanup))
	}
	return errors.Join(errs...)
}

// endShims ends what is left of our containerd's shims and what they run. One is left, of which containerd itself knows
// nothing any more, where an agent was stopped in the middle of a start or a removal.
func (h *host) endShims() error {
	programs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range programs {
		line, err := os.ReadFile(path)
		args := strings.Split(string(line), "\x00")
		if err != nil || !strings.HasPrefix(filepath.Base(args[0]), "containerd-shim") || !slices.Contains(args, h.address()) {
			continue // it has ended meanwhile, or is none of ours
		}
		pid := filepath.Base(filepath.Dir(path))
		children, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, one := range append(strings.Fields(string(children)), pid) {
			number, err := strconv.Atoi(one)
			if err == nil {
				err = syscall.Kill(number, syscall.SIGKILL)
			}
			if !errors.Is(err, syscall.ESRCH) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func (h *host) close() error {
	var errs []error
	if h.client != nil {
		// Containers outlive containerd.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, ns := range h.namespaces() {
			errs = append(errs, h.clear(ctx, ns))
		}
		errs = append(errs, h.client.Close())
	}
	if h.containerd != nil {
		errs = append(errs, h.containerd.stop(), h.endShims(), unmountBelow(h.dir))
	}
	if h.registry != nil {
		errs = append(errs, h.registry.Close())
		if err := <-h.served; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	if h.underlay != nil {
		errs = append(errs, h.underlay.close())
	}
	return errors.Join(append(errs, os.RemoveAll(h.dir))...)
}

// process is a program that the benchmark runs.
type process struct {
	command *exec.Cmd
	log     *os.File
}

// start runs a program whose output goes to a file in dir.
func start(dir, name string, args ...string) (*process, error) {
	return startWith(func(f func() error) error { return f() }, dir, name, args...)
}

// start runs a program in the namespace.
func (n *namespace) start(dir, name string, args ...string) (*process, error) {
	return startWith(n.do, dir, name, args...)
}

// startWith runs a program as a child of whichever thread do has it started by.
func startWith(do func(func() error) error, dir, name string, args ...string) (*process, error) {
	log, err := os.CreateTemp(dir, filepath.Base(name)+"-*.log")
	if err != nil {
		return nil, err
	}
	p := &process{command: exec.CommandContext(context.Background(), name, args...), log: log}
	p.command.Stdout, p.command.Stderr = log, log
	// A benchmark that is itself killed takes its daemons along.
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := do(p.command.Start); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	return p, nil
}

func (p *process) pid() int { return p.command.Process.Pid }

// output returns the end of what the program has printed.
func (p *process) output() string {
	all, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(all[max(0, len(all)-4096):])
}

// stop ends the program and waits for it.
func (p *process) stop() error {
	defer p.log.Close()
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	killer := time.AfterFunc(10*time.Second, func() { _ = p.command.Process.Kill() })
	defer killer.Stop()
	if err := p.command.Wait(); err != nil {
		if _, ended := errors.AsType[*exec.ExitError](err); !ended {
			return err
		}
	}
	return nil
}

// residentMB returns the program's resident memory in MB (10^6 bytes).
func (p *process) residentMB() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			return kib * 1024 / 1e6, nil
		}
	}
	return 0, errors.New("no VmRSS in /proc status")
}
