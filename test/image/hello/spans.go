package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"time"

	"github.com/cuemby/warren/internal/tracing/tracetest"
)

// takeSpans is a receiver of spans, which tells what it has taken.
func takeSpans(ctx context.Context, _ io.Writer, args []string) error {
	if err := required(args, "the port"); err != nil {
		return err
	}
	server := &http.Server{Addr: ":" + args[0], Handler: tracetest.NewReceiver(), ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	log.Printf("taking spans on port %s", args[0])
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
