package overlay

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/agent/overlay/catalog"
	"github.com/cuemby/warren/internal/agent/overlay/port"
	"github.com/cuemby/warren/internal/agent/store"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// memory is a record that is kept in memory.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	tasks  map[string]store.Task
	full   bool // the disk is
}

func (m *memory) Leases() (map[string]netip.Addr, error) { return nil, nil }
func (m *memory) SaveLease(string, netip.Addr)           {}
func (m *memory) DropLease(string)                       {}

func (m *memory) Network(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[name], nil
}

func (m *memory) fill(full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full = full
}

func (m *memory) Tasks() (map[string]store.Task, error) { return m.tasks, nil }

func (m *memory) NetworkUnder(prefix string) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	under := map[string][]byte{}
	for name, value := range m.values {
		if rest, is := strings.CutPrefix(name, prefix); is {
			under[rest] = value
		}
	}
	return under, nil
}

func (m *memory) RecordNetwork(name string, value []byte) error {
	return m.RecordNetworkAll(map[string][]byte{name: value})
}

func (m *memory) RecordNetworkAll(values map[string][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return unix.ENOSPC
	}
	for name, value := range values {
		if value == nil {
			delete(m.values, name)
		} else {
			m.values[name] = value
		}
	}
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

// someNews are of a service with a task on another node.
func someNews(version uint64) *warrenv1.Endpoints {
	return &warrenv1.Endpoints{
		Full: true, Version: version,
		Services: []*warrenv1.ServiceFront{{ServiceId: "web", ServiceName: "web", Vip: "10.224.0.1", Networks: []*warrenv1.NetworkAttachment{{Network: "default"}}}},
		Tasks:    []*warrenv1.TaskEndpoint{{TaskId: "t", ServiceId: "web", Address: "10.208.0.9", Serving: true}},
	}
}

func TestWhatWasRecordedIsRecalled(t *testing.T) {
	record := &memory{values: map[string][]byte{}}
	v := shell(record)
	v.config = config(3)
	v.HeedPeers(&warrenv1.Peers{Full: true, Peers: []*warrenv1.Peer{{NodeId: "other", Endpoint: "192.0.2.1:7421"}}})
	v.HeedEndpoints(someNews(9))
	v.recordLayout()
	if err := v.recordEndpoints(); err != nil {
		t.Fatal(err)
	}

	again := shell(record)
	if err := again.recall(); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(again.config, v.config) || !proto.Equal(again.peers["other"], v.peers["other"]) {
		t.Errorf("recalled %v, %v", again.config, again.peers)
	}
	was, wasVersion := v.catalog.All()
	is, version := again.catalog.All()
	if diff := cmp.Diff(was, is, cmpopts.EquateComparable(netip.Addr{})); diff != "" || version != wasVersion || len(is.Tasks) != 1 {
		t.Errorf("recalled version %d of\n%s", version, diff)
	}
	if news, some := again.catalog.Unrecorded(); some {
		t.Errorf("what is on record is to be recorded: %v", news)
	}

	v.HeedEndpoints(&warrenv1.Endpoints{Version: 10, RemovedServices: []string{"web"}, RemovedTasks: []string{"t"}})
	if err := v.recordEndpoints(); err != nil {
		t.Fatal(err)
	}
	if err := v.forget(); err != nil || len(record.values) > 0 {
		t.Errorf("left after everything was forgotten: %v, %v", slices.Collect(maps.Keys(record.values)), err)
	}
}

// A node that is told to stop sending somewhere, says that it has stopped, and is killed, must not begin again.
func TestWhatIsAcknowledgedIsOnRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		record := &memory{values: map[string][]byte{}}
		v := shell(record)
		v.config = config(0)
		v.recordLayout()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { v.acknowledge(ctx) })

		acknowledged := func(e *warrenv1.Endpoints) {
			v.HeedEndpoints(e)
			v.applyVersion(v.catalog.Version())
			<-v.Applied()
			if v.InForce() != e.GetVersion() {
				t.Errorf("acknowledged %d of %d", v.InForce(), e.GetVersion())
			}
		}
		recorded := func() (endpoints []netip.Addr) {
			next := shell(record)
			if err := next.recall(); err != nil {
				t.Fatal(err)
			}
			all, _ := next.catalog.All()
			for _, s := range all.Services {
				endpoints = append(endpoints, s.Endpoints...)
			}
			return endpoints
		}
		acknowledged(someNews(1))
		if got := recorded(); len(got) != 1 {
			t.Errorf("an agent that starts now knows %v", got)
		}
		acknowledged(&warrenv1.Endpoints{Version: 2, Tasks: []*warrenv1.TaskEndpoint{{TaskId: "t", ServiceId: "web", Address: "10.208.0.9"}}})
		if got := recorded(); len(got) != 0 {
			t.Errorf("an agent that starts now sends to %v again", got)
		}

		// A full disk holds up nobody who waits, and is tried again.
		record.fill(true)
		acknowledged(someNews(3))
		record.fill(false)
		<-time.After(recordRetry)
		synctest.Wait()
		if got := recorded(); len(got) != 1 {
			t.Errorf("once the disk has room an agent that starts knows %v", got)
		}
		cancel()
		running.Wait()
	})
}

