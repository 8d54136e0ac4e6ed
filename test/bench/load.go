package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/id"
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
		group.Go(func() error { return attend(ctx, c.http, fmt.Sprintf("node-%03d", i)) })
	}
	begin := time.Now()
	for i := range loadServices {
		if err := c.create(ctx, spec(fmt.Sprintf("load-%d", i), "hello:1", loadReplicas)); err != nil {
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
	return nil
}

// attend is a node's session that reports each task it is given as running.
func attend(ctx context.Context, to *http.Client, hostname string) error {
	stream := warrenv1connect.NewSessionServiceClient(to, "http://manager").Attend(ctx)
	hello := &warrenv1.Hello{NodeId: id.New(), Facts: &warrenv1.NodeFacts{
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
				ContainerId: task.GetTask().GetMeta().GetId() + "-1",
				ImageDigest: "sha256:4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865",
			},
		})
	}
	if len(report.GetTasks()) == 0 {
		return nil
	}
	return &warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Report{Report: report}}
}
