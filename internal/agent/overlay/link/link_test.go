package link

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// underBothRules runs a test where bridged packets pass the rules for routed ones, as with Docker, and
// where they do not.
func underBothRules(t *testing.T, test func(t *testing.T, prepare func(*host))) {
	for _, value := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+value, func(t *testing.T) {
			t.Parallel()
			test(t, func(h *host) {
				h.t.Helper()
				h.inside(h.ns, func() error {
					path := "bridge/bridge-nf-call-iptables"
					if err := apply(setting{path, value}); err != nil {
						return err
					}
					if now, err := readSetting(path); value == "1" && now != "1" {
						h.t.Skipf("this kernel has no br_netfilter: %v", err)
					}
					return nil
				})
			})
		})
	}
}

func TestTasksAndHostsReachEachOtherByTheirOwnAddresses(t *testing.T) {
	t.Parallel()
	underBothRules(t, func(t *testing.T, prepare func(*host)) {
		a, b := newHost(t, 3), newHost(t, 4)
		prepare(a)
		prepare(b)
		join(a, b)
		a.up()
		b.up()
		one, two, far := a.attach("one", 2), a.attach("two", 3), b.attach("far", 2)
		for _, k := range []*task{one, two, far, a.itself(), b.itself()} {
			k.serve()
		}
		all := []*task{one, two, far, a.itself(), b.itself()}
		for _, from := range all {
			for _, to := range all {
				if from.addr != to.addr {
					from.hears(to.addr, to)
				}
			}
		}
	})
}

// TestAServicesAddressLeadsToTasksHereAndElsewhere lays the rules of one service by hand, to see that the wires
// carry what they make of packets.
func TestAServicesAddressLeadsToTasksHereAndElsewhere(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	underBothRules(t, func(t *testing.T, prepare func(*host)) {
		a, b := newHost(t, 3), newHost(t, 4)
		prepare(a)
		prepare(b)
		join(a, b)
		a.up()
		b.up()
		one, two, far := a.attach("one", 2), a.attach("two", 3), b.attach("far", 2)
		toOne, toFar := netip.MustParseAddr("10.224.0.1"), netip.MustParseAddr("10.224.0.2")
		rules := filepath.Join(t.TempDir(), "rules")
		a.must(os.WriteFile(rules, fmt.Appendf(nil, `table ip test {
			chain pre { type nat hook prerouting priority -100
				ip daddr %[1]s dnat to %[2]s
				ip daddr %[3]s dnat to %[4]s
			}
			chain out { type nat hook output priority -100
				ip daddr %[1]s dnat to %[2]s
				ip daddr %[3]s dnat to %[4]s
			}
			chain post { type nat hook postrouting priority 100
				ip saddr %[2]s ip daddr %[2]s masquerade
			}
		}`, toOne, one.addr, toFar, far.addr), 0o600))
		a.sh("nft -f " + rules)
		one.serve()
		far.serve()

		two.hears(toOne, one)
		two.hears(toFar, far)
		one.hears(toFar, far)
		a.itself().hears(toOne, one)
		a.itself().hears(toFar, far)
		// A task that reaches itself sees the host call: else it would answer itself directly.
		got, err := one.call(toOne)
		if err != nil || !strings.HasPrefix(got, one.addr.String()+" hears ") {
			t.Errorf("a task calls its own service: got %q, %v", got, err)
		}
	})
}

