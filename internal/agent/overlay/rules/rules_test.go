package rules

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func commandContext(ctx context.Context, command ...string) *exec.Cmd {
	return exec.CommandContext(ctx, command[0], command[1:]...)
}

func TestAVIPLeadsToTheEndpointsFromEverywhere(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		w.replace(service("one", vip1, bAddr), service("far", vip2, dAddr))
		for _, network := range []string{"tcp4", "udp4"} {
			w.a.reaches(network, vip1+":80", aAddr, "b")
			w.a.reaches(network, vip2+":80", aAddr, "d") // remote, and the client's address is kept
			w.node.reaches(network, vip1+":80", "10.208.3.1", "b")
			w.node.reaches(network, vip2+":80", "10.208.3.1", "d")
			w.b.reaches(network, vip1+":80", "10.208.3.1", "b") // hairpin: masqueraded
			w.d.reaches(network, vip1+":80", dAddr, "b")
			w.a.reaches(network, bAddr+":80", aAddr, "b") // without a VIP
			w.a.reaches(network, dAddr+":80", aAddr, "d")
		}
	})
}

func TestAVIPWithoutAnEndpointIsRefusedAtOnce(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		w.replace(service("one", vip1))
		for _, network := range []string{"tcp4", "udp4"} {
			w.a.refused(network, vip1+":80")
			w.node.refused(network, vip1+":80")
			w.a.refused(network, vip2+":80") // nobody's
		}
		w.apply(Change{Services: []Service{service("one", vip1, bAddr)}})
		w.a.reaches("tcp4", vip1+":80", aAddr, "b")
		w.apply(Change{Services: []Service{service("one", vip1)}})
		w.a.refused("tcp4", vip1+":80")
	})
}

func TestEndpointsGetEvenShares(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		s := service("one", vip1, aAddr, bAddr, dAddr)
		s.Published = []Published{{Port: 8080, Target: 80, Protocol: TCP}}
		w.replace(s)
		for _, to := range []string{vip1 + ":80", near + ":8080"} {
			const n = 240
			got := map[string]int{}
			for range n {
				who, _, err := w.node.ask("tcp4", to)
				if err != nil {
					t.Fatal(err)
				}
				got[who]++
			}
			for _, who := range []string{"a", "b", "d"} {
				if got[who] < n/3-45 || got[who] > n/3+45 { // six standard deviations
					t.Errorf("%s: %v of %d, want a third each", to, got, n)
				}
			}
		}
	})
}

func TestAPublishedPortIsOpenOnEveryAddressOfEveryNode(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		one, two := service("one", vip1, bAddr), service("two", vip2, dAddr)
		one.Published = []Published{{8080, 80, TCP}, {8080, 80, UDP}}
		two.Published = []Published{{9090, 80, TCP}, {9090, 80, UDP}}
		w.replace(one, two)
		for _, network := range []string{"tcp4", "udp4"} {
			w.outside.reaches(network, near+":8080", far, "b")          // local: the client's address is kept
			w.outside.reaches(network, near+":9090", "10.208.3.1", "d") // remote: the answer has to come back
			w.node.reaches(network, "127.0.0.1:8080", "10.208.3.1", "b")
			w.node.reaches(network, "127.0.0.1:9090", "10.208.3.1", "d")
			w.node.reaches(network, near+":8080", near, "b")
			w.node.reaches(network, near+":9090", "10.208.3.1", "d")
			w.other.reaches(network, "127.0.0.1:8080", "10.208.4.1", "b")
			w.a.reaches(network, near+":8080", aAddr, "b")
			w.a.reaches(network, near+":9090", "10.208.3.1", "d")
			w.a.reaches(network, "10.208.3.1:8080", aAddr, "b")
			w.b.reaches(network, near+":8080", "10.208.3.1", "b") // hairpin
			w.outside.refused(network, near+":8081")
		}
		one.Published = nil
		w.apply(Change{Services: []Service{one}})
		w.outside.refused("tcp4", near+":8080")
		w.outside.refused("udp4", near+":8080")
	})
}

