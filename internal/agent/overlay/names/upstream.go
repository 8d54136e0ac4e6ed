package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// largestReply is what is read from a resolver over UDP: more than it was asked to send, as some do
// not keep to it.
const largestReply = 4096

// resendAfter is after how long a question over UDP is sent again: packets get lost.
const resendAfter = time.Second

// exchange asks one resolver: over UDP, and over TCP when the answer does not fit. It waits until ctx ends.
func exchange(ctx context.Context, server netip.AddrPort, q question) (*dns.Msg, error) {
	query := q.query()
	said, err := exchangeOver(ctx, "udp", server, query)
	if err == nil && said.Rcode == dns.RcodeFormatError && query.IsEdns0() != nil {
		// From before EDNS (RFC 6891, 7): ask as one did then.
		query = q.query()
		query.Extra = nil
		said, err = exchangeOver(ctx, "udp", server, query)
	}
	if err != nil || !said.Truncated {
		return said, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	whole, err := exchangeOver(ctx, "tcp", server, query)
	if err != nil {
		return said, nil // a part is better than nothing, and says that it is one
	}
	return whole, nil
}

func (q question) query() *dns.Msg {
	m := new(dns.Msg).SetQuestion(q.name, q.kind) // with a random id
	m.CheckingDisabled = q.checking
	m.AuthenticatedData = true // we want to know (RFC 6840, 5.7)
	return m.SetEdns0(ednsSize, q.dnssec)
}

// exchangeOver sends a query and returns its answer. A forger has to guess the id and the port, which
// the kernel draws for each socket, and to send from the resolver's address, as the socket is connected;
// a wrong guess is passed over and does not end the wait (RFC 5452).
func exchangeOver(ctx context.Context, transport string, server netip.AddrPort, query *dns.Msg) (*dns.Msg, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, transport, server.String())
	if err != nil {
		return nil, fmt.Errorf("ask resolver %s over %s: %w", server, transport, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })() // wakes the read

	conn := &dns.Conn{Conn: c, UDPSize: largestReply}
	for send := true; ; {
		if send {
			send = false
			if err := conn.WriteMsg(query); err != nil {
				return nil, fmt.Errorf("ask resolver %s over %s: %w", server, transport, err)
			}
			if transport == "udp" {
				err = c.SetReadDeadline(time.Now().Add(resendAfter))
			}
			if err := errors.Join(err, ctx.Err()); err != nil { // which may have ended just before the deadline was set
				return nil, fmt.Errorf("ask resolver %s over %s: %w", server, transport, err)
			}
		}
		wire, err := conn.ReadMsgHeader(nil)
		switch {
		case errors.Is(err, dns.ErrShortRead):
			continue
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil && transport == "udp":
			send = true
			continue
		case err != nil:
			return nil, fmt.Errorf("ask resolver %s over %s: %w", server, transport, err)
		}
		said := new(dns.Msg)
		if err := said.Unpack(wire); err == nil && answers(said, query) {
			return said, nil
		}
	}
}

// answers tells whether a message is the answer to a query.
func answers(said, query *dns.Msg) bool {
	if !said.Response || said.Id != query.Id || said.Opcode != dns.OpcodeQuery || len(said.Question) != 1 {
		return false
	}
	got, want := said.Question[0], query.Question[0]
	return got.Qtype == want.Qtype && got.Qclass == want.Qclass && strings.EqualFold(got.Name, want.Name)
}
