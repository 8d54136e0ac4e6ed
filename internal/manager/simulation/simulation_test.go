package simulation

import (
	"cmp"
	"context"
	"encoding/base32"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

var (
	firstSeed = flag.Uint64("seed", 0, "the first seed to run; 0: the one of every run, so that one run is like another")
	seeds     = flag.Int("seeds", someSeeds, "how many seeds to run")
)

// patience bounds how long the cluster may take to converge when the faults have stopped: the
// longest back-off, twice, and a rollout's time.
const patience = 5 * time.Minute

func TestTheClusterConvergesWhateverHappens(t *testing.T) {
	first := firstOr(usualSeed)
	for i := range uint64(*seeds) {
		seed := first + i
		size := large(20)
		if i == 0 {
			size = large(manyNodes)
		}
		t.Run(fmt.Sprintf("nodes=%d,seed=%d", size.nodes, seed), func(t *testing.T) {
			began := time.Now()
			w := live(t, story{seed: seed, size: size, only: *onlyThose})
			t.Logf("took %v: %d commits in %v of virtual time", time.Since(began).Round(time.Millisecond), w.commits, w.lasted.Round(time.Second))
			report(t, w, "Converges -seeds 1")
		})
	}
}

// large is a world in which dozens of tasks meet on a node.
func large(nodes int) scale {
	return scale{nodes: nodes, services: 6, faults: 90 * time.Second, pause: 120 * time.Second / time.Duration(nodes), rest: 2 * time.Minute}
}

// usualSeed is where runs begin that are not asked to look further.
const usualSeed = 1

// firstOr is the first seed to run: the one that was asked for, or else that.
func firstOr(seed uint64) uint64 { return cmp.Or(*firstSeed, seed) }

// scale is how large a world is, and how much happens there.
type scale struct {
	nodes, services int           // at the beginning
	faults          time.Duration // how long things happen
	pause           time.Duration // between two of them, at the most
	rest            time.Duration // how long a cluster that has converged is watched
	// overlay has tasks get addresses of their nodes' subnets, which every node must hear of: too much for hundreds of nodes.
	overlay bool
}

// world is a simulated cluster and what happens to it.
type world struct {
	t       *testing.T
	seed    uint64
	scale   scale
	plan    []happening
	only    []int // what of the plan happens; all of it where it is nil
	store   *state.Store
	manager *manager
	absent  chan struct{} // closed when somebody leads again; nil before the first change of leaders
	wire    *wire
	agents  []*agent
	names   int
	commits int
	watch   func(state.Snapshot) // called after every commit, if set
	rule    func(*world) error   // one more that must hold after every commit, if set

	mu     sync.Mutex
	trace  []deed
	broken *breach // the first
}

func newWorld(t *testing.T, seed uint64, size scale) *world {
	w := &world{t: t, seed: seed, scale: size, plan: planFor(seed, size)}
	w.store = statetest.New(t, statetest.Cluster(func(c *warrenv1.Cluster) {
		c.Spec.HeartbeatInterval, c.Spec.NodeGrace = durationpb.New(4*time.Second), durationpb.New(14*time.Second)
		c.Spec.RestartGrace = durationpb.New(20 * time.Second)
		if size.overlay { // few enough for what one has had to come to another
			c.Spec.Network = &warrenv1.ClusterNetwork{NodeRange: "10.208.0.0/21", VipRange: "10.224.0.0/29"}
		}
	}))
	proposer := statetest.NewProposer(w.store)
	_, feed := w.store.Watch()
	proposer.OnCommit(func(_, after state.Snapshot) {
		w.commits++
		if b := checkCommit(after, feed.Take().Changes); b != nil {
			w.breaks(b)
		}
		if w.rule != nil {
			if err := w.rule(w); err != nil {
				w.breaks(&breach{rule: "the test's own", err: err})
			}
		}
		if w.watch != nil {
			w.watch(after)
		}
	})
	writes := &slow{Proposer: proposer, random: rand.New(rand.NewPCG(seed, 1))}
	w.manager = newManager(w.store, writes, ids(rand.New(rand.NewPCG(seed, 2))))
	w.wire = &wire{handler: w.manager.handler()}
	// Packing what goes from hand to hand would take longer than all the rest.
	client := warrenv1connect.NewSessionServiceClient(&http.Client{Transport: w.wire}, "http://manager", connect.WithAcceptCompression("gzip", nil, nil))
	newID := ids(rand.New(rand.NewPCG(seed, 3)))
	for i := range size.nodes {
		id := newID()
		facts := statetest.Node(fmt.Sprintf("n%d", i)).GetFacts()
		facts.EngineLabels = map[string]string{"zone": string(rune('a' + i%3))}
		a := newAgent(id, facts, client, rand.New(rand.NewPCG(seed, uint64(10+i))))
		a.overlay = size.overlay
		w.agents = append(w.agents, a)
	}
	return w
}

// breaks notes that a rule is broken. What comes after the first is its consequence, as likely as not.
func (w *world) breaks(b *breach) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil {
		b.after = time.Since(statetest.Epoch)
		if s := w.store.Snapshot(); s.Service(b.service) != nil {
			b.account = account(s, s.Service(b.service))
		}
		w.broken = b
	}
}

