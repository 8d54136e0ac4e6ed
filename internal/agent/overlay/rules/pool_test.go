package rules

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Drawing one after the other by what chances says comes to the shares.
func TestChancesComeToTheShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pool[int]{}
		if rapid.Bool().Draw(t, "in parts") {
			for range rapid.IntRange(2, 4).Draw(t, "parts") {
				part := part{rapid.Uint32Range(1, 6).Draw(t, "size"), rapid.Uint32Range(1, 100).Draw(t, "weight")}
				p.parts = append(p.parts, part)
				for range part.size {
					p.all = append(p.all, len(p.all))
				}
			}
		} else {
			for range rapid.IntRange(1, 200).Draw(t, "endpoints") {
				p.all = append(p.all, len(p.all))
			}
		}
		var want []float64
		total := 0.0
		for _, part := range p.parts {
			total += float64(part.weight)
		}
		for _, part := range p.parts {
			for range part.size {
				want = append(want, float64(part.weight)/total/float64(part.size))
			}
		}
		left := 1.0
		for i, chance := range p.chances() {
			share := 1 / float64(len(p.all))
			if want != nil {
				share = want[i]
			}
			if got := left * chance; math.Abs(got-share) > 1e-9 {
				t.Fatalf("%d of %v gets %v, want %v", i, p, got, share)
			}
			left *= 1 - chance
		}
	})
}

func TestAPoolIsTheSameWhateverWasToldFirst(t *testing.T) {
	one, two := Share{10, addrs(aAddr, bAddr)}, Share{90, addrs(dAddr)}
	backwards := Share{10, addrs(bAddr, aAddr, bAddr)}
	p := Service{Shares: []Share{one, two}}.pooled()
	if q := (Service{Shares: []Share{two, backwards, {Weight: 5}, {Endpoints: addrs(cAddr)}}}).pooled(); !p.equal(q) {
		t.Errorf("%v and %v", p, q)
	}
	if !p.has(netip.MustParseAddr(dAddr), netip.Addr.Compare) || p.has(netip.MustParseAddr(cAddr), netip.Addr.Compare) {
		t.Errorf("%v", p)
	}
	// A share alone is all there is.
	if q := (Service{Shares: []Share{two, {Weight: 10}}}).pooled(); !q.equal(Service{Endpoints: addrs(dAddr)}.pooled()) {
		t.Errorf("%v", q)
	}
}

func TestSharesThatCannotBeAreRefused(t *testing.T) {
	n := aNode(3)
	for want, s := range map[string]Service{
		"endpoints beside shares": {ID: "s", Endpoints: addrs(aAddr), Shares: []Share{{1, addrs(bAddr)}}},
		"weight 20000":            {ID: "s", Shares: []Share{{20000, addrs(bAddr)}}},
		"endpoint 192.0.2.1":      {ID: "s", Shares: []Share{{1, addrs("192.0.2.1")}}},
	} {
		if err := s.valid(n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q, want %q", err, want)
		}
	}
}

// Of 2,000 connections 200 go to a canary of 10 percent, give or take six standard deviations of 13, and within each share the
// endpoints get as many as each other.
func TestEndpointsGetTheirShares(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		s := Service{
			ID: "one", VIP: netip.MustParseAddr(vip1), Published: []Published{{Port: 8080, Target: 80, Protocol: TCP}},
			Shares: []Share{{90, addrs(aAddr, bAddr)}, {10, addrs(dAddr)}},
		}
		w.replace(s)
		draw := func(to string, n int) map[string]int {
			got := map[string]int{}
			for range n {
				who, _, err := w.node.ask("tcp4", to)
				if err != nil {
					t.Fatal(err)
				}
				got[who]++
			}
			return got
		}
		for _, to := range []string{vip1 + ":80", near + ":8080"} {
			const n = 2000
			got := draw(to, n)
			for who, bounds := range map[string][2]int{"a": {900 - 134, 900 + 134}, "b": {900 - 134, 900 + 134}, "d": {200 - 80, 200 + 80}} {
				if got[who] < bounds[0] || got[who] > bounds[1] {
					t.Errorf("%s: %v of %d, want %s from %d to %d", to, got, n, who, bounds[0], bounds[1])
				}
			}
		}
		// The switch of a blue-green rollout is one change.
		s.Shares = []Share{{100, addrs(dAddr)}, {0, addrs(aAddr, bAddr)}}
		w.apply(Change{Services: []Service{s}})
		if got := draw(vip1+":80", 50); got["d"] != 50 {
			t.Errorf("%v after all were to go to d", got)
		}
		s.Shares, s.Endpoints = nil, addrs(aAddr)
		w.apply(Change{Services: []Service{s}})
		if got := draw(vip1+":80", 20); got["a"] != 20 {
			t.Errorf("%v after all were to go to a", got)
		}
	})
}
