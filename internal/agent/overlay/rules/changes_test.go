package rules

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/agent/overlay/rules/conntrack"
	"github.com/cuemby/warren/internal/agent/overlay/rules/netfilter"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic/traffictest"
)

func TestEstablishedConnectionsOutliveChanges(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		s := service("one", vip1, bAddr)
		s.Published = published(8080, 80, traffic.TCP)
		w.replace(s)
		var open []net.Conn
		for _, from := range []struct {
			*host
			to string
		}{{w.a, vip1 + ":80"}, {w.d, vip1 + ":80"}, {w.node, vip1 + ":80"}, {w.outside, near + ":8080"}, {w.node, "127.0.0.1:8080"}} {
			c, err := from.dial("tcp4", from.to)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			open = append(open, c)
		}
		still := func(after string) {
			t.Helper()
			for _, c := range open {
				if who, _, err := say(c); err != nil || who != "b" {
					t.Errorf("after %s: %s to %s: answers %q, %v", after, c.LocalAddr(), c.RemoteAddr(), who, err)
				}
			}
		}
		still("nothing")
		s.Endpoints = addrs(aAddr, dAddr)
		w.apply(traffic.Change{Services: []traffic.Service{s}})
		still("its endpoint left rotation")
		w.apply(traffic.Change{Services: []traffic.Service{service("more", vip2, aAddr)}})
		still("another service came")
		w.replace(s)
		still("everything was replaced")

		again := w.open(w.node, w.nodeIs) // as the next process does
		still("another process came")
		w.node.must(again.Replace(t.Context(), traffic.Set{Services: []traffic.Service{s}, Tasks: everyTask(w.nodeIs)}))
		still("another process replaced everything")
	})
}

func TestNoNewConnectionIsLostInAChange(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		s := service("one", vip1, aAddr, bAddr, cAddr)
		s.Published = published(8080, 80, traffic.TCP)
		w.replace(s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		lost := make(chan error, 2)
		for _, from := range []struct {
			*host
			to string
		}{{w.a, vip1 + ":80"}, {w.outside, near + ":8080"}} {
			go func() {
				for ctx.Err() == nil {
					if _, _, err := from.ask("tcp4", from.to); err != nil {
						lost <- err
						return
					}
				}
				lost <- nil
			}()
		}
		for i := 0; ctx.Err() == nil; i++ {
			s.Endpoints = [][]netip.Addr{addrs(aAddr), addrs(bAddr, cAddr), addrs(cAddr), addrs(aAddr, bAddr, cAddr)}[i%4]
			w.node.must(w.rules.Apply(t.Context(), traffic.Change{Services: []traffic.Service{s}}))
			if i%10 == 0 {
				w.node.must(w.rules.Replace(t.Context(), traffic.Set{Services: []traffic.Service{s}, Tasks: everyTask(w.nodeIs)}))
			}
		}
		for range 2 {
			if err := <-lost; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestTheKernelTakesEveryChangeAsItIs(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, w *world) {
		drawn := rapid.Custom(func(t *rapid.T) traffic.Change { return traffictest.Change(t, w.nodeIs) })
		w.node.must(w.rules.Replace(t.Context(), traffic.Set{}))
		table := regexp.MustCompile(`warren-[ab]`)
		first := table.FindString(w.what(w.node))
		told := traffictest.Nothing()
		for seed := range 40 {
			change := drawn.Example(seed)
			told.Add(change)
			if err := w.rules.Apply(t.Context(), change); err != nil {
				t.Fatalf("%+v: %v", change, err)
			}
			if w.variant.backend != Nftables {
				continue
			}
			if now := table.FindString(w.node.run("nft", "list", "tables")); now != first {
				t.Fatalf("%+v: did not fit, all was made anew", change)
			}
		}
		one := w.what(w.node)
		w.node.must(w.rules.Replace(t.Context(), told.Set()))
		if now := w.what(w.node); !sameLines(table.ReplaceAllString(now, ""), table.ReplaceAllString(one, "")) {
			t.Errorf("one by one:\n%s\nall at once:\n%s", one, now)
		}
	})
}

func TestUDPLeavesAnEndpointAtOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		s := service("one", vip1, bAddr)
		s.Published = published(8080, 80, traffic.UDP)
		w.replace(s)
		for _, from := range []struct {
			*host
			to string
		}{{w.a, vip1 + ":80"}, {w.outside, near + ":8080"}} {
			c, err := from.dial("udp4", from.to)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, want := range []string{"b", "a", "d", "b"} {
				s.Endpoints = addrs(map[string]string{"a": aAddr, "b": bAddr, "d": dAddr}[want])
				w.apply(traffic.Change{Services: []traffic.Service{s}})
				if who, _, err := say(c); err != nil || who != want {
					t.Errorf("%s: answers %q, %v, want %s", from.to, who, err, want)
				}
			}
		}
	})
}