// breach is the first rule that was broken, nil where none was.
func (w *world) breach() *breach {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

// ids returns a source of identifiers that may be shared.
func ids(random *rand.Rand) func() string {
	var mu sync.Mutex
	encoding := base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		var bits [10]byte
		binary.BigEndian.PutUint64(bits[:], random.Uint64())
		binary.BigEndian.PutUint16(bits[8:], uint16(random.Uint32()))
		return encoding.EncodeToString(bits[:])
	}
}

// start starts the manager and the agents, and returns what stops them.
func (w *world) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	w.manager.lead()
	for _, a := range w.agents {
		running.Go(func() { a.run(ctx) })
	}
	return func() {
		if w.absent != nil {
			<-w.absent
		}
		if w.manager.resign != nil {
			w.manager.resign()
		}
		cancel()
		running.Wait()
		w.wire.calls.Wait()
	}
}

// run is the whole story of a world.
func (w *world) run() {
	defer w.start()()
	for _, h := range w.plan {
		if w.only != nil && !slices.Contains(w.only, h.number) {
			continue
		}
		time.Sleep(time.Until(statetest.Epoch.Add(h.at)))
		if w.breach() != nil {
			return
		}
		if words := w.happen(h); words != "" {
			w.mu.Lock()
			w.trace = append(w.trace, deed{number: h.number, at: h.at, words: words})
			w.mu.Unlock()
		}
	}
	time.Sleep(time.Until(statetest.Epoch.Add(w.scale.faults)))
	w.calm()
	if !w.await(ruleConverges, w.whole) || !w.rests() {
		return
	}
	for s := range w.store.Snapshot().Services() {
		w.change(s.GetMeta().GetId(), func(s *warrenv1.Service) { s.Removing = true })
	}
	w.await(ruleRemoved, w.empty)
}

// add makes a service as the API would.
func (w *world) add(service *warrenv1.Service) bool {
	transaction := state.New(time.Now())
	transaction.Create(service)
	transaction.Create(statetest.Revision(service))
	return w.propose(transaction)
}

// change changes a service as the API would: a change of its template is a new revision. It tries until it is not overtaken.
func (w *world) change(id string, edit func(*warrenv1.Service)) {
	for {
		s := w.store.Snapshot().Service(id)
		if s == nil || !w.led() {
			return
		}
		transaction := state.New(time.Now())
		state.Update(transaction, s, func(changed *warrenv1.Service) {
			edit(changed)
			changed.WrittenAt = 0
			if changed.GetRevision() == s.GetRevision() && !proto.Equal(changed.GetSpec().GetTask(), s.GetSpec().GetTask()) {
				changed.Revision = max(s.GetLastRevision(), s.GetRevision()) + 1
				changed.LastRevision, changed.PreviousRevision, changed.Reverted = changed.Revision, s.GetRevision(), false
				transaction.Create(statetest.Revision(proto.CloneOf(changed)))
			}
		})
		if w.propose(transaction) {
			return
		}
	}
}

// edit changes a node, if it is known, and tells whether it is.
func (w *world) edit(id string, edit func(*warrenv1.Node)) bool {
	n := w.store.Snapshot().Node(id)
	if n == nil {
		return false
	}
	transaction := state.New(time.Now())
	state.Update(transaction, n, edit)
	return w.propose(transaction)
}

// led tells whether a manager leads, without which users can do nothing.
func (w *world) led() bool {
	if w.absent == nil {
		return true
	}
	select {
	case <-w.absent:
		return true
	default:
		return false
	}
}

// propose writes what a user does, and tells whether it was not refused.
func (w *world) propose(transaction *state.Transaction) bool {
	if !w.led() {
		return false
	}
	refused, err := w.manager.proposer.Propose(context.Background(), transaction)
	return err == nil && refused == nil
}

