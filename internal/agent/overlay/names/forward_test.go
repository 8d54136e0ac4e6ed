package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

func mustSay(t *testing.T, m *dns.Msg, want ...string) {
	t.Helper()
	if got := data(m.Answer); m.Rcode != dns.RcodeSuccess || !slices.Equal(got, want) {
		t.Errorf("want %q:\n%s", want, m)
	}
}

func TestAForwardedAnswerIsTheResolversUnderTheNameAsAsked(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, "127.0.1.1:0", func(r *dns.Msg, _ bool) *dns.Msg {
		m := says("192.0.2.1", 60)(r, false)
		m.Authoritative, m.AuthenticatedData = true, r.AuthenticatedData
		m.SetEdns0(1232, r.IsEdns0().Do())
		return m
	})
	s := startServer(t, cluster(), up)
	for _, q := range []*dns.Msg{query("eXample.COM", dns.TypeA), query("EXAMPLE.com", dns.TypeA).SetEdns0(800, true)} {
		m := ask(t, s, "udp", q)
		mustSay(t, m, "A 192.0.2.1")
		asked := q.IsEdns0()
		if m.Authoritative || m.AuthenticatedData != (asked != nil) || !m.RecursionAvailable {
			t.Errorf("flags:\n%s", m)
		}
		if m.Question[0] != q.Question[0] || m.Answer[0].Header().Name != q.Question[0].Name {
			t.Errorf("the question's case is lost:\n%s", m)
		}
		if edns := m.IsEdns0(); (edns != nil) != (asked != nil) || edns != nil && (edns.UDPSize() != ednsSize || !edns.Do()) {
			t.Errorf("EDNS:\n%s", m)
		}
	}
}

func TestTheNextResolverIsAskedWhenOneFails(t *testing.T) {
	t.Parallel()
	for _, rcode := range []int{dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented} {
		first := startUpstream(t, "127.0.1.1:0", failsWith(rcode))
		second := startUpstream(t, first.next(), says("192.0.2.2", 60))
		s := startServer(t, cluster(), first, second)
		mustSay(t, ask(t, s, "udp", query("example.com", dns.TypeA)), "A 192.0.2.2")
		if first.queries.Load() != 1 {
			t.Errorf("the first was asked %d times", first.queries.Load())
		}
	}
}

func TestWhatAllResolversSayIsPassedOn(t *testing.T) {
	t.Parallel()
	first := startUpstream(t, "127.0.1.1:0", failsWith(dns.RcodeServerFailure))
	second := startUpstream(t, first.next(), failsWith(dns.RcodeServerFailure))
	s := startServer(t, cluster(), first, second)
	if m := ask(t, s, "udp", query("example.com", dns.TypeA)); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("answer:\n%s", m)
	}
	ask(t, s, "udp", query("example.com", dns.TypeA)) // within the second for which a failure is remembered
	if first.queries.Load() != 1 || second.queries.Load() != 1 {
		t.Errorf("asked %d and %d times", first.queries.Load(), second.queries.Load())
	}
}

func TestAResolverThatIsSilentCostsTimeOnceAndNotMuch(t *testing.T) {
	t.Parallel()
	first := startUpstream(t, "127.0.1.1:0", saysNothing)
	second := startUpstream(t, first.next(), says("192.0.2.2", 60))
	s := startServer(t, cluster(), first, second)
	for i := range 20 {
		begun := time.Now()
		mustSay(t, ask(t, s, "udp", query(fmt.Sprintf("host%d.example.com", i), dns.TypeA)), "A 192.0.2.2")
		if took := time.Since(begun); i == 0 && took > patience || i > 0 && took > lateAfter {
			t.Errorf("question %d took %v", i, took)
		}
	}
	// Once while it was not known, and one probe, of which a packet may have got lost.
	if n := first.queries.Load(); n > 3 {
		t.Errorf("the silent one was asked %d times", n)
	}
}

