package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/agent/overlay/catalog"
	"github.com/cuemby/warren/internal/agent/overlay/lease"
	"github.com/cuemby/warren/internal/agent/overlay/link"
	"github.com/cuemby/warren/internal/agent/overlay/names"
	"github.com/cuemby/warren/internal/agent/overlay/port"
	"github.com/cuemby/warren/internal/agent/overlay/rules"
	"github.com/cuemby/warren/internal/agent/overlay/wireguard"
	"github.com/cuemby/warren/internal/agent/store"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// The links' names.
const (
	Bridge = "warren0"
	Device = "warren-wg"
)

// How long is waited before the network is brought up again that could not be: the shortest, doubling up to the longest.
const (
	shortestRetry = 500 * time.Millisecond
	longestRetry  = 30 * time.Second
)

// uplinkDelay is how long is waited after a change of links or routes before it is seen what it means: they come by the
// hundred where a routing daemon starts, and by several when a link goes up.
const uplinkDelay = time.Second

// Record is what the overlay keeps on disk; the agent's store is one.
type Record interface {
	lease.Record
	// Tasks returns the tasks of this node as recorded, by id.
	Tasks() (map[string]store.Task, error)
	// Network returns what was recorded under a name, nil for nothing.
	Network(name string) ([]byte, error)
	// RecordNetwork records under a name, and returns when that is durable; nil forgets.
	RecordNetwork(name string, value []byte) error
	// NetworkUnder returns what was recorded under names that begin so, by the rest of the name.
	NetworkUnder(prefix string) (map[string][]byte, error)
	// RecordNetworkAll is RecordNetwork for several, all or none.
	RecordNetworkAll(values map[string][]byte) error
}

// Options says what an overlay works with.
type Options struct {
	Record Record
	// NodeID is this node's in its cluster, Hostname what it is called.
	NodeID   func() string
	Hostname string
	// NamespaceDir is where tasks' network namespaces are mounted.
	NamespaceDir string
	// WireGuardSocket is where the process of a device of userspace listens, Kind which device to take.
	WireGuardSocket string
	Kind            wireguard.Kind
	// Backend is what the packet rules are made of.
	Backend rules.Backend
	// ResolvConf names the host's resolvers; empty for /etc/resolv.conf.
	ResolvConf string
	// Sockets are what names are asked for on; nil: sockets that are there only while the overlay is up.
	Sockets *names.Sockets
	// Manager is the address of a manager, by which the uplink is found where there is no default route.
	Manager func() string
	Logger  *slog.Logger
}

// Overlay is this machine's part of the cluster's network.
type Overlay struct {
	Options
	wires   *link.Wires
	ports   *port.Keeper
	catalog *catalog.Catalog

	attending atomic.Bool
	wake      chan struct{} // holds a token when there is something to do
	changed   chan struct{} // holds a token when Status has changed
	applied   chan struct{} // holds a token when InForce has changed
	inForce   atomic.Uint64
	steering  atomic.Uint64 // the version of the endpoints that new connections go by
	unsettled chan struct{} // holds a token when that has changed, or there is something to record
	recording sync.Mutex    // held while endpoints are recorded or forgotten

	mu     sync.Mutex
	config *warrenv1.NetworkConfig
	peers  map[string]*warrenv1.Peer
	full   map[string]struct{} // peers of a full set that is still coming; nil else
	due    due
	status *warrenv1.OverlayStatus
	taken  []*warrenv1.TakenPort // published ports that other programs have
	net    *network              // nil while the network is down
	settle chan struct{}         // closed, and made anew, when net or status changes

	// enforcing is held while the rules are changed, so that what comes later is in force later.
	enforcing sync.Mutex
	broken    bool // the rules may not be what they were last told to be

	// The rest is Run's.
	running  sync.WaitGroup
	own      key
	removals chan removal
	uplinks  chan struct{} // holds a token when links or routes to the outside have changed
	tooSmall int           // the uplink's MTU that the log has told to be too small
}

// due is what Run has to see to.
type due struct{ config, peers, wires, ports bool }

func (d *due) add(more due) {
	d.config, d.peers = d.config || more.config, d.peers || more.peers
	d.wires, d.ports = d.wires || more.wires, d.ports || more.ports
}

