package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// cluster is a Warren under test: a manager, and agents where they are wanted.
type cluster struct {
	dir      string
	addr     string
	start    func(dir, name string, args ...string) (*process, error) // where the manager is
	machines []*namespace                                             // the agents', and the first is the manager's too
	manager  *process
	agents   []*agent
	closers  []io.Closer
	http     *http.Client
	cluster  warrenv1connect.ClusterServiceClient
	services warrenv1connect.ServiceServiceClient
	nodes    warrenv1connect.NodeServiceClient
	tasks    warrenv1connect.TaskServiceClient

	membership warrenv1connect.MembershipServiceClient
}

// startManager makes a cluster of one manager and no agent.
func (b *bench) startManager(ctx context.Context) (*cluster, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	return b.startManagerOn(ctx, nil, addr)
}

// startManagerOn makes a cluster of one manager, on a machine or on this one, and no agent.
func (b *bench) startManagerOn(ctx context.Context, machine *namespace, addr string) (*cluster, error) {
	dir, err := os.MkdirTemp("", "warren-bench-cluster-")
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir, addr: addr, start: start}
	if machine != nil {
		c.start = machine.start
	}
	if c.manager, err = c.startProcess(b.bin); err != nil {
		return nil, errors.Join(err, c.close())
	}
	c.http = unixClient(c.socket())
	plain := connect.WithAcceptCompression("gzip", nil, nil) // as warrenctl does on the socket
	c.cluster = warrenv1connect.NewClusterServiceClient(c.http, "http://manager", plain)
	c.services = warrenv1connect.NewServiceServiceClient(c.http, "http://manager", plain)
	c.nodes = warrenv1connect.NewNodeServiceClient(c.http, "http://manager", plain)
	c.tasks = warrenv1connect.NewTaskServiceClient(c.http, "http://manager", plain)
	c.membership = warrenv1connect.NewMembershipServiceClient(c.http, "http://manager", plain)
	err = until(ctx, "the manager answers", func() (bool, error) {
		_, err := c.cluster.GetVersion(ctx, connect.NewRequest(&warrenv1.GetVersionRequest{}))
		return err == nil, nil
	})
	if err == nil {
		_, err = c.cluster.InitCluster(ctx, connect.NewRequest(&warrenv1.InitClusterRequest{}))
	}
	if err != nil {
		said := c.manager.output()
		return nil, fmt.Errorf("start manager: %w\n%s", errors.Join(err, c.close()), said)
	}
	return c, nil
}

// startProcess starts the manager's process.
func (c *cluster) startProcess(bin string) (*process, error) {
	return c.start(c.dir, filepath.Join(bin, "warren-manager"),
		"--data-dir", filepath.Join(c.dir, "manager"), "--socket", c.socket(), "--listen-addr", c.addr)
}

// joinToken returns a file with the token by which an agent joins.
func (c *cluster) joinToken(ctx context.Context) (string, error) {
	res, err := c.membership.GetJoinToken(ctx, connect.NewRequest(&warrenv1.GetJoinTokenRequest{Role: warrenv1.Role_ROLE_AGENT}))
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.dir, "join-token")
	return path, os.WriteFile(path, []byte(res.Msg.GetToken()), 0o600)
}

func (c *cluster) socket() string { return filepath.Join(c.dir, "manager.sock") }

func (c *cluster) close() error {
	var errs []error
	for _, c := range c.closers {
		errs = append(errs, c.Close())
	}
	for _, a := range c.agents {
		errs = append(errs, a.close())
	}
	if c.manager != nil {
		errs = append(errs, c.manager.stop())
	}
	for _, m := range c.machines {
		errs = append(errs, m.close())
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// spec is a service of the benchmark's image whose tasks have an address on the overlay each, which is the
// default.
func spec(name, image string, replicas uint32) *warrenv1.ServiceSpec {
	return &warrenv1.ServiceSpec{
		Name: name,
		Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: replicas}},
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: image, Args: []string{"sleep"}}},
	}
}

// hostSpec is the same on the host's network, as the floor's containers are.
func hostSpec(name, image string, replicas uint32) *warrenv1.ServiceSpec {
	s := spec(name, image, replicas)
	s.Task.Network = warrenv1.NetworkMode_NETWORK_MODE_HOST
	return s
}

func (c *cluster) create(ctx context.Context, s *warrenv1.ServiceSpec) error {
	_, err := c.services.CreateService(ctx, connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: s}))
	return err
}

func (c *cluster) scale(ctx context.Context, name string, replicas uint32) error {
	_, err := c.services.ScaleService(ctx, connect.NewRequest(&warrenv1.ScaleServiceRequest{Ref: name, Replicas: replicas}))
	return err
}

// remove deletes a service and waits until it is gone.
func (c *cluster) remove(ctx context.Context, name string) error {
	if _, err := c.services.DeleteService(ctx, connect.NewRequest(&warrenv1.DeleteServiceRequest{Ref: name})); err != nil {
		return err
	}
	err := c.watch(ctx, name, func(*warrenv1.ServiceProgress) bool { return false })
	if connect.CodeOf(err) == connect.CodeNotFound {
		return nil
	}
	return err
}

// watch follows a service's progress until it is enough, or the service is gone.
func (c *cluster) watch(ctx context.Context, name string, enough func(*warrenv1.ServiceProgress) bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	stream, err := c.services.WatchService(ctx, connect.NewRequest(&warrenv1.WatchServiceRequest{Ref: name}))
	if err != nil {
		return err
	}
	defer stream.Close()
	var last *warrenv1.ServiceProgress
	for stream.Receive() {
		if last = stream.Msg().GetProgress(); stream.Msg().GetRemoved() || enough(last) {
			return nil
		}
	}
	if connect.CodeOf(stream.Err()) == connect.CodeNotFound {
		return stream.Err()
	}
	return fmt.Errorf("%s came no further than %v: %w", name, last, stream.Err())
}

// unixClient speaks HTTP/1.1 over a unix socket, as scripts and Docker's own clients do: a connection for
// each caller costs both sides less than streams of one connection.
func unixClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: maxCallers,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}

func freeAddress() (string, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// until asks again and again whether a daemon has come up; nothing that is timed uses it.
func until(ctx context.Context, what string, ready func() (bool, error)) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited 30 s in vain until %s", what)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