func TestUDPThatKnockedBeforeThePortWasPublishedIsLetIn(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		w.replace()
		c, err := w.outside.dial("udp4", near+":8080")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, _, err := say(c); err == nil {
			t.Fatal("somebody answers on a port that is not published")
		}
		w.apply(traffic.Change{Services: []traffic.Service{{ID: "one", Endpoints: addrs(bAddr), Published: published(8080, 80, traffic.UDP)}}})
		if who, _, err := say(c); err != nil || who != "b" {
			t.Errorf("answers %q, %v", who, err)
		}
	})
}

func TestConnectionsOfADeadTaskAreReset(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		w.replace(service("one", vip1, bAddr))
		var open []net.Conn
		for _, from := range []struct {
			*host
			to string
		}{{w.a, bAddr + ":80"}, {w.a, vip1 + ":80"}, {w.d, bAddr + ":80"}, {w.d, vip1 + ":80"}, {w.node, bAddr + ":80"}} {
			c, err := from.dial("tcp4", from.to)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, _, err := say(c); err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		w.node.must(w.node.link.LinkDel(w.node.get("veth-b")))
		dies := traffic.Change{Services: []traffic.Service{service("one", vip1, aAddr)}, RemovedTasks: addrs(bAddr)}
		w.apply(dies)
		for _, c := range open {
			_, _, err := say(c)
			if slow := net.Error(nil); err == nil || errors.As(err, &slow) && slow.Timeout() {
				t.Errorf("%s to %s: %v, want it reset", c.LocalAddr(), c.RemoteAddr(), err)
			}
		}
		w.a.refused("tcp4", bAddr+":80")
		w.d.refused("tcp4", bAddr+":80")
		w.node.refused("tcp4", bAddr+":80")
	})
}

// frail is a backend that fails when told, and knows which VIPs were put in force last.
type frail struct {
	backend
	fails   bool
	inForce []netip.Addr
}

var errFrail = errors.New("the kernel is out of sorts")

func (b *frail) put(f *traffic.Facts) error {
	if b.fails {
		return errFrail
	}
	b.inForce = slices.SortedFunc(maps.Keys(f.VIPs), netip.Addr.Compare)
	return nil
}

func (b *frail) Replace(_ context.Context, f *traffic.Facts) error { return b.put(f) }
func (b *frail) Apply(_ context.Context, f *traffic.Facts, _ traffic.Delta) error {
	return b.put(f)
}
func (b *frail) Close()                               {}
func (b *frail) Intact(context.Context) (bool, error) { return true, nil }

func TestAChangeThatFailedIsInForceWithTheNext(t *testing.T) {
	b := &frail{}
	node := traffictest.Node(3)
	in, err := netfilter.Own()
	if err != nil {
		t.Fatal(err)
	}
	r := &Rules{node: node, in: in, log: slog.New(slog.DiscardHandler), backend: b, kind: IPTables, facts: traffic.NewFacts(node)}
	r.cutter = conntrack.Start(node, in, r.log, r.known)
	defer r.Close()
	b.fails = true
	if err := r.Apply(t.Context(), traffic.Change{Services: []traffic.Service{service("one", vip1, aAddr)}}); !errors.Is(err, errFrail) {
		t.Fatal(err)
	}
	b.fails = false
	if err := r.Apply(t.Context(), traffic.Change{RemovedServices: []string{"nobody"}}); err != nil || !slices.Equal(b.inForce, addrs(vip1)) {
		t.Errorf("%v, in force %v", err, b.inForce)
	}
	b.fails = true
	if err := r.Replace(t.Context(), traffic.Set{Services: []traffic.Service{service("two", vip2, aAddr)}}); !errors.Is(err, errFrail) {
		t.Fatal(err)
	}
	b.fails, b.inForce = false, nil
	if missing, err := r.Repair(t.Context()); err != nil || !missing || !slices.Equal(b.inForce, addrs(vip1)) {
		t.Errorf("%t, %v, in force %v", missing, err, b.inForce)
	}
}

// An agent that is killed between the two transactions in which it puts a table in force leaves NAT of the other behind.
func TestTheTableInForceIsToldFromWhatAKilledAgentHasLeftOfTheOther(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	w := newWorld(t, variants[0])
	w.node.run("nft", "add", "table", "ip", "warren-b") // the older of the two
	w.replace(service("one", vip1, bAddr))
	w.node.run("nft", "add chain ip warren-b prerouting { type nat hook prerouting priority -101; }")
	w.a.reaches("tcp4", vip1+":80", aAddr, "b")

	next := w.open(w.node, w.nodeIs)
	set := traffic.Set{Services: []traffic.Service{service("one", vip1, bAddr)}, Tasks: everyTask(w.nodeIs)}
	killed, kill := context.WithCancel(t.Context())
	kill()
	if err := next.Replace(killed, set); err == nil {
		t.Error("it was not killed on its way")
	}
	w.a.reaches("tcp4", vip1+":80", aAddr, "b")
	w.node.must(next.Replace(t.Context(), set))
	w.a.reaches("tcp4", vip1+":80", aAddr, "b")
	if tables := strings.Count(w.node.run("nft", "list", "tables", "ip"), "warren-"); tables != 1 {
		t.Errorf("%d tables are left:\n%s", tables, w.what(w.node))
	}
}
