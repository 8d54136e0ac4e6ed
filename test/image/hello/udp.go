package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"time"
)

const maxPacket = 64 << 10

// echoPackets answers every UDP packet.
func echoPackets(ctx context.Context, _ io.Writer, args []string) error {
	if err := required(args, "the port"); err != nil {
		return err
	}
	me, err := self()
	if err != nil {
		return err
	}
	socket, err := new(net.ListenConfig).ListenPacket(ctx, "udp", ":"+args[0])
	if err != nil {
		return err
	}
	log.Printf("version %s listening on UDP port %s", me.version, args[0])
	return echoOn(ctx, socket, me)
}

func echoOn(ctx context.Context, socket net.PacketConn, me answerer) error {
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	packet := make([]byte, maxPacket)
	for {
		_, client, err := socket.ReadFrom(packet)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			_, err = socket.WriteTo([]byte(me.to(client.String())), client)
		}
		if err != nil {
			log.Print(err) // of one client: others go on
		}
	}
}

// getPackets sends a packet and waits for the answer, from a new port each time.
func getPackets(ctx context.Context, w io.Writer, args []string) error {
	if err := required(args, "the address"); err != nil {
		return err
	}
	times, err := optional(args, 1, 1, strconv.Atoi)
	if err != nil {
		return err
	}
	for range times {
		if err := getPacket(ctx, w, args[0]); err != nil {
			return err
		}
	}
	return nil
}

func getPacket(ctx context.Context, w io.Writer, address string) error {
	const wait = 2 * time.Second
	socket, err := new(net.Dialer).DialContext(ctx, "udp", address)
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := socket.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	if _, err := io.WriteString(socket, "hello?\n"); err != nil {
		return err
	}
	packet := make([]byte, maxPacket)
	n, err := socket.Read(packet)
	if err != nil {
		return err
	}
	_, err = w.Write(packet[:n])
	return err
}

// talk sends packets from one port for a while and tells how well they were answered.
func talk(ctx context.Context, w io.Writer, args []string) error {
	if err := required(args, "the address", "how long to talk"); err != nil {
		return err
	}
	length, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	socket, err := new(net.Dialer).DialContext(ctx, "udp", args[0])
	if err != nil {
		return err
	}
	defer socket.Close()
	until := time.Now().Add(length)
	if err := socket.SetReadDeadline(until); err != nil {
		return err
	}
	sent := make(chan int)
	go func() { sent <- sendPackets(ctx, socket, until) }()
	heard := hear(socket, until)
	fmt.Fprintf(w, "packets=%d answers=%d silence=%dms\n", <-sent, heard.answers.total(), heard.silence.Milliseconds())
	heard.answers.print(w)
	if heard.answers.total() == 0 {
		return fmt.Errorf("%s has not answered", args[0])
	}
	return nil
}

func sendPackets(ctx context.Context, socket net.Conn, until time.Time) int {
	const every = 10 * time.Millisecond
	packets := 0
	for ; time.Now().Before(until); packets++ {
		// It may be refused for want of a server, as an answer to an earlier one; the next may not.
		_, _ = io.WriteString(socket, "hello?\n")
		if !wait(ctx, every) {
			break
		}
	}
	return packets
}

// hearing is what was heard: who answered how often, and the longest time without an answer.
type hearing struct {
	answers tally
	silence time.Duration
}

func hear(socket net.Conn, until time.Time) hearing {
	heard := hearing{answers: tally{}}
	packet := make([]byte, maxPacket)
	last := time.Now()
	for {
		n, err := socket.Read(packet)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(until) {
			continue // refused, as above
		}
		now := time.Now()
		heard.silence = max(heard.silence, now.Sub(last))
		if err != nil {
			return heard
		}
		last = now
		if who, err := whoAnswered(packet[:n]); err == nil {
			heard.answers[who]++
		}
	}
}
