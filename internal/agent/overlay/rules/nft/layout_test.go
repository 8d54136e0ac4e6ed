package nft

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic/traffictest"
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

func TestChangesOneByOneGiveTheSameTableAsAllAtOnce(t *testing.T) {
	n := traffictest.Node(3)
	rapid.Check(t, func(t *rapid.T) {
		f, l, k, told := traffic.NewFacts(n), newLayout(), newKernel(), traffictest.Nothing()
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			c := traffictest.Change(t, n)
			if err := c.Validate(n); err != nil {
				t.Fatal(err)
			}
			told.Add(c)
			if err := k.run(l.change(f.Apply(c))); err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
		}
		fresh, once := traffic.NewFacts(n), newKernel()
		fresh.Apply(told.Once(t))
		if err := once.run(newLayout().change(fresh.All())); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(k, once) {
			t.Errorf("one by one:\n%v\nall at once:\n%v", k, once)
		}
	})
}
