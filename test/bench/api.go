package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	createTime = 3 * time.Second // how long each caller count creates services
	listed     = 1000
)

// measureAPI counts service creates per second, each durable when it is answered, and times lists. The
// services have no replicas: what is measured is the path from the call to the disk and back.
func measureAPI(ctx context.Context, b *bench) error {
	for _, callers := range []int{1, 16} {
		if err := b.creates(ctx, callers); err != nil {
			return err
		}
	}
	return b.lists(ctx)
}

func (b *bench) creates(ctx context.Context, callers int) (err error) {
	c, err := b.startManager(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	var serial atomic.Int64
	var group errgroup.Group
	begin := time.Now()
	for range callers {
		group.Go(func() error {
			for time.Since(begin) < createTime {
				if err := c.create(ctx, spec(fmt.Sprintf("api-%d", serial.Add(1)), "hello:1", 0)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	rate := float64(serial.Load()) / time.Since(begin).Seconds()
	b.row(fmt.Sprintf("creates_per_s_%d", callers), rate, "/s", "service creates, durable, over the unix socket")
	return nil
}

func (b *bench) lists(ctx context.Context) (err error) {
	c, err := b.startManager(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for i := range listed {
		if err := c.create(ctx, spec(fmt.Sprintf("list-%04d", i), "hello:1", 1)); err != nil {
			return err
		}
	}
	var api, cli []time.Duration
	for range 4 * b.rounds {
		begin := time.Now()
		page, err := c.services.ListServices(ctx, connect.NewRequest(&warrenv1.ListServicesRequest{}))
		if err != nil {
			return err
		}
		api = append(api, time.Since(begin))
		if len(page.Msg.GetServices()) != listed {
			return fmt.Errorf("listed %d services, not %d", len(page.Msg.GetServices()), listed)
		}
		begin = time.Now()
		ls := exec.CommandContext(ctx, filepath.Join(b.bin, "warrenctl"), "--socket", c.socket(), "service", "ls")
		ls.Stdout = io.Discard
		if err := ls.Run(); err != nil {
			return fmt.Errorf("warrenctl service ls: %w", err)
		}
		cli = append(cli, time.Since(begin))
	}
	b.row("list_1000_ms", milliseconds(median(api)), "ms", "list 1,000 services through the API")
	b.row("list_1000_cli_ms", milliseconds(median(cli)), "ms", "the same by warrenctl service ls, as a whole process")
	return nil
}
