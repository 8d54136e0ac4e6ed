package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

const transferAtMost = time.Minute

// sink takes in what clients send, and tells them how much it was, its digest, and who took it.
func sink(ctx context.Context, _ io.Writer, args []string) error {
	if err := required(args, "the port"); err != nil {
		return err
	}
	me, err := self()
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+args[0])
	if err != nil {
		return err
	}
	log.Printf("version %s listening on port %s", me.version, args[0])
	return sinkOn(ctx, listener, me)
}

func sinkOn(ctx context.Context, listener net.Listener, me answerer) error {
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		clients.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			if err := takeIn(conn, me); err != nil {
				log.Printf("%s: %v", conn.RemoteAddr(), err)
			}
		})
	}
}

func takeIn(conn net.Conn, me answerer) error {
	digest := sha256.New()
	size, err := io.Copy(digest, conn)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conn, "%d %x %s", size, digest.Sum(nil), me.to(conn.RemoteAddr().String()))
	return err
}

// send sends bytes that no middle could guess, and compares what arrived with them.
func send(ctx context.Context, w io.Writer, args []string) error {
	if err := required(args, "the address", "the number of bytes"); err != nil {
		return err
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, transferAtMost)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	digest := sha256.New()
	started := time.Now()
	if _, err := io.Copy(io.MultiWriter(conn, digest), io.LimitReader(rand.NewChaCha8(seed), size)); err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	reply, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	took := time.Since(started)
	who, whole := strings.CutPrefix(string(reply), fmt.Sprintf("%d %s ", size, hex.EncodeToString(digest.Sum(nil))))
	if !whole {
		return errors.New("something else arrived than was sent: " + strings.TrimSpace(string(reply)))
	}
	fmt.Fprintf(w, "%d bytes in %v, %.0f Mbit/s, whole: %s", size, took.Round(time.Microsecond), float64(size)*8/1e6/took.Seconds(), who)
	return nil
}
