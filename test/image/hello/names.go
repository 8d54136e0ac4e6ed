package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// serveNames is a DNS server that knows the addresses of a few names.
func serveNames(ctx context.Context, _ io.Writer, args []string) error {
	if err := required(args, "the address", "a name and its address"); err != nil {
		return err
	}
	known := map[string]netip.Addr{}
	for _, arg := range args[1:] {
		name, text, _ := strings.Cut(arg, "=")
		address, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("%s is not NAME=ADDRESS: %w", arg, err)
		}
		known[dns.CanonicalName(name)] = address
	}
	socket, err := new(net.ListenConfig).ListenPacket(ctx, "udp", args[0])
	if err != nil {
		return err
	}
	server := &dns.Server{PacketConn: socket, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		if err := w.WriteMsg(answerQuery(known, query)); err != nil {
			log.Print(err)
		}
	})}
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	log.Printf("names listening on UDP %s", args[0])
	if err := server.ActivateAndServe(); ctx.Err() == nil {
		return errors.Join(errors.New("serving names has ended"), err)
	}
	return nil
}

func answerQuery(known map[string]netip.Addr, query *dns.Msg) *dns.Msg {
	reply := new(dns.Msg).SetReply(query)
	asked := query.Question[0] // the server has seen that there is one
	address, found := known[dns.CanonicalName(asked.Name)]
	switch {
	case !found:
		reply.Rcode = dns.RcodeNameError
	case asked.Qtype == dns.TypeA:
		header := dns.RR_Header{Name: asked.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}
		reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: address.AsSlice()})
	}
	return reply
}
