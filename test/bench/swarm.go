package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/test/image"
)

// measureSwarm times Docker Swarm at the same task as measureStart, where dockerd is installed: a
// service by image id on the host's network, from its creation to all replicas running.
func measureSwarm(ctx context.Context, b *bench) (err error) {
	if _, err := exec.LookPath("dockerd"); err != nil {
		fmt.Println("  left out: dockerd is not installed")
		return nil
	}
	s, err := startSwarm(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, n := range []int{1, 50} {
		var times []time.Duration
		for round := range b.rounds {
			took, err := s.round(ctx, fmt.Sprintf("swarm-%d-%d", n, round), n)
			if err != nil {
				return err
			}
			times = append(times, took)
		}
		b.row(fmt.Sprintf("swarm_start_%d_ms", n), milliseconds(median(times)), "ms", "Docker Swarm, the same service")
	}
	return nil
}

// swarm is a Docker Engine of our own in swarm mode.
type swarm struct {
	dir    string
	daemon *process
	http   *http.Client
	image  string
	// bridged says that swarm's bridge was there before.
	bridged bool
}

// swarmBridge is the bridge that an engine in swarm mode makes.
const swarmBridge = "docker_gwbridge"

func startSwarm(ctx context.Context) (*swarm, error) {
	dir, err := os.MkdirTemp("", "warren-bench-swarm-")
	if err != nil {
		return nil, err
	}
	s := &swarm{dir: dir}
	_, absent := net.InterfaceByName(swarmBridge)
	s.bridged = absent == nil
	s.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.socket())
	}}}
	s.daemon, err = start(dir, "dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "-H", "unix://"+s.socket(), "--iptables=false", "--ip6tables=false", "--bridge=none")
	if err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		return nil, fmt.Errorf("start swarm: %w\n%s", errors.Join(err, s.close()), s.daemon.output())
	}
	return s, nil
}

func (s *swarm) prepare(ctx context.Context) error {
	if err := until(ctx, "dockerd answers", func() (bool, error) {
		_, err := s.docker(ctx, "version")
		return err == nil, nil
	}); err != nil {
		return err
	}
	images, err := image.Build(ctx, "1")
	if err != nil {
		return err
	}
	archive := filepath.Join(s.dir, "hello.tar")
	if err := image.Save(images["1"], "hello:1", archive); err != nil {
		return err
	}
	if _, err := s.docker(ctx, "load", "-i", archive); err != nil {
		return err
	}
	if s.image, err = s.docker(ctx, "image", "inspect", "-f", "{{.Id}}", "hello:1"); err != nil {
		return err
	}
	_, err = s.docker(ctx, "swarm", "init", "--advertise-addr", "127.0.0.1")
	return err
}

func (s *swarm) socket() string { return filepath.Join(s.dir, "docker.sock") }

func (s *swarm) docker(ctx context.Context, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "docker", args...)
	command.Env = append(os.Environ(), "DOCKER_HOST=unix://"+s.socket())
	output, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", args[0], err, bytes.TrimSpace(output))
	}
	return strings.TrimSpace(string(output)), nil
}

func (s *swarm) round(ctx context.Context, name string, n int) (time.Duration, error) {
	begin := time.Now()
	_, err := s.docker(ctx, "service", "create", "--detach", "--no-resolve-image", "--network", "host",
		"--replicas", strconv.Itoa(n), "--name", name, s.image, "sleep")
	if err != nil {
		return 0, err
	}
	if err := s.wait(ctx, name, n); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	if _, err := s.docker(ctx, "service", "rm", name); err != nil {
		return 0, err
	}
	return took, s.wait(ctx, "", 0)
}

// wait asks every few milliseconds until n containers run; no service name asks for all containers.
func (s *swarm) wait(ctx context.Context, service string, n int) error {
	filters := `{}`
	if service != "" {
		filters = fmt.Sprintf(`{"label":["com.docker.swarm.service.name=%s"],"status":["running"]}`, service)
	}
	address := "http://docker/v1.41/containers/json?all=1&filters=" + url.QueryEscape(filters)
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		response, err := s.http.Do(request)
		if err != nil {
			return err
		}
		var containers []struct{ ID string }
		err = errors.Join(json.NewDecoder(response.Body).Decode(&containers), response.Body.Close())
		if err != nil {
			return err
		}
		if len(containers) == n {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("service %q did not come to %d containers in two minutes", service, n)
}

func (s *swarm) close() error {
	// The containers end with the swarm; leaving it tells dockerd to remove them.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := s.docker(ctx, "swarm", "leave", "--force")
	errs := []error{err, s.wait(ctx, "", 0), s.daemon.stop()}
	// What dockerd leaves behind: the mount of its host network namespace, and swarm's bridge.
	mounts, err := filepath.Glob(filepath.Join(s.dir, "exec", "netns", "*"))
	errs = append(errs, err)
	for _, mount := range mounts {
		errs = append(errs, unix.Unmount(mount, unix.MNT_DETACH))
	}
	if _, err := net.InterfaceByName(swarmBridge); err == nil && !s.bridged {
		errs = append(errs, exec.CommandContext(ctx, "ip", "link", "delete", swarmBridge).Run())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
