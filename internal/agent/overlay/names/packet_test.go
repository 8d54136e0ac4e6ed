package names

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// writer takes the answer to one packet.
type writer struct {
	dns.ResponseWriter
	from net.Addr
	wire []byte
}

func (w *writer) RemoteAddr() net.Addr { return w.from }

func (w *writer) WriteMsg(m *dns.Msg) (err error) {
	w.wire, err = m.Pack()
	return err
}

func (w *writer) Write(wire []byte) (int, error) {
	w.wire = wire
	return len(wire), nil
}

// newHandler is a server without sockets and without resolvers.
func newHandler(t testing.TB, d Directory) *Server {
	t.Helper()
	node := addr("10.208.1.1")
	return &Server{
		addr: netip.AddrPortFrom(node, 53), ranges: clusterRanges, log: slog.New(slog.DiscardHandler),
		zone:   &zone{directory: d, server: node, ranges: clusterRanges},
		others: newForwarder(node, t.TempDir()+"/missing", slog.New(slog.DiscardHandler)),
	}
}

// FuzzPacket: whatever comes in, the answer is one to the question, fits, and a name of the cluster's
// never asks a resolver.
func FuzzPacket(f *testing.F) {
	for _, name := range []string{
		"web", "web.warren.internal", "tasks.web", "1.web", "web.1.warren.internal", "_http._tcp.web", "_._tcp.", "_tcp.web", "_http._tcp.tasks.many",
		"warren.internal", ".", "many", "2.1.208.10.in-addr.arpa", "208.10.in-addr.arpa", "a.208.10.in-addr.arpa", "example.com", `\.\000.warren.internal`,
		strings.Repeat("1.", 100) + "web.warren.internal",
	} {
		for _, kind := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypePTR, dns.TypeANY} {
			m := query(name, kind)
			if kind != dns.TypeA {
				m.SetEdns0(1232, true)
			}
			wire, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(wire, kind == dns.TypeSRV)
		}
	}
	f.Add([]byte{}, false)
	f.Add(make([]byte, 12), false)
	f.Add([]byte{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, false) // promises a question and ends
	looped := append(make([]byte, 12), 0xc0, 12, 0, 1, 0, 1) // a name that points to itself
	looped[5] = 1
	f.Add(looped, true)

	d := cluster()
	d.set("many", many(300))
	s := newHandler(f, d)
	f.Fuzz(func(t *testing.T, packet []byte, overTCP bool) {
		if len(packet) < 12 { // the server drops it before it looks
			return
		}
		u16 := func(i int) uint16 { return binary.BigEndian.Uint16(packet[i:]) }
		accepted := accept(dns.Header{Id: u16(0), Bits: u16(2), Qdcount: u16(4), Ancount: u16(6), Nscount: u16(8), Arcount: u16(10)})
		r := new(dns.Msg)
		if accepted != dns.MsgAccept || r.Unpack(packet) != nil {
			return
		}
		most := udpSize(r)
		w := &writer{from: &net.UDPAddr{IP: net.IPv4(10, 208, 1, 2), Port: 4}}
		if overTCP {
			w.from, most = &net.TCPAddr{IP: net.IPv4(10, 208, 1, 2), Port: 4}, dns.MaxMsgSize
		}
		s.handle(context.Background(), w, r)
		m := new(dns.Msg)
		if err := m.Unpack(w.wire); err != nil {
			t.Fatalf("the answer to %v does not unpack: %v", r.Question, err)
		}
		if len(r.Question) == 0 {
			if m.Rcode != dns.RcodeFormatError || m.Id != r.Id {
				t.Fatalf("no question, and yet:\n%s", m)
			}
			return
		}
		question := r.Question[0]
		if !m.Response || m.Id != r.Id || len(m.Question) != 1 || m.Question[0] != question || len(w.wire) > most {
			t.Fatalf("%d bytes to who takes %d:\n%s", len(w.wire), most, m)
		}
		ours := dns.IsSubDomain(apex, question.Name) && question.Qclass == dns.ClassINET && m.Rcode != dns.RcodeRefused
		if ours && !m.Authoritative && m.Rcode != dns.RcodeFormatError && m.Rcode != dns.RcodeBadVers {
			t.Fatalf("a name of the cluster's left the zone:\n%s", m)
		}
	})
}

