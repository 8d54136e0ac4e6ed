package iptables

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic/traffictest"
)

// apply writes the chains that differ, as iptables-restore does.
func (r ruleset) apply(to ruleset) {
	for table := range to {
		for name := range r[table] {
			if _, stays := to[table][name]; !stays {
				delete(r[table], name)
			}
		}
		for name, rules := range to[table] {
			if !slices.Equal(r[table][name], rules) || r[table][name] == nil {
				r[table][name] = rules
			}
		}
	}
}

func TestChangesOneByOneGiveTheSameChainsAsAllAtOnce(t *testing.T) {
	n := traffictest.Node(3)
	rapid.Check(t, func(t *rapid.T) {
		f, told := traffic.NewFacts(n), traffictest.Nothing()
		r := ruleset{"filter": {}, "nat": {}, "raw": {}}
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			c := traffictest.Change(t, n)
			told.Add(c)
			f.Apply(c)
			r.apply(render(f, false))
		}
		fresh := traffic.NewFacts(n)
		fresh.Apply(told.Once(t))
		if want := render(fresh, false); !reflect.DeepEqual(r, want) {
			t.Errorf("one by one:\n%v\nall at once:\n%v", r, want)
		}
	})
}

func TestATrieFindsWhatIsInItAndNothingElse(t *testing.T) {
	whole := netip.MustParsePrefix("10.208.0.0/16")
	rapid.Check(t, func(t *rapid.T) {
		draw := rapid.Custom(func(t *rapid.T) netip.Addr {
			return netip.AddrFrom4([4]byte{10, 208, rapid.ByteRange(0, 3).Draw(t, "third"), rapid.Byte().Draw(t, "fourth")})
		})
		addrs := slices.Compact(inOrder(rapid.SliceOfN(draw, 0, 300).Draw(t, "addresses")))
		held, free := cover(whole, addrs)
		r := ruleset{"filter": {}}
		r.trie("filter", "WARREN-TRIE", "-d", whole, held, func(p netip.Prefix) string { return "-d " + p.String() + " -j FOUND" })
		for _, probe := range append(rapid.SliceOfN(draw, 1, 20).Draw(t, "probes"), addrs...) {
			_, is := slices.BinarySearchFunc(addrs, probe, netip.Addr.Compare)
			passed := 0
			if found := walk(r["filter"], "WARREN-TRIE", probe, &passed); found != is {
				t.Fatalf("%s: found %t", probe, found)
			}
			if passed > 5*trieFan {
				t.Fatalf("%s: passes %d rules", probe, passed)
			}
			if slices.ContainsFunc(free, func(p netip.Prefix) bool { return p.Contains(probe) }) == is {
				t.Fatalf("%s: free %t", probe, is)
			}
		}
	})
}

// walk leads an address through chains as iptables would.
func walk(chains map[string][]string, name string, addr netip.Addr, passed *int) bool {
	for _, rule := range chains[name] {
		*passed++
		var text, target string
		if _, err := fmt.Sscanf(rule, "-d %s -j %s", &text, &target); err != nil {
			panic(err)
		}
		if p := netip.MustParsePrefix(text); !p.Contains(addr) {
			continue
		}
		if target == "FOUND" || walk(chains, target, addr, passed) {
			return true
		}
	}
	return false
}
