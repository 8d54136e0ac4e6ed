package rules

import (
	"context"
	"flag"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic/traffictest"
)

// TestMain has some tests run at once, however few processors there are: they wait for the kernel more than they compute.
func TestMain(m *testing.M) {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		if err := flag.Set("test.parallel", strconv.Itoa(max(6, runtime.GOMAXPROCS(0)))); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// The network of most tests.
//
//	outside 198.51.100.2 ── node 198.51.100.1 ── (warren-wg) ── other
//	                          │ warren0 10.208.3.1               │ warren0 10.208.4.1
//	                          a .3.10  b .3.11  c .3.12          d .4.10  e .4.11
type world struct {
	t              testing.TB
	node, other    *host
	outside        *host
	a, b, c, d, e  *host
	rules, remote  *Rules
	variant        variant
	nodeIs, farsIs traffic.Node
}

const (
	aAddr = "10.208.3.10"
	bAddr = "10.208.3.11"
	cAddr = "10.208.3.12"
	dAddr = "10.208.4.10"
	eAddr = "10.208.4.11"
	vip1  = "10.224.0.1"
	vip2  = "10.224.7.2"
	near  = "198.51.100.1"
	far   = "198.51.100.2"
)

// variant is a backend on a kind of host.
type variant struct {
	name    string
	backend Backend
	program string
}

var variants = []variant{
	{"nftables beside iptables-nft", Nftables, "iptables-nft"},
	{"nftables beside iptables-legacy", Nftables, "iptables-legacy"},
	{"iptables-nft", IPTables, "iptables-nft"},
	{"iptables-legacy", IPTables, "iptables-legacy"},
}

// everywhere runs a test in a world of its own for every variant.
func everywhere(t *testing.T, test func(*testing.T, *world)) {
	t.Helper()
	among(t, variants, test)
}

// onEveryBackend is everywhere for what no backend can do otherwise for what stands beside it.
func onEveryBackend(t *testing.T, test func(*testing.T, *world)) {
	t.Helper()
	among(t, slices.DeleteFunc(slices.Clone(variants), func(v variant) bool {
		return v.backend == Nftables && v.program == "iptables-legacy"
	}), test)
}

func among(t *testing.T, variants []variant, test func(*testing.T, *world)) {
	t.Helper()
	needsRoot(t)
	t.Parallel()
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, v))
		})
	}
}

func newWorld(t testing.TB, v variant) *world {
	t.Helper()
	w := &world{t: t, variant: v, nodeIs: traffictest.Node(3), farsIs: traffictest.Node(4)}
	w.node, w.other = newNodeHost(t, "node", w.nodeIs), newNodeHost(t, "other", w.farsIs)
	cable(w.node, "warren-wg", w.other, "warren-wg")
	w.node.addr("warren-wg", "192.0.2.3/24")
	w.other.addr("warren-wg", "192.0.2.4/24")
	w.node.route("10.208.4.0/24", "warren-wg", "192.0.2.4", "10.208.3.1")
	w.other.route("10.208.3.0/24", "warren-wg", "192.0.2.3", "10.208.4.1")
	for _, h := range []*host{w.node, w.other} {
		h.sysctl("ipv4/conf/warren-wg/route_localnet", "1")
	}
	w.outside = newHost(t, "outside")
	cable(w.node, "eth0", w.outside, "eth0")
	w.node.addr("eth0", near+"/24")
	w.outside.addr("eth0", far+"/24")

	w.a, w.b, w.c = w.task(w.node, "a", aAddr), w.task(w.node, "b", bAddr), w.task(w.node, "c", cAddr)
	w.d, w.e = w.task(w.other, "d", dAddr), w.task(w.other, "e", eAddr)
	w.rules, w.remote = w.open(w.node, w.nodeIs), w.open(w.other, w.farsIs)
	return w
}

