package wireguard

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"pgregory.net/rapid"
)

// A few keys and prefixes, so that configurations have much in common.
var keys = []wgtypes.Key{{1}, {2}, {3}, {4}, {5}}

func drawConfig(t *rapid.T, label string) Config {
	c := Config{PrivateKey: wgtypes.Key{byte(rapid.IntRange(1, 2).Draw(t, label+" key")) << 3, 31: 64}, ListenPort: rapid.IntRange(1, 3).Draw(t, label+" port")}
	chosen := rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 0, len(keys), func(k wgtypes.Key) wgtypes.Key { return k }).Draw(t, label+" peers")
	for _, key := range chosen {
		c.Peers = append(c.Peers, Peer{
			PublicKey: key,
			Endpoint:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(1, 3).Draw(t, "address"))}), 51820),
			Keepalive: time.Duration(rapid.IntRange(0, 2).Draw(t, "keepalive")) * time.Second,
		})
	}
	if len(chosen) > 0 {
		for i := range 6 { // each prefix is of one peer, or of none
			prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24)
			if i > 3 {
				prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(i)}), 64)
			}
			if owner := rapid.IntRange(-1, len(chosen)-1).Draw(t, "owner"); owner >= 0 {
				c.Peers[owner].AllowedIPs = append(c.Peers[owner].AllowedIPs, prefix)
			}
		}
	}
	normal, err := c.normal()
	if err != nil {
		t.Fatal(err)
	}
	return normal
}

// sameConfig compares configurations whatever the order of their peers.
func sameConfig(t interface{ Fatalf(string, ...any) }, got, want Config) {
	byPublicKey := cmpopts.SortSlices(func(a, b Peer) bool { return a.PublicKey.String() < b.PublicKey.String() })
	if diff := cmp.Diff(want, got, byPublicKey, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{})); diff != "" {
		t.Fatalf("the device has not what is wanted (-want +got):\n%s", diff)
	}
}

func TestChangesAppliedToADeviceGiveWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		actual := device.NewDevice(tuntest.NewChannelTUN().TUN(), conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
		defer actual.Close()
		have := Config{}
		for range rapid.IntRange(1, 4).Draw(t, "times") {
			want := drawConfig(t, "wanted")
			if err := actual.IpcSet(encode(changes(have, want))); err != nil {
				t.Fatal(err)
			}
			text, err := actual.IpcGet()
			if err != nil {
				t.Fatal(err)
			}
			got, status, err := decode(text)
			if err != nil || len(status) != len(got.Peers) {
				t.Fatalf("%v, with the status of %d of %d peers", err, len(status), len(got.Peers))
			}
			sameConfig(t, got, want)
			have = got
		}
	})
}

// TestChangesInTheKernelsWordsGiveWhatIsWanted does what the kernel does with a configuration.
func TestChangesInTheKernelsWordsGiveWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawConfig(t, "had"), drawConfig(t, "wanted")
		c := kernelConfig(changes(have, want))
		got := have
		if c.PrivateKey != nil {
			got.PrivateKey = *c.PrivateKey
		}
		if c.ListenPort != nil {
			got.ListenPort = *c.ListenPort
		}
		peers := byKey(have.Peers)
		for _, change := range c.Peers {
			peer, there := peers[change.PublicKey]
			if there != change.UpdateOnly {
				t.Fatalf("peer %s is there: %v, and is only to be altered: %v", change.PublicKey, there, change.UpdateOnly)
			}
			if delete(peers, change.PublicKey); change.Remove {
				continue
			}
			peer.PublicKey = change.PublicKey
			if change.Endpoint != nil {
				peer.Endpoint = addrPort(change.Endpoint)
			}
			if change.PersistentKeepaliveInterval != nil {
				peer.Keepalive = *change.PersistentKeepaliveInterval
			}
			if change.ReplaceAllowedIPs {
				peer.AllowedIPs = nil
			}
			gained := prefixes(change.AllowedIPs)
			for key, other := range peers {
				other.AllowedIPs = without(other.AllowedIPs, gained)
				peers[key] = other
			}
			peer.AllowedIPs = append(slices.Clone(peer.AllowedIPs), gained...)
			slices.SortFunc(peer.AllowedIPs, netip.Prefix.Compare)
			peers[change.PublicKey] = peer
		}
		got.Peers = slices.Collect(maps.Values(peers))
		sameConfig(t, got, want)
	})
}

