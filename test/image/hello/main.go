// Hello is the program in the image that the demo, the tests and the benchmarks run as a service.
//
//	hello [serve]          serve HTTP on $PORT (8080): the machine's name and $VERSION; logs each request
//	hello log [N] [EVERY]  print N numbered lines, alternately on stdout and stderr, then do nothing;
//	                       without N, or with -1, print without end
//	hello exit N           end with status N
//	hello crash D          run for the duration D, then end with status 1
//	hello oom              take memory until the kernel ends it
//	hello ignore-term      run, and do not end on SIGTERM
//	hello sleep [D]        run for the duration D, or until told to stop
//	hello env [DIR...]     print what it finds itself in (arguments, environment, names, user, limits;
//	                       what each DIR holds, and whether it can be written to), then do nothing
//
// Except for ignore-term, SIGTERM and SIGINT end it at once with status 0.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	log.SetPrefix("hello: ")
	err := run(os.Args[1:])
	if err == nil {
		return
	}
	log.Print(err)
	status, asked := errors.AsType[statusError](err)
	if !asked {
		status = 1
	}
	os.Exit(int(status))
}

// statusError asks for the program to end with a status.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("ending with status %d, as asked", int(s)) }

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	command := "serve"
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "serve":
		return serve(ctx)
	case "log":
		lines, err := optional(args, 0, -1, strconv.Atoi)
		if err != nil {
			return err
		}
		every, err := optional(args, 1, 0, time.ParseDuration)
		if err != nil {
			return err
		}
		return logLines(ctx, lines, every)
	case "exit":
		status, err := optional(args, 0, 0, strconv.Atoi)
		if err != nil {
			return err
		}
		return statusError(status)
	case "crash":
		after, err := optional(args, 0, 0, time.ParseDuration)
		if err != nil {
			return err
		}
		if wait(ctx, after) {
			return errors.New("crashing, as asked")
		}
	case "oom":
		return takeMemory(ctx)
	case "ignore-term":
		signal.Ignore(syscall.SIGTERM)
		log.Print("not ending on SIGTERM")
		select {}
	case "sleep":
		forever := time.Duration(1<<63 - 1)
		length, err := optional(args, 0, forever, time.ParseDuration)
		if err != nil {
			return err
		}
		wait(ctx, length)
	case "env":
		if err := describe(os.Stdout, args); err != nil {
			return err
		}
		<-ctx.Done()
	default:
		return fmt.Errorf("unknown command %q", command)
	}
	return nil
}

// optional parses the argument at index, where there is one.
func optional[T any](args []string, index int, otherwise T, parse func(string) (T, error)) (T, error) {
	if index >= len(args) {
		return otherwise, nil
	}
	return parse(args[index])
}

// wait waits for d and says whether it passed in full.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func serve(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	version, port := os.Getenv("VERSION"), os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s, version %s\n", host, version)
		log.Printf("%s %s from %s", r.Method, r.URL.Path, r.RemoteAddr)
	})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+port)
	if err != nil {
		return err
	}
	log.Printf("version %s listening on port %s", version, port)
	stopped := context.AfterFunc(ctx, func() { server.Close() })
	defer stopped()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	log.Print("told to stop")
	return nil
}

// logLines prints numbered lines, all at once when every is 0, and stays until told to stop.
func logLines(ctx context.Context, lines int, every time.Duration) error {
	streams := []*os.File{os.Stdout, os.Stderr}
	for i := 1; (lines < 0 || i <= lines) && ctx.Err() == nil; i++ {
		if _, err := fmt.Fprintf(streams[(i+1)%2], "line %d\n", i); err != nil {
			return err
		}
		wait(ctx, every)
	}
	<-ctx.Done()
	return nil
}

func takeMemory(ctx context.Context) error {
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