func TestASlowResolverIsHeardThroughWhereTheOtherIsSilent(t *testing.T) {
	t.Parallel()
	first := startUpstream(t, "127.0.1.1:0", saysNothing)
	second := startUpstream(t, first.next(), says("192.0.2.2", 60).after(patience+200*time.Millisecond))
	s := startServer(t, cluster(), first, second)
	for i := range 2 {
		mustSay(t, ask(t, s, "udp", query(fmt.Sprintf("host%d.example.com", i), dns.TypeA)), "A 192.0.2.2")
	}
}

func TestASlowResolverIsHeardThroughWhereTheOthersDoNotKnow(t *testing.T) {
	t.Parallel()
	first := startUpstream(t, "127.0.1.1:0", says("192.0.2.1", 60).after(3*lateAfter))
	second := startUpstream(t, first.next(), failsWith(dns.RcodeRefused))
	s := startServer(t, cluster(), first, second)
	mustSay(t, ask(t, s, "udp", query("example.com", dns.TypeA)), "A 192.0.2.1")
}

func TestAFailureIsNotHeldBackByAResolverThatIsKnownToBeSilent(t *testing.T) {
	t.Parallel()
	first := startUpstream(t, "127.0.1.1:0", saysNothing)
	second := startUpstream(t, first.next(), failsWith(dns.RcodeServerFailure))
	s := startServer(t, cluster(), first, second)
	for i := range 3 {
		begun := time.Now()
		m := ask(t, s, "udp", query(fmt.Sprintf("host%d.example.com", i), dns.TypeA))
		if took := time.Since(begun); m.Rcode != dns.RcodeServerFailure || i > 0 && took > 3*lateAfter {
			t.Errorf("question %d, after %v:\n%s", i, took, m)
		}
	}
}

func TestAResolverThatIsBackGetsItsPlaceBack(t *testing.T) {
	t.Parallel()
	var back atomic.Bool
	first := startUpstream(t, "127.0.1.1:0", func(r *dns.Msg, _ bool) *dns.Msg {
		if !back.Load() {
			return nil
		}
		return says("192.0.2.1", 60)(r, false)
	})
	second := startUpstream(t, first.next(), says("192.0.2.2", 60))
	s := startServer(t, cluster(), first, second)
	up, names := s.others.hosts.current(), 0
	fresh := func() *dns.Msg {
		names++
		return ask(t, s, "udp", query(fmt.Sprintf("host%d.example.com", names), dns.TypeA))
	}
	silence := func() (s silence) {
		up.mu.Lock()
		defer up.mu.Unlock()
		if of := up.quiet[first.addr.Addr()]; of != nil {
			s = *of
		}
		return s
	}
	mustSay(t, fresh(), "A 192.0.2.2")
	for !silence().told { // the probe has failed
		await(t, "the silent one is given up")
	}
	mustSay(t, fresh(), "A 192.0.2.2")
	back.Store(true)
	mustSay(t, fresh(), "A 192.0.2.2") // the next probe is not due
	up.mu.Lock()
	up.quiet[first.addr.Addr()].due = time.Now()
	up.mu.Unlock()
	mustSay(t, fresh(), "A 192.0.2.2") // which waits for no probe
	for silence().told {
		await(t, "the silent one is known to be back")
	}
	mustSay(t, fresh(), "A 192.0.2.1")
}

// await passes a moment of a wait that the test bounds.
func await(t *testing.T, what string) {
	t.Helper()
	select {
	case <-t.Context().Done():
		t.Fatal("it never comes to pass that ", what)
	case <-time.After(time.Millisecond):
	}
}

func TestALostPacketIsSentAgain(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	up := startUpstream(t, "127.0.1.1:0", func(r *dns.Msg, _ bool) *dns.Msg {
		if n.Add(1) == 1 {
			return nil
		}
		return says("192.0.2.1", 60)(r, false)
	})
	s := startServer(t, cluster(), up)
	mustSay(t, ask(t, s, "udp", query("example.com", dns.TypeA)), "A 192.0.2.1")
}

