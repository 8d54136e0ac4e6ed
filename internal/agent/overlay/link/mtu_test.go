package link

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestTasksThatRunGetAnotherMTUAndTheirConnectionsGoOn(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.up()
	one, two := h.attach("one", 2), h.attach("two", 3)
	var listener net.Listener
	h.inside(two.ns, func() (err error) {
		listener, err = net.Listen("tcp4", netip.AddrPortFrom(two.addr, port).String())
		return err
	})
	defer listener.Close()
	var from, to net.Conn
	h.inside(one.ns, func() (err error) {
		from, err = net.DialTimeout("tcp4", listener.Addr().String(), 5*time.Second)
		return err
	})
	defer from.Close()
	to, err := listener.Accept()
	h.must(err)
	defer to.Close()
	const size = 1 << 20
	for _, mtu := range []int{mtu, 1280, 1300, 8920} {
		h.node.MTU = mtu
		h.up()
		for ns, link := range map[*task]string{one: "eth0", two: "eth0", h.itself(): "wvone"} {
			if got := h.shIn(ns.ns, "ip -o link show "+link); !strings.Contains(got, " mtu "+strconv.Itoa(mtu)+" ") {
				t.Errorf("with %d: %s", mtu, got)
			}
		}
		sent := make(chan error, 1)
		go func() {
			_, err := from.Write(make([]byte, size))
			sent <- err
		}()
		h.must(to.SetReadDeadline(time.Now().Add(10 * time.Second)))
		if _, err := io.ReadFull(to, make([]byte, size)); err != nil {
			t.Fatalf("with %d: %v", mtu, err)
		}
		h.must(<-sent)
	}
}

func TestAnUplinkThatChangesIsTold(t *testing.T) {
	t.Parallel()
	h := newHost(t, 3)
	h.inside(h.ns, func() error { // whose routes come when it has looked for duplicates of its addresses
		return apply(setting{"ipv6/conf/all/disable_ipv6", "1"}, setting{"ipv6/conf/default/disable_ipv6", "1"})
	})
	h.sh(`ip link add uplink type veth peer name uplink-p
		ip link set uplink up
		ip link set uplink-p up
		ip addr add 192.0.2.1/24 dev uplink
		ip route add default via 192.0.2.2`)
	h.up()
	told := make(chan struct{}, 100)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { ended <- h.wires.WatchUplinks(ctx, func() { told <- struct{}{} }) }()
	await(t, told)
	for _, change := range []string{
		"ip link set uplink mtu 1400",
		"ip route replace 198.51.100.0/24 via 192.0.2.2 mtu 1300",
		"ip route del 198.51.100.0/24",
		"ip link set uplink down",
		"ip rule add from 192.0.2.1 table 7",
		"ip link del uplink",
	} {
		// What is Warren's own is not told of, nor what makes no difference.
		h.attach("one", 2)
		h.must(h.wires.Detach(t.Context(), "one"))
		h.sh("ip link set lo alias loop")
		if len(told) > 0 {
			t.Errorf("told before %q", change)
		}
		h.sh(change)
		await(t, told)
		for quiet := false; !quiet; { // one change may be told of more than once
			select {
			case <-told:
			case <-time.After(100 * time.Millisecond):
				quiet = true
			}
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
