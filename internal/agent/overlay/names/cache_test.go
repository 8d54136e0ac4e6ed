package names

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func message(t *testing.T, rcode int, records ...string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetRcode(query("example.com", dns.TypeA), rcode)
	for _, s := range records {
		authority := strings.HasPrefix(s, "+")
		rr, err := dns.NewRR(strings.TrimPrefix(s, "+"))
		if err != nil {
			t.Fatal(err)
		}
		if authority {
			m.Ns = append(m.Ns, rr)
		} else {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

func TestHowLongAnAnswerIsRemembered(t *testing.T) {
	t.Parallel()
	const (
		a   = "example.com. 300 IN A 192.0.2.1"
		soa = "+example.com. 900 IN SOA ns.example.com. x.example.com. 1 2 3 4 60"
	)
	cut := message(t, dns.RcodeSuccess, a)
	cut.Truncated = true
	cases := []struct {
		what string
		m    *dns.Msg
		want time.Duration
	}{
		{"as long as its shortest record", message(t, dns.RcodeSuccess, a, "example.com. 20 IN A 192.0.2.2"), 20 * time.Second},
		{"an hour at most", message(t, dns.RcodeSuccess, "example.com. 86400 IN A 192.0.2.1"), time.Hour},
		{"not at all with none", message(t, dns.RcodeSuccess, "example.com. 0 IN A 192.0.2.1"), 0},
		{"not at all with the highest bit", message(t, dns.RcodeSuccess, "example.com. 2147483648 IN A 192.0.2.1"), 0},
		{"a part not at all", cut, 0},
		{"a no by its SOA's minimum", message(t, dns.RcodeNameError, soa), time.Minute},
		{"no such type likewise", message(t, dns.RcodeSuccess, soa), time.Minute},
		{"a no by its SOA's TTL", message(t, dns.RcodeNameError, "+example.com. 5 IN SOA a. b. 1 2 3 4 60"), 5 * time.Second},
		{"a no five minutes at most", message(t, dns.RcodeNameError, "+example.com. 9000 IN SOA a. b. 1 2 3 4 9000"), 5 * time.Minute},
		{"a no without SOA not at all", message(t, dns.RcodeNameError), 0},
		{"a no at the end of an alias by both", message(t, dns.RcodeNameError, "example.com. 7 IN CNAME example.net.", soa), 7 * time.Second},
		{"a failure for a second", message(t, dns.RcodeServerFailure), time.Second},
	}
	for _, c := range cases {
		if got := lifetime(c.m); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func TestWhatIsRememberedAgesAndExpires(t *testing.T) {
	t.Parallel()
	c, now, q := newCache(), time.Now(), question{name: "example.com.", kind: dns.TypeA}
	k, err := keep(message(t, dns.RcodeSuccess, "example.com. 60 IN A 192.0.2.1", "example.com. 90 IN A 192.0.2.2").SetEdns0(1232, true), now)
	if err != nil {
		t.Fatal(err)
	}
	c.put(q, k)
	for _, age := range []int{0, 1, 59} {
		then := now.Add(time.Duration(age)*time.Second + 900*time.Millisecond)
		k, ok := c.get(q, then)
		if !ok {
			t.Fatalf("forgotten after %d s", age)
		}
		m, err := k.message(then)
		if err != nil {
			t.Fatal(err)
		}
		if got := int(m.Answer[0].Header().Ttl); got != 60-age {
			t.Errorf("TTL %d after %d s", got, age)
		}
		if edns := m.IsEdns0(); edns.UDPSize() != 1232 || !edns.Do() {
			t.Errorf("EDNS %s", edns)
		}
	}
	if _, ok := c.get(q, now.Add(time.Minute)); ok {
		t.Error("remembered for too long")
	}
	if c.entries.Len() != 0 {
		t.Error("what has expired stays")
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	t.Parallel()
	c, now := newCache(), time.Now()
	k, err := keep(message(t, dns.RcodeSuccess, "example.com. 60 IN A 192.0.2.1"), now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxKept + 10 {
		c.put(question{name: strconv.Itoa(i)}, k)
	}
	if c.entries.Len() != maxKept {
		t.Errorf("%d entries", c.entries.Len())
	}
	if _, ok := c.get(question{name: "0"}, now); ok {
		t.Error("the oldest is still there")
	}
	big := kept{wire: make([]byte, maxKeptSize+1), since: now, expires: now.Add(time.Hour)}
	c.put(question{name: "big"}, big)
	if _, ok := c.get(question{name: "big"}, now); ok {
		t.Error("a large answer is remembered")
	}
}