func TestWhereNoResolverAnswersTheClientHearsItBeforeItGivesUp(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, "127.0.1.1:0", saysNothing)
	s := startServer(t, cluster(), up)
	begun := time.Now()
	m := ask(t, s, "udp", query("example.com", dns.TypeA))
	if took := time.Since(begun); m.Rcode != dns.RcodeServerFailure || took > 5*time.Second {
		t.Errorf("after %v:\n%s", took, m)
	}
	mustSay(t, ask(t, s, "udp", query("web", dns.TypeA)), "A 10.224.0.5")
}

func TestWithoutAResolverForwardingFailsAtOnce(t *testing.T) {
	t.Parallel()
	nobody := &upstream{addr: netip.MustParseAddrPort("127.0.1.250:1")} // nothing listens there
	for what, s := range map[string]*Server{
		"no file":             startServerWith(t, cluster(), filepath.Join(t.TempDir(), "missing")),
		"only ourselves":      startServer(t, cluster()),
		"nobody at the other": startServer(t, cluster(), nobody),
	} {
		begun := time.Now()
		m := ask(t, s, "udp", query("example.com", dns.TypeA))
		if took := time.Since(begun); m.Rcode != dns.RcodeServerFailure || took > patience {
			t.Errorf("%s: after %v:\n%s", what, took, m)
		}
	}
}

func TestAnAnswerTooLargeForUDPIsFetchedOverTCP(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, "127.0.1.1:0", func(r *dns.Msg, overTCP bool) *dns.Msg {
		m := new(dns.Msg).SetReply(r)
		for i := range 200 {
			m.Answer = append(m.Answer, says(fmt.Sprintf("192.0.2.%d", i), 60)(r, false).Answer...)
		}
		if !overTCP {
			m.Truncate(dns.MinMsgSize)
		}
		m.Compress = true
		return m
	})
	s := startServer(t, cluster(), up)
	if m := ask(t, s, "udp", query("example.com", dns.TypeA)); !m.Truncated || len(m.Answer) == 0 {
		t.Errorf("over UDP: cut %v, %d records", m.Truncated, len(m.Answer))
	}
	if m := ask(t, s, "tcp", query("example.com", dns.TypeA)); m.Truncated || len(m.Answer) != 200 {
		t.Errorf("over TCP: cut %v, %d records", m.Truncated, len(m.Answer))
	}
	if up.overTCP.Load() == 0 {
		t.Error("the resolver was not asked over TCP")
	}
}

func TestAResolverFromBeforeEDNSIsAskedWithoutIt(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, "127.0.1.1:0", func(r *dns.Msg, _ bool) *dns.Msg {
		if r.IsEdns0() != nil {
			return new(dns.Msg).SetRcodeFormatError(r).SetRcode(r, dns.RcodeFormatError)
		}
		return says("192.0.2.1", 60)(r, false)
	})
	s := startServer(t, cluster(), up)
	mustSay(t, ask(t, s, "udp", query("example.com", dns.TypeA)), "A 192.0.2.1")
}

func TestForgedAnswersArePassedOver(t *testing.T) {
	t.Parallel()
	resolver, err := net.ListenPacket("udp", "127.0.1.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := net.ListenPacket("udp", "127.0.1.3:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		resolver.Close()
		stranger.Close()
		<-done
	})
	go func() {
		defer close(done)
		buffer := make([]byte, 4096)
		for {
			n, from, err := resolver.ReadFrom(buffer)
			if err != nil {
				return
			}
			r := new(dns.Msg)
			if err := r.Unpack(buffer[:n]); err != nil {
				t.Error(err)
				return
			}
			forged := func(change func(m *dns.Msg)) []byte {
				m := says("203.0.113.6", 60)(r, false)
				change(m)
				wire, _ := m.Pack()
				return wire
			}
			right := forged(func(*dns.Msg) {})
			_, _ = stranger.WriteTo(right, from) // from another address
			for _, wire := range [][]byte{
				forged(func(m *dns.Msg) { m.Id++ }),
				forged(func(m *dns.Msg) { m.Question[0].Name = "example.net." }),
				forged(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTXT }),
				forged(func(m *dns.Msg) { m.Question = nil }),
				forged(func(m *dns.Msg) { m.Response = false }),
				right[:len(right)-2],
				{1, 2, 3},
				{},
			} {
				_, _ = resolver.WriteTo(wire, from)
			}
			wire, _ := says("192.0.2.1", 60)(r, false).Pack()
			_, _ = resolver.WriteTo(wire, from)
		}
	}()
	up := &upstream{addr: resolver.LocalAddr().(*net.UDPAddr).AddrPort()}
	s := startServer(t, cluster(), up)
	mustSay(t, ask(t, s, "udp", query("example.com", dns.TypeA)), "A 192.0.2.1")
}

