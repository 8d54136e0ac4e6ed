package wireguard

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestWhoConfiguresMayGoAndComeBackUnnoticed(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind) {
		p := newPair(t, kind)
		before := peerOf(t, p.aDevice, p.b).LastHandshake
		stop := p.a.stream(p.b)
		for range 3 {
			if err := p.aDevice.Close(); err != nil {
				t.Fatal(err)
			}
			p.aDevice = p.a.open()
			if got := p.aDevice.Port(); got != p.aPort || p.aDevice.Kind() != kind || p.aDevice.Name() != "wg0" {
				t.Errorf("opened %s %s at port %d", p.aDevice.Kind(), p.aDevice.Name(), got)
			}
			p.a.apply(p.aDevice, p.aPort, p.b.as(p.bPort))
		}
		exchanges, gap := stop()
		t.Logf("%d exchanges, none for %v at most", exchanges, gap)
		after := peerOf(t, p.aDevice, p.b)
		if !after.LastHandshake.Equal(before) {
			t.Error("there was another handshake")
		}
		if after.ReceivedBytes == 0 || after.SentBytes == 0 {
			t.Errorf("nothing is counted: %+v", after)
		}
	})
}

func TestAnotherPeersComingAndGoingDisturbsNobody(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind) {
		p := newPair(t, kind)
		before := peerOf(t, p.aDevice, p.b).LastHandshake
		stop := p.a.stream(p.b)
		for range 10 {
			other := p.b.as(p.bPort)
			other.PublicKey = newKey(t).PublicKey()
			other.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("10.99.1.0/24"), netip.MustParsePrefix("fd00::/64")}
			p.a.apply(p.aDevice, p.aPort, p.b.as(p.bPort), other)
			if got, err := p.aDevice.Peers(t.Context()); err != nil || len(got) != 2 {
				t.Errorf("%d peers, %v", len(got), err)
			}
			other.AllowedIPs, other.Keepalive = other.AllowedIPs[1:], 25*time.Second
			p.a.apply(p.aDevice, p.aPort, other, p.b.as(p.bPort))
			have, _, err := p.aDevice.read(t.Context())
			if at := slices.IndexFunc(have.Peers, func(p Peer) bool { return p.PublicKey == other.PublicKey }); err != nil || at < 0 ||
				!slices.Equal(have.Peers[at].AllowedIPs, other.AllowedIPs) || have.Peers[at].Keepalive != other.Keepalive {
				t.Errorf("it has %+v, %v", have.Peers, err)
			}
			p.a.apply(p.aDevice, p.aPort, p.b.as(p.bPort))
		}
		exchanges, gap := stop()
		t.Logf("%d exchanges, none for %v at most", exchanges, gap)
		if after := peerOf(t, p.aDevice, p.b).LastHandshake; !after.Equal(before) {
			t.Error("there was another handshake")
		}
	})
}

func TestAPeerIsFollowedToItsNewAddress(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind) {
		p := newPair(t, kind)
		before := peerOf(t, p.aDevice, p.b).LastHandshake
		old := p.b.address
		p.b.address = netip.MustParseAddr("192.0.2.77")
		p.b.addAddress("eth0", p.b.address)
		err := p.b.links.AddrDel(p.b.link("eth0"), &netlink.Addr{IPNet: &net.IPNet{IP: old.AsSlice(), Mask: net.CIDRMask(24, 32)}})
		if err != nil {
			t.Fatal(err)
		}
		p.b.addAddress("eth0", p.b.address) // where it was the other's second, it went along
		p.a.apply(p.aDevice, p.aPort, p.b.as(p.bPort))
		t.Logf("reached after %v", p.a.reach(p.b))
		after := peerOf(t, p.aDevice, p.b)
		if want := p.b.as(p.bPort).Endpoint; after.Endpoint != want {
			t.Errorf("the endpoint is %v, want %v", after.Endpoint, want)
		}
		if !after.LastHandshake.Equal(before) {
			t.Error("there was another handshake")
		}
	})
}

func TestAPeerThatHasMovedIsLeftWhereItIsHeard(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind) {
		p := newPair(t, kind)
		p.b.apply(p.bDevice, p.bPort+1, p.a.as(p.aPort))
		if got := p.bDevice.Port(); got != p.bPort+1 {
			t.Errorf("it listens at port %d", got)
		}
		p.b.reach(p.a) // which tells a where b is
		want := p.b.as(p.bPort + 1).Endpoint
		for _, opened := range []bool{false, true} {
			if opened {
				p.aDevice.Close()
				p.aDevice = p.a.open()
			}
			p.a.apply(p.aDevice, p.aPort, p.b.as(p.bPort))
			if got := peerOf(t, p.aDevice, p.b).Endpoint; got != want {
				t.Errorf("opened again %v: the endpoint is %v, want %v", opened, got, want)
			}
		}
		p.a.reach(p.b)
	})
}

