package names

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

// Bounds of what is asked of the host's resolvers.
const (
	maxQuestions          = 512 // under way, of all clients
	maxQuestionsPerClient = 128

	// One resolver has patience, all have patienceInAll: less than the 5 s after which a client's own
	// resolver asks again (resolv.conf(5)), so that it hears of a failure.
	patience      = 1500 * time.Millisecond
	patienceInAll = 4 * time.Second
)

var (
	errNoResolver = errors.New("the host has no resolver")
	errTooMany    = errors.New("too many questions are under way")
)

// forwarder asks the host's resolvers for what is not the cluster's.
type forwarder struct {
	own     netip.Addr // never asked: that would be us
	port    uint16
	log     *slog.Logger
	hosts   *hostConf
	flights singleflight.Group
	load    *load
}

func newForwarder(own netip.Addr, resolvConf string, log *slog.Logger) *forwarder {
	return &forwarder{
		own: own, port: 53, log: log, hosts: newHostConf(resolvConf, own, log),
		load: newLoad(maxQuestions, maxQuestionsPerClient),
	}
}

// question is what must be the same for two queries to have the same answer.
type question struct {
	name     string // in lower case
	kind     uint16
	dnssec   bool // wants signatures (DO)
	checking bool // does its own checking (CD)
}

func (q question) key() string {
	return q.name + " " + strconv.Itoa(int(q.kind)) + strconv.FormatBool(q.dnssec) + strconv.FormatBool(q.checking)
}

// answer puts into m what the host's resolvers say to r.
func (f *forwarder) answer(ctx context.Context, m, r *dns.Msg, asker netip.Addr) {
	q := question{name: strings.ToLower(r.Question[0].Name), kind: r.Question[0].Qtype, checking: r.CheckingDisabled}
	if edns := r.IsEdns0(); edns != nil {
		q.dnssec = edns.Do()
	}
	said, err := f.lookUp(ctx, q, asker)
	if err != nil {
		f.log.Debug("name not looked up", "name", q.name, "from", asker, "error", err)
		m.Rcode = dns.RcodeServerFailure
		return
	}
	pass(m, r, said)
}

// pass puts what a resolver said to r into m.
func pass(m, r, said *dns.Msg) {
	asked, edns := r.Question[0], r.IsEdns0()
	m.Rcode, m.Truncated = said.Rcode, said.Truncated
	if m.Rcode > 0xf { // about EDNS between the resolver and us (RFC 6891, 6.1.3)
		m.Rcode = dns.RcodeServerFailure
	}
	m.Answer, m.Ns = said.Answer, said.Ns
	// Whether the resolver vouches for it is told to those who ask (RFC 6840, 5.8). libc hides it from
	// programs unless resolv.conf says trust-ad.
	m.AuthenticatedData = said.AuthenticatedData && (r.AuthenticatedData || edns != nil && edns.Do())
	for _, rr := range m.Answer { // 0x20, here too
		if strings.EqualFold(rr.Header().Name, asked.Name) {
			rr.Header().Name = asked.Name
		}
	}
	for _, rr := range said.Extra {
		if rr.Header().Rrtype != dns.TypeOPT { // each hop has its own
			m.Extra = append(m.Extra, rr)
		}
	}
}

// lookUp returns an answer that is the caller's own to change.
func (f *forwarder) lookUp(ctx context.Context, q question, asker netip.Addr) (*dns.Msg, error) {
	up := f.hosts.current()
	if kept, ok := up.cache.get(q, time.Now()); ok {
		return kept.message(time.Now())
	}
	if !f.load.enter(asker) {
		return nil, errTooMany
	}
	defer f.load.leave(asker)
	// Equal questions are one. It ends with the server and not with who asks: others wait for it too.
	v, err, _ := f.flights.Do(q.key(), func() (any, error) {
		said, err := f.ask(ctx, up, q)
		if err != nil {
			return nil, err
		}
		kept, err := keep(said, time.Now())
		if err != nil {
			return nil, err
		}
		up.cache.put(q, kept)
		return kept, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(kept).message(time.Now())
}

// ask asks one resolver after the other until one knows. Those that say nothing are asked again while
// there is time: packets get lost.
func (f *forwarder) ask(ctx context.Context, up *upstreams, q question) (*dns.Msg, error) {
	if len(up.servers) == 0 {
		return nil, errNoResolver
	}
	ctx, cancel := context.WithTimeout(ctx, patienceInAll)
	defer cancel()
	var unsure *dns.Msg // the best of what is no answer
	err := errNoResolver
	for ask := up.order(time.Now()); len(ask) > 0 && unsure == nil && ctx.Err() == nil; {
		var silent []netip.Addr
		for _, server := range ask {
			var said *dns.Msg
			said, err = exchange(ctx, netip.AddrPortFrom(server, f.port), q)
			switch {
			case ctx.Err() != nil && err != nil:
				return f.settle(ctx, unsure, err)
			case isTimeout(err):
				up.silent(server, time.Now())
				silent = append(silent, server)
				continue
			case err != nil: // nobody there: no use in asking again
				up.silent(server, time.Now())
				continue
			}
			up.answers(server)
			if knows(said) {
				return said, nil
			}
			if unsure == nil || said.Truncated {
				unsure = said
			}
		}
		ask = silent
	}
	return f.settle(ctx, unsure, err)
}

// settle is the outcome where nobody knows.
func (f *forwarder) settle(ctx context.Context, unsure *dns.Msg, err error) (*dns.Msg, error) {
	switch {
	case unsure != nil:
		return unsure, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, errors.New("none of the host's resolvers answers in time")
	}
	return nil, err
}

// knows tells an answer from "ask someone else".
func knows(m *dns.Msg) bool {
	return (m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError) && !m.Truncated
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
