package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	createTime = 3 * time.Second // how long each caller count creates services
	maxCallers = 16
	floorTime  = time.Second // how long the log alone is written for comparison
	entryBytes = 600         // about what the entry of one create holds
	listed     = 1000
)

// measureAPI counts service creates per second, each durable when it is answered, and times lists. The
// services have no replicas: what is measured is the path from the call to the disk and back.
func measureAPI(ctx context.Context, b *bench) error {
	if err := b.logs(); err != nil {
		return err
	}
	for _, callers := range []int{1, maxCallers} {
		if err := b.creates(ctx, callers); err != nil {
			return err
		}
	}
	return b.lists(ctx)
}

// logs counts what the disk below allows: entries a second in the raft log alone, one and a batch at a
// time. Disks differ, and the same one from hour to hour.
func (b *bench) logs() (err error) {
	dir, err := os.MkdirTemp("", "warren-bench-log-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	log, err := raftboltdb.New(raftboltdb.Options{
		Path: filepath.Join(dir, "floor.db"), BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	index := uint64(0)
	for _, together := range []int{1, maxCallers} {
		written, begin := 0, time.Now()
		for time.Since(begin) < floorTime {
			batch := make([]*raft.Log, together)
			for i := range batch {
				index++
				batch[i] = &raft.Log{Index: index, Term: 1, Data: make([]byte, entryBytes)}
			}
			if err := log.StoreLogs(batch); err != nil {
				return err
			}
			written += together
		}
		b.row(fmt.Sprintf("log_entries_per_s_%d", together), float64(written)/time.Since(begin).Seconds(), "/s",
			"floor: entries in the raft log alone, durable")
	}
	return nil
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
				if err := c.create(ctx, hostSpec(fmt.Sprintf("api-%d", serial.Add(1)), "hello:1", 0)); err != nil {
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
		if err := c.create(ctx, hostSpec(fmt.Sprintf("list-%04d", i), "hello:1", 1)); err != nil {
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