func TestAPublishedPortIsForTasksOfOtherNetworksToo(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		one := Service{ID: "one", Endpoints: addrs(bAddr), Published: []Published{{8080, 80, TCP}}}
		two := Service{ID: "two", Endpoints: addrs(dAddr), Published: []Published{{9090, 80, TCP}}}
		tasks := func(n Node) []Task {
			return []Task{taskOf(n, aAddr, "red"), taskOf(n, bAddr, "blue"), taskOf(n, dAddr, "blue")}
		}
		w.node.must(w.rules.Replace(w.t.Context(), Set{[]Service{one, two}, tasks(w.nodeIs)}))
		w.other.must(w.remote.Replace(w.t.Context(), Set{[]Service{one, two}, tasks(w.farsIs)}))
		w.a.reaches("tcp4", near+":8080", aAddr, "b")
		w.a.reaches("tcp4", near+":9090", "10.208.3.1", "d")
		w.a.refused("tcp4", bAddr+":80")
	})
}

func TestAHostPortLeadsToItsTaskAlone(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		w.replace(service("one", vip1, aAddr, bAddr))
		task := taskOf(w.nodeIs, bAddr, "default")
		task.HostPorts = []Published{{7070, 80, TCP}, {7070, 80, UDP}}
		w.node.must(w.rules.Apply(w.t.Context(), Change{Tasks: []Task{task}}))
		for range 8 {
			w.outside.reaches("tcp4", near+":7070", far, "b")
		}
		w.outside.reaches("udp4", near+":7070", far, "b")
		w.node.reaches("tcp4", "127.0.0.1:7070", "10.208.3.1", "b")
		w.node.must(w.rules.Apply(w.t.Context(), Change{RemovedTasks: addrs(bAddr)}))
		w.outside.refused("tcp4", near+":7070")
	})
}

func TestTheNodesOwnNamesAreNotPublishedAway(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		w.node.serve(53)
		s := Service{ID: "names", Endpoints: addrs(bAddr), Published: []Published{{53, 80, UDP}, {53, 80, TCP}}}
		w.replace(s)
		w.a.reaches("udp4", "10.208.3.1:53", aAddr, "node")
		w.a.reaches("tcp4", "10.208.3.1:53", aAddr, "node")
		w.outside.reaches("udp4", near+":53", far, "b")
	})
}

func TestTasksReachTheWorldByTheNodesAddress(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		w.outside.serve(80)
		w.replace()
		w.a.reaches("tcp4", far+":80", near, "outside")
		w.a.reaches("udp4", far+":80", near, "outside")
	})
}

// Docker sets the policy.
func TestAHostThatForwardsNothingForwardsForTasks(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		w.node.run(w.variant.program, "-P", "FORWARD", "DROP")
		w.outside.serve(80)
		s := service("one", vip1, bAddr)
		s.Published = []Published{{8080, 80, TCP}}
		w.replace(s)
		w.a.reaches("tcp4", vip1+":80", aAddr, "b")
		w.d.reaches("tcp4", vip1+":80", dAddr, "b")
		w.a.reaches("tcp4", far+":80", near, "outside")
		w.outside.reaches("tcp4", near+":8080", far, "b")
	})
}

func TestTasksSpeakOnlyToMembersOfTheirNetworks(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		of := map[string][]string{aAddr: {"red"}, bAddr: {"red", "blue"}, cAddr: {"blue"}, dAddr: {"red"}, eAddr: {"blue"}}
		hosts := map[string]*host{aAddr: w.a, bAddr: w.b, cAddr: w.c, dAddr: w.d, eAddr: w.e}
		tasks := func(n Node) (all []Task) {
			for addr, networks := range of {
				all = append(all, taskOf(n, addr, networks...))
			}
			return all
		}
		services := []Service{}
		vips := map[string]string{}
		for i, addr := range []string{aAddr, bAddr, cAddr, dAddr, eAddr} {
			vips[addr] = fmt.Sprintf("10.224.9.%d", i)
			services = append(services, service(addr, vips[addr], addr))
		}
		w.node.must(w.rules.Replace(w.t.Context(), Set{services, tasks(w.nodeIs)}))
		w.other.must(w.remote.Replace(w.t.Context(), Set{services, tasks(w.farsIs)}))
		matrix := func() {
			w.t.Helper()
			for from, source := range hosts {
				for to, target := range hosts {
					if from == to {
						continue
					}
					if share(of[from], of[to]) {
						source.reaches("tcp4", to+":80", from, target.name)
						source.reaches("udp4", vips[to]+":80", from, target.name)
					} else {
						source.refused("tcp4", to+":80")
						source.refused("udp4", to+":80")
						source.refused("tcp4", vips[to]+":80")
					}
				}
			}
		}
		matrix()
		of[aAddr], of[eAddr] = []string{"blue", "green"}, []string{"red", "green"}
		w.node.must(w.rules.Apply(w.t.Context(), Change{Tasks: tasks(w.nodeIs)}))
		w.other.must(w.remote.Apply(w.t.Context(), Change{Tasks: tasks(w.farsIs)}))
		matrix()
	})
}

