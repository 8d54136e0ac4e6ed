package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A client may send a request on a connection that is kept alive in the very moment in which the server
// closes it, and never hears an answer. So a server that is to stop closes no connection of its own
// accord: it goes on, and says with its next answer on each that the connection ends. Only a client that
// asks for nothing for maxIdle is left; it has no request on its way, as far as one can know.
const (
	maxIdle = 2 * time.Second
	// What is being answered then has as long as this.
	maxAnswer = 5 * time.Second
	// Whoever had clients may have some who were sent here and are about to connect, or have, and wait to be let
	// in: what is on its way then is as old as a busy machine is slow.
	quiet = 100 * time.Millisecond
)

func listenLate(ctx context.Context, w io.Writer, args []string) error {
	if err := required(args, "how long to wait"); err != nil {
		return err
	}
	late, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	if !wait(ctx, late) {
		return nil
	}
	return serve(ctx, w, nil)
}

func serve(ctx context.Context, _ io.Writer, _ []string) error {
	me, err := self()
	if err != nil {
		return err
	}
	port := cmp.Or(os.Getenv("PORT"), "8080")
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+port)
	if err != nil {
		return err
	}
	log.Printf("version %s listening on port %s", me.version, port)
	return serveOn(ctx, listener, me)
}

// serveOn serves until told to stop, and then until no client can be harmed by it.
func serveOn(ctx context.Context, listener net.Listener, me answerer) error {
	var open connections
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx.Err() != nil {
			w.Header().Set("Connection", "close")
		}
		if r.URL.Path == "/healthz" {
			tellHealth(w)
			return
		}
		fmt.Fprint(w, me.to(r.RemoteAddr))
		if r.URL.Path != "/quiet" {
			log.Printf("%s %s from %s", r.Method, r.URL.Path, r.RemoteAddr)
		}
	})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ConnState: open.note}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}

	log.Print("told to stop")
	ending := context.WithoutCancel(ctx)
	idle, cancel := context.WithTimeout(ending, maxIdle)
	defer cancel()
	open.awaitNone(idle, time.Now())
	answering, cancel := context.WithTimeout(ending, maxAnswer)
	defer cancel()
	err := server.Shutdown(answering)
	if err != nil {
		err = errors.Join(fmt.Errorf("stop serving: %w", err), server.Close())
	}
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// connections counts a server's connections.
type connections struct {
	open   atomic.Int64
	mu     sync.Mutex
	latest time.Time // when one was opened
}

func (c *connections) note(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.open.Add(1)
		c.mu.Lock()
		c.latest = time.Now()
		c.mu.Unlock()
	case http.StateClosed, http.StateHijacked:
		c.open.Add(-1)
	}
}

// awaitNone waits until there are no connections and it has been quiet, since it was told to stop and the latest
// came. A server that never had any is not waited for.
func (c *connections) awaitNone(ctx context.Context, told time.Time) {
	const lookAgain = 5 * time.Millisecond
	for {
		c.mu.Lock()
		latest := c.latest
		c.mu.Unlock()
		isQuiet := latest.IsZero() || time.Since(latest) >= quiet && time.Since(told) >= quiet
		if c.open.Load() == 0 && isQuiet || !wait(ctx, lookAgain) {
			return
		}
	}
}
