package names

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestTheClustersNames(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster())
	const domain = ".warren.internal"
	cases := []struct {
		name string
		kind uint16
		want []string // in any order; none: there is no such record
	}{
		{"web", dns.TypeA, []string{"A 10.224.0.5"}},
		{"web" + domain, dns.TypeA, []string{"A 10.224.0.5"}},
		{"WeB.Warren.INTERNAL", dns.TypeA, []string{"A 10.224.0.5"}},
		{"api.example.com", dns.TypeA, []string{"A 10.224.0.5"}},
		{"api.example.com" + domain, dns.TypeA, []string{"A 10.224.0.5"}},
		{"db", dns.TypeA, []string{"A 10.208.1.3", "A 10.208.2.3"}},
		{"db" + domain, dns.TypeA, []string{"A 10.208.1.3", "A 10.208.2.3"}},
		{"tasks.web", dns.TypeA, []string{"A 10.208.1.2", "A 10.208.2.2", "A 10.208.3.2"}},
		{"tasks.web" + domain, dns.TypeA, []string{"A 10.208.1.2", "A 10.208.2.2", "A 10.208.3.2"}},
		{"tasks.api.example.com", dns.TypeA, []string{"A 10.208.1.2", "A 10.208.2.2", "A 10.208.3.2"}},
		{"web.2", dns.TypeA, []string{"A 10.208.2.2"}},
		{"web.2" + domain, dns.TypeA, []string{"A 10.208.2.2"}},
		{"2.web", dns.TypeA, []string{"A 10.208.2.2"}},
		{"2.web" + domain, dns.TypeA, []string{"A 10.208.2.2"}},
		{"2.api.example.com" + domain, dns.TypeA, []string{"A 10.208.2.2"}},
		{"logs.node-7.example" + domain, dns.TypeA, []string{"A 10.208.7.9"}},
		{"node-7.example.logs" + domain, dns.TypeA, []string{"A 10.208.7.9"}},

		{"_http._tcp.web", dns.TypeSRV, []string{"SRV 0 1 8080 web.warren.internal."}},
		{"_HTTP._TCP.web" + domain, dns.TypeSRV, []string{"SRV 0 1 8080 web.warren.internal."}},
		{"_9090._tcp.web" + domain, dns.TypeSRV, []string{"SRV 0 1 9090 web.warren.internal."}},
		{"_dns._udp.web", dns.TypeSRV, []string{"SRV 0 1 53 web.warren.internal."}},
		{"_http._tcp.api.example.com", dns.TypeSRV, []string{"SRV 0 1 8080 web.warren.internal."}},
		{"_sql._tcp.db", dns.TypeSRV, []string{"SRV 0 1 5432 db.1.warren.internal.", "SRV 0 1 5432 db.2.warren.internal."}},
		{"_http._tcp.tasks.web", dns.TypeSRV, []string{
			"SRV 0 1 8080 web.1.warren.internal.", "SRV 0 1 8080 web.2.warren.internal.", "SRV 0 1 8080 web.3.warren.internal.",
		}},
		{"_http._tcp.web.3", dns.TypeSRV, []string{"SRV 0 1 8080 web.3.warren.internal."}},

		{"5.0.224.10.in-addr.arpa", dns.TypePTR, []string{"PTR web.warren.internal."}},
		{"2.1.208.10.IN-ADDR.arpa", dns.TypePTR, []string{"PTR web.1.warren.internal."}},
		{"3.1.208.10.in-addr.arpa", dns.TypePTR, []string{"PTR db.1.warren.internal."}},

		{"warren.internal", dns.TypeNS, []string{"NS ns.dns.warren.internal."}},
		{"warren.internal", dns.TypeSOA, []string{"SOA ns.dns.warren.internal. hostmaster.warren.internal. 1 3600 600 86400 0"}},
		{"ns.dns" + domain, dns.TypeA, []string{"A 127.0.0.1"}},
		{"208.10.in-addr.arpa", dns.TypeNS, []string{"NS ns.dns.warren.internal."}},
		{"web", dns.TypeANY, []string{`HINFO "RFC8482" ""`}},

		// They exist and have no such record.
		{"web", dns.TypeAAAA, nil},
		{"web" + domain, dns.TypeAAAA, nil},
		{"web" + domain, dns.TypeMX, nil},
		{"web" + domain, dns.TypeSRV, nil},
		{"web" + domain, dns.TypeHTTPS, nil},
		{"tasks.db", dns.TypeAAAA, nil},
		{"_http._tcp.web" + domain, dns.TypeA, nil},
		{"_tcp.web" + domain, dns.TypeA, nil},
		{"idle", dns.TypeA, nil},
		{"tasks.idle" + domain, dns.TypeA, nil},
		{"dns" + domain, dns.TypeA, nil},
		{"1" + domain, dns.TypeA, nil},
		{"warren.internal", dns.TypeA, nil},
		{"2.1.208.10.in-addr.arpa", dns.TypeA, nil},
		{"1.208.10.in-addr.arpa", dns.TypePTR, nil},
	}
	for _, c := range cases {
		for _, transport := range []string{"udp", "tcp"} {
			t.Run(fmt.Sprintf("%s %s over %s", c.name, dns.TypeToString[c.kind], transport), func(t *testing.T) {
				m := ask(t, s, transport, query(c.name, c.kind))
				if m.Rcode != dns.RcodeSuccess || !m.Authoritative || !m.RecursionAvailable || m.Truncated {
					t.Errorf("answer:\n%s", m)
				}
				got := data(m.Answer)
				slices.Sort(got)
				if !slices.Equal(got, c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
				if c.want == nil {
					mustSayNo(t, m)
				}
				for _, rr := range m.Answer {
					if rr.Header().Name != dns.Fqdn(c.name) || rr.Header().Ttl != 0 {
						t.Errorf("owner and TTL: %s", rr)
					}
				}
			})
		}
	}
}