func TestAVIPIsRefusedAtOnceAlsoWhereBridgedPacketsPassTheRules(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		ctx := w.t.Context()
		w.node.must(w.rules.Replace(ctx, Set{
			[]Service{service("near", vip1, bAddr), service("far", vip2, dAddr)},
			[]Task{taskOf(w.nodeIs, aAddr, "red"), taskOf(w.nodeIs, bAddr, "blue"), taskOf(w.nodeIs, dAddr, "blue")},
		}))
		for _, setting := range []string{"1", "0"} { // another program may change it at any time
			w.node.sysctl("bridge/bridge-nf-call-iptables", setting)
			if missing, err := w.rules.Repair(ctx); err != nil || !missing {
				w.t.Errorf("with %s: repaired %v, %v", setting, missing, err)
			}
			w.a.refused("tcp4", vip1+":80")
			w.a.refused("tcp4", vip2+":80")
		}
	})
}

func share(some, others []string) bool {
	return slices.ContainsFunc(some, func(one string) bool { return slices.Contains(others, one) })
}

func TestWhereAPacketArrivesStrangersPassAndKnownOutsidersDoNot(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		known := []Task{taskOf(w.farsIs, aAddr, "red"), taskOf(w.farsIs, dAddr, "red")}
		w.other.must(w.remote.Replace(w.t.Context(), Set{Tasks: known}))
		red := []Task{taskOf(w.nodeIs, dAddr, "red")}
		for _, addr := range []string{aAddr, bAddr, cAddr} {
			red = append(red, taskOf(w.nodeIs, addr, "red"))
		}
		w.node.must(w.rules.Replace(w.t.Context(), Set{Tasks: red}))
		w.b.reaches("tcp4", dAddr+":80", bAddr, "d") // not known there yet

		w.other.must(w.remote.Apply(w.t.Context(), Change{Tasks: []Task{taskOf(w.farsIs, cAddr, "blue")}}))
		w.a.reaches("tcp4", dAddr+":80", aAddr, "d")
		w.c.refused("tcp4", dAddr+":80")

		w.node.must(w.rules.Apply(w.t.Context(), Change{RemovedTasks: addrs(dAddr)}))
		w.a.refused("tcp4", dAddr+":80") // where it begins, strangers are refused
	})
}

func TestNobodyEntersTheOverlayFromOutside(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		w.replace(service("one", vip1, bAddr))
		for _, to := range []string{"10.208.0.0/12", "10.224.0.0/16"} {
			w.outside.route(to, "eth0", near, "")
		}
		for _, to := range []string{aAddr, dAddr, vip1} {
			w.outside.refused("tcp4", to+":80")
		}
		// What comes for 127.0.0.1 from a task, which route_localnet would let in.
		w.node.serve(81)
		w.a.must(w.a.link.AddrDel(w.a.get("lo"), mustAddr("127.0.0.1/8")))
		w.a.route("127.0.0.0/8", "eth0", "10.208.3.1", "")
		w.a.sysctl("ipv4/conf/all/route_localnet", "1")
		c, err := w.a.dial("udp4", "127.0.0.1:81")
		w.a.must(err)
		defer c.Close()
		_, _ = c.Write([]byte("hello\n"))
		_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := c.Read(make([]byte, 64)); err == nil {
			w.t.Errorf("the host's own service answers a task with %d bytes", n)
		}
	})
}

func TestEstablishedConnectionsOutliveChanges(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		s := service("one", vip1, bAddr)
		s.Published = []Published{{8080, 80, TCP}}
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
		w.apply(Change{Services: []Service{s}})
		still("its endpoint left rotation")
		w.apply(Change{Services: []Service{service("more", vip2, aAddr)}})
		still("another service came")
		w.replace(s)
		still("everything was replaced")

		again := w.open(w.node, w.nodeIs) // as the next process does
		still("another process came")
		w.node.must(again.Replace(t.Context(), Set{[]Service{s}, everyTask(w.nodeIs)}))
		still("another process replaced everything")
	})
}