func TestAKeyIsReplacedWhileThereIsTraffic(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind) {
		p := newPair(t, kind)
		stop := p.a.stream(p.b)
		p.b.private = newKey(t)
		// The other side first: who has the new key begins the handshake, as it has no session.
		p.a.apply(p.aDevice, p.aPort, p.b.as(p.bPort))
		p.b.apply(p.bDevice, p.bPort, p.a.as(p.aPort))
		p.b.reach(p.a)
		p.a.reach(p.b)
		exchanges, gap := stop()
		t.Logf("%d exchanges, none for %v at most", exchanges, gap)
		if peerOf(t, p.aDevice, p.b).LastHandshake.IsZero() {
			t.Error("no handshake with the new key")
		}
	})
}

func TestALinkThatSomebodyDeletesIsLostAndComesBack(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind) {
		p := newPair(t, kind)
		select {
		case <-p.aDevice.Lost():
			t.Fatal("lost while it is there")
		default:
		}
		if err := p.a.links.LinkDel(p.a.link("wg0")); err != nil {
			t.Fatal(err)
		}
		within(t, "the device is lost", p.aDevice.Lost())
		if err := p.aDevice.Apply(t.Context(), Config{PrivateKey: p.a.private}); err == nil {
			t.Error("a device that is lost was configured")
		}
		if kind == Userspace {
			if err := p.a.process.Wait(); err == nil || !strings.Contains(p.a.said.String(), "somebody deleted it") {
				t.Errorf("the process ended with %v and said %q", err, p.a.said)
			}
			p.a.startProcess()
		}
		p.comeBack(t)
	})
}

// comeBack opens a's device once more and waits until there is traffic.
func (p *pair) comeBack(t *testing.T) {
	t.Helper()
	began := time.Now()
	p.aDevice.Close()
	p.aDevice = p.a.open()
	p.a.apply(p.aDevice, p.aPort, p.b.as(p.bPort))
	p.a.reach(p.b)
	t.Logf("back after %v", time.Since(began))
}

func TestADeviceIsLostWithItsProcessAndComesBack(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind) {
		if kind == Kernel {
			t.Skip("the kernel's device has no process")
		}
		p := newPair(t, kind)
		kill(p.a.process)
		within(t, "the device is lost", p.aDevice.Lost())
		if _, err := p.aDevice.Peers(t.Context()); err == nil {
			t.Error("a device that is lost was read")
		}
		p.a.do(func() {
			_, err := Open(t.Context(), Options{Name: "wg0", MTU: 1420, Kind: kind, Socket: p.a.socket})
			if err == nil || !strings.Contains(err.Error(), "warren-wireguard.socket") {
				t.Errorf("without a process: %v", err)
			}
		})
		p.a.startProcess()
		p.comeBack(t)
	})
}

func TestARemovedDeviceIsGoneAndRemovedOnce(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind) {
		h := newHost(t, kind, 1)
		first, second := h.open(), h.open()
		if err := first.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		within(t, "it is lost to who removed it", first.Lost())
		within(t, "it is lost to others", second.Lost())
		if _, err := h.links.LinkByName("wg0"); err == nil {
			t.Error("the link is there")
		}
		if kind == Userspace {
			if err := h.process.Wait(); err != nil {
				t.Errorf("the process ended with %v: %s", err, h.said)
			}
		}
		if err := second.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAPortInUseIsToldAndTheOldOneKept(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind) {
		p := newPair(t, kind)
		var taken *net.UDPConn
		var err error
		p.a.do(func() { taken, err = net.ListenUDP("udp4", nil) })
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		port := taken.LocalAddr().(*net.UDPAddr).Port
		want := Config{PrivateKey: p.a.private, ListenPort: port, Peers: []Peer{p.b.as(p.bPort)}}
		for range 2 {
			if err := p.aDevice.Apply(t.Context(), want); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("got %v", err)
			}
		}
		p.a.reach(p.b)
		if have, _, err := p.aDevice.read(t.Context()); err != nil || have.ListenPort != p.aPort {
			t.Errorf("it listens at port %d, %v", have.ListenPort, err)
		}
		taken.Close()
		if err := p.aDevice.Apply(t.Context(), want); err != nil || p.aDevice.Port() != port {
			t.Errorf("at port %d, %v", p.aDevice.Port(), err)
		}
		p.a.reach(p.b)
	})
}

