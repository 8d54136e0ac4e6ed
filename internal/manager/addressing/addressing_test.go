package addressing

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// rig is a state and the loop that watches it.
type rig struct {
	t        testing.TB
	proposer *statetest.Proposer
	store    *state.Store
	feed     *state.Feed
	loop     *addressing
	now      time.Time
	at       state.Snapshot
}

func newRig(t testing.TB, network *warrenv1.ClusterNetwork, objects ...state.Object) *rig {
	cluster := statetest.Cluster()
	cluster.Spec.Network = network
	store := statetest.New(t, append([]state.Object{cluster}, objects...)...)
	r := &rig{t: t, store: store, proposer: statetest.NewProposer(store), loop: &addressing{}, now: statetest.Epoch}
	r.at, r.feed = store.Watch()
	r.loop.Reset(r.at)
	r.settle(nil)
	return r
}

// write changes the state as users do.
func (r *rig) write(edit func(state.Snapshot, *state.Transaction)) {
	t := state.New(r.now)
	edit(r.store.Snapshot(), t)
	if t.Len() > 0 {
		statetest.Commit(r.t, r.proposer, t)
	}
}

// settle runs the loop until it has nothing more to do. What between does happens once, when the loop has decided
// and not yet written.
func (r *rig) settle(between func()) {
	for {
		batch := r.feed.Take()
		r.at = batch.Snapshot
		r.loop.Observe(r.at, batch.Changes)
		d := r.loop.Decide(r.at, r.now)
		if between != nil {
			between()
			between = nil
		} else if len(d.Proposals) == 0 {
			return
		}
		for _, p := range d.Proposals {
			results, err := r.proposer.Propose(r.t.Context(), p.Transaction)
			if err != nil {
				r.t.Fatal(err)
			}
			if results != nil && results[0] != nil {
				r.loop.Refused(p)
			}
		}
	}
}

func (r *rig) service(name string) *warrenv1.Service { return r.store.Snapshot().ServiceByName(name) }

func publishing(ports ...uint32) func(*warrenv1.Service) {
	return func(s *warrenv1.Service) {
		s.Spec.Endpoint = &warrenv1.EndpointSpec{}
		for _, p := range ports {
			s.Spec.Endpoint.Ports = append(s.Spec.Endpoint.Ports, &warrenv1.PortSpec{Target: 80, Published: p})
		}
	}
}

func (r *rig) create(name string, options ...func(*warrenv1.Service)) {
	r.write(func(_ state.Snapshot, t *state.Transaction) { t.Create(statetest.Replicated(name, 1, options...)) })
	r.settle(nil)
}

func (r *rig) remove(name string) {
	r.write(func(_ state.Snapshot, t *state.Transaction) { t.Delete(r.service(name)) })
	r.settle(nil)
}

func TestEachServiceIsGivenAnAddressAndEachNodeASubnet(t *testing.T) {
	r := newRig(t, nil, statetest.Node("n1"), statetest.Node("n2"))
	r.create("web")
	r.create("db")
	if a, b := r.service("web").GetEndpoint().GetVip(), r.service("db").GetEndpoint().GetVip(); a != "10.224.0.1" || b != "10.224.0.2" {
		t.Errorf("addresses %s and %s", a, b)
	}
	s := r.store.Snapshot()
	if a, b := s.Node("n1").GetNetwork().GetSubnet(), s.Node("n2").GetNetwork().GetSubnet(); a != "10.208.0.0/24" || b != "10.208.1.0/24" {
		t.Errorf("subnets %s and %s", a, b)
	}
}

func TestThatAServiceIsGivenSomethingIsNotAUsersWrite(t *testing.T) {
	r := newRig(t, nil)
	r.write(func(_ state.Snapshot, tx *state.Transaction) { tx.Create(statetest.Replicated("web", 1)) })
	written := r.service("web").GetMeta().GetVersion()
	r.settle(nil)
	if s := r.service("web"); s.GetWrittenAt() != written || s.GetMeta().GetVersion() <= written {
		t.Errorf("written at %d by a user, is at %d: %v", written, s.GetMeta().GetVersion(), s)
	}
}

