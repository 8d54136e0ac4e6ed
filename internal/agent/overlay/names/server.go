package names

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Domain is what the cluster's names end in. Nothing on the Internet ever will (internal is reserved
// for private use by ICANN's resolution of July 2024).
const Domain = "warren.internal"

// Directory is what the server answers from. It is asked for every query, so it is fast, and safe for
// concurrent use.
type Directory interface {
	// Service finds a service by its name or alias, in lower case, as far as the task at asker may see
	// it: one that shares a network with it. The node itself sees all.
	Service(name string, asker netip.Addr) (Service, bool)
	// Name returns what an address of the cluster, of a task or a VIP, is called, with the domain or
	// without.
	Name(addr, asker netip.Addr) (string, bool)
}

// A Service is one as its asker may see it.
type Service struct {
	Name  string
	VIP   netip.Addr // zero where the tasks' addresses are given instead
	Tasks []Task
	Ports []Port
}

// A Task is one that takes connections.
type Task struct {
	Slot uint32
	Name string // the service's, a dot, and the slot or node: web.1
	Addr netip.Addr
}

// A Port is one that a service's tasks listen on.
type Port struct {
	Name     string // may be empty
	Protocol string // tcp or udp
	Target   uint16
}

// Options say what to serve, where and to whom.
type Options struct {
	Addr       netip.AddrPort // the node's on its bridge
	Directory  Directory
	Ranges     []netip.Prefix // the cluster's, of tasks and VIPs: whom it answers, and whose reverse names it owns
	ResolvConf string         // names the host's resolvers: /etc/resolv.conf unless it is set
	Sockets    *Sockets       // what to be asked on; nil: sockets of its own, which end with the server
	Logger     *slog.Logger
}

// Sizes of messages over UDP. The larger is the DNS flag day's of 2020: it passes the overlay, and
// every other path, in one packet.
const (
	plainSize = dns.MinMsgSize // for clients that say nothing (RFC 1035, 4.2.1)
	ednsSize  = 1232
)

// Server answers on one address, over UDP and TCP.
type Server struct {
	addr   netip.AddrPort
	ranges []netip.Prefix
	log    *slog.Logger
	zone   *zone
	others *forwarder
	udp    net.PacketConn
	tcp    net.Listener
}

// Serve listens and answers until ctx ends; see Listen.
func Serve(ctx context.Context, o Options) error {
	s, err := Listen(ctx, o)
	if err != nil {
		return err
	}
	return s.Serve(ctx)
}

// Listen takes the address, so that queries wait from here on. Serve has to follow: it answers them
// and gives the address back, unless that is of Options.Sockets.
func Listen(ctx context.Context, o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("serve names: %w", err)
	}
	listen := bind
	if o.Sockets != nil {
		listen = o.Sockets.listen
	}
	udp, tcp, err := listen(ctx, o.Addr)
	if err != nil {
		return nil, err
	}
	addr := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{addr: addr, ranges: o.Ranges, log: log, udp: udp}
	s.zone = &zone{directory: o.Directory, server: addr.Addr(), ranges: o.Ranges}
	s.others = newForwarder(addr.Addr(), cmp.Or(o.ResolvConf, hostFile), log)
	s.tcp = newDoor(tcp, s.admits)
	return s, nil
}

func (o Options) check() error {
	if !o.Addr.IsValid() {
		return errors.New("the address to serve on is missing")
	}
	if o.Directory == nil {
		return errors.New("the directory is missing")
	}
	for _, r := range o.Ranges {
		if !r.Addr().Is4() || r.Bits() < 1 {
			return fmt.Errorf("range %s: must be IPv4, such as 10.208.0.0/12", r)
		}
	}
	return nil
}

// listenError says what to do about the two that happen.
func listenError(addr netip.AddrPort, transport string, err error) error {
	remedy := ""
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		remedy = fmt.Sprintf("; another DNS server has it: \"ss -lntup sport = :%d\" shows which, have it listen on addresses of its own only "+
			"(dnsmasq: bind-interfaces; named: listen-on; unbound: interface)", addr.Port())
	case errors.Is(err, unix.EADDRNOTAVAIL):
		remedy = "; the bridge must have its address first"
	}
	return fmt.Errorf("serve names on %s over %s: %w%s", addr, transport, err, remedy)
}

// Addr is where it listens.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Serve answers until ctx ends and returns when the last query has been seen to.
func (s *Server) Serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) { s.handle(ctx, w, r) })
	group.Go(func() error {
		// Shutdown wakes the reader. That it wakes by itself now and then is of no use, so: rarely.
		return run(ctx, &dns.Server{PacketConn: s.udp, Handler: handler, MsgAcceptFunc: accept, UDPSize: ednsSize, ReadTimeout: time.Hour})
	})
	group.Go(func() error {
		return run(ctx, &dns.Server{Listener: s.tcp, Handler: handler, MsgAcceptFunc: accept})
	})
	err := group.Wait()
	s.others.running.Wait()
	if err != nil {
		return fmt.Errorf("serve names on %s: %w", s.addr, err)
	}
	return nil
}

