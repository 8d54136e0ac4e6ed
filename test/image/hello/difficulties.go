package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func exit(_ context.Context, _ io.Writer, args []string) error {
	status, err := optional(args, 0, 0, strconv.Atoi)
	if err != nil {
		return err
	}
	return statusError(status)
}

func crash(ctx context.Context, _ io.Writer, args []string) error {
	after, err := optional(args, 0, 0, time.ParseDuration)
	if err != nil {
		return err
	}
	if wait(ctx, after) {
		return errors.New("crashing, as asked")
	}
	return nil
}

func takeMemory(ctx context.Context, _ io.Writer, _ []string) error {
	const step = 8 << 20
	var held [][]byte
	for ctx.Err() == nil {
		block := make([]byte, step)
		for i := 0; i < step; i += os.Getpagesize() {
			block[i] = 1
		}
		held = append(held, block)
	}
	return fmt.Errorf("told to stop while holding %d MiB", len(held)*step>>20)
}

func ignoreTerm(context.Context, io.Writer, []string) error {
	signal.Ignore(syscall.SIGTERM)
	log.Print("not ending on SIGTERM")
	select {}
}