func TestIdsAndPortsOfQueriesAreHardToGuess(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, "127.0.1.1:0", says("192.0.2.1", 0))
	s := startServer(t, cluster(), up)
	const n = 100
	for range n {
		q := query("example.com", dns.TypeA)
		q.Id = 7
		mustSay(t, ask(t, s, "udp", q), "A 192.0.2.1")
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if len(up.ids) < n*9/10 || len(up.ports) < n*9/10 {
		t.Errorf("%d queries had %d ids and came from %d ports", n, len(up.ids), len(up.ports))
	}
}

func TestAnswersAreRememberedForTheirTimeToLive(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, "127.0.1.1:0", says("192.0.2.1", 60))
	s := startServer(t, cluster(), up)
	for _, transport := range []string{"udp", "tcp", "udp"} {
		mustSay(t, ask(t, s, transport, query("Example.com", dns.TypeA)), "A 192.0.2.1")
	}
	if n := up.queries.Load(); n != 1 {
		t.Errorf("%d queries, want one", n)
	}
	// Signatures, another type and unchecked data are other questions.
	ask(t, s, "udp", query("example.com", dns.TypeA).SetEdns0(1232, true))
	ask(t, s, "udp", query("example.com", dns.TypeTXT))
	unchecked := query("example.com", dns.TypeA)
	unchecked.CheckingDisabled = true
	ask(t, s, "udp", unchecked)
	if n := up.queries.Load(); n != 4 {
		t.Errorf("%d queries, want four", n)
	}
}

func TestOtherResolversAreUsedFromTheNextQuestionOn(t *testing.T) {
	t.Parallel()
	first := startUpstream(t, "127.0.1.1:0", says("192.0.2.1", 3600))
	second := startUpstream(t, first.next(), says("192.0.2.2", 3600))
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	writeConf(t, conf, first)
	s := startServerWith(t, cluster(), conf, first)
	mustSay(t, ask(t, s, "udp", query("example.com", dns.TypeA)), "A 192.0.2.1")
	writeConf(t, conf, second)
	mustSay(t, ask(t, s, "udp", query("example.com", dns.TypeA)), "A 192.0.2.2")
}

