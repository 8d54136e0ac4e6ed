package rules

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

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
		w.apply(traffic.Change{Services: []traffic.Service{service("one", vip1, bAddr)}})
		w.a.reaches("tcp4", vip1+":80", aAddr, "b")
		w.apply(traffic.Change{Services: []traffic.Service{service("one", vip1)}})
		w.a.refused("tcp4", vip1+":80")
	})
}

func TestAPublishedPortIsOpenOnEveryAddressOfEveryNode(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		one, two := service("one", vip1, bAddr), service("two", vip2, dAddr)
		one.Published = published(8080, 80, traffic.TCP, traffic.UDP)
		two.Published = published(9090, 80, traffic.TCP, traffic.UDP)
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
		w.apply(traffic.Change{Services: []traffic.Service{one}})
		w.outside.refused("tcp4", near+":8080")
		w.outside.refused("udp4", near+":8080")
	})
}

func TestAPublishedPortIsForTasksOfOtherNetworksToo(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		one := traffic.Service{ID: "one", Endpoints: addrs(bAddr), Published: published(8080, 80, traffic.TCP)}
		two := traffic.Service{ID: "two", Endpoints: addrs(dAddr), Published: published(9090, 80, traffic.TCP)}
		tasks := func(n traffic.Node) []traffic.Task {
			return []traffic.Task{taskOf(n, aAddr, "red"), taskOf(n, bAddr, "blue"), taskOf(n, dAddr, "blue")}
		}
		w.node.must(w.rules.Replace(w.t.Context(), traffic.Set{Services: []traffic.Service{one, two}, Tasks: tasks(w.nodeIs)}))
		w.other.must(w.remote.Replace(w.t.Context(), traffic.Set{Services: []traffic.Service{one, two}, Tasks: tasks(w.farsIs)}))
		w.a.reaches("tcp4", near+":8080", aAddr, "b")
		w.a.reaches("tcp4", near+":9090", "10.208.3.1", "d")
		w.a.refused("tcp4", bAddr+":80")
	})
}

func TestAHostPortLeadsToItsTaskAlone(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		w.replace(service("one", vip1, aAddr, bAddr))
		task := taskOf(w.nodeIs, bAddr, "default")
		task.HostPorts = published(7070, 80, traffic.TCP, traffic.UDP)
		w.node.must(w.rules.Apply(w.t.Context(), traffic.Change{Tasks: []traffic.Task{task}}))
		for range 8 {
			w.outside.reaches("tcp4", near+":7070", far, "b")
		}
		w.outside.reaches("udp4", near+":7070", far, "b")
		w.node.reaches("tcp4", "127.0.0.1:7070", "10.208.3.1", "b")
		w.node.must(w.rules.Apply(w.t.Context(), traffic.Change{RemovedTasks: addrs(bAddr)}))
		w.outside.refused("tcp4", near+":7070")
	})
}

func TestTheNodesOwnNamesAreNotPublishedAway(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		w.node.serve(53)
		s := traffic.Service{ID: "names", Endpoints: addrs(bAddr), Published: published(53, 80, traffic.UDP, traffic.TCP)}
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
		s.Published = published(8080, 80, traffic.TCP)
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
		tasks := func(n traffic.Node) (all []traffic.Task) {
			for addr, networks := range of {
				all = append(all, taskOf(n, addr, networks...))
			}
			return all
		}
		services := []traffic.Service{}
		vips := map[string]string{}
		for i, addr := range []string{aAddr, bAddr, cAddr, dAddr, eAddr} {
			vips[addr] = fmt.Sprintf("10.224.9.%d", i)
			services = append(services, service(addr, vips[addr], addr))
		}
		w.node.must(w.rules.Replace(w.t.Context(), traffic.Set{Services: services, Tasks: tasks(w.nodeIs)}))
		w.other.must(w.remote.Replace(w.t.Context(), traffic.Set{Services: services, Tasks: tasks(w.farsIs)}))
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
		w.node.must(w.rules.Apply(w.t.Context(), traffic.Change{Tasks: tasks(w.nodeIs)}))
		w.other.must(w.remote.Apply(w.t.Context(), traffic.Change{Tasks: tasks(w.farsIs)}))
		matrix()
	})
}

func TestAVIPIsRefusedAtOnceAlsoWhereBridgedPacketsPassTheRules(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		ctx := w.t.Context()
		w.node.must(w.rules.Replace(ctx, traffic.Set{
			Services: []traffic.Service{service("near", vip1, bAddr), service("far", vip2, dAddr)},
			Tasks:    []traffic.Task{taskOf(w.nodeIs, aAddr, "red"), taskOf(w.nodeIs, bAddr, "blue"), taskOf(w.nodeIs, dAddr, "blue")},
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
		known := []traffic.Task{taskOf(w.farsIs, aAddr, "red"), taskOf(w.farsIs, dAddr, "red")}
		w.other.must(w.remote.Replace(w.t.Context(), traffic.Set{Tasks: known}))
		red := []traffic.Task{taskOf(w.nodeIs, dAddr, "red")}
		for _, addr := range []string{aAddr, bAddr, cAddr} {
			red = append(red, taskOf(w.nodeIs, addr, "red"))
		}
		w.node.must(w.rules.Replace(w.t.Context(), traffic.Set{Tasks: red}))
		w.b.reaches("tcp4", dAddr+":80", bAddr, "d") // not known there yet

		w.other.must(w.remote.Apply(w.t.Context(), traffic.Change{Tasks: []traffic.Task{taskOf(w.farsIs, cAddr, "blue")}}))
		w.a.reaches("tcp4", dAddr+":80", aAddr, "d")
		w.c.refused("tcp4", dAddr+":80")

		w.node.must(w.rules.Apply(w.t.Context(), traffic.Change{RemovedTasks: addrs(dAddr)}))
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
