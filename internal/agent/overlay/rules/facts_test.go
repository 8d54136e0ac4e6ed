package rules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// kernel is a table of nftables as far as scripts are concerned: it refuses what the kernel would.
type kernel struct {
	elements map[string]map[string]element // by set and key
	chains   map[string]chain
}

func newKernel() *kernel {
	k := &kernel{elements: map[string]map[string]element{}, chains: map[string]chain{}}
	for _, set := range []string{vipsMap, endpointsMap, portsMap, targetsMap, sourcesMap, sinksMap, localSet, remoteSet} {
		k.elements[set] = map[string]element{}
	}
	for _, c := range newLayout().slots {
		k.chains[c.name] = c
	}
	return k
}

func (k *kernel) run(s script) error {
	for _, c := range s.ahead {
		if _, stands := k.chains[c.name]; stands {
			return fmt.Errorf("chain %s stands", c.name)
		}
		k.chains[c.name] = c
	}
	for _, set := range s.newSets {
		if k.elements[set] != nil {
			return fmt.Errorf("set %s stands", set)
		}
		k.elements[set] = map[string]element{}
	}
	for _, c := range s.newChains {
		if _, stands := k.chains[c.name]; stands {
			return fmt.Errorf("chain %s stands", c.name)
		}
		for _, set := range c.networks {
			if k.elements[set] == nil {
				return fmt.Errorf("chain %s: no set %s", c.name, set)
			}
		}
		k.chains[c.name] = c
	}
	for _, e := range s.drop {
		if k.elements[e.set][e.key] != e {
			return fmt.Errorf("drop %v: there is %v", e, k.elements[e.set][e.key])
		}
		delete(k.elements[e.set], e.key)
	}
	for _, e := range s.add {
		if _, there := k.elements[e.set][e.key]; there || k.elements[e.set] == nil {
			return fmt.Errorf("add %v: there already, or no such set", e)
		}
		if _, stands := k.chains[e.chain]; e.chain != "" && !stands {
			return fmt.Errorf("add %v: no such chain", e)
		}
		k.elements[e.set][e.key] = e
	}
	for _, name := range s.goneChains {
		for _, set := range k.elements {
			for _, e := range set {
				if e.chain == name {
					return fmt.Errorf("chain %s: %v leads to it", name, e)
				}
			}
		}
		delete(k.chains, name)
	}
	for _, set := range s.goneSets {
		for _, c := range k.chains {
			if slices.Contains(c.networks, set) {
				return fmt.Errorf("set %s: %s looks into it", set, c.name)
			}
		}
		if len(k.elements[set]) > 0 {
			return fmt.Errorf("set %s is not empty", set)
		}
		delete(k.elements, set)
	}
	return nil
}

// chains is a table of iptables as far as iptables-restore is concerned.
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

func drawPorts(t *rapid.T, label string) []Published {
	return rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Published {
		return Published{
			Port: rapid.Uint16Range(1, 4).Draw(t, "port"), Target: rapid.Uint16Range(80, 81).Draw(t, "target"),
			Protocol: rapid.SampledFrom([]Protocol{TCP, UDP}).Draw(t, "protocol"),
		}
	}), 0, 3, portOf).Draw(t, label)
}

func drawTaskAddr(t *rapid.T) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 208, rapid.SampledFrom([]byte{3, 4}).Draw(t, "subnet"), rapid.ByteRange(2, 8).Draw(t, "host")})
}

func drawChange(t *rapid.T, n Node) Change {
	addr := rapid.Custom(drawTaskAddr)
	id := rapid.StringMatching("[a-f]")
	return Change{
		Services: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Service {
			s := Service{ID: id.Draw(t, "id"), Published: drawPorts(t, "published")}
			if rapid.Bool().Draw(t, "in shares") {
				s.Shares = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Share {
					return Share{Weight: rapid.Uint32Range(0, 3).Draw(t, "weight"), Endpoints: rapid.SliceOfN(addr, 0, 3).Draw(t, "share")}
				}), 1, 3).Draw(t, "shares")
			} else {
				s.Endpoints = rapid.SliceOfN(addr, 0, 5).Draw(t, "endpoints")
			}
			if rapid.Bool().Draw(t, "has vip") {
				s.VIP = netip.AddrFrom4([4]byte{10, 224, 0, rapid.ByteRange(1, 5).Draw(t, "vip")})
			}
			return s
		}), 0, 3).Draw(t, "services"),
		RemovedServices: rapid.SliceOfN(id, 0, 2).Draw(t, "removed services"),
		Tasks: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Task {
			a := addr.Draw(t, "task")
			task := Task{Addr: a, Local: n.Subnet.Contains(a), Networks: rapid.SliceOfN(rapid.StringMatching("[rgb]"), 0, 3).Draw(t, "networks")}
			if task.Local {
				task.HostPorts = drawPorts(t, "host ports")
			}
			return task
		}), 0, 3).Draw(t, "tasks"),
		RemovedTasks: rapid.SliceOfN(addr, 0, 2).Draw(t, "removed tasks"),
	}
}

