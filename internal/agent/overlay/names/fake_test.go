package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

var clusterRanges = []netip.Prefix{netip.MustParsePrefix("10.208.0.0/12"), netip.MustParsePrefix("10.224.0.0/16")}

// directory is a cluster that the test makes up.
type directory struct {
	mu       sync.Mutex
	services map[string]Service                // by name and by alias
	names    map[netip.Addr]string             // of addresses
	hidden   map[string]map[string]bool        // services by asker
	asked    func(name string) (Service, bool) // instead, where it is set
}

func (d *directory) Service(name string, asker netip.Addr) (Service, bool) {
	if d.asked != nil {
		return d.asked(name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.services[name]
	return s, ok && !d.hidden[asker.String()][s.Name]
}

func (d *directory) Name(addr, _ netip.Addr) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, ok := d.names[addr]
	return name, ok
}

func (d *directory) set(name string, s Service) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.services[name] = s
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// cluster has a service with a VIP, which has an alias, one without, one that runs on every node, and
// one that has no tasks.
func cluster() *directory {
	web := Service{
		Name: "web", VIP: addr("10.224.0.5"),
		Tasks: []Task{{1, "web.1", addr("10.208.1.2")}, {2, "web.2", addr("10.208.2.2")}, {3, "web.3", addr("10.208.3.2")}},
		Ports: []Port{{"http", "tcp", 8080}, {"", "tcp", 9090}, {"metrics", "tcp", 9090}, {"dns", "udp", 53}},
	}
	db := Service{
		Name:  "db",
		Tasks: []Task{{1, "db.1", addr("10.208.1.3")}, {2, "db.2", addr("10.208.2.3")}},
		Ports: []Port{{"sql", "tcp", 5432}},
	}
	logs := Service{Name: "logs", VIP: addr("10.224.0.9"), Tasks: []Task{{0, "logs.Node-7.example", addr("10.208.7.9")}}}
	idle := Service{Name: "idle"}
	return &directory{
		services: map[string]Service{"web": web, "api.example.com": web, "db": db, "logs": logs, "idle": idle},
		names: map[netip.Addr]string{
			addr("10.224.0.5"): "web", addr("10.208.1.2"): "web.1", addr("10.208.1.3"): "db.1.warren.internal.",
		},
		hidden: map[string]map[string]bool{"127.0.0.9": {"web": true}},
	}
}

// startServer serves on loopback. upstreams are the host's resolvers, all on one port.
func startServer(t testing.TB, d Directory, upstreams ...*upstream) *Server {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	writeConf(t, conf, upstreams...)
	return startServerWith(t, d, conf, upstreams...)
}

func startServerWith(t testing.TB, d Directory, conf string, upstreams ...*upstream) *Server {
	t.Helper()
	var s *Server
	for s == nil { // the free port of one transport may be taken of the other
		var err error
		s, err = Listen(t.Context(), Options{
			Addr: netip.MustParseAddrPort("127.0.0.1:0"), Directory: d, Ranges: clusterRanges, ResolvConf: conf,
		})
		if err != nil && !errors.Is(err, unix.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	for _, u := range upstreams {
		s.others.port = u.addr.Port()
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

func writeConf(t testing.TB, path string, upstreams ...*upstream) {
	t.Helper()
	var content strings.Builder
	content.WriteString("search corp.example\nnameserver 127.0.0.1\n") // the server itself
	for _, u := range upstreams {
		content.WriteString("nameserver " + u.addr.Addr().String() + "\n")
	}
	next := path + ".next"
	if err := os.WriteFile(next, []byte(content.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

// upstream is a resolver of the host.
type upstream struct {
	addr    netip.AddrPort
	queries atomic.Int64
	overTCP atomic.Int64

	mu    sync.Mutex
	ids   map[uint16]bool
	ports map[uint16]bool // that queries over UDP come from
}

// startUpstream serves on addr; several of one port are made with the port of the first.
func startUpstream(t testing.TB, at string, reply func(r *dns.Msg, overTCP bool) *dns.Msg) *upstream {
	t.Helper()
	var packets net.PacketConn
	var listener net.Listener
	for listener == nil {
		var err error
		if packets, err = net.ListenPacket("udp", at); err != nil {
			t.Fatal(err)
		}
		if listener, err = net.Listen("tcp", packets.LocalAddr().String()); err != nil {
			packets.Close()
			if !strings.HasSuffix(at, ":0") {
				t.Skip("the port is taken at another address: ", err)
			}
		}
	}
	u := &upstream{addr: packets.LocalAddr().(*net.UDPAddr).AddrPort(), ids: map[uint16]bool{}, ports: map[uint16]bool{}}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		_, overTCP := w.RemoteAddr().(*net.TCPAddr)
		u.queries.Add(1)
		if overTCP {
			u.overTCP.Add(1)
		} else {
			u.mu.Lock()
			u.ids[r.Id] = true
			u.ports[w.RemoteAddr().(*net.UDPAddr).AddrPort().Port()] = true
			u.mu.Unlock()
		}
		if m := reply(r, overTCP); m != nil {
			_ = w.WriteMsg(m)
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = run(ctx, &dns.Server{PacketConn: packets, Handler: handler, UDPSize: ednsSize}) })
	running.Go(func() { _ = run(ctx, &dns.Server{Listener: listener, Handler: handler}) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return u
}

// next is the address of the next resolver on the same port.
func (u *upstream) next() string {
	return netip.AddrPortFrom(u.addr.Addr().Next(), u.addr.Port()).String()
}

// answering is what an upstream does with a question.
type answering func(r *dns.Msg, overTCP bool) *dns.Msg

// after has it take its time.
func (a answering) after(d time.Duration) answering {
	return func(r *dns.Msg, overTCP bool) *dns.Msg {
		<-time.After(d)
		return a(r, overTCP)
	}
}

// says is an upstream that answers every question for an A record with one.
func says(a string, ttl uint32) answering {
	return func(r *dns.Msg, _ bool) *dns.Msg {
		m := new(dns.Msg).SetReply(r)
		if r.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{
				Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl},
				A:   net.ParseIP(a),
			}}
		}
		return m
	}
}

func failsWith(rcode int) func(*dns.Msg, bool) *dns.Msg {
	return func(r *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(r, rcode) }
}

func saysNothing(*dns.Msg, bool) *dns.Msg { return nil }

// query makes one.
func query(name string, t uint16) *dns.Msg { return new(dns.Msg).SetQuestion(dns.Fqdn(name), t) }

// ask sends m to s and returns the answer.
func ask(t testing.TB, s *Server, transport string, m *dns.Msg) *dns.Msg {
	t.Helper()
	return askFrom(t, s, transport, m, "127.0.0.1")
}

func askFrom(t testing.TB, s *Server, transport string, m *dns.Msg, from string) *dns.Msg {
	t.Helper()
	client := &dns.Client{Net: transport, Timeout: 10e9, UDPSize: 4096}
	client.Dialer = &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	if transport == "tcp" {
		client.Dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	said, _, err := client.Exchange(m, s.Addr().String())
	if err != nil {
		t.Fatalf("%s over %s: %v", m.Question[0].Name, transport, err)
	}
	return said
}

// data writes an answer's records without their owners and times to live.
func data(rrs []dns.RR) []string {
	var all []string
	for _, rr := range rrs {
		if rr.Header().Rrtype == dns.TypeOPT {
			continue
		}
		all = append(all, dns.TypeToString[rr.Header().Rrtype]+" "+strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return all
}