// Open takes hold of this machine's network, of which it changes nothing, and recalls what was recorded.
func Open(o Options) (*Overlay, error) {
	wires, err := link.Open(link.Options{Bridge: Bridge, Device: Device, NamespaceDir: o.NamespaceDir, Logger: o.Logger})
	if err != nil {
		return nil, fmt.Errorf("open the overlay: %w", err)
	}
	v := &Overlay{
		Options: o, wires: wires, catalog: catalog.New(), peers: map[string]*warrenv1.Peer{},
		wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), applied: make(chan struct{}, 1),
		settle: make(chan struct{}), unsettled: make(chan struct{}, 1), removals: make(chan removal),
		uplinks: make(chan struct{}, 1),
	}
	if err := v.recall(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the overlay: %w", err), wires.Close())
	}
	return v, nil
}

// Configure takes this node's part of the network. It waits for nothing.
func (v *Overlay) Configure(c *warrenv1.NetworkConfig) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !proto.Equal(c, v.config) {
		v.config = c
		v.catalog.Own(subnet(c))
		v.due.config = true
		v.rouse()
	}
}

// HeedPeers takes what a manager tells of other nodes. It waits for nothing.
func (v *Overlay) HeedPeers(p *warrenv1.Peers) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if p.GetFull() {
		v.full = map[string]struct{}{}
	}
	for _, peer := range p.GetPeers() {
		v.peers[peer.GetNodeId()] = peer
		if v.full != nil {
			v.full[peer.GetNodeId()] = struct{}{}
		}
	}
	for _, id := range p.GetRemoved() {
		delete(v.peers, id)
	}
	if p.GetMore() {
		return
	}
	if v.full != nil {
		maps.DeleteFunc(v.peers, func(id string, _ *warrenv1.Peer) bool {
			_, came := v.full[id]
			return !came
		})
		v.full = nil
	}
	v.due.peers = true
	v.rouse()
}

// HeedEndpoints takes what a manager tells of what services are reached by. It waits for nothing.
func (v *Overlay) HeedEndpoints(e *warrenv1.Endpoints) {
	v.catalog.Heed(e)
	token(v.unsettled)
	v.rouse()
}

// Attend notes whether a session with a manager is open. Without one this node's key stays: nobody would hear of
// another.
func (v *Overlay) Attend(open bool) {
	if v.attending.Swap(open) != open && open {
		v.rouse()
	}
}

// Status is how this node's overlay stands; nil before it has come up or failed to. What is known before that is kept back: by
// a status without a key the others would take this node for one without an overlay, and drop the sessions of their devices with
// its own, which have outlived the agent before.
func (v *Overlay) Status() *warrenv1.OverlayStatus {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.status.GetState() == warrenv1.OverlayState_OVERLAY_STATE_UNSPECIFIED {
		return nil
	}
	return v.status
}

// Changed is readable when Status has changed.
func (v *Overlay) Changed() <-chan struct{} { return v.changed }

// InForce is the version of the endpoints that this node balances by.
func (v *Overlay) InForce() uint64 { return v.inForce.Load() }

// Applied is readable when InForce has changed.
func (v *Overlay) Applied() <-chan struct{} { return v.applied }

func (v *Overlay) rouse() { token(v.wake) }

func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is there
	}
}

// Run keeps the network as it should be until ctx ends, and leaves it up.
func (v *Overlay) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer v.running.Wait()
	defer cancel()
	v.ports = port.New(v.Logger)
	defer v.ports.Close()
	v.running.Go(func() {
		err := v.wires.Watch(ctx, func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.due.wires = true
			v.rouse()
		})
		if err != nil {
			v.Logger.Error("changes of this machine's links go unseen", "error", err)
		}
	})
	v.running.Go(func() {
		if err := v.wires.WatchUplinks(ctx, func() { token(v.uplinks) }); err != nil {
			v.Logger.Error("changes of the uplinks' MTU go unseen until peers change", "error", err)
		}
	})
	v.running.Go(func() { v.acknowledge(ctx) })
	retry, uplink := newAlarm(), newAlarm()
	defer retry.stop()
	defer uplink.stop()
	for wait := shortestRetry; ; {
		if err := v.tend(ctx); err == nil {
			wait = shortestRetry
		} else if ctx.Err() == nil {
			retry.set(wait)
			wait = min(2*wait, longestRetry)
		}
		rotation, greeting := v.rotationAlarm(), v.greetingAlarm()
		select {
		case <-v.wake:
		case <-v.ports.Changed():
			v.mu.Lock()
			v.due.ports = true
			v.mu.Unlock()
		case <-v.uplinks:
			if uplink.timer == nil {
				uplink.set(uplinkDelay)
			}
		case <-uplink.C:
			uplink.stop()
			v.lookAtUplinks()
		case r := <-v.removals:
			r.done <- v.remove(r.ctx)
		case <-retry.C:
		case <-rotation.C:
		case <-greeting.C:
			v.greetAgain(ctx)
		case <-ctx.Done():
			rotation.stop()
			greeting.stop()
			v.letGo()
			return
		}
		rotation.stop()
		greeting.stop()
	}
}

