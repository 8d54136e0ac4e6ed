package main

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
)

func TestLoadTellsWhatFailedAndWhy(t *testing.T) {
	t.Parallel()
	listener := listen(t)
	address := listener.Addr().String()
	listener.Close()
	var output bytes.Buffer
	err := load(t.Context(), &output, []string{"http://" + address + "/", "--for", "100ms", "--connections", "2", "--keepalive=false"})
	if err == nil || !strings.Contains(err.Error(), "requests failed") {
		t.Errorf("load ends with %v", err)
	}
	for _, want := range []string{"× dial: connect: connection refused\n", "failed at ", "dial tcp " + address + ": connect: connection refused (errno 111)\n"} {
		if !strings.Contains(output.String(), want) {
			t.Errorf("load says\n%s\nand not %q", output.String(), want)
		}
	}
	if told := strings.Count(output.String(), "failed at "); told > tellAtMost {
		t.Errorf("%d failures are told", told)
	}
}

func TestLoadSeesAConnectionThatBreaks(t *testing.T) {
	t.Parallel()
	listener := listen(t)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 1024))
			conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\nhello from a, version 1\n"))
			conn.Close() // without having said so
		}
	}()
	var output bytes.Buffer
	err := load(t.Context(), &output, []string{"http://" + listener.Addr().String() + "/", "--for", "100ms", "--connections", "1"})
	if err == nil || strings.Contains(output.String(), "failed=0") || !strings.Contains(output.String(), " from 127.0.0.1:") {
		t.Errorf("load ends with %v and says\n%s", err, output.String())
	}
}

func TestWhatIsSentArrivesWhole(t *testing.T) {
	t.Parallel()
	listener := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sinkOn(ctx, listener, answerer{host: "web.1", version: "1"}) }()
	var output bytes.Buffer
	if err := send(t.Context(), &output, []string{listener.Addr().String(), "1000003"}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(output.String(), "1000003 bytes in") || !strings.HasSuffix(output.String(), "hello from web.1, version 1, from=127.0.0.1\n") {
		t.Errorf("send says %q", output.String())
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the sink ended with %v", err)
	}
}

func TestPacketsAreAnswered(t *testing.T) {
	t.Parallel()
	socket, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- echoOn(ctx, socket, answerer{host: "dns.1", version: "2"}) }()
	address := socket.LocalAddr().String()
	var output bytes.Buffer
	if err := getPackets(t.Context(), &output, []string{address, "2"}); err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("hello from dns.1, version 2, from=127.0.0.1\n", 2); output.String() != want {
		t.Errorf("the answers are %q, want %q", output.String(), want)
	}
	output.Reset()
	if err := talk(t.Context(), &output, []string{address, "100ms"}); err != nil {
		t.Error(err)
	}
	if !strings.Contains(output.String(), "× dns.1\n") {
		t.Errorf("talk says %q", output.String())
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if err := talk(t.Context(), &output, []string{address, "50ms"}); err == nil {
		t.Error("a server that is gone is said to have answered")
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{"get": "the URL", "dns": "the name", "udp": "the port", "send": "the address", "listen-late": "how long"} {
		if err := commands[command](t.Context(), nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s without arguments says %v, want %q", command, err, want)
		}
	}
}
