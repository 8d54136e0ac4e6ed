package names

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

// Bounds of what is asked of the host's resolvers.
const (
	maxQuestions          = 512 // under way, of all clients
	maxQuestionsPerClient = 128

	// A resolver that has said nothing for lateAfter is not asked alone any more. What is in a resolver's cache comes within
	// tens of milliseconds, and most of what it has to look up itself; a person notices more than this.
	lateAfter = 300 * time.Millisecond
	// Who has said nothing for patience is taken for dead, though an answer of its is good until patienceInAll is over: less
	// than the 5 s after which a client's own resolver asks again (resolv.conf(5)), so that it hears of a failure.
	patience      = 1500 * time.Millisecond
	patienceInAll = 4 * time.Second
)

var (
	errNoResolver = errors.New("the host has no resolver")
	errNoneInTime = errors.New("none of the host's resolvers answers in time")
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
	running sync.WaitGroup // what asks a resolver; it ends with the context that it was begun with
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

// reply is what became of one question to one resolver.
type reply struct {
	server netip.Addr
	said   *dns.Msg
	err    error
}

// ask asks one resolver after the other until one knows: the next as soon as one says that it does not, or is late. Those that
// were asked before may still answer, so that a slow one is as good as any where it is the only one that knows.
func (f *forwarder) ask(ctx context.Context, up *upstreams, q question) (*dns.Msg, error) {
	for _, server := range up.due(time.Now()) {
		f.probe(ctx, up, server, q)
	}
	life := ctx
	ctx, cancel := context.WithTimeout(ctx, patienceInAll)
	defer cancel()
	begun := time.Now()
	order, silent := up.order()
	replies := make(chan reply, len(order)) // nobody that is late waits for room
	waiting := map[netip.Addr]bool{}
	late := time.NewTimer(lateAfter)
	defer late.Stop()
	askNext := func() {
		if len(order) == 0 {
			return
		}
		server := order[0]
		order, waiting[server] = order[1:], true
		f.running.Go(func() {
			said, err := exchange(ctx, netip.AddrPortFrom(server, f.port), q)
			replies <- reply{server, said, err}
		})
		late.Reset(lateAfter)
	}
	var unsure *dns.Msg // the best of what is no answer
	err := errNoResolver
	for askNext(); len(waiting) > 0; {
		select {
		case r := <-replies:
			if ctx.Err() != nil && r.err != nil {
				continue // as below
			}
			delete(waiting, r.server)
			if r.err != nil { // nobody is there
				up.silent(r.server, time.Now())
				err = r.err
			} else {
				up.answers(r.server)
				if knows(r.said) {
					return r.said, nil
				}
				if unsure == nil || r.said.Truncated {
					unsure = r.said
				}
			}
			askNext()
		case <-late.C:
			if len(order) > 0 {
				for server := range waiting {
					if up.late(server) {
						f.probe(life, up, server, q)
					}
				}
			} else if unsure != nil && (time.Since(begun) > patience || all(waiting, silent)) {
				return unsure, nil
			}
			late.Reset(lateAfter)
			askNext()
		case <-ctx.Done():
			if life.Err() != nil {
				return nil, life.Err()
			}
			for server := range waiting {
				up.silent(server, time.Now())
			}
			if unsure == nil {
				return nil, errNoneInTime
			}
			return unsure, nil
		}
	}
	if unsure != nil {
		return unsure, nil
	}
	return nil, err
}

// all tells whether all that are waited for are in a list.
func all(waiting map[netip.Addr]bool, list []netip.Addr) bool {
	for server := range waiting {
		if !slices.Contains(list, server) {
			return false
		}
	}
	return true
}

// probe finds out whether a silent resolver is there, with a question whose answer nobody waits for.
func (f *forwarder) probe(ctx context.Context, up *upstreams, server netip.Addr, q question) {
	f.running.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		switch _, err := exchange(bounded, netip.AddrPortFrom(server, f.port), q); {
		case err == nil:
			up.answers(server)
		case ctx.Err() == nil:
			up.silent(server, time.Now())
		}
	})
}

// knows tells an answer from "ask someone else".
func knows(m *dns.Msg) bool {
	return (m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError) && !m.Truncated
}