// everything is a change that brings what is known, in an order of its own.
func everything(t *rapid.T, f *facts) Change {
	return Change{
		Services: rapid.Permutation(slices.Collect(maps.Values(f.services))).Draw(t, "all services"),
		Tasks:    rapid.Permutation(slices.Collect(maps.Values(f.tasks))).Draw(t, "all tasks"),
	}
}

func TestChangesOneByOneGiveTheSameRulesAsAllAtOnce(t *testing.T) {
	n := aNode(3)
	rapid.Check(t, func(t *rapid.T) {
		f, l, k := newFacts(n), newLayout(), newKernel()
		r := ruleset{"filter": {}, "nat": {}, "raw": {}}
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			c := drawChange(t, n)
			if err := c.valid(n); err != nil {
				t.Fatal(err)
			}
			if err := k.run(l.change(f.apply(c))); err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			r.apply(render(f, false))
		}
		fresh, once := newFacts(n), newKernel()
		fresh.apply(everything(t, f))
		if err := once.run(newLayout().change(fresh.all())); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(k, once) {
			t.Errorf("nftables one by one:\n%v\nall at once:\n%v", k, once)
		}
		if want := render(fresh, false); !reflect.DeepEqual(r, want) {
			t.Errorf("iptables one by one:\n%v\nall at once:\n%v", r, want)
		}
	})
}

func TestATrieFindsWhatIsInItAndNothingElse(t *testing.T) {
	whole := netip.MustParsePrefix("10.208.0.0/16")
	rapid.Check(t, func(t *rapid.T) {
		draw := rapid.Custom(func(t *rapid.T) netip.Addr {
			return netip.AddrFrom4([4]byte{10, 208, rapid.ByteRange(0, 3).Draw(t, "third"), rapid.Byte().Draw(t, "fourth")})
		})
		addrs := orderedAddrs(rapid.SliceOfN(draw, 0, 300).Draw(t, "addresses"))
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

// frail is a backend that fails when told, and knows what was put in force last.
type frail struct {
	backend
	fails   bool
	inForce []string
}

var errFrail = errors.New("the kernel is out of sorts")

func (b *frail) put(f *facts) error {
	if b.fails {
		return errFrail
	}
	b.inForce = slices.Sorted(maps.Keys(f.services))
	return nil
}

func (b *frail) replace(_ context.Context, f *facts) error        { return b.put(f) }
func (b *frail) apply(_ context.Context, f *facts, _ delta) error { return b.put(f) }
func (b *frail) intact(context.Context) (bool, error)             { return true, nil }

func TestAChangeThatFailedIsInForceWithTheNext(t *testing.T) {
	b := &frail{}
	r := &Rules{node: namespaceNode{Node: aNode(3)}, log: slog.New(slog.DiscardHandler), backend: b, kind: IPTables, facts: newFacts(aNode(3))}
	r.cutter = &cutter{rules: r, wake: make(chan struct{}, 1)}
	b.fails = true
	if err := r.Apply(t.Context(), Change{Services: []Service{service("one", vip1, aAddr)}}); !errors.Is(err, errFrail) {
		t.Fatal(err)
	}
	b.fails = false
	if err := r.Apply(t.Context(), Change{RemovedServices: []string{"nobody"}}); err != nil || !slices.Equal(b.inForce, []string{"one"}) {
		t.Errorf("%v, in force %v", err, b.inForce)
	}
	b.fails = true
	if err := r.Replace(t.Context(), Set{Services: []Service{service("two", vip2, aAddr)}}); !errors.Is(err, errFrail) {
		t.Fatal(err)
	}
	b.fails, b.inForce = false, nil
	if missing, err := r.Repair(t.Context()); err != nil || !missing || !slices.Equal(b.inForce, []string{"one"}) {
		t.Errorf("%t, %v, in force %v", missing, err, b.inForce)
	}
}