func TestAServiceOffTheOverlayIsGivenNothing(t *testing.T) {
	r := newRig(t, nil)
	for _, mode := range []warrenv1.NetworkMode{warrenv1.NetworkMode_NETWORK_MODE_HOST, warrenv1.NetworkMode_NETWORK_MODE_NONE} {
		name := strings.ToLower(mode.String()[len("NETWORK_MODE_"):])
		r.create(name, func(s *warrenv1.Service) { s.Spec.Task.Network = mode })
		if e := r.service(name).GetEndpoint(); e != nil {
			t.Errorf("%s: %v", mode, e)
		}
	}
	r.create("rr", func(s *warrenv1.Service) {
		s.Spec.Endpoint = &warrenv1.EndpointSpec{Mode: warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR}
	})
	if e := r.service("rr").GetEndpoint(); e.GetVip() != "" {
		t.Errorf("dnsrr was given %v", e)
	}
}

func TestAPortThatIsTakenGoesToWhoWaitsForItWhenItIsFree(t *testing.T) {
	r := newRig(t, nil)
	r.create("web", publishing(80))
	r.create("api", publishing(80))
	e := r.service("api").GetEndpoint()
	if len(e.GetPorts()) != 0 || len(e.GetProblems()) != 1 || !strings.Contains(e.GetProblems()[0], "port 80/tcp is published by service web") {
		t.Fatalf("api was given %v", e)
	}
	r.remove("web")
	if e := r.service("api").GetEndpoint(); len(e.GetPorts()) != 1 || len(e.GetProblems()) != 0 {
		t.Fatalf("after web has gone api has %v", e)
	}
}

func TestAPortLeftOpenIsTakenFromTheRangeAndKept(t *testing.T) {
	r := newRig(t, nil)
	r.create("web", publishing(0, 0))
	ports := r.service("web").GetEndpoint().GetPorts()
	if len(ports) != 2 || ports[0].GetPublished() != 30000 || ports[1].GetPublished() != 30001 {
		t.Fatalf("given %v", ports)
	}
	r.write(func(_ state.Snapshot, tx *state.Transaction) {
		state.Update(tx, r.service("web"), publishing(0, 0, 0, 8080))
	})
	r.settle(nil)
	var given []string
	for _, p := range r.service("web").GetEndpoint().GetPorts() {
		given = append(given, strconv.FormatUint(uint64(p.GetPublished()), 10))
	}
	if got := strings.Join(given, " "); got != "30000 30001 30002 8080" {
		t.Errorf("given %s", got)
	}
}

func TestWhatIsFreeAgainIsGivenLast(t *testing.T) {
	r := newRig(t, nil)
	r.create("a")
	r.create("b")
	r.remove("a")
	r.create("c")
	if vip := r.service("c").GetEndpoint().GetVip(); vip != "10.224.0.3" {
		t.Errorf("c was given %s", vip)
	}
}

// Whoever leads, and however the removed nodes' subnets lie.
func TestARemovedNodesSubnetIsGivenAgainOnlyWhereNoOtherIsLeft(t *testing.T) {
	r := newRig(t, &warrenv1.ClusterNetwork{NodeRange: "10.0.0.0/22", NodePrefix: 24},
		&statev1.Authority{Meta: &warrenv1.Meta{Id: "authority"}}, statetest.Node("n1"), statetest.Node("n2"), statetest.Node("n3"))
	remove := func(id string) {
		r.write(func(s state.Snapshot, tx *state.Transaction) {
			tx.Delete(s.Node(id))
			authority.Remove(tx, s, id, r.now)
		})
	}
	join := func(id, want string) {
		t.Helper()
		r.loop = &addressing{} // another manager has come to lead
		r.loop.Reset(r.store.Snapshot())
		r.write(func(_ state.Snapshot, tx *state.Transaction) { tx.Create(statetest.Node(id)) })
		r.settle(nil)
		if got := r.store.Snapshot().Node(id).GetNetwork().GetSubnet(); got != want {
			t.Errorf("%s was given %s, want %s", id, got, want)
		}
	}
	remove("n3")
	remove("n2")
	join("n4", "10.0.3.0/24")
	join("n5", "10.0.2.0/24") // nothing else is left, and n3 was removed first
	join("n6", "10.0.1.0/24")
}