// mustSayNo checks the SOA that has a "no" forgotten at once (RFC 2308).
func mustSayNo(t *testing.T, m *dns.Msg) {
	t.Helper()
	if len(m.Answer) != 0 || len(m.Ns) != 1 {
		t.Fatalf("want a SOA and nothing else:\n%s", m)
	}
	soa, ok := m.Ns[0].(*dns.SOA)
	if !ok || soa.Minttl != 0 || soa.Hdr.Ttl != 0 || !dns.IsSubDomain(soa.Hdr.Name, m.Question[0].Name) {
		t.Errorf("SOA %s", m.Ns[0])
	}
}

func TestNamesThatAreNobodysAreDeniedAndNeverForwarded(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, "127.0.1.1:0", says("192.0.2.1", 60))
	s := startServer(t, cluster(), up)
	for _, name := range []string{
		"nobody.warren.internal", "NOBODY.WARREN.INTERNAL", "tasks.nobody.warren.internal", "tasks.warren.internal", "web.9.warren.internal",
		"9.web.warren.internal", "x.web.warren.internal", "_nothing._tcp.web.warren.internal", "_http._udp.web.warren.internal",
		"_http._tcp.warren.internal", "_http._sctp.web.warren.internal", "_http.web.warren.internal", `web\.1.warren.internal`, `\000.warren.internal`,
		"example.com.warren.internal", "9.9.208.10.in-addr.arpa", "9.9.9.208.10.in-addr.arpa", "x.9.208.10.in-addr.arpa", "256.9.208.10.in-addr.arpa",
		"02.1.208.10.in-addr.arpa", "1.2.223.10.in-addr.arpa", strings.Repeat("a.", 100) + "warren.internal",
	} {
		m := ask(t, s, "udp", query(name, dns.TypeA))
		if m.Rcode != dns.RcodeNameError || !m.Authoritative {
			t.Errorf("answer to %s:\n%s", name, m)
			continue
		}
		mustSayNo(t, m)
	}
	if n := up.queries.Load(); n != 0 {
		t.Errorf("%d queries left the node", n)
	}
}

