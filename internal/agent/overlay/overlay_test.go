package overlay

import (
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/agent/overlay/catalog"
	"github.com/cuemby/warren/internal/agent/overlay/port"
	"github.com/cuemby/warren/internal/agent/overlay/wireguard"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// memory is a record that is kept in memory.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (m *memory) Leases() (map[string]netip.Addr, error) { return nil, nil }
func (m *memory) SaveLease(string, netip.Addr)           {}
func (m *memory) DropLease(string)                       {}

func (m *memory) Network(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[name], nil
}

func (m *memory) RecordNetwork(name string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[name] = value
	return nil
}

// shell is an overlay without a machine: what it decides, not what it does.
func shell(record *memory) *Overlay {
	return &Overlay{
		Options: Options{Record: record, Logger: slog.New(slog.DiscardHandler), NodeID: func() string { return "self" }, Manager: func() string { return "" }},
		catalog: catalog.New(), peers: map[string]*warrenv1.Peer{},
		wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), applied: make(chan struct{}, 1),
		settle: make(chan struct{}), unsettled: make(chan struct{}, 1),
	}
}

func config(generation uint64) *warrenv1.NetworkConfig {
	return &warrenv1.NetworkConfig{Subnet: "10.208.1.0/24", KeyGeneration: generation, KeyLife: durationpb.New(time.Hour)}
}

func TestAKeyIsKeptUntilItIsOldAndSomebodyWouldHearOfAnother(t *testing.T) {
	record := &memory{values: map[string][]byte{}}
	first, err := shell(record).takeKey(config(0))
	if err != nil {
		t.Fatal(err)
	}
	v := shell(record)
	if again, err := v.takeKey(config(0)); err != nil || again.private != first.private {
		t.Errorf("after a restart the key is another, or %v", err)
	}
	if again, _ := v.takeKey(config(1)); again.private != first.private {
		t.Error("the key was replaced although nobody can be told")
	}
	v.attending.Store(true)
	second, err := v.takeKey(config(1))
	if err != nil || second.private == first.private || second.generation != 1 {
		t.Errorf("asked for another key, has %v, %v", second.generation, err)
	}
	if again, _ := v.takeKey(config(1)); again.private != second.private {
		t.Error("a key is drawn each time")
	}
	v.own.until = time.Now().Add(-time.Second)
	if third, _ := v.takeKey(config(1)); third.private == second.private {
		t.Error("a key at the end of its life is kept")
	}
	var file keyFile
	if err := json.Unmarshal(record.values[keyRecord], &file); err != nil || file.Private != v.own.private {
		t.Errorf("the key in use is not the recorded one: %v", err)
	}
}

func TestAKeysLifeEndsAtARandomPointOfItsLastTenth(t *testing.T) {
	drawn := time.Now()
	for range 1000 {
		if end := expiry(drawn, time.Hour).Sub(drawn); end < 54*time.Minute || end > time.Hour {
			t.Fatalf("ends after %v", end)
		}
	}
}

func TestPeersComeInPiecesAndByChanges(t *testing.T) {
	v := shell(&memory{values: map[string][]byte{}})
	known := func() []string { return slices.Sorted(maps.Keys(v.peers)) }
	v.HeedPeers(&warrenv1.Peers{Full: true, Peers: []*warrenv1.Peer{{NodeId: "old"}}})
	v.HeedPeers(&warrenv1.Peers{Full: true, More: true, Peers: []*warrenv1.Peer{{NodeId: "a"}}})
	if got := known(); !slices.Equal(got, []string{"a", "old"}) {
		t.Errorf("half-way %v", got)
	}
	v.HeedPeers(&warrenv1.Peers{Peers: []*warrenv1.Peer{{NodeId: "b"}}})
	if got := known(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("then %v", got)
	}
	v.HeedPeers(&warrenv1.Peers{Peers: []*warrenv1.Peer{{NodeId: "c"}}, Removed: []string{"a"}})
	if got := known(); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("at last %v", got)
	}
}

func TestWhereAPeerIsLookedFor(t *testing.T) {
	inside := []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}
	for _, c := range []struct {
		peer *warrenv1.Peer
		want string
	}{
		{&warrenv1.Peer{Endpoint: "192.0.2.1:7421"}, "192.0.2.1:7421"},
		{&warrenv1.Peer{Endpoint: "192.0.2.1:7421", LocalEndpoints: []string{"10.0.0.1:7421", "192.168.1.9:7421"}}, "192.168.1.9:7421"},
		{&warrenv1.Peer{Endpoint: "192.0.2.1:7421", LocalEndpoints: []string{"10.0.0.1:7421", "nonsense"}}, "192.0.2.1:7421"},
		{&warrenv1.Peer{}, "invalid AddrPort"},
	} {
		if got := endpoint(c.peer, inside).String(); got != c.want {
			t.Errorf("%v is looked for at %s", c.peer, got)
		}
	}
}