func TestNoNewConnectionIsLostInAChange(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		s := service("one", vip1, aAddr, bAddr, cAddr)
		s.Published = []Published{{8080, 80, TCP}}
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
			w.node.must(w.rules.Apply(t.Context(), Change{Services: []Service{s}}))
			if i%10 == 0 {
				w.node.must(w.rules.Replace(t.Context(), Set{[]Service{s}, everyTask(w.nodeIs)}))
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
	everywhere(t, func(t *testing.T, w *world) {
		drawn := rapid.Custom(func(t *rapid.T) Change { return drawChange(t, w.nodeIs) })
		w.node.must(w.rules.Replace(t.Context(), Set{}))
		table := regexp.MustCompile(`warren-[ab]`)
		first := table.FindString(w.what(w.node))
		for seed := range 40 {
			change := drawn.Example(seed)
			if err := w.rules.Apply(t.Context(), change); err != nil {
				t.Fatalf("%+v: %v", change, err)
			}
			if now := table.FindString(w.node.run("nft", "list", "tables")); now != first {
				t.Fatalf("%+v: did not fit, all was made anew", change)
			}
		}
		one := w.what(w.node)
		known := w.rules.facts
		all := Set{slices.Collect(maps.Values(known.services)), slices.Collect(maps.Values(known.tasks))}
		w.node.must(w.rules.Replace(t.Context(), all))
		if now := w.what(w.node); !sameLines(table.ReplaceAllString(now, ""), table.ReplaceAllString(one, "")) {
			t.Errorf("one by one:\n%s\nall at once:\n%s", one, now)
		}
	})
}

func TestUDPLeavesAnEndpointAtOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		s := service("one", vip1, bAddr)
		s.Published = []Published{{8080, 80, UDP}}
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
				w.apply(Change{Services: []Service{s}})
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
		w.apply(Change{Services: []Service{{ID: "one", Endpoints: addrs(bAddr), Published: []Published{{8080, 80, UDP}}}}})
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
		dies := Change{Services: []Service{service("one", vip1, aAddr)}, RemovedTasks: addrs(bAddr)}
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

// what lists all rules of a host, but for what changes by itself.
func (w *world) what(h *host) string {
	text := h.run("nft", "list", "ruleset") + h.run(w.variant.program+"-save")
	return regexp.MustCompile(`(?m)^#.*\n|\[\d+:\d+\]|packets \d+ bytes \d+`).ReplaceAllString(text, "")
}

func TestRemoveLeavesNothing(t *testing.T) {
	tables := []string{"filter", "nat", "raw"}
	for name, prepare := range map[string]func(w *world){
		"on a host without rules": func(w *world) {
			if w.variant.program == "iptables-legacy" {
				for _, table := range tables { // once looked into, its tables stand for good
					w.node.run(w.variant.program, "-t", table, "-S")
				}
			}
		},
		"on a host with rules": func(w *world) {
			for _, table := range tables {
				w.node.run(w.variant.program, "-t", table, "-N", "DOCKER")
				w.node.run(w.variant.program, "-t", table, "-A", "OUTPUT", "-d", "203.0.113.9", "-j", "DOCKER")
			}
			w.node.run(w.variant.program, "-P", "FORWARD", "DROP")
			w.node.run("nft", "add", "table", "ip", "theirs")
		},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, w *world) {
				prepare(w)
				before := w.what(w.node)
				s := service("one", vip1, aAddr, dAddr)
				s.Published = []Published{{8080, 80, TCP}}
				w.replace(s)
				w.node.run(w.variant.program, "-A", "WARREN-USER", "-s", "203.0.113.9", "-j", "DROP")
				w.apply(Change{Services: []Service{service("two", vip2, bAddr)}})
				next := w.open(w.node, w.nodeIs) // it is not the process that made it which removes it
				w.node.must(next.Replace(t.Context(), Set{Tasks: everyTask(w.nodeIs)}))
				if w.what(w.node) == before {
					t.Error("there are no rules")
				}
				last := w.open(w.node, w.nodeIs)
				w.node.must(last.Remove(t.Context()))
				if after := w.what(w.node); after != before {
					t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
				}
			})
		})
	}
}