func TestOtherNamesAreForwarded(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, "127.0.1.1:0", says("192.0.2.1", 0))
	s := startServer(t, cluster(), up)
	for _, name := range []string{
		"example.com", "intranet", "warren.internal.example.com", "notwarren.internal", "internal", ".", "tasks.nobody", "www.logs", "node-7.example.logs",
		"_sip._tcp.example.com", "1.0.0.127.in-addr.arpa", "9.9.207.10.in-addr.arpa", "10.in-addr.arpa", "1.0.225.10.in-addr.arpa", "in-addr.arpa",
	} {
		m := ask(t, s, "udp", query(name, dns.TypeA))
		if got := data(m.Answer); m.Authoritative || !slices.Equal(got, []string{"A 192.0.2.1"}) {
			t.Errorf("answer to %s:\n%s", name, m)
		}
	}
}

func TestAnswersAreShuffled(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster())
	first := map[string]bool{}
	for range 200 { // the chance that one of three never comes first is 1e-35
		first[data(ask(t, s, "udp", query("tasks.web", dns.TypeA)).Answer)[0]] = true
	}
	if len(first) != 3 {
		t.Errorf("came first: %v", first)
	}
}

func TestServiceRecordsComeWithAddresses(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster())
	m := ask(t, s, "udp", query("_sql._tcp.db", dns.TypeSRV))
	got := map[string]string{}
	for _, rr := range m.Extra {
		if a, ok := rr.(*dns.A); ok {
			got[a.Hdr.Name] = a.A.String()
		}
	}
	if len(got) != 2 || got["db.1.warren.internal."] != "10.208.1.3" || got["db.2.warren.internal."] != "10.208.2.3" {
		t.Errorf("additional addresses %v", got)
	}
}

func TestEveryTargetAndReverseNameResolves(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster())
	for _, a := range []string{"10.224.0.5", "10.208.1.2", "10.208.1.3"} {
		reverse, _ := dns.ReverseAddr(a)
		ptr := ask(t, s, "udp", query(reverse, dns.TypePTR)).Answer[0].(*dns.PTR)
		if got := data(ask(t, s, "udp", query(ptr.Ptr, dns.TypeA)).Answer); !slices.Equal(got, []string{"A " + a}) {
			t.Errorf("%s is called %s, which is %v", a, ptr.Ptr, got)
		}
	}
}

func TestEachAskerSeesItsOwnServices(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster())
	for _, transport := range []string{"udp", "tcp"} {
		if m := askFrom(t, s, transport, query("web.warren.internal", dns.TypeA), "127.0.0.9"); m.Rcode != dns.RcodeNameError {
			t.Errorf("hidden from its asker over %s, and yet:\n%s", transport, m)
		}
		if m := askFrom(t, s, transport, query("web.warren.internal", dns.TypeA), "127.0.0.8"); len(m.Answer) != 1 {
			t.Errorf("answer over %s:\n%s", transport, m)
		}
	}
}

func TestAChangeIsSeenByTheNextQuery(t *testing.T) {
	t.Parallel()
	d := cluster()
	s := startServer(t, d)
	for i := range byte(50) {
		want := netip.AddrFrom4([4]byte{10, 224, 1, i})
		d.set("web", Service{Name: "web", VIP: want})
		if got := data(ask(t, s, "udp", query("web", dns.TypeA)).Answer); !slices.Equal(got, []string{"A " + want.String()}) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

// many is a service of n tasks.
func many(n int) Service {
	s := Service{Name: "many", Ports: []Port{{"http", "tcp", 80}}}
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, 208, byte(i >> 8), byte(i)})
		s.Tasks = append(s.Tasks, Task{Slot: uint32(i), Name: fmt.Sprintf("many.%d", i), Addr: a})
	}
	return s
}

func TestLargeAnswersAreCutOverUDPAndWholeOverTCP(t *testing.T) {
	t.Parallel()
	d := cluster()
	d.set("many", many(1000))
	s := startServer(t, d)
	for _, kind := range []uint16{dns.TypeA, dns.TypeSRV} {
		name := "many"
		if kind == dns.TypeSRV {
			name = "_http._tcp.many"
		}
		for _, c := range []struct{ says, most int }{{0, 512}, {100, 512}, {512, 512}, {900, 900}, {1232, 1232}, {4096, 1232}, {65535, 1232}} {
			q := query(name, kind)
			if c.says > 0 {
				q.SetEdns0(uint16(c.says), false)
			}
			m := ask(t, s, "udp", q)
			m.Compress = true
			if !m.Truncated || len(m.Answer) == 0 || m.Len() > c.most {
				t.Errorf("%s to a client of %d: cut %v, %d records, %d bytes", name, c.says, m.Truncated, len(m.Answer), m.Len())
			}
			if edns := m.IsEdns0(); (edns != nil) != (c.says > 0) || edns != nil && edns.UDPSize() != ednsSize {
				t.Errorf("EDNS %v to a client of %d", edns, c.says)
			}
		}
		m := ask(t, s, "tcp", query(name, kind))
		if m.Truncated || len(m.Answer) != 1000 {
			t.Errorf("%s over TCP: cut %v, %d records", name, m.Truncated, len(m.Answer))
		}
	}
}