// alarm is a timer that may not be set.
type alarm struct {
	C     <-chan time.Time
	timer *time.Timer
}

func newAlarm() *alarm { return &alarm{} }

func (a *alarm) set(d time.Duration) {
	a.stop()
	a.timer = time.NewTimer(d)
	a.C = a.timer.C
}

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
	a.C, a.timer = nil, nil
}

// tend sees to what is due. What it fails at stays due.
func (v *Overlay) tend(ctx context.Context) (err error) {
	v.mu.Lock()
	now, config := v.due, v.config
	v.due = due{}
	net := v.net
	v.mu.Unlock()
	if config == nil {
		return nil
	}
	defer func() {
		if err != nil {
			v.mu.Lock()
			v.due.add(now)
			v.mu.Unlock()
		}
	}()
	// Where connections go is seen to first: it is what somebody waits for.
	if err := v.steer(ctx, now.ports); err != nil {
		return err
	}
	if net != nil && !net.lost() && !now.config && !now.peers && !now.wires && !v.keyIsOld(config) {
		return nil
	}
	if err := v.raise(ctx, config); err != nil {
		v.fail(ctx, err)
		return err
	}
	if now.config || now.peers {
		v.recordLayout()
	}
	return v.steer(ctx, true)
}

// steer has connections go where they should now.
func (v *Overlay) steer(ctx context.Context, ports bool) error {
	if err := v.keepPorts(ports); err != nil {
		v.Logger.Error("published ports could not be reserved; trying again", "error", err)
		return err
	}
	if err := v.enforce(ctx); err != nil {
		v.Logger.Error("the packet rules could not be changed; trying again", "error", err)
		return err
	}
	return nil
}

// fail notes why the network is not as it should be.
func (v *Overlay) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	v.mu.Lock()
	same := v.status.GetError() == err.Error()
	v.mu.Unlock()
	if !same {
		v.Logger.Error("the overlay network is not up; trying again until it is", "error", err)
	}
	v.mu.Lock()
	port := v.config.GetWireguardPort()
	v.mu.Unlock()
	v.report(func(s *warrenv1.OverlayStatus) {
		s.State, s.Error = warrenv1.OverlayState_OVERLAY_STATE_FAILED, clip(err.Error())
		if s.GetPublicKey() == "" && v.own != (key{}) { // the device of an agent before may go on all the same
			s.PublicKey, s.KeyGeneration, s.ListenPort = v.own.private.PublicKey().String(), v.own.generation, port
		}
	})
}

// maxError bounds the words that travel to managers.
const maxError = 2000

func clip(text string) string {
	if len(text) <= maxError {
		return head(text, maxError)
	}
	return head(text, maxError) + "…"
}

// head is the beginning of a text without what is no character, which no message holds: programs call themselves as they like.
func head(text string, most int) string { return strings.ToValidUTF8(text[:min(len(text), most)], "") }

// report changes the status.
func (v *Overlay) report(change func(*warrenv1.OverlayStatus)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	after := &warrenv1.OverlayStatus{}
	if v.status != nil {
		after = proto.CloneOf(v.status)
	}
	change(after)
	after.TakenPorts = v.taken
	if proto.Equal(after, v.status) {
		return
	}
	v.status = after
	v.settled()
	token(v.changed)
}

// settled tells those who wait for the network that something has changed. The caller holds v.mu.
func (v *Overlay) settled() {
	close(v.settle)
	v.settle = make(chan struct{})
}

// subnet is this node's as a manager has sent it; the zero Prefix where it makes no sense.
func subnet(c *warrenv1.NetworkConfig) netip.Prefix {
	prefix, err := netip.ParsePrefix(c.GetSubnet())
	if err != nil {
		return netip.Prefix{}
	}
	return prefix.Masked()
}

// nodeAddr is the node's own address in its subnet: the first after the network's.
func nodeAddr(subnet netip.Prefix) netip.Addr { return subnet.Addr().Next() }