func TestTheMTUIsChangedAndTheDeviceGoesOn(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind) {
		p := newPair(t, kind)
		before := peerOf(t, p.aDevice, p.b).LastHandshake
		stop := p.a.stream(p.b)
		for _, mtu := range []int{1280, 1400, 1420} {
			if err := p.aDevice.SetMTU(t.Context(), mtu); err != nil {
				t.Fatal(err)
			}
			if got := p.a.link("wg0").Attrs().MTU; got != mtu {
				t.Errorf("the link's MTU is %d, want %d", got, mtu)
			}
		}
		if err := p.aDevice.SetMTU(t.Context(), 100); err == nil || !strings.Contains(err.Error(), "MTU 100") {
			t.Errorf("got %v", err)
		}
		// What others do to the link does not last.
		if err := p.a.links.LinkSetMTU(p.a.link("wg0"), 1300); err != nil {
			t.Fatal(err)
		}
		if err := p.a.links.LinkSetDown(p.a.link("wg0")); err != nil {
			t.Fatal(err)
		}
		p.a.apply(p.aDevice, p.aPort, p.b.as(p.bPort))
		if got := p.a.link("wg0").Attrs(); got.MTU != 1420 || got.Flags&net.FlagUp == 0 {
			t.Errorf("the link has MTU %d, flags %v", got.MTU, got.Flags)
		}
		p.a.reach(p.b)
		exchanges, gap := stop()
		t.Logf("%d exchanges, none for %v at most", exchanges, gap)
		if kind == Userspace && !peerOf(t, p.aDevice, p.b).LastHandshake.Equal(before) { // the kernel forgets sessions of a link that is down
			t.Error("there was another handshake")
		}
	})
}

func TestALinkOfAnotherKindIsLeftAlone(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind) {
		h := newHost(t, kind, 1)
		open := func(kind Kind) error {
			var err error
			h.do(func() {
				_, err = Open(t.Context(), Options{Name: "wg0", MTU: 1420, Kind: kind, Socket: h.socket})
			})
			return err
		}
		if err := h.links.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wg0"}, PeerName: "other"}); err != nil {
			t.Fatal(err)
		}
		for _, asked := range []Kind{Auto, kind} {
			if err := open(asked); err == nil || !strings.Contains(err.Error(), "is no WireGuard device, but a veth") {
				t.Errorf("got %v", err)
			}
		}
		if err := h.links.LinkDel(h.link("wg0")); err != nil {
			t.Fatal(err)
		}
		h.open()
		other := Kernel
		if kind == Kernel {
			other = Userspace
		}
		if err := open(other); err == nil || !strings.Contains(err.Error(), "remove it first") {
			t.Errorf("got %v", err)
		}
		h.kind = Auto
		if got := h.open().Kind(); got != kind {
			t.Errorf("took up one of kind %s as %s", kind, got)
		}
	})
}

func TestAProcessServesOneDeviceOfItsNamespaceToRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it makes network namespaces, for which it must be root")
	}
	t.Parallel()
	h, elsewhere := newHost(t, Userspace, 1), newHost(t, "", 2)
	h.open()
	open := func(in *host, name string) (err error) {
		in.do(func() {
			_, err = Open(t.Context(), Options{Name: name, MTU: 1420, Kind: Userspace, Socket: h.socket})
		})
		return err
	}
	if err := open(h, "wg1"); err == nil || !strings.Contains(err.Error(), "wg1 needs a process") {
		t.Errorf("another name: %v", err)
	}
	if err := open(elsewhere, "wg0"); err == nil || !strings.Contains(err.Error(), "another network namespace") {
		t.Errorf("from another namespace: %v", err)
	}
	if info, err := os.Stat(h.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, line := range []string{"set=1\n", "open wg0 1420\n", "open 4:1 wg0 many\n", "remove 4:1 wg0\n", strings.Repeat("x", 200)} {
		if _, _, err := call(t.Context(), h.socket, line); err == nil {
			t.Errorf("%q: no error", line)
		}
	}
	// The mode keeps others away; where it is wrong, they are turned away all the same.
	for path := h.socket; path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	refused := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			refused <- errno
			return
		}
		c, err := net.Dial("unix", h.socket)
		if err == nil {
			_, _ = c.Write([]byte(openLine("4:1", "wg0", 1420)))
			var n int
			n, err = c.Read(make([]byte, 1))
			if n == 0 && err != nil {
				err = nil
			} else {
				err = errors.New("it was answered")
			}
			c.Close()
		}
		refused <- err
	}()
	if err := <-refused; err != nil {
		t.Error(err)
	}
	if err := open(h, "wg0"); err != nil {
		t.Error(err)
	}
}

func TestAProcessThatDoesNotAnswerIsNotWaitedForBeyondTheContext(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() { // it answers the first line, and no other
		c, err := l.Accept()
		if err == nil {
			_, _ = c.Write([]byte(answerLine(nil)))
			accepted <- c
		}
	}()
	p, err := openProcess(t.Context(), socket, "wg0", 1420)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	defer func() { (<-accepted).Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := p.read(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	within(t, "the connection is of no use any more", p.lost())
}