func run(ctx context.Context, server *dns.Server) error {
	started, ended := make(chan struct{}), make(chan error, 1)
	server.NotifyStartedFunc = func() { close(started) }
	go func() { ended <- server.ActivateAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-started: // only now can it be shut down
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		_ = server.Shutdown() // fails only where nothing runs
		return <-ended
	}
}

// accept decides by the header alone. What is no query of one question gets an error, and what is an
// answer gets none: two servers could go on for ever.
func accept(h dns.Header) dns.MsgAcceptAction {
	const (
		response   = 1 << 15
		opcodeBits = 0xf << 11
	)
	switch {
	case h.Bits&response != 0:
		return dns.MsgIgnore
	case h.Bits&opcodeBits != dns.OpcodeQuery<<11:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1 || h.Ancount > 0 || h.Nscount > 0 || h.Arcount > 2: // EDNS and a signature
		return dns.MsgReject
	}
	return dns.MsgAccept
}

func (s *Server) handle(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) {
	if len(r.Question) != 1 { // a packet that ends after a header which promises one
		_ = w.WriteMsg(new(dns.Msg).SetRcodeFormatError(r))
		return
	}
	asker, size := netip.Addr{}, dns.MaxMsgSize
	switch from := w.RemoteAddr().(type) {
	case *net.UDPAddr:
		asker, size = from.AddrPort().Addr().Unmap(), udpSize(r)
	case *net.TCPAddr:
		asker = from.AddrPort().Addr().Unmap()
	}
	m := s.answer(ctx, r, asker)
	fit(m, size)
	wire, err := m.Pack()
	if err != nil { // a name in the directory that is none
		s.log.Warn("DNS answer cannot be written", "name", r.Question[0].Name, "error", err)
		if wire, err = new(dns.Msg).SetRcode(r, dns.RcodeServerFailure).Pack(); err != nil {
			return
		}
	}
	if _, err := w.Write(wire); err != nil && ctx.Err() == nil {
		s.log.Debug("DNS answer not sent", "to", asker, "error", err) // who asked will ask again
	}
}

// answer is the whole answer to a query of one question, however large.
func (s *Server) answer(ctx context.Context, r *dns.Msg, asker netip.Addr) *dns.Msg {
	m := new(dns.Msg).SetReply(r)
	edns := r.IsEdns0()
	if edns != nil {
		m.SetEdns0(ednsSize, edns.Do())
	}
	q := r.Question[0]
	switch {
	case !s.admits(asker):
		m.Rcode = dns.RcodeRefused
		return m
	case edns != nil && edns.Version() != 0:
		m.Rcode = dns.RcodeBadVers
		return m
	}
	m.RecursionAvailable = true
	switch {
	case q.Qtype == dns.TypeNone || q.Qtype == dns.TypeOPT:
		m.Rcode = dns.RcodeFormatError
	case q.Qclass != dns.ClassINET || isMeta(q.Qtype):
		m.Rcode = dns.RcodeRefused
	case s.zone.answer(m, q, asker):
	case q.Qtype == dns.TypeANY:
		m.Answer = []dns.RR{minimal(q.Name)}
	case !r.RecursionDesired:
		m.Rcode = dns.RcodeRefused
	default:
		s.others.answer(ctx, m, r, asker)
	}
	return m
}

// admits tells whether a query is answered: it comes from the cluster or from the node, whose
// own programs reach the bridge address from itself.
func (s *Server) admits(asker netip.Addr) bool {
	if asker.IsLoopback() || asker == s.addr.Addr() {
		return true
	}
	for _, r := range s.ranges {
		if r.Contains(asker) {
			return true
		}
	}
	return false
}

// isMeta tells transfers and the like from types of records (RFC 6895, 3.1).
func isMeta(t uint16) bool { return t >= 128 && t < dns.TypeANY }

// minimal is the answer to whoever wants records of any type (RFC 8482): there are some, name the one.
func minimal(name string) dns.RR {
	return &dns.HINFO{Hdr: header(name, dns.TypeHINFO), Cpu: "RFC8482"}
}

// udpSize is the size of answer that a query's sender takes and that goes in one packet.
func udpSize(r *dns.Msg) int {
	if edns := r.IsEdns0(); edns != nil {
		return min(max(int(edns.UDPSize()), plainSize), ednsSize)
	}
	return plainSize
}

// fit makes m fit into size. What merely spares a question goes first; when what was asked for has
// to be cut, the answer says so (TC) and the client comes again over TCP (RFC 2181, 9).
func fit(m *dns.Msg, size int) {
	m.Compress = m.Len() > plainSize // short ones are not worth the work
	if m.Len() <= size {
		return
	}
	edns := m.IsEdns0()
	m.Extra = nil
	if edns != nil {
		m.Extra = []dns.RR{edns}
	}
	m.Truncate(size)
}
