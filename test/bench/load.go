package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/jointoken"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const (
	loadNodes    = 100
	loadServices = 10
	loadReplicas = 10_000 // of each service
)

// measureLoad fills a manager with 100,000 tasks that run on 100 nodes, and reads its memory. The nodes
// are sessions of this process which report every task they are given as running at once: real to the
// manager, and no burden on the machine but the reports.
func measureLoad(ctx context.Context, b *bench) (err error) {
	c, err := b.startManager(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	ctx, stop := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	defer func() {
		stop()
		if werr := group.Wait(); werr != nil && !errors.Is(werr, context.Canceled) {
			err = errors.Join(err, werr)
		}
	}()
	for i := range loadNodes {
		node, err := c.join(ctx)
		if err != nil {
			return err
		}
		group.Go(func() error { return node.attend(ctx, fmt.Sprintf("node-%03d", i)) })
	}
	begin := time.Now()
	for i := range loadServices {
		if err := c.create(ctx, hostSpec(fmt.Sprintf("load-%d", i), "hello:1", loadReplicas)); err != nil {
			return err
		}
	}
	for i := range loadServices {
		err := c.watch(ctx, fmt.Sprintf("load-%d", i), func(p *warrenv1.ServiceProgress) bool { return p.GetRunning() == loadReplicas })
		if err != nil {
			return err
		}
	}
	b.row("tasks_100k_s", time.Since(begin).Seconds(), "s", "from the first call to 100,000 tasks reported running")
	time.Sleep(settle)
	resident, err := c.manager.residentMB()
	if err != nil {
		return err
	}
	b.row("manager_rss_100k_mb", resident, "MB", "with 100,000 running tasks on 100 nodes")
	stop()
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return b.restart(c)
}

// restart kills the manager and times how long it takes until it answers for the cluster again.
func (b *bench) restart(c *cluster) error {
	ctx := context.Background()
	if err := c.manager.command.Process.Kill(); err != nil {
		return err
	}
	if err := c.manager.stop(); err != nil {
		return err
	}
	c.http.CloseIdleConnections()
	begin := time.Now()
	var err error
	if c.manager, err = c.startProcess(b.bin); err != nil {
		return err
	}
	err = until(ctx, "the manager leads again", func() (bool, error) {
		res, err := c.cluster.GetCluster(ctx, connect.NewRequest(&warrenv1.GetClusterRequest{}))
		return err == nil && res.Msg.GetTasks() == loadServices*loadReplicas, nil
	})
	b.row("manager_restart_100k_ms", milliseconds(time.Since(begin)), "ms", "from the start after a kill -9 to an answer with all 100,000 tasks")
	return err
}

// node is a member of the cluster that has no machine.
type node struct {
	id     string
	client warrenv1connect.SessionServiceClient
}

// join makes a node a member, with the token.
func (c *cluster) join(ctx context.Context) (*node, error) {
	text, err := c.membership.GetJoinToken(ctx, connect.NewRequest(&warrenv1.GetJoinTokenRequest{Role: warrenv1.Role_ROLE_AGENT}))
	if err != nil {
		return nil, err
	}
	token, err := jointoken.Parse(text.Msg.GetToken())
	if err != nil {
		return nil, err
	}
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	request, err := pki.NewRequest(key, time.Now())
	if err != nil {
		return nil, err
	}
	joined, err := warrenv1connect.NewMembershipServiceClient(overTLS(pki.PinnedConfig(token.Digest)), "https://"+c.addr).
		Join(ctx, connect.NewRequest(&warrenv1.JoinRequest{Token: text.Msg.GetToken(), Certificate: request}))
	if err != nil {
		return nil, err
	}
	mine, err := pki.New(key, joined.Msg.GetCertificate(), joined.Msg.GetRoots(), joined.Msg.GetBridge())
	if err != nil {
		return nil, err
	}
	client := warrenv1connect.NewSessionServiceClient(overTLS(pki.NewHolder(mine).ClientConfig()), "https://"+c.addr)
	return &node{id: joined.Msg.GetName(), client: client}, nil
}

func overTLS(config *tls.Config) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: protocols, TLSClientConfig: config}}
}

// attend is a node's session that reports each task it is given as running.
func (n *node) attend(ctx context.Context, hostname string) error {
	stream := n.client.Attend(ctx)
	hello := &warrenv1.Hello{NodeId: n.id, Facts: &warrenv1.NodeFacts{
		Hostname: hostname, Os: "linux", Arch: "amd64",
		Resources: &warrenv1.Resources{NanoCpus: 64e9, MemoryBytes: 1 << 38},
	}}
	if err := stream.Send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Hello{Hello: hello}}); err != nil {
		return fmt.Errorf("%s: %w", hostname, err)
	}
	received := make(chan *warrenv1.AttendResponse)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for {
			m, err := stream.Receive()
			if err != nil {
				return err
			}
			select {
			case received <- m:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	group.Go(func() error {
		heartbeat := time.NewTicker(500 * time.Millisecond)
		defer heartbeat.Stop()
		for {
			var out *warrenv1.AttendRequest
			select {
			case m := <-received:
				out = running(m.GetAssignments())
			case <-heartbeat.C:
				out = &warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Heartbeat{Heartbeat: &warrenv1.Heartbeat{}}}
			case <-ctx.Done():
				return ctx.Err()
			}
			if out == nil {
				continue
			}
			if err := stream.Send(out); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
	})
	return group.Wait()
}

// running reports what was newly assigned as running; nil where nothing was.
func running(a *warrenv1.Assignments) *warrenv1.AttendRequest {
	report := &warrenv1.StatusReport{}
	for _, task := range a.GetTasks() {
		if task.GetTask().GetStatus().GetState() != warrenv1.TaskState_TASK_STATE_ASSIGNED {
			continue
		}
		now := timestamppb.Now()
		report.Tasks = append(report.Tasks, &warrenv1.TaskReport{
			TaskId: task.GetTask().GetMeta().GetId(),
			Status: &warrenv1.TaskStatus{
				State: warrenv1.TaskState_TASK_STATE_RUNNING, Attempt: 1, Since: now, StartedAt: now, Pid: 1,
				Serving: true, ContainerId: task.GetTask().GetMeta().GetId() + "-1",
				ImageDigest: "sha256:4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865",
			},
		})
	}
	if len(report.GetTasks()) == 0 {
		return nil
	}
	return &warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Report{Report: report}}
}