func TestAdditionalAddressesGoFirstAndAreNotMissed(t *testing.T) {
	t.Parallel()
	d := cluster()
	d.set("many", many(10)) // the records fit into 512 bytes, the addresses do not
	s := startServer(t, d)
	m := ask(t, s, "udp", query("_http._tcp.many", dns.TypeSRV))
	if m.Truncated || len(m.Answer) != 10 || len(m.Extra) != 0 {
		t.Errorf("answer:\n%s", m)
	}
}

func TestMoreThanAMessageHoldsIsCutOverTCPToo(t *testing.T) {
	t.Parallel()
	d := cluster()
	d.set("many", many(6000))
	s := startServer(t, d)
	if m := ask(t, s, "tcp", query("many", dns.TypeA)); !m.Truncated || len(m.Answer) < 4000 {
		t.Errorf("cut %v, %d records", m.Truncated, len(m.Answer))
	}
}

func TestQueriesThatAreNotAnswered(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, "127.0.1.1:0", says("192.0.2.1", 60))
	s := startServer(t, cluster(), up)
	made := func(change func(m *dns.Msg)) *dns.Msg {
		m := query("web", dns.TypeA)
		change(m)
		return m
	}
	cases := []struct {
		what string
		m    *dns.Msg
		want int
	}{
		{"a transfer", query("warren.internal", dns.TypeAXFR), dns.RcodeRefused},
		{"a transfer of elsewhere", query("example.com", dns.TypeAXFR), dns.RcodeRefused},
		{"the class of chaos", made(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		{"any class", made(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused},
		{"an update", made(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"a notice", made(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		{"two questions", made(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		{"no type", made(func(m *dns.Msg) { m.Question[0].Qtype = 0 }), dns.RcodeFormatError},
		{"EDNS to come", made(func(m *dns.Msg) { m.SetEdns0(1232, false).IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
		{"no recursion elsewhere", made(func(m *dns.Msg) { m.Question[0].Name = "example.com."; m.RecursionDesired = false }), dns.RcodeRefused},
	}
	for _, c := range cases {
		if m := ask(t, s, "udp", c.m); m.Rcode != c.want || len(m.Answer) != 0 {
			t.Errorf("%s:\n%s", c.what, m)
		}
	}
	if m := ask(t, s, "udp", query("example.com", dns.TypeANY)); len(m.Answer) != 1 || m.Answer[0].Header().Rrtype != dns.TypeHINFO {
		t.Errorf("any type of elsewhere:\n%s", m)
	}
	if n := up.queries.Load(); n != 0 {
		t.Errorf("%d queries left the node", n)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster())
	for asker, want := range map[string]int{
		"10.208.1.2": dns.RcodeSuccess, "10.223.255.1": dns.RcodeSuccess, "10.224.0.1": dns.RcodeSuccess, "127.0.0.1": dns.RcodeSuccess,
		"10.207.255.255": dns.RcodeRefused, "10.225.0.1": dns.RcodeRefused, "192.0.2.1": dns.RcodeRefused, "2001:db8::1": dns.RcodeRefused,
	} {
		m := s.answer(t.Context(), query("web", dns.TypeA), addr(asker))
		if m.Rcode != want || (want == dns.RcodeRefused) != (len(m.Answer) == 0) {
			t.Errorf("answer to %s:\n%s", asker, m)
		}
	}
	if m := s.answer(t.Context(), query("web", dns.TypeA), netip.Addr{}); m.Rcode != dns.RcodeRefused {
		t.Errorf("answer to nobody:\n%s", m)
	}
}
