package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

// startServing serves until stop is called; done has how it ended.
func startServing(t *testing.T, listener net.Listener, host string) (stop func(), done <-chan error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serveOn(ctx, listener, answerer{host: host, version: "1"}) }()
	t.Cleanup(stop)
	return stop, ended
}

func awaitEnd(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("serving ended with %v", err)
		}
	case <-time.After(maxIdle + maxAnswer):
		t.Error("serving did not end")
	}
}

func TestAServerTellsItsClientsTheirAddress(t *testing.T) {
	t.Parallel()
	listener := listen(t)
	startServing(t, listener, "web.1")
	var output bytes.Buffer
	if err := get(t.Context(), &output, []string{"http://" + listener.Addr().String(), "2"}); err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("hello from web.1, version 1, from=127.0.0.1\n", 2); output.String() != want {
		t.Errorf("the answers are %q, want %q", output.String(), want)
	}
}

func TestWhoAsksEveryAddressWantsToBeSeenAsItself(t *testing.T) {
	t.Parallel()
	listener := listen(t)
	startServing(t, listener, "web.1")
	var output bytes.Buffer
	if err := getEach(t.Context(), &output, []string{"http://" + listener.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	if want := "127.0.0.1: hello from web.1, version 1, from=127.0.0.1\n"; output.String() != want {
		t.Errorf("the answers are %q, want %q", output.String(), want)
	}
}

func TestClientsLoseNothingWhileAServerStops(t *testing.T) {
	t.Parallel()
	for _, keep := range []string{"true", "false"} {
		t.Run("keepalive="+keep, func(t *testing.T) {
			t.Parallel()
			first, second, front := listen(t), listen(t), listen(t)
			stop, done := startServing(t, first, "first")
			startServing(t, second, "second")
			rotation := startRotation(front, first.Addr())
			time.AfterFunc(300*time.Millisecond, func() {
				rotation.turnTo(second.Addr())
				stop()
			})
			var output bytes.Buffer
			url := "http://" + front.Addr().String() + "/quiet"
			if err := load(t.Context(), &output, []string{url, "--for", "1s", "--connections", "4", "--keepalive=" + keep}); err != nil {
				t.Error(err)
			}
			if !strings.Contains(output.String(), "failed=0") || !strings.Contains(output.String(), "tasks=2") {
				t.Errorf("load says\n%s", output.String())
			}
			awaitEnd(t, done)
			front.Close()
			rotation.wait()
		})
	}
}

// rotation hands on connections to the server in rotation, as a virtual address does.
type rotation struct {
	mu     sync.Mutex
	server net.Addr
	group  sync.WaitGroup
}

func startRotation(front net.Listener, server net.Addr) *rotation {
	r := &rotation{server: server}
	r.group.Go(func() {
		for {
			client, err := front.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			conn, err := net.Dial(r.server.Network(), r.server.String())
			r.mu.Unlock()
			if err != nil {
				client.Close()
				continue
			}
			r.group.Go(func() { splice(client, conn) })
		}
	})
	return r
}

// turnTo has what connects from now on go to another server; who was let in before is connected.
func (r *rotation) turnTo(server net.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server = server
}

func (r *rotation) wait() { r.group.Wait() }

func splice(a, b net.Conn) {
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			io.Copy(way[0], way[1])
			way[0].(*net.TCPConn).CloseWrite()
		})
	}
	both.Wait()
	a.Close()
	b.Close()
}

func TestAServerLeavesClientsThatAskForNothing(t *testing.T) {
	t.Parallel()
	listener := listen(t)
	stop, done := startServing(t, listener, "web.1")
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://web/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := request.Write(conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	stop()
	awaitEnd(t, done)
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the connection ended with %v", err)
	}
}