func TestWhatWasRecordedIsRecalled(t *testing.T) {
	record := &memory{values: map[string][]byte{}}
	v := shell(record)
	v.config = config(3)
	v.HeedPeers(&warrenv1.Peers{Full: true, Peers: []*warrenv1.Peer{{NodeId: "other", Endpoint: "192.0.2.1:7421"}}})
	v.HeedEndpoints(&warrenv1.Endpoints{
		Full: true, Version: 9,
		Services: []*warrenv1.ServiceFront{{ServiceId: "web", ServiceName: "web", Vip: "10.224.0.1", Networks: []*warrenv1.NetworkAttachment{{Network: "default"}}}},
		Tasks:    []*warrenv1.TaskEndpoint{{TaskId: "t", ServiceId: "web", Address: "10.208.0.9", Serving: true}},
	})
	v.recordLayout()
	v.recordEndpoints()

	again := shell(record)
	if err := again.recall(); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(again.config, v.config) || !proto.Equal(again.peers["other"], v.peers["other"]) || !proto.Equal(again.catalog.Told(), v.catalog.Told()) {
		t.Errorf("recalled %v, %v, %v", again.config, again.peers, again.catalog.Told())
	}
}

func TestARecordThatCannotBeReadIsNoReasonNotToStart(t *testing.T) {
	v := shell(&memory{values: map[string][]byte{configRecord: []byte("nonsense"), peersRecord: {0xff}}})
	if err := v.recall(); err != nil || v.config != nil {
		t.Errorf("recalled %v, %v", v.config, err)
	}
}

func TestAPeerWithTheKeyOfAnotherIsLeftOut(t *testing.T) {
	v := shell(&memory{values: map[string][]byte{}})
	own, other := draw(t), draw(t)
	v.HeedPeers(&warrenv1.Peers{Full: true, Peers: []*warrenv1.Peer{
		{NodeId: "a", PublicKey: other.String(), Subnet: "10.208.2.0/24"},
		{NodeId: "b", PublicKey: other.String(), Subnet: "10.208.3.0/24"},
		{NodeId: "c", PublicKey: own.String(), Subnet: "10.208.4.0/24"},
		{NodeId: "d", PublicKey: "nonsense", Subnet: "10.208.5.0/24"},
	}})
	if got := v.wanted(own); len(got) != 1 || got[0].AllowedIPs[0].String() != "10.208.2.0/24" {
		t.Errorf("wanted %v", got)
	}
}

func TestOnlyPeersThatAreNewAreGreeted(t *testing.T) {
	known, fresh, kept := draw(t), draw(t), draw(t)
	at := netip.MustParseAddrPort("192.0.2.1:7421")
	n := &network{known: map[wgtypes.Key]struct{}{known: {}}}
	wanted := wireguard.Config{Peers: []wireguard.Peer{{PublicKey: known, Endpoint: at}, {PublicKey: fresh, Endpoint: at}, {PublicKey: kept, Endpoint: at, Keepalive: keepalive}}}
	greeting, some := n.greet(wanted)
	if !some || greeting.Peers[0].Keepalive != 0 || greeting.Peers[1].Keepalive != keepalive || wanted.Peers[1].Keepalive != 0 {
		t.Errorf("greeting %v, wanted %v", greeting, wanted)
	}
	n.known[fresh] = struct{}{}
	if _, some := n.greet(wanted); some {
		t.Error("greeted again")
	}
}

func draw(t *testing.T) wgtypes.Key {
	t.Helper()
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return private.PublicKey()
}

func TestWhatFailsStaysDue(t *testing.T) {
	v := shell(&memory{values: map[string][]byte{}})
	v.config = &warrenv1.NetworkConfig{Subnet: "nonsense"}
	v.due = due{config: true, peers: true, wires: true}
	v.ports = port.New(v.Logger)
	defer v.ports.Close()
	if err := v.tend(t.Context(), newAlarm()); err == nil || v.due != (due{config: true, peers: true, wires: true}) {
		t.Errorf("%v; due is %+v", err, v.due)
	}
}

func TestNothingIsToldBeforeTheNetworkIsUpOrHasFailed(t *testing.T) {
	v := shell(&memory{values: map[string][]byte{}})
	v.report(func(s *warrenv1.OverlayStatus) { s.TakenPorts = []*warrenv1.TakenPort{{Port: 80}} })
	if s := v.Status(); s != nil {
		t.Errorf("told %v", s)
	}
	own, err := v.takeKey(config(0))
	if err != nil {
		t.Fatal(err)
	}
	v.config = config(0)
	v.config.WireguardPort = 7421
	v.fail(t.Context(), errors.New("no way"))
	s := v.Status()
	if s.GetState() != warrenv1.OverlayState_OVERLAY_STATE_FAILED || s.GetError() != "no way" || len(s.GetTakenPorts()) != 1 ||
		s.GetPublicKey() != own.private.PublicKey().String() || s.GetListenPort() != 7421 {
		t.Errorf("told %v", s)
	}
}
