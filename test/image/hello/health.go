package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// illness is the file that says what the container's programs suffer from, which have it in common. There is none
// where they are well.
const illness = "/tmp/illness"

// ailing returns it.
func ailing() (what string, err error) {
	text, err := os.ReadFile(illness)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

func fallIll(_ context.Context, _ io.Writer, args []string) error {
	if err := required(args, "what of"); err != nil {
		return err
	}
	return os.WriteFile(illness, []byte(strings.Join(args, " ")), 0o644)
}

func recoverHealth(context.Context, io.Writer, []string) error {
	if err := os.Remove(illness); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func checkHealth(_ context.Context, w io.Writer, _ []string) error {
	what, err := ailing()
	if err != nil {
		return err
	}
	if what != "" {
		fmt.Fprintln(w, what)
		return statusError(1)
	}
	return nil
}

// tellHealth answers a request about health: 503 with what the program suffers from.
func tellHealth(w http.ResponseWriter) {
	what, err := ailing()
	if err != nil {
		what = err.Error()
	}
	if what != "" {
		http.Error(w, what, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "well")
}

// serveGRPC answers the one call of the gRPC health checking protocol that probes make. It is small enough to be
// written out: a message is one byte for its compression, four for its length, and then here a field of one byte.
func serveGRPC(ctx context.Context, _ io.Writer, args []string) error {
	if err := required(args, "port"); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+args[0])
	if err != nil {
		return err
	}
	return serveGRPCOn(ctx, listener, ailing)
}

func serveGRPCOn(ctx context.Context, listener net.Listener, ailing func() (string, error)) error {
	const (
		statusField = 1 << 3 // field 1, a number
		serving     = 1
		notServing  = 2
	)
	handler := http.NewServeMux()
	handler.HandleFunc("POST /grpc.health.v1.Health/Check", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		state := byte(serving)
		if what, err := ailing(); what != "" || err != nil {
			state = notServing
		}
		message := []byte{statusField, state}
		w.Header().Set("Content-Type", "application/grpc")
		_, _ = w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...))
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: handler, Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