func TestTasksThatAnEarlierAgentLeftAreKnownBeforeRulesAreMade(t *testing.T) {
	record := &memory{values: map[string][]byte{}, tasks: map[string]store.Task{"t": {
		Assignment: &warrenv1.Assignment{
			Task: &warrenv1.Task{Meta: &warrenv1.Meta{Id: "t"}, ServiceId: "web", Slot: 1},
			Spec: &warrenv1.TaskSpec{HostPorts: []*warrenv1.PortSpec{{Published: 99, Target: 9}}},
		},
		Progress: store.Progress{Status: &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_RUNNING, Serving: true}},
	}}}
	v := shell(record)
	v.catalog.Own(netip.MustParsePrefix("10.208.1.0/24"))
	at := netip.MustParseAddr("10.208.1.2")
	if err := v.adopt(map[string]netip.Addr{"t": at, "purged": at.Next(), "without": {}}); err != nil {
		t.Fatal(err)
	}
	all, _ := v.catalog.All()
	if len(all.Tasks) != 1 || all.Tasks[0].Addr != at || !all.Tasks[0].Local || len(all.Tasks[0].HostPorts) != 1 {
		t.Errorf("known are %+v", all.Tasks)
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
	if err := v.tend(t.Context()); err == nil || v.due != (due{config: true, peers: true, wires: true}) {
		t.Errorf("%v; due is %+v", err, v.due)
	}
}

// A status without a key would have every other node remove this one from its peers.
func TestNothingIsToldOfANetworkThatIsNotKnownToStand(t *testing.T) {
	v := shell(&memory{values: map[string][]byte{}})
	v.ports = port.New(v.Logger)
	defer v.ports.Close()
	if err := v.keepPorts(true); err != nil {
		t.Fatal(err)
	}
	if status := v.Status(); status != nil {
		t.Errorf("before the network has come up, %v is told", status)
	}
	own, err := v.takeKey(config(0))
	if err != nil {
		t.Fatal(err)
	}
	v.config = config(0)
	v.config.WireguardPort = 7421
	v.fail(t.Context(), unix.ENODEV)
	if s := v.Status(); s.GetState() != warrenv1.OverlayState_OVERLAY_STATE_FAILED || s.GetPublicKey() != own.private.PublicKey().String() || s.GetListenPort() != 7421 {
		t.Errorf("of a network that could not be taken up, %v is told", s)
	}
	v.taken = []*warrenv1.TakenPort{{Port: 80}}
	if err := v.keepPorts(true); err != nil || len(v.Status().GetTakenPorts()) != 0 {
		t.Errorf("ports that are free again are taken: %v, %v", v.Status(), err)
	}
}

func TestPingsWaitForANetworkThatIsComingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := shell(&memory{values: map[string][]byte{}})
		began := time.Now()
		if _, err := v.Ping(t.Context(), nil, 1); !errors.Is(err, ErrDown) || time.Since(began) != rise {
			t.Errorf("of one that does not come: %v after %v", err, time.Since(began))
		}
		time.AfterFunc(rise/2, func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.net = &network{}
			v.settled()
		})
		began = time.Now()
		if _, err := v.Ping(t.Context(), nil, 1); err != nil || time.Since(began) != rise/2 {
			t.Errorf("of one that comes: %v after %v", err, time.Since(began))
		}
		v = shell(&memory{values: map[string][]byte{}})
		v.config = config(0)
		v.fail(t.Context(), unix.ENODEV)
		began = time.Now()
		if _, err := v.Ping(t.Context(), nil, 1); !errors.Is(err, ErrDown) || time.Since(began) != 0 {
			t.Errorf("of one that has failed: %v after %v", err, time.Since(began))
		}
	})
}
