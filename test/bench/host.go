package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/cuemby/warren/test/image"
)

// host is this machine made ready: a containerd of our own and the image in a registry on loopback.
type host struct {
	dir        string
	containerd *process
	registry   *httptest.Server
	image      string
	client     *client.Client
}

// warrenNamespace and floorNamespace keep the two contestants' containers apart in one containerd.
const (
	warrenNamespace = "warren"
	floorNamespace  = "floor"
)

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
	h.registry = httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	h.image = strings.TrimPrefix(h.registry.URL, "http://") + "/hello:1"
	images, err := image.Build(ctx, "1")
	if err != nil {
		return nil, err
	}
	if err := image.Push(ctx, images["1"], h.image, h.registry.Client().Transport); err != nil {
		return nil, err
	}
	// Both have the image before anything is timed: pulling is not what is compared.
	for _, ns := range []string{warrenNamespace, floorNamespace} {
		if err := h.pull(namespaces.WithNamespace(ctx, ns)); err != nil {
			return nil, fmt.Errorf("pull into namespace %s: %w", ns, err)
		}
	}
	return h, nil
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
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchLocalhost)),
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

func (h *host) close() error {
	var errs []error
	if h.client != nil {
		errs = append(errs, h.client.Close())
	}
	if h.containerd != nil {
		errs = append(errs, h.containerd.stop())
	}
	if h.registry != nil {
		h.registry.Close()
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
	log, err := os.CreateTemp(dir, filepath.Base(name)+"-*.log")
	if err != nil {
		return nil, err
	}
	p := &process{command: exec.CommandContext(context.Background(), name, args...), log: log}
	p.command.Stdout, p.command.Stderr = log, log
	// A benchmark that is itself killed takes its daemons along.
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.command.Start(); err != nil {
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
