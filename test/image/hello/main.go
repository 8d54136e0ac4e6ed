// Hello is the program in the image that the demo, the tests and the benchmarks run as a service.
// It serves:
//
//	hello [serve]          serve HTTP on $PORT (8080): the machine's name, $VERSION and the client's
//	                       address; logs each request, but for those of /quiet and /healthz, which says
//	                       whether it is well. On SIGTERM it goes on until its clients have heard that
//	                       their connections are closing
//	hello listen-late D    do nothing for the duration D, then serve
//	hello udp PORT         answer UDP packets, saying as much
//	hello grpc PORT        answer the gRPC health checking protocol
//	hello sink PORT        take what send sends
//	hello spans PORT       take spans as OTLP posts them, answer GET / with all traces, as trees, and
//	                       GET /TRACE with that one
//	hello names HOST:PORT NAME=ADDRESS...
//	                       answer there DNS queries for the addresses of those names
//
// It is a client, with the container's resolver:
//
//	hello get URL [N]      N times, on a connection of its own each, print what is answered
//	hello get-each URL     do so once at each address that the name in the URL stands for, and see that the
//	                       server sees this one's own address
//	hello dns NAME [TYPE]  print what a name stands for, in order: A, SRV, or PTR of an address
//	hello udp-get HOST:PORT [N]
//	                       N times, from a port of its own each, print what is answered
//	hello udp-talk HOST:PORT D
//	                       send from one port for the duration D, every 10 ms; print who answered and
//	                       the longest silence
//	hello send HOST:PORT BYTES
//	                       send so many bytes to a sink, check that they arrived whole, print the rate
//	hello load URL --for D --connections N --keepalive=true|false
//	                       ask all the time; print the rate, what failed and who answered
//
// A client ends with status 1 when anything failed. It gets into difficulties:
//
//	hello exit N           end with status N
//	hello crash D          run for the duration D, then end with status 1
//	hello oom              take memory until the kernel ends it
//	hello ignore-term      run, and do not end on SIGTERM
//
// All in one container are well, or are not:
//
//	hello ail WORDS...     have them fall ill
//	hello recover          have them be well again
//	hello healthy          end with status 0 if they are well; else say what they suffer from, and end with 1
//
// And it tells what it sees:
//
//	hello log [N] [EVERY]  print N numbered lines, alternately on stdout and stderr, then do nothing;
//	                       without N, or with -1, print without end
//	hello sleep [D]        run for the duration D, or until told to stop
//	hello env [DIR...]     print what it finds itself in (arguments, environment, names, user, limits;
//	                       what each DIR holds, and whether it can be written to), then do nothing
//
// Except for serve and ignore-term, SIGTERM and SIGINT end it at once, with status 0 unless it is a client
// that something failed for.
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
	name := "serve"
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	command, known := commands[name]
	if !known {
		return fmt.Errorf("unknown command %q", name)
	}
	return command(ctx, os.Stdout, args)
}

// commands print what they have to say; what they log is about themselves.
var commands = map[string]func(ctx context.Context, w io.Writer, args []string) error{
	"serve":       serve,
	"listen-late": listenLate,
	"udp":         echoPackets,
	"grpc":        serveGRPC,
	"sink":        sink,
	"spans":       takeSpans,
	"names":       serveNames,
	"get":         get,
	"get-each":    getEach,
	"dns":         lookUp,
	"udp-get":     getPackets,
	"udp-talk":    talk,
	"send":        send,
	"load":        load,
	"exit":        exit,
	"crash":       crash,
	"oom":         takeMemory,
	"ignore-term": ignoreTerm,
	"ail":         fallIll,
	"recover":     recoverHealth,
	"healthy":     checkHealth,
	"log":         logLines,
	"sleep":       sleep,
	"env":         describe,
}

// required says so where an argument is missing.
func required(args []string, names ...string) error {
	if len(args) < len(names) {
		return fmt.Errorf("%s is missing", names[len(args)])
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

func sleep(ctx context.Context, _ io.Writer, args []string) error {
	const forever = time.Duration(1<<63 - 1)
	length, err := optional(args, 0, forever, time.ParseDuration)
	if err != nil {
		return err
	}
	wait(ctx, length)
	return nil
}

// logLines prints numbered lines, all at once when no interval is given, and stays until told to stop.
func logLines(ctx context.Context, _ io.Writer, args []string) error {
	lines, err := optional(args, 0, -1, strconv.Atoi)
	if err != nil {
		return err
	}
	every, err := optional(args, 1, 0, time.ParseDuration)
	if err != nil {
		return err
	}
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