func TestExhaustionIsToldAndEnds(t *testing.T) {
	r := newRig(t, &warrenv1.ClusterNetwork{NodeRange: "10.0.0.0/23", NodePrefix: 24, VipRange: "10.1.0.0/30"},
		statetest.Node("n1"), statetest.Node("n2"), statetest.Node("n3"))
	if n := r.store.Snapshot().Node("n3").GetNetwork(); n.GetSubnet() != "" || !strings.Contains(n.GetProblem(), "no subnet is left in 10.0.0.0/23") {
		t.Errorf("the third node has %v", n)
	}
	for _, name := range []string{"a", "b", "c"} {
		r.create(name)
	}
	if e := r.service("c").GetEndpoint(); e.GetVip() != "" || len(e.GetProblems()) != 1 {
		t.Errorf("the third service has %v", e)
	}
	r.remove("b")
	r.write(func(s state.Snapshot, tx *state.Transaction) { tx.Delete(s.Node("n1")) })
	r.settle(nil)
	if e := r.service("c").GetEndpoint(); e.GetVip() != "10.1.0.2" || len(e.GetProblems()) != 0 {
		t.Errorf("the third service has %v when there is room", e)
	}
	if n := r.store.Snapshot().Node("n3").GetNetwork(); n.GetSubnet() != "10.0.0.0/24" || n.GetProblem() != "" {
		t.Errorf("the third node has %v when there is room", n)
	}
}

func TestNothingIsEverHeldByTwo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, &warrenv1.ClusterNetwork{NodeRange: "10.0.0.0/22", NodePrefix: 24, VipRange: "10.1.0.0/29"})
		serial := 0
		change := func(s state.Snapshot, tx *state.Transaction) {
			serial++
			services, nodes := slices.Collect(s.Services()), slices.Collect(s.Nodes())
			port := rapid.SampledFrom([]uint32{0, 80, 443, 30000})
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0, 1:
				tx.Create(statetest.Replicated(fmt.Sprintf("s%d", serial), 1, publishing(port.Draw(rt, "port"))))
			case 2:
				if len(services) > 0 {
					tx.Delete(rapid.SampledFrom(services).Draw(rt, "service"))
				}
			case 3:
				if len(services) > 0 {
					state.Update(tx, rapid.SampledFrom(services).Draw(rt, "service"), publishing(port.Draw(rt, "port"), port.Draw(rt, "port")))
				}
			case 4:
				tx.Create(statetest.Node(fmt.Sprintf("n%d", serial)))
			case 5:
				if len(nodes) > 0 {
					tx.Delete(rapid.SampledFrom(nodes).Draw(rt, "node"))
				}
			}
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			r.write(change)
			if rapid.Bool().Draw(rt, "race") {
				r.settle(func() { r.write(change) })
			} else {
				r.settle(nil)
			}
			if rapid.IntRange(0, 9).Draw(rt, "restart") == 0 {
				r.loop = &addressing{}
				r.loop.Reset(r.store.Snapshot())
				r.settle(nil)
			}
			checkHoldings(rt, r.store.Snapshot())
		}
	})
}

func checkHoldings(t *rapid.T, s state.Snapshot) {
	vips, ports, subnets := map[string]string{}, map[port]string{}, map[string]string{}
	lacking := 0
	for service := range s.Services() {
		name := service.GetSpec().GetName()
		if vip := service.GetEndpoint().GetVip(); vip == "" {
			lacking++
		} else if holder := vips[vip]; holder != "" {
			t.Fatalf("%s is held by %s and %s", vip, holder, name)
		} else if addr := netip.MustParseAddr(vip); !netip.MustParsePrefix("10.1.0.0/29").Contains(addr) {
			t.Fatalf("%s is out of range", vip)
		} else {
			vips[vip] = name
		}
		for _, p := range service.GetEndpoint().GetPorts() {
			key := portOf(p.GetProtocol(), p.GetPublished())
			if holder := ports[key]; holder != "" {
				t.Fatalf("%s is held by %s and %s", key, holder, name)
			}
			ports[key] = name
		}
	}
	if lacking > 0 && len(vips) < 6 {
		t.Fatalf("%d services have no address, although only %d of 6 are held", lacking, len(vips))
	}
	for service := range s.Services() {
		for _, p := range service.GetSpec().GetEndpoint().GetPorts() {
			if key := portOf(p.GetProtocol(), p.GetPublished()); p.GetPublished() != 0 && ports[key] == "" {
				t.Fatalf("%s wants %s, which nobody holds, and has not got it", service.GetSpec().GetName(), key)
			}
		}
	}
	homeless := 0
	for n := range s.Nodes() {
		if subnet := n.GetNetwork().GetSubnet(); subnet == "" {
			homeless++
		} else if holder := subnets[subnet]; holder != "" {
			t.Fatalf("%s is held by %s and %s", subnet, holder, n.GetMeta().GetId())
		} else {
			subnets[subnet] = n.GetMeta().GetId()
		}
	}
	if homeless > 0 && len(subnets) < 4 {
		t.Fatalf("%d nodes have no subnet, although only %d of 4 are held", homeless, len(subnets))
	}
}