func TestPeersThatStayAsTheyAreAreNotTouched(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawConfig(t, "had"), drawConfig(t, "wanted")
		if d := changes(want, want); !d.empty() {
			t.Fatalf("the same configuration changes %+v", d)
		}
		had, wanted := byKey(have.Peers), byKey(want.Peers)
		for _, change := range changes(have, want).peers {
			if before, there := had[change.key]; there && cmp.Equal(before, wanted[change.key], cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{})) {
				t.Fatalf("%+v", change)
			}
		}
	})
}

func TestWhichEndpointCounts(t *testing.T) {
	now := time.Now()
	key := keys[0]
	there, elsewhere, asked := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2"), netip.MustParseAddrPort("192.0.2.3:3")
	unknown := netip.AddrPort{}
	for name, c := range map[string]struct {
		device    netip.AddrPort
		before    *netip.AddrPort
		handshake time.Time
		want      netip.AddrPort
		written   bool
	}{
		"moved, and the same is wanted":                    {elsewhere, &there, now, there, false},
		"moved, and another is wanted":                     {elsewhere, &there, now, asked, true},
		"moved to what is wanted now":                      {elsewhere, &there, now, elsewhere, true},
		"learnt, and then told":                            {elsewhere, &unknown, now, asked, true},
		"none is wanted":                                   {elsewhere, &there, now, unknown, false},
		"never heard":                                      {unknown, &there, now, there, true},
		"an earlier process's, with a session":             {elsewhere, nil, now.Add(-time.Minute), there, false},
		"an earlier process's, without a session":          {elsewhere, nil, now.Add(-time.Hour), there, true},
		"an earlier process's, where it is wanted already": {there, nil, time.Time{}, there, false},
	} {
		have := Config{Peers: []Peer{{PublicKey: key, Endpoint: c.device}}}
		want := Config{Peers: []Peer{{PublicKey: key, Endpoint: c.want}}}
		var wanted map[wgtypes.Key]netip.AddrPort
		if c.before != nil {
			wanted = map[wgtypes.Key]netip.AddrPort{key: *c.before}
		}
		status := []PeerStatus{{PublicKey: key, LastHandshake: c.handshake}}
		d := changes(withEndpoints(have, status, wanted, want, now), want)
		if written := len(d.peers) == 1 && d.peers[0].endpoint == c.want; written != c.written {
			t.Errorf("%s: written is %v: %+v", name, written, d)
		}
		if have.Peers[0].Endpoint != c.device {
			t.Errorf("%s: what was handed in is changed", name)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	prefix := netip.MustParsePrefix("10.0.0.1/8")
	one := func(p Peer) Config { return Config{PrivateKey: private, Peers: []Peer{p}} }
	for want, c := range map[string]Config{
		"private key":            {},
		"listen port 65536":      {PrivateKey: private, ListenPort: 65536},
		"public key":             one(Peer{}),
		"it is there twice":      {PrivateKey: private, Peers: []Peer{{PublicKey: keys[0]}, {PublicKey: keys[0]}}},
		"the device's own key":   one(Peer{PublicKey: private.PublicKey()}),
		"endpoint 192.0.2.1:0":   one(Peer{PublicKey: keys[0], Endpoint: netip.MustParseAddrPort("192.0.2.1:0")}),
		"without a zone":         one(Peer{PublicKey: keys[0], Endpoint: netip.MustParseAddrPort("[fe80::1%a]:1")}),
		"keepalive 500ms":        one(Peer{PublicKey: keys[0], Keepalive: 500 * time.Millisecond}),
		"keepalive 20h0m0s":      one(Peer{PublicKey: keys[0], Keepalive: 20 * time.Hour}),
		"allowed IPs invalid":    one(Peer{PublicKey: keys[0], AllowedIPs: []netip.Prefix{{}}}),
		"allowed IPs 10.0.0.0/8": {PrivateKey: private, Peers: []Peer{{PublicKey: keys[0], AllowedIPs: []netip.Prefix{prefix}}, {PublicKey: keys[1], AllowedIPs: []netip.Prefix{prefix}}}},
	} {
		if _, err := c.normal(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want something with %q", err, want)
		}
	}
	for want, o := range map[string]Options{
		`name "a b"`:    {Name: "a b", MTU: 1420},
		"1 to 15":       {Name: "a-name-too-long-", MTU: 1420},
		"MTU 0":         {Name: "wg0"},
		`kind "either"`: {Name: "wg0", MTU: 1420, Kind: "either"},
	} {
		if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want something with %q", err, want)
		}
	}
}