func TestATasksSideHasItsAddressAndItsMTUAndNothingElse(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.up()
	k := h.attach("abcdefghijklmnop", 7)
	addrs := h.shIn(k.ns, "ip -o addr")
	if strings.Contains(addrs, "inet6 fe80") || strings.Count(addrs, ": eth0") != 1 || !strings.Contains(addrs, "inet 10.208.3.7/32") {
		t.Errorf("addresses:\n%s", addrs)
	}
	links := h.shIn(k.ns, "ip -o link show up")
	if !strings.Contains(links, "mtu 1420") || !strings.Contains(links, "02:57:0a:d0:03:07") || !strings.Contains(links, "LOOPBACK") {
		t.Errorf("links:\n%s", links)
	}
	if got := h.shIn(k.ns, "ip neigh"); !strings.Contains(got, "10.208.3.1 dev eth0 lladdr "+bridgeMAC.String()+" PERMANENT") {
		t.Errorf("neighbours:\n%s", got)
	}
	outside := h.sh("ip -d link show wvabcdefghijklm")
	for _, want := range []string{"alias abcdefghijklmnop", "mtu 1420", "master warren0", "hairpin on", "learning off"} {
		if !strings.Contains(outside, want) {
			t.Errorf("no %q in\n%s", want, outside)
		}
	}
	if got := h.sh("ip -6 -o addr"); strings.Contains(got, "fe80") {
		t.Errorf("the host has IPv6 addresses it did not have:\n%s", got)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestAPacketOfTheWholeMTUPassesAndNoLargerOne(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, 3), newHost(t, 4)
	join(a, b)
	a.up()
	b.up()
	one, far := a.attach("one", 2), b.attach("far", 2)
	var from, at *net.UDPConn
	a.inside(far.ns, func() (err error) {
		at, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	})
	defer at.Close()
	a.inside(one.ns, func() (err error) {
		from, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(far.addr, port)))
		return err
	})
	defer from.Close()
	raw, err := from.SyscallConn()
	a.must(err)
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
	a.must(err)
	const headers = 20 + 8
	if _, err := from.Write(make([]byte, mtu-headers+1)); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("more than the MTU: %v", err)
	}
	if _, err := from.Write(make([]byte, mtu-headers)); err != nil {
		t.Fatal(err)
	}
	at.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := at.Read(make([]byte, mtu)); err != nil || n != mtu-headers {
		t.Errorf("%d bytes arrived, %v", n, err)
	}
}

func TestFiftyTasksAreAttachedAtOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.up()
	tasks := make([]*task, 50)
	wanted := map[string]netip.Addr{}
	for i := range tasks {
		wanted[fmt.Sprintf("task%d", i)] = h.addr(byte(i + 2))
	}
	begin := time.Now()
	var running sync.WaitGroup
	for i := range tasks {
		running.Go(func() {
			path, err := h.wires.Attach(t.Context(), fmt.Sprintf("task%d", i), h.addr(byte(i+2)))
			if err != nil {
				t.Error(err)
				return
			}
			tasks[i] = h.task(path, byte(i+2))
		})
	}
	running.Wait()
	t.Logf("50 attached in %v", time.Since(begin))
	if t.Failed() {
		return
	}
	if got := must(h.wires.Attached(t.Context())); !maps.Equal(got, wanted) {
		t.Errorf("attached: %v", got)
	}
	tasks[49].serve()
	for _, k := range tasks[:49] {
		k.hears(tasks[49].addr, tasks[49])
	}
	begin = time.Now()
	for i := range tasks {
		running.Go(func() {
			if err := h.wires.Detach(t.Context(), fmt.Sprintf("task%d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	t.Logf("50 detached in %v", time.Since(begin))
	if got := must(h.wires.Attached(t.Context())); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

func TestATaskIsReachedByTheFirstPacket(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.up()
	for i := range byte(5) {
		begin := time.Now()
		k := h.attach(fmt.Sprintf("task%d", i), i+2)
		attached := time.Since(begin)
		k.serve()
		begin = time.Now()
		h.itself().hears(k.addr, k)
		t.Logf("attached in %v, answers in %v", attached, time.Since(begin))
	}
}

func TestTheNextAgentFindsWhatThisOneMade(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.up()
	one := h.attach("abcdefghijklmnop", 2)
	one.serve()
	before := h.state()

	h.wires = h.open()
	want := map[string]netip.Addr{"abcdefghijklmnop": one.addr}
	if got := must(h.wires.Attached(t.Context())); !maps.Equal(got, want) {
		t.Errorf("attached: %v", got)
	}
	if _, err := h.wires.Attach(t.Context(), "abcdefghijklmnop", one.addr); !errors.Is(err, ErrNotUp) {
		t.Errorf("before Up: %v", err)
	}
	h.up()
	h.attach("abcdefghijklmnop", 2)
	if changes := differ(before, h.state()); changes != "" {
		t.Errorf("changed without need:\n%s", changes)
	}
	h.itself().hears(one.addr, one)
}

func TestDownLeavesTheHostAsItWas(t *testing.T) {
	t.Parallel()
	for _, forwarding := range []string{"0", "1"} {
		t.Run("ip_forward="+forwarding, func(t *testing.T) {
			t.Parallel()
			a, b := newHost(t, 3), newHost(t, 4)
			join(a, b)
			a.sh("ip link add uplink type veth peer name uplink-p\nip link set uplink up\nip addr add 192.0.2.1/24 dev uplink\nip route add default via 192.0.2.2")
			a.inside(a.ns, func() error {
				return apply(
					withoutIPv6(device), setting{forwardSetting, forwarding}, v4("all", "accept_redirects", "0"),
					v4("uplink", "forwarding", "1"), v4("uplink", "accept_redirects", "0"),
					// The device's own settings go with it, and it is not the wires' to remove.
					v4(device, "forwarding", "1"), v4(device, "route_localnet", "1"), v4(device, "rp_filter", "2"),
					v4(device, "send_redirects", "0"), v4(device, "accept_redirects", "0"),
				)
			})
			before := a.state()
			a.up()
			a.attach("one", 2)
			a.attach("two", 3)
			if a.state() == before {
				t.Error("Up did nothing")
			}
			a.wires = a.open() // the agent that cleans up is another one
			a.must(a.wires.Down(t.Context()))
			changes := differ(before, a.state())
			if forwarding == "0" { // which forward, by the kernel's doing, switches off for the device too
				changes = strings.ReplaceAll(changes, "- /proc/sys/net/ipv4/conf/"+device+"/forwarding = 1\n", "")
				changes = strings.ReplaceAll(changes, "+ /proc/sys/net/ipv4/conf/"+device+"/forwarding = 0\n", "")
				changes = strings.ReplaceAll(changes, "- /proc/sys/net/ipv4/conf/"+device+"/accept_redirects = 0\n", "")
				changes = strings.ReplaceAll(changes, "+ /proc/sys/net/ipv4/conf/"+device+"/accept_redirects = 1\n", "")
			}
			if changes != "" {
				t.Errorf("the host is not as before:\n%s", changes)
			}
			if _, err := os.Stat(a.dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the folder of namespaces: %v", err)
			}
			a.must(a.wires.Down(t.Context()))
		})
	}
}

func TestDetachedTwiceIsDetached(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.up()
	h.attach("other", 3)
	before := h.state()
	h.attach("one", 2)
	for range 2 {
		h.must(h.wires.Detach(t.Context(), "one"))
	}
	if changes := differ(before, h.state()); changes != "" {
		t.Errorf("left:\n%s", changes)
	}
	h.must(h.wires.Detach(t.Context(), "never-seen"))
}

func TestAttachCompletesWhatIsThereOfATask(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(h *host, k *task){
		"nothing is missing": func(*host, *task) {},
		"the veth is gone":   func(h *host, _ *task) { h.sh("ip link del wvone") },
		"the alias is missing": func(h *host, _ *task) {
			h.must(h.wires.kernel.LinkSetAlias(must(h.wires.kernel.LinkByName("wvone")), ""))
		},
		"it is out of the bridge": func(h *host, _ *task) { h.sh("ip link set wvone nomaster down") },
		"its side is bare": func(h *host, k *task) {
			h.shIn(k.ns, "ip link set lo down\nip link set eth0 down\nip addr flush dev eth0")
		},
		"its routes are gone":        func(h *host, k *task) { h.shIn(k.ns, "ip route flush dev eth0\nip neigh flush all nud permanent") },
		"the namespace is not there": func(h *host, _ *task) { h.must(unix.Unmount(h.wires.namespacePath("one"), unix.MNT_DETACH)) },
		"the namespace's file is not": func(h *host, _ *task) {
			h.must(unix.Unmount(h.wires.namespacePath("one"), unix.MNT_DETACH))
			h.must(os.Remove(h.wires.namespacePath("one")))
		},
		"it had another address": func(h *host, _ *task) {
			h.must(h.wires.Detach(h.t.Context(), "one"))
			h.attach("one", 9)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, 3)
			h.up()
			damage(h, h.attach("one", 2))
			if got := must(h.wires.Attached(t.Context())); len(got) != 1 {
				t.Errorf("attached: %v", got)
			}
			one := h.attach("one", 2)
			one.serve()
			h.itself().hears(one.addr, one)
			if got := must(h.wires.Attached(t.Context())); len(got) != 1 || got["one"] != one.addr {
				t.Errorf("attached: %v", got)
			}
		})
	}
}

func TestWhatIsHalfMadeIsListedSoThatItCanBeRemoved(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.up()
	h.must(os.WriteFile(h.wires.namespacePath("file"), nil, 0o600))
	ns, err := h.wires.namespace("mounted")
	h.must(err)
	ns.Close()
	want := map[string]netip.Addr{"file": {}, "mounted": {}}
	if got := must(h.wires.Attached(t.Context())); !maps.Equal(got, want) {
		t.Errorf("attached: %v", got)
	}
	for id := range want {
		h.must(h.wires.Detach(t.Context(), id))
	}
	if got := must(h.wires.Attached(t.Context())); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

func TestTwoTasksWhoseNamesBeginAlikeDoNotShareALink(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.up()
	one := h.attach("abcdefghijklmnop", 2)
	_, err := h.wires.Attach(t.Context(), "abcdefghijklmxyz", h.addr(3))
	if err == nil || !strings.Contains(err.Error(), "begin alike") {
		t.Errorf("got %v", err)
	}
	h.must(h.wires.Detach(t.Context(), "abcdefghijklmxyz"))
	one.serve()
	h.itself().hears(one.addr, one)
}

func TestBadInputIsRefusedByName(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.up()
	for want, change := range map[string]func(*Node){
		"address":   func(n *Node) { n.Addr = netip.MustParseAddr("10.208.4.1") },
		"Subnet":    func(n *Node) { n.Subnet = netip.MustParsePrefix("fd00::/64") },
		"NodeRange": func(n *Node) { n.NodeRange = netip.MustParsePrefix("10.208.0.1/12") },
		"VIPRange":  func(n *Node) { n.VIPRange = netip.Prefix{} },
		"MTU":       func(n *Node) { n.MTU = 576 },
	} {
		n := h.node
		change(&n)
		if err := h.wires.Up(t.Context(), n); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	for _, id := range []string{"", "../x", "a b", ".x", strings.Repeat("x", 65)} {
		if _, err := h.wires.Attach(t.Context(), id, h.addr(2)); err == nil || !strings.Contains(err.Error(), "its id") {
			t.Errorf("task %q: got %v", id, err)
		}
	}
	for _, a := range []netip.Addr{{}, h.node.Addr, netip.MustParseAddr("10.208.4.2")} {
		if _, err := h.wires.Attach(t.Context(), "x", a); err == nil || !strings.Contains(err.Error(), "node's subnet") {
			t.Errorf("address %s: got %v", a, err)
		}
	}
	for field, o := range map[string]Options{
		"Bridge":       {Bridge: "sixteen-letters!", Device: "d", NamespaceDir: "/x"},
		"Device":       {Bridge: "b", Device: "a/b", NamespaceDir: "/x"},
		"NamespaceDir": {Bridge: "b", Device: "d", NamespaceDir: "x"},
	} {
		if _, err := Open(o); err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

// TestUpPutsBackWhatSomebodyTookAway has Watch tell of each damage, and Up repair it.
func TestUpPutsBackWhatSomebodyTookAway(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"the bridge is deleted":      "ip link del warren0",
		"the bridge is down":         "ip link set warren0 down",
		"the bridge lost its MTU":    "ip link set warren0 mtu 1300",
		"the address is gone":        "ip addr del 10.208.3.1/32 dev warren0",
		"an address is added":        "ip addr add 10.208.3.99/32 dev warren0",
		"the routes are flushed":     "ip route flush dev warren0",
		"forwarding is switched off": "sysctl -qw net.ipv4.ip_forward=0",
		"the device went down":       "ip link set warren-wg down",
		"the device lost routes":     "ip route flush dev warren-wg",
		"the last resort is gone":    "ip route del unreachable 10.208.0.0/12",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newHost(t, 3), newHost(t, 4)
			join(a, b)
			a.up()
			b.up()
			one, far := a.attach("one", 2), b.attach("far", 2)
			one.serve()
			far.serve()
			told := make(chan struct{}, 1)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- a.wires.Watch(ctx, func() {
					select {
					case told <- struct{}{}:
					default:
					}
				})
			}()
			await(t, told) // at once
			before := whole(a)
			a.sh(damage)
			for deadline := time.Now().Add(10 * time.Second); ; {
				await(t, told)
				a.up()
				if changes := differ(before, whole(a)); changes == "" {
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("not as before:\n%s", changes)
				}
			}
			a.itself().hears(one.addr, one)
			one.hears(far.addr, far)
			far.hears(one.addr, one)
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// whole is the host's state without numbers that a new link has anew, and what comes from its being slow to
// settle.
func whole(h *host) string {
	h.t.Helper()
	return h.sh("ip -br addr\nip -4 route show table main\nip -4 neigh show nud permanent\nsysctl net.ipv4.ip_forward\nsysctl net.ipv4.conf.warren0")
}

func await(t *testing.T, told <-chan struct{}) {
	t.Helper()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Fatal("Watch did not tell")
	}
}

func TestUpWithNothingToDoChangesNothingAndWatchIsSilentThen(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.up()
	h.attach("one", 2)
	told := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.wires.Watch(ctx, func() { told <- struct{}{} }) }()
	await(t, told)
	begin := time.Now()
	h.up()
	t.Logf("Up with nothing to do: %v", time.Since(begin))
	h.attach("two", 3)
	h.must(h.wires.Detach(t.Context(), "two"))
	// A change that it does tell of comes after all that it could have told of before.
	h.sh("ip link set warren0 mtu 1300")
	await(t, told)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(told) > 0 {
		t.Errorf("told %d times more", len(told))
	}
}

func TestWhatIsMeantForOtherNodesNeverLeavesByTheDefaultRoute(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.sh("ip link add uplink type veth peer name uplink-p\nip link set uplink up\nip addr add 192.0.2.1/24 dev uplink\nip route add default via 192.0.2.2")
	h.up()
	k := h.attach("one", 2)
	far := netip.MustParseAddr("10.208.9.9")
	for _, from := range []*task{k, h.itself()} {
		begin := time.Now()
		if _, err := from.call(far); err == nil || time.Since(begin) > time.Second {
			t.Errorf("from %s: %v after %v", from.addr, err, time.Since(begin))
		}
	}
	h.sh("ip link add warren-wg type veth peer name warren-wg-p")
	h.up()
	if got := h.sh("ip route get 10.208.9.9"); !strings.Contains(got, "dev warren-wg src 10.208.3.1") {
		t.Errorf("with the device: %s", got)
	}
}

func TestAForeignLinkOrRouteIsNotTakenOver(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.sh("ip link add warren0 type veth peer name warren0-p")
	if err := h.wires.Up(t.Context(), h.node); err == nil || !strings.Contains(err.Error(), "is a veth") {
		t.Errorf("got %v", err)
	}
	h.must(h.wires.Down(t.Context()))
	h.sh("ip link del warren0\nip link add uplink type veth peer name uplink-p\nip link set uplink up\nip route add 10.224.0.0/16 dev uplink")
	if err := h.wires.Up(t.Context(), h.node); err == nil || !strings.Contains(err.Error(), "another route") {
		t.Errorf("got %v", err)
	}
	h.must(h.wires.Down(t.Context()))
	if got := h.sh("ip route"); !strings.Contains(got, "10.224.0.0/16 dev uplink") {
		t.Errorf("routes:\n%s", got)
	}
}

func TestANodeThatGetsAnotherSubnetHasItAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.up()
	other := newHost(t, 7)
	h.node = other.node
	h.up()
	if got := h.sh("ip -o addr show dev warren0\nip route"); strings.Contains(got, "10.208.3.") || !strings.Contains(got, "10.208.7.0/24 dev warren0") {
		t.Errorf("got\n%s", got)
	}
}

func TestTheUplinkIsTheOneThatLeadsToTheOthers(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	if _, _, err := h.wires.Uplink(netip.Addr{}); err == nil {
		t.Error("there is no default route")
	}
	h.sh(`ip link add up1 mtu 9000 type veth peer name up1-p
		ip link add up2 mtu 1450 type veth peer name up2-p
		ip link set up1 up
		ip link set up2 up
		ip addr add 192.0.2.1/24 dev up1
		ip addr add 198.51.100.1/24 dev up2
		ip route add default via 192.0.2.2
		ip route add default via 198.51.100.2 metric 100
		ip route add 203.0.113.0/24 via 192.0.2.2 mtu 1300`)
	for toward, want := range map[string]string{
		"":             "up2 1450",
		"127.0.0.1":    "up2 1450",
		"192.0.2.9":    "up1 9000",
		"192.0.2.1":    "up1 9000",
		"198.51.100.7": "up2 1450",
		"203.0.113.1":  "up1 1300",
		"8.8.8.8":      "up1 9000",
	} {
		var addr netip.Addr
		if toward != "" {
			addr = netip.MustParseAddr(toward)
		}
		name, mtu, err := h.wires.Uplink(addr)
		if got := fmt.Sprint(name, " ", mtu); err != nil || got != want {
			t.Errorf("toward %q: got %s, %v, want %s", toward, got, err, want)
		}
	}
}

func TestTheOverlayIsNoUplink(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, 3), newHost(t, 4)
	join(a, b)
	a.up()
	for _, toward := range []netip.Addr{a.node.Addr, a.addr(9), b.node.Addr} {
		if name, _, err := a.wires.Uplink(toward); err == nil {
			t.Errorf("towards %s it is %s", toward, name)
		}
	}
}

func TestTheOverlaysPacketsFitTheUplinksWhenWrapped(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		uplink int
		ipv6   bool
		mtu    int
		fits   bool
	}{
		{1500, false, 1440, true}, {1500, true, 1420, true}, {9000, true, 8920, true}, {1340, false, 1280, true},
		{1339, false, 1280, false}, {1280, true, 1280, false}, {65536, false, 65475, true},
	} {
		if mtu, fits := OverlayMTU(c.uplink, c.ipv6); mtu != c.mtu || fits != c.fits {
			t.Errorf("%d, IPv6 %v: got %d, %v", c.uplink, c.ipv6, mtu, fits)
		}
	}
}

func TestRoutesThatOverlapWithTheClustersRangesAreFound(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.sh(`ip link add up1 type veth peer name up1-p
		ip link add vpn type veth peer name vpn-p
		ip link set up1 up
		ip link set vpn up
		ip addr add 192.0.2.1/24 dev up1
		ip route add default via 192.0.2.2
		ip route add 0.0.0.0/1 dev vpn
		ip route add unreachable 10.0.0.0/8 metric 9`)
	h.up()
	h.attach("one", 2)
	if got := must(h.wires.Clashes(nodes, vips)); len(got) > 0 {
		t.Errorf("got %v", got)
	}
	h.sh(`ip addr add 10.224.7.1/24 dev up1
		ip route add 10.0.0.0/8 dev vpn table 52
		ip route add blackhole 10.209.0.0/16`)
	var got []string
	for _, c := range must(h.wires.Clashes(nodes, vips)) {
		got = append(got, fmt.Sprintf("%s %s %s", c.Range, c.Route, c.Link))
		if text := c.String(); !strings.Contains(text, c.Range.String()) || !strings.Contains(text, c.Route.String()) || !strings.Contains(text, "cluster init") {
			t.Error(text)
		}
	}
	want := "10.208.0.0/12 10.0.0.0/8 vpn|10.208.0.0/12 10.209.0.0/16 |10.224.0.0/16 10.0.0.0/8 vpn|10.224.0.0/16 10.224.7.0/24 up1"
	if strings.Join(got, "|") != want {
		t.Errorf("got %s", strings.Join(got, "|"))
	}
}