// newNodeHost makes a host wired as Node says.
func newNodeHost(t testing.TB, name string, n traffic.Node) *host {
	t.Helper()
	h := newHost(t, name)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.Bridge
	attrs.HardwareAddr = net.HardwareAddr{0x02, 0, 0, 0, 0, 1}
	h.must(h.link.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	h.up(n.Bridge)
	h.addr(n.Bridge, n.Addr.String()+"/24")
	h.route(n.VIPRange.String(), n.Bridge, "", n.Addr.String())
	h.sysctl("ipv4/ip_forward", "1")
	h.sysctl("bridge/bridge-nf-call-iptables", "0")
	h.sysctl("ipv4/conf/all/send_redirects", "0")
	h.sysctl("ipv4/conf/"+n.Bridge+"/send_redirects", "0")
	h.sysctl("ipv4/conf/"+n.Bridge+"/route_localnet", "1")
	return h
}

// task makes a host that plays a task, with a server on port 80.
func (w *world) task(node *host, name, addr string) *host {
	w.t.Helper()
	h := newHost(w.t, name)
	cable(node, "veth-"+name, h, "eth0")
	node.must(node.link.LinkSetMaster(node.get("veth-"+name), node.get("warren0")))
	gateway := addr[:strings.LastIndex(addr, ".")] + ".1"
	h.addr("eth0", addr+"/32")
	h.route(gateway+"/32", "eth0", "", "")
	h.route("0.0.0.0/0", "eth0", gateway, "")
	h.serve(80)
	return h
}

// open opens a node's rules in its namespace.
func (w *world) open(h *host, n traffic.Node) *Rules {
	w.t.Helper()
	var r *Rules
	h.must(h.do(func() (err error) {
		r, err = Open(context.Background(), n, Options{Backend: w.variant.backend, Program: w.variant.program, Recheck: 50 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
		return err
	}))
	w.t.Cleanup(func() { r.Close() })
	return r
}

// everyTask is all five tasks in one network, as one of the nodes sees them.
func everyTask(n traffic.Node) []traffic.Task {
	var all []traffic.Task
	for _, addr := range []string{aAddr, bAddr, cAddr, dAddr, eAddr} {
		all = append(all, taskOf(n, addr, "default"))
	}
	return all
}

func taskOf(n traffic.Node, addr string, networks ...string) traffic.Task {
	a := netip.MustParseAddr(addr)
	return traffic.Task{Addr: a, Local: n.Subnet.Contains(a), Networks: networks}
}

func addrs(all ...string) []netip.Addr {
	var parsed []netip.Addr
	for _, one := range all {
		parsed = append(parsed, netip.MustParseAddr(one))
	}
	return parsed
}

func service(id, vip string, endpoints ...string) traffic.Service {
	return traffic.Service{ID: id, VIP: netip.MustParseAddr(vip), Endpoints: addrs(endpoints...)}
}

// replace puts services in force on both nodes, with every task in one network.
func (w *world) replace(services ...traffic.Service) {
	w.t.Helper()
	w.node.must(w.rules.Replace(context.Background(), traffic.Set{Services: services, Tasks: everyTask(w.nodeIs)}))
	w.other.must(w.remote.Replace(context.Background(), traffic.Set{Services: services, Tasks: everyTask(w.farsIs)}))
	w.settle()
}

// apply makes a change on both nodes that is the same for both.
func (w *world) apply(change traffic.Change) {
	w.t.Helper()
	w.node.must(w.rules.Apply(context.Background(), change))
	w.other.must(w.remote.Apply(context.Background(), change))
	w.settle()
}

func (w *world) settle() {
	w.t.Helper()
	w.node.must(w.rules.Settle(context.Background()))
	w.other.must(w.remote.Settle(context.Background()))
}

func published(port, target uint16, protocols ...traffic.Protocol) []traffic.Published {
	var all []traffic.Published
	for _, protocol := range protocols {
		all = append(all, traffic.Published{Port: port, Target: target, Protocol: protocol})
	}
	return all
}