func TestTheOperatorsChainIsKept(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		w.outside.serve(80)
		w.replace()
		w.node.run(w.variant.program, "-A", "WARREN-USER", "-s", aAddr, "-d", far, "-j", "REJECT")
		kept := func(after string) {
			t.Helper()
			w.a.refused("tcp4", far+":80")
			if text := w.node.run(w.variant.program, "-S", "WARREN-USER"); strings.Count(text, "-A ") != 1 {
				t.Errorf("after %s:\n%s", after, text)
			}
		}
		kept("nothing")
		w.replace(service("one", vip1, aAddr))
		kept("everything was replaced")
		w.node.must(w.open(w.node, w.nodeIs).Replace(t.Context(), Set{Tasks: everyTask(w.nodeIs)}))
		kept("another process replaced everything")
		w.node.run(w.variant.program, "-D", "FORWARD", "1")
		if missing, err := w.rules.Repair(t.Context()); err != nil || !missing {
			t.Errorf("repair: %t, %v", missing, err)
		}
		kept("a repair")
	})
}

func TestWhatOthersTakeAwayIsRestored(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		s := service("one", vip1, bAddr)
		s.Published = []Published{{8080, 80, TCP}}
		w.replace(s)
		w.node.run(w.variant.program, "-P", "FORWARD", "DROP")
		want := w.what(w.node)
		restored := make(chan struct{}, 16)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.rules.Watch(ctx, func() { restored <- struct{}{} }) }()
		defer func() {
			cancel()
			<-ended
		}()

		program, table := w.variant.program, ""
		if w.variant.backend == Nftables {
			text := w.node.run("nft", "list", "tables", "ip")
			table = regexp.MustCompile(`warren-[ab]`).FindString(text)
		}
		attacks := [][]string{
			{program, "-F"},
			{program, "-F", "FORWARD"},
			{"sh", "-c", program + " -F && " + program + " -X"},
			{program, "-D", "WARREN-FORWARD", "2"},
		}
		if w.variant.backend == Nftables {
			attacks = append(attacks,
				[]string{"nft", "delete table ip " + table},
				[]string{"nft", "flush chain ip warren-a prerouting; flush chain ip warren-b prerouting"},
				[]string{"nft", "flush map ip warren-a vips; flush map ip warren-b vips"})
		} else {
			attacks = append(attacks,
				[]string{program, "-t", "nat", "-F"},
				[]string{"sh", "-c", program + " -t nat -F && " + program + " -t nat -X"},
				[]string{program, "-t", "nat", "-F", "WARREN-VIPS"})
		}
		if program == "iptables-nft" {
			attacks = append(attacks, []string{"nft", "flush ruleset"})
		}
		for _, attack := range attacks {
			if attack[0] == "nft" {
				// Which of the two tables is in force may change up to the moment of the attack: what came before may
				// have been seen, and restored, as two things.
				one := regexp.MustCompile(`;.*`).ReplaceAllString(attack[1], "")
				either := regexp.MustCompile(`warren-[ab]`)
				attack = []string{"sh", "-c", "nft " + either.ReplaceAllString(one, "warren-a") + " || nft " + either.ReplaceAllString(one, "warren-b") +
					" || nft " + either.ReplaceAllString(one, "warren-a")}
			}
			w.node.run(attack...)
			select {
			case <-restored:
			case <-time.After(patience):
				t.Fatalf("%v: not restored:\n%s", attack, w.what(w.node))
			}
			if strings.Contains(attack[len(attack)-1], "flush ruleset") {
				w.node.run(program, "-P", "FORWARD", "DROP")
			}
			anyTable := strings.NewReplacer("warren-b", "warren-a")
			if now := anyTable.Replace(w.what(w.node)); !sameLines(now, anyTable.Replace(want)) {
				// -F and -X come one after the other and may be seen as two.
				select {
				case <-restored:
				case <-time.After(patience):
				}
				if now := anyTable.Replace(w.what(w.node)); !sameLines(now, anyTable.Replace(want)) {
					t.Errorf("%v: restored to\n%s\nwant\n%s", attack, now, want)
				}
			}
			w.a.reaches("tcp4", vip1+":80", aAddr, "b")
			w.outside.reaches("tcp4", near+":8080", far, "b")
			for len(restored) > 0 {
				<-restored
			}
		}
	})
}