// FuzzReply: whatever a resolver says, and be it what a stranger had it say, the client gets a message
// that fits.
func FuzzReply(f *testing.F) {
	r := query("eXample.com", dns.TypeA)
	seeds := []*dns.Msg{
		says("192.0.2.1", 60)(r, false), failsWith(dns.RcodeServerFailure)(r, false),
		new(dns.Msg).SetRcode(r, dns.RcodeNameError), says("192.0.2.1", 1<<31)(r, false).SetEdns0(1232, true),
	}
	for _, text := range []string{
		"example.com. 60 IN CNAME example.net.", "example.com. 60 IN SOA a. b. 1 2 3 4 5", "example.com. 60 IN HTTPS 1 . alpn=h2", "example.com. 60 IN TXT a b",
		"example.com. 60 IN RRSIG A 8 2 60 20300101000000 20200101000000 1 example.com. AAAA", `example.com. 60 IN TYPE65280 \# 3 010203`, "a.b. 60 IN LOC 1 N 1 E 1m",
	} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m := new(dns.Msg).SetReply(r)
		m.Answer, m.Ns, m.Extra = []dns.RR{rr, rr}, []dns.RR{rr}, []dns.RR{rr}
		seeds = append(seeds, m)
	}
	for _, m := range seeds {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, uint32(5), true)
		f.Add(wire, uint32(100), false)
	}
	f.Fuzz(func(t *testing.T, reply []byte, age uint32, edns bool) {
		said, r, now := new(dns.Msg), query("eXample.com", dns.TypeA), time.Unix(1e9, 0)
		if said.Unpack(reply) != nil {
			return
		}
		_ = answers(said, r)
		k, err := keep(said, now)
		if err != nil { // what unpacks need not pack: the query fails
			return
		}
		if k.expires.Before(now) || k.expires.After(now.Add(longestKept)) {
			t.Fatalf("remembered until %v", k.expires.Sub(now))
		}
		said, err = k.message(now.Add(time.Duration(age) * time.Second))
		if err != nil {
			return
		}
		m := new(dns.Msg).SetReply(r)
		if edns {
			r.SetEdns0(1000, false)
			m.SetEdns0(ednsSize, false)
		}
		pass(m, r, said)
		fit(m, udpSize(r))
		wire, err := m.Pack()
		if err != nil {
			return
		}
		got := new(dns.Msg)
		if err := got.Unpack(wire); err != nil || len(wire) > udpSize(r) || got.Id != r.Id || (got.IsEdns0() != nil) != edns {
			t.Fatalf("%d bytes, %v:\n%s", len(wire), err, got)
		}
	})
}

func TestAPacketWithoutTheQuestionItPromisesIsAnError(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster())
	c, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, packet := range [][]byte{
		{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0},                         // none
		{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 'w', 'e'},            // half of one
		{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1},   // one that points to itself
		{0, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 'w', 'e', 'b', 0, 0}, // one that is not announced
	} {
		if _, err := c.Write(packet); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 512)
		n, err := c.Read(buffer)
		m := new(dns.Msg)
		if err != nil || m.Unpack(buffer[:n]) != nil || m.Id != 9 || m.Rcode != dns.RcodeFormatError {
			t.Errorf("answer to %v: %v\n%s", packet, err, m)
		}
	}
	mustSay(t, ask(t, s, "udp", query("web", dns.TypeA)), "A 10.224.0.5")
}

func TestANameInTheDirectoryThatIsNoneFailsTheQuery(t *testing.T) {
	t.Parallel()
	d := cluster()
	d.set("bad", Service{Name: strings.Repeat("x", 80), VIP: addr("10.224.0.1"), Ports: []Port{{"http", "tcp", 80}}})
	s := startServer(t, d)
	if m := ask(t, s, "udp", query("_http._tcp.bad", dns.TypeSRV)); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("answer:\n%s", m)
	}
}

// BenchmarkAnswer is one name of the cluster's, from a packet to a packet.
func BenchmarkAnswer(b *testing.B) {
	s := newHandler(b, cluster())
	for name, kind := range map[string]uint16{"web": dns.TypeA, "tasks.web.warren.internal": dns.TypeA, "_http._tcp.web": dns.TypeSRV} {
		wire, _ := query(name, kind).Pack()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := new(dns.Msg)
				if err := r.Unpack(wire); err != nil {
					b.Fatal(err)
				}
				s.handle(b.Context(), &writer{from: &net.UDPAddr{IP: net.IPv4(10, 208, 1, 2), Port: 4}}, r)
			}
		})
	}
}

// BenchmarkQuery is the same over a socket, of one client after the other and of several at once.
func BenchmarkQuery(b *testing.B) {
	s := startServer(b, cluster())
	wire, _ := query("web.warren.internal", dns.TypeA).Pack()
	client := func(b *testing.B) func() {
		c, err := net.Dial("udp", s.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		buffer := make([]byte, 512)
		return func() {
			if _, err := c.Write(wire); err != nil {
				b.Error(err)
			}
			if _, err := c.Read(buffer); err != nil {
				b.Error(err)
			}
		}
	}
	b.Run("one client", func(b *testing.B) {
		b.ReportAllocs()
		ask := client(b)
		for b.Loop() {
			ask()
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
	})
	b.Run("16 clients", func(b *testing.B) {
		b.SetParallelism(8)
		b.RunParallel(func(p *testing.PB) {
			ask := client(b)
			for p.Next() {
				ask()
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
	})
}
