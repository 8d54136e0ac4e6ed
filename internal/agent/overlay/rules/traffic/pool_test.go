package traffic

import (
	"math"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// Drawing one after the other by what chances says comes to the shares.
func TestChancesComeToTheShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Pool[int]{}
		if rapid.Bool().Draw(t, "in parts") {
			for range rapid.IntRange(2, 4).Draw(t, "parts") {
				part := Part{rapid.Uint32Range(1, 6).Draw(t, "size"), rapid.Uint32Range(1, 100).Draw(t, "weight")}
				p.Parts = append(p.Parts, part)
				for range part.Size {
					p.All = append(p.All, len(p.All))
				}
			}
		} else {
			for range rapid.IntRange(1, 200).Draw(t, "endpoints") {
				p.All = append(p.All, len(p.All))
			}
		}
		var want []float64
		total := 0.0
		for _, part := range p.Parts {
			total += float64(part.Weight)
		}
		for _, part := range p.Parts {
			for range part.Size {
				want = append(want, float64(part.Weight)/total/float64(part.Size))
			}
		}
		left := 1.0
		for i, chance := range p.Chances() {
			share := 1 / float64(len(p.All))
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

const (
	aAddr = "10.208.3.10"
	bAddr = "10.208.3.11"
	cAddr = "10.208.3.12"
	dAddr = "10.208.4.10"
)

func TestAPoolIsTheSameWhateverWasToldFirst(t *testing.T) {
	one, two := Share{10, addrs(aAddr, bAddr)}, Share{90, addrs(dAddr)}
	backwards := Share{10, addrs(bAddr, aAddr, bAddr)}
	p := Service{Shares: []Share{one, two}}.pooled()
	if q := (Service{Shares: []Share{two, backwards, {Weight: 5}, {Endpoints: addrs(cAddr)}}}).pooled(); !p.equal(q) {
		t.Errorf("%v and %v", p, q)
	}
	if !p.Has(netip.MustParseAddr(dAddr), netip.Addr.Compare) || p.Has(netip.MustParseAddr(cAddr), netip.Addr.Compare) {
		t.Errorf("%v", p)
	}
	// A share alone is all there is.
	if q := (Service{Shares: []Share{two, {Weight: 10}}}).pooled(); !q.equal(Service{Endpoints: addrs(dAddr)}.pooled()) {
		t.Errorf("%v", q)
	}
}

func addrs(all ...string) []netip.Addr {
	var parsed []netip.Addr
	for _, one := range all {
		parsed = append(parsed, netip.MustParseAddr(one))
	}
	return parsed
}