func TestEqualQuestionsAreAskedOnce(t *testing.T) {
	t.Parallel()
	const clients = 50
	arrived := make(chan struct{})
	up := startUpstream(t, "127.0.1.1:0", func(r *dns.Msg, _ bool) *dns.Msg {
		<-arrived
		return says("192.0.2.1", 0)(r, false)
	})
	s := startServer(t, cluster(), up)
	var asking sync.WaitGroup
	for range clients {
		asking.Go(func() { mustSay(t, ask(t, s, "udp", query("example.com", dns.TypeA)), "A 192.0.2.1") })
	}
	for s.others.load.count() < clients { // all wait for the one answer
		select {
		case <-t.Context().Done():
			t.Fatal("they do not all arrive")
		case <-time.After(time.Millisecond):
		}
	}
	close(arrived)
	asking.Wait()
	if n := up.queries.Load(); n > 2 { // one may have come while the first answer was on its way
		t.Errorf("%d queries", n)
	}
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

func TestOneClientCannotTakeAllOfTheForwarding(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	up := startUpstream(t, "127.0.1.1:0", func(r *dns.Msg, _ bool) *dns.Msg {
		if r.Question[0].Name != "calm.example.com." {
			<-release
		}
		return says("192.0.2.1", 0)(r, false)
	})
	s := startServer(t, cluster(), up)
	greedy, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer greedy.Close()
	const extra = 20
	for i := range maxQuestionsPerClient + extra {
		wire, _ := query(fmt.Sprintf("host%d.example.com", i), dns.TypeA).Pack()
		if _, err := greedy.Write(wire); err != nil {
			t.Fatal(err)
		}
	}
	buffer := make([]byte, 512)
	for range extra { // those beyond the bound are answered first
		n, err := greedy.Read(buffer)
		m := new(dns.Msg)
		if err != nil || m.Unpack(buffer[:n]) != nil || m.Rcode != dns.RcodeServerFailure {
			t.Fatalf("%v:\n%s", err, m)
		}
	}
	mustSay(t, askFrom(t, s, "udp", query("calm.example.com", dns.TypeA), "127.0.0.7"), "A 192.0.2.1")
	mustSay(t, ask(t, s, "udp", query("web", dns.TypeA)), "A 10.224.0.5")
	close(release)
}

func TestServeEndsAtOnceWhileQuestionsAreUnderWay(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	up := startUpstream(t, "127.0.1.1:0", func(*dns.Msg, bool) *dns.Msg {
		asked <- struct{}{}
		return nil
	})
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	writeConf(t, conf, up)
	s, err := Listen(t.Context(), Options{Addr: netip.MustParseAddrPort("127.0.0.4:0"), Directory: cluster(), ResolvConf: conf})
	if err != nil {
		t.Fatal(err)
	}
	s.others.port = up.addr.Port()
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	for _, transport := range []string{"udp", "tcp"} { // an idle connection must not hold it up either
		c, err := net.Dial(transport, s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if transport == "udp" {
			wire, _ := query("example.com", dns.TypeA).Pack()
			_, _ = c.Write(wire)
		}
	}
	<-asked
	begun := time.Now()
	stop()
	if err := <-served; err != nil || time.Since(begun) > patience {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	if _, err := Listen(t.Context(), Options{Addr: s.Addr(), Directory: cluster()}); err != nil {
		t.Errorf("the address is not given back: %v", err)
	}
}

func TestAnAddressInUseIsToldWithTheRemedy(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster())
	err := Serve(t.Context(), Options{Addr: s.Addr(), Directory: cluster()})
	want := fmt.Sprintf(`serve names on %s over UDP: listen udp %s: bind: address already in use; another DNS server has it: "ss -lntup sport = :%d" shows which, `+
		"have it listen on addresses of its own only (dnsmasq: bind-interfaces; named: listen-on; unbound: interface)", s.Addr(), s.Addr(), s.Addr().Port())
	if !errors.Is(err, unix.EADDRINUSE) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	err = Serve(t.Context(), Options{Addr: netip.MustParseAddrPort("192.0.2.1:53"), Directory: cluster()})
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Error(err)
	}
	for _, bad := range []Options{
		{Directory: cluster()},
		{Addr: netip.MustParseAddrPort("127.0.0.1:0")},
		{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Directory: cluster(), Ranges: []netip.Prefix{netip.MustParsePrefix("fd00::/8")}},
	} {
		if err := Serve(t.Context(), bad); err == nil {
			t.Errorf("serves with %+v", bad)
		}
	}
}

func TestOneClientHasSoManyConnections(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster())
	for range maxConnectionsPerClient {
		c, err := dns.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.WriteMsg(query("web", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ReadMsg(); err != nil {
			t.Fatal(err)
		}
	}
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("one more is served")
	}
	mustSay(t, askFrom(t, s, "tcp", query("web", dns.TypeA), "127.0.0.7"), "A 10.224.0.5")
}