// calm ends the faults: every machine comes back, all but two nodes take tasks, and every service asks for
// what it can have.
func (w *world) calm() {
	if w.absent != nil {
		<-w.absent
	}
	for i, a := range w.agents {
		a.cut(time.Second)
		a.silence(0)
		availability := warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE
		if last := len(w.agents) - 1; last-i < min(2, len(w.agents)/3) {
			availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
		}
		w.until(func() bool {
			w.edit(a.id, func(n *warrenv1.Node) {
				n.Spec.Availability, n.Spec.Labels = availability, map[string]string{"tier": "front"}
				n.Spec.DrainDeadline = nil
			})
			n := w.store.Snapshot().Node(a.id)
			return n != nil && n.GetSpec().GetAvailability() == availability
		})
	}
	for s := range w.store.Snapshot().Services() {
		if s.GetRemoving() {
			continue
		}
		w.change(s.GetMeta().GetId(), func(s *warrenv1.Service) {
			w.names++
			s.Spec.Task.Container.Image = fmt.Sprintf("%s:%d", goodImage, w.names)
			s.Spec.Task.Reservations = nil
			if ports := len(s.GetSpec().GetTask().GetHostPorts()); ports > 0 { // there may be more tasks than nodes
				s.Spec.Update.Order = orderOf(s)
				s.Spec.Task.HostPorts = nil
			}
			s.Spec.Update.Parallelism = uint32(max(2, len(w.agents)/4))
			s.Spec.Update.ProgressDeadline = nil
			order(s, func(o *warrenv1.RolloutOrders) { o.Paused = false; o.Resumes++ })
		})
	}
	time.Sleep(5 * time.Second) // in which every agent is missed
}

// promote has every rollout go on that waits for it.
func (w *world) promote() {
	for s := range w.store.Snapshot().Services() {
		if s.GetRollout().GetState() == warrenv1.RolloutState_ROLLOUT_STATE_WAITING && !s.GetRemoving() {
			w.change(s.GetMeta().GetId(), func(s *warrenv1.Service) { order(s, func(o *warrenv1.RolloutOrders) { o.Promotes++ }) })
		}
	}
}

// until repeats f every second until it tells true.
func (w *world) until(f func() bool) {
	for deadline := time.Now().Add(patience); !f() && time.Now().Before(deadline) && w.breach() == nil; {
		time.Sleep(time.Second)
	}
}

// await waits until check finds nothing amiss, and tells whether it came to that. It breaks the rule where it still does after long.
func (w *world) await(rule string, check func() error) bool {
	w.until(func() bool { return check() == nil })
	if err := check(); err != nil && w.breach() == nil {
		b := &breach{rule: rule, err: fmt.Errorf("waited %v: %w", patience, err)}
		for service := range w.store.Snapshot().Services() {
			if b.service == "" && settled(w.store.Snapshot(), service) != nil {
				b.service = service.GetMeta().GetId()
			}
		}
		w.breaks(b)
	}
	return w.breach() == nil
}

// whole tells why the cluster is not as its services say, in the state or on the machines.
func (w *world) whole() error {
	synctest.Wait()
	w.promote()
	s := w.store.Snapshot()
	for _, a := range w.agents {
		n := s.Node(a.id)
		if n.GetStatus().GetState() != warrenv1.NodeState_NODE_STATE_READY {
			return fmt.Errorf("node %s is not back", a.facts.GetHostname())
		}
		if n.GetNetwork().GetSubnet() == "" {
			return fmt.Errorf("node %s has no subnet: %s", a.facts.GetHostname(), n.GetNetwork().GetProblem())
		}
	}
	if err := converged(s); err != nil {
		return err
	}
	var want, have []string
	for t := range s.Tasks() {
		if slot.Running(t) {
			want = append(want, t.GetMeta().GetId())
		}
	}
	for _, a := range w.agents {
		have = append(have, a.running()...)
	}
	slices.Sort(have)
	if !slices.Equal(want, have) {
		return fmt.Errorf("%d programs run on the machines, %d tasks in the state", len(have), len(want))
	}
	return nil
}

// rests tells whether a cluster that has converged writes nothing more.
func (w *world) rests() bool {
	time.Sleep(100 * time.Millisecond) // in which what is being written is
	_, feed := w.store.Watch()
	time.Sleep(w.scale.rest)
	for _, c := range feed.Take().Changes {
		w.breaks(&breach{rule: ruleRests, err: fmt.Errorf("the cluster had converged, and then went from %v to %v", c.Before, c.After)})
	}
	return w.breach() == nil
}

// empty tells what is left although every service was removed.
func (w *world) empty() error {
	synctest.Wait()
	var left []string
	for o := range w.store.Snapshot().Objects() {
		switch o.(type) {
		case *warrenv1.Service, *warrenv1.Revision, *warrenv1.Task:
			left = append(left, o.GetMeta().GetId())
		}
	}
	for _, a := range w.agents {
		a.mu.Lock()
		if len(a.tasks) > 0 {
			left = append(left, "tasks on "+a.facts.GetHostname())
		}
		a.mu.Unlock()
	}
	if len(left) > 0 {
		return fmt.Errorf("%d things are left: %s", len(left), strings.Join(left[:min(5, len(left))], ", "))
	}
	return nil
}