// sameLines compares texts but for the order of lines, which for maps and for tables is the kernel's.
func sameLines(a, b string) bool {
	left := map[string]int{}
	for line := range strings.Lines(a) {
		left[strings.TrimSpace(line)]++
	}
	for line := range strings.Lines(b) {
		left[strings.TrimSpace(line)]--
	}
	for _, n := range left {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestTheOtherBackendsRulesAreClearedAway(t *testing.T) {
	needsRoot(t)
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, variant{"", IPTables, program})
			s := service("one", vip1, bAddr)
			w.replace(s)
			rules := w.what(w.node)
			w.variant.backend = Nftables
			next := w.open(w.node, w.nodeIs)
			w.node.must(next.Replace(t.Context(), Set{[]Service{s}, everyTask(w.nodeIs)}))
			if text := w.node.run(program + "-save"); strings.Contains(text, "WARREN-VIPS") || strings.Contains(text, "WARREN-REFUSE") {
				t.Errorf("left of iptables:\n%s", text)
			}
			w.a.reaches("tcp4", vip1+":80", aAddr, "b")
			w.variant.backend = IPTables
			back := w.open(w.node, w.nodeIs)
			w.node.must(back.Replace(t.Context(), Set{[]Service{s}, everyTask(w.nodeIs)}))
			if now := w.what(w.node); !sameLines(now, rules) {
				t.Errorf("left of nftables:\n%s\nwant\n%s", now, rules)
			}
			w.a.reaches("tcp4", vip1+":80", aAddr, "b")
		})
	}
}

func TestOurOwnChangesAreNotTakenForOthers(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		set := crowd(w.nodeIs, 300)
		w.node.must(w.rules.Replace(t.Context(), set))
		restored := make(chan struct{}, 16)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.rules.Watch(ctx, func() { restored <- struct{}{} }) }()
		for i := range 3 {
			w.node.must(w.rules.Replace(t.Context(), set))
			w.node.must(w.rules.Apply(t.Context(), Change{Services: []Service{service("one", vip1, addrs(aAddr, bAddr)[i%2].String())}}))
		}
		w.node.run(w.variant.program, "-F", "FORWARD") // news of this come after all others
		<-restored
		cancel()
		<-ended
		if len(restored) > 0 {
			t.Errorf("restored %d times more than was taken away", len(restored))
		}
	})
}

func TestAHostWithoutIptablesNeedsNone(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	w := newWorld(t, variant{"", Auto, "no-such-iptables"})
	if w.rules.Backend() != Nftables {
		t.Errorf("chose %s", w.rules.Backend())
	}
	w.replace(service("one", vip1, bAddr))
	w.a.reaches("tcp4", vip1+":80", aAddr, "b")
	if missing, err := w.rules.Repair(t.Context()); err != nil || missing {
		t.Errorf("repair: %t, %v", missing, err)
	}
	w.node.must(w.rules.Remove(t.Context()))
	if left := w.node.run("nft", "list", "ruleset"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	err := w.node.do(func() error {
		_, err := Open(t.Context(), w.nodeIs, Options{Backend: IPTables, Program: "no-such-iptables"})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "install the package iptables") {
		t.Errorf("iptables where there are none: %v", err)
	}
}

func TestWhatCannotBeIsRefusedWhole(t *testing.T) {
	n := aNode(3)
	for _, c := range []struct {
		change Change
		says   string
	}{
		{Change{Services: []Service{{}}}, "give its id"},
		{Change{Services: []Service{service("one", "10.0.0.1")}}, "vip 10.0.0.1: give one of the range 10.224.0.0/16"},
		{Change{Services: []Service{service("one", vip1, "10.0.0.1")}}, "endpoint 10.0.0.1"},
		{Change{Services: []Service{{ID: "one", Published: []Published{{0, 80, TCP}}}}}, "give ports"},
		{Change{Services: []Service{{ID: "one", Published: []Published{{80, 80, 132}}}}}, "give tcp or udp"},
		{Change{Tasks: []Task{{Addr: n.Addr, Local: true}}}, "the node's own address"},
		{Change{Tasks: []Task{{Addr: netip.MustParseAddr(dAddr), Local: true}}}, "this node's subnet"},
		{Change{Tasks: []Task{{Addr: netip.MustParseAddr(aAddr)}}}, "this node's subnet"},
		{Change{Tasks: []Task{{}}}, "give it an address"},
	} {
		if err := c.change.valid(n); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.change, err, c.says)
		}
	}
	n.VIPRange = netip.MustParsePrefix("10.208.9.0/24")
	if _, err := Open(t.Context(), n, Options{}); err == nil || !strings.Contains(err.Error(), "apart from the node range") {
		t.Errorf("overlapping ranges: %v", err)
	}
}
