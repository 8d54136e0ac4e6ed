package simulation

import (
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
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

var (
	firstSeed = flag.Uint64("seed", 0, "the first seed to run; 0 draws one")
	seeds     = flag.Int("seeds", someSeeds, "how many seeds to run")
)

const (
	faultsLast = 90 * time.Second
	// patience bounds how long the cluster may take to converge when the faults have stopped: the
	// longest back-off, twice, and a rollout's time.
	patience = 5 * time.Minute
)

func TestTheClusterConvergesWhateverHappens(t *testing.T) {
	first := *firstSeed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	for i := range uint64(*seeds) {
		seed := first + i
		nodes := 20
		if i == 0 {
			nodes = manyNodes
		}
		t.Run(fmt.Sprintf("nodes=%d,seed=%d", nodes, seed), func(t *testing.T) {
			began := time.Now()
			synctest.Test(t, func(t *testing.T) { newWorld(t, seed, nodes).run() })
			t.Logf("took %v", time.Since(began))
			if t.Failed() {
				t.Logf("replay with: go test ./internal/manager/simulation -run Converges -seed %d -seeds 1", seed)
			}
		})
	}
}

// world is a simulated cluster and what happens to it.
type world struct {
	t       *testing.T
	random  *rand.Rand
	store   *state.Store
	manager *manager
	wire    *wire
	agents  []*agent
	faulty  atomic.Bool
	names   int
	commits int
	watch   func(state.Snapshot) // called after every commit, if set
}

func newWorld(t *testing.T, seed uint64, nodes int) *world {
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 0))}
	w.store = statetest.New(t, statetest.Cluster(func(c *warrenv1.Cluster) {
		c.Spec.HeartbeatInterval, c.Spec.NodeGrace = durationpb.New(4*time.Second), durationpb.New(14*time.Second)
		c.Spec.RestartGrace = durationpb.New(20 * time.Second)
	}))
	proposer := statetest.NewProposer(w.store)
	_, feed := w.store.Watch()
	proposer.OnCommit(func(_, after state.Snapshot) {
		w.commits++
		if about, err := checkCommit(after, feed.Take().Changes); err != nil {
			t.Errorf("after %v: %v\n%s", time.Since(statetest.Epoch), err, account(after, after.Service(about)))
		}
		if w.watch != nil {
			w.watch(after)
		}
	})
	writes := &slow{Proposer: proposer, random: rand.New(rand.NewPCG(seed, 1))}
	w.manager = newManager(w.store, writes, ids(rand.New(rand.NewPCG(seed, 2))))
	w.wire = &wire{handler: w.manager.handler()}
	client := warrenv1connect.NewSessionServiceClient(&http.Client{Transport: w.wire}, "http://manager")
	newID := ids(rand.New(rand.NewPCG(seed, 3)))
	for i := range nodes {
		id := newID()
		facts := statetest.Node(fmt.Sprintf("n%d", i)).GetFacts()
		facts.EngineLabels = map[string]string{"zone": string(rune('a' + i%3))}
		w.agents = append(w.agents, newAgent(id, facts, client, &w.faulty, rand.New(rand.NewPCG(seed, uint64(10+i)))))
	}
	return w
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
	for range 6 {
		w.create()
	}
	w.faulty.Store(true)
	for time.Since(statetest.Epoch) < faultsLast && !w.t.Failed() {
		time.Sleep(w.upTo(6 * time.Second * 20 / time.Duration(len(w.agents))))
		w.happen()
	}
	w.calm()
	w.await("the cluster to be as its services say", w.whole)
	w.rests()
	s := w.store.Snapshot()
	w.t.Logf("%d services with %d tasks", s.ServiceCount(), s.TaskCount())

	for s := range w.store.Snapshot().Services() {
		w.change(s.GetMeta().GetId(), func(s *warrenv1.Service) { s.Removing = true })
	}
	w.await("everything that was removed to be gone", w.empty)
	w.t.Logf("%d commits in %v of virtual time", w.commits, time.Since(statetest.Epoch).Round(time.Second))
}

func (w *world) upTo(d time.Duration) time.Duration {
	return time.Duration(w.random.Int64N(int64(d)))
}

// happen does one thing to the cluster.
func (w *world) happen() {
	a := w.agents[w.random.IntN(len(w.agents))]
	switch w.random.IntN(24) {
	case 0, 1:
		a.crash(w.upTo(40 * time.Second))
	case 2, 3:
		a.cut(w.upTo(30 * time.Second))
	case 4:
		a.silence(w.upTo(40 * time.Second))
	case 5:
		a.restart(w.upTo(30 * time.Second))
	case 6:
		w.manager.resign()
		time.Sleep(w.upTo(10 * time.Second))
		w.manager.lead()
	case 7, 8:
		availability := []warrenv1.NodeAvailability{
			warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE, warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE,
			warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN,
		}[w.random.IntN(3)]
		var deadline *timestamppb.Timestamp
		if w.random.IntN(3) == 0 {
			deadline = timestamppb.New(time.Now().Add(w.upTo(20 * time.Second)))
		}
		w.edit(a.id, func(n *warrenv1.Node) { n.Spec.Availability, n.Spec.DrainDeadline = availability, deadline })
	case 9:
		tier := []string{"front", "back"}[w.random.IntN(2)]
		w.edit(a.id, func(n *warrenv1.Node) { n.Spec.Labels = map[string]string{"tier": tier} })
	case 10:
		w.removeNode(a.id)
	case 11:
		w.create()
	case 12:
		w.pick(func(s *warrenv1.Service) { s.Removing = true })
	case 13:
		replicas, loss := w.replicas(), w.nodeLoss()
		w.pick(func(s *warrenv1.Service) {
			s.Spec.NodeLoss = loss
			if r := s.Spec.GetReplicated(); r != nil {
				r.Replicas = replicas
			}
		})
	case 14:
		w.pick(func(s *warrenv1.Service) { w.goBack(s) })
	case 15, 16:
		paused := w.random.IntN(3) == 0
		w.pick(func(s *warrenv1.Service) {
			order(s, func(o *warrenv1.RolloutOrders) { o.Paused = paused; o.Resumes += resumes(paused) })
		})
	case 17, 18:
		w.pick(func(s *warrenv1.Service) { order(s, func(o *warrenv1.RolloutOrders) { o.Promotes++ }) })
	case 19:
		w.displace()
	case 20:
		update := w.update()
		w.pick(func(s *warrenv1.Service) {
			update.Order = s.GetSpec().GetUpdate().GetOrder()
			s.Spec.Update = update
			s.Spec.Labels = map[string]string{"changed": "yes"}
		})
	default:
		image, placement := w.image(), w.placement()
		w.pick(func(s *warrenv1.Service) {
			s.Spec.Task.Container.Image = image
			s.Spec.Placement = placement
		})
	}
}

// order changes what users have ordered of a service's rollouts.
func order(s *warrenv1.Service, edit func(*warrenv1.RolloutOrders)) {
	if s.Orders == nil {
		s.Orders = &warrenv1.RolloutOrders{By: "ann"}
	}
	edit(s.Orders)
}

func resumes(paused bool) uint64 {
	if paused {
		return 0
	}
	return 1
}

// goBack goes back to the revision before, as the API would.
func (w *world) goBack(s *warrenv1.Service) {
	r := w.store.Snapshot().Revision(s.GetMeta().GetId(), s.GetPreviousRevision())
	if r == nil {
		return
	}
	s.LastRevision = max(s.GetLastRevision(), s.GetRevision())
	s.Spec.Task, s.Revision, s.PreviousRevision = proto.CloneOf(r.GetTask()), r.GetNumber(), 0
	order(s, func(o *warrenv1.RolloutOrders) { o.Paused = false })
}

// displace marks a task as one that a rebalancing has picked.
func (w *world) displace() {
	for t := range w.store.Snapshot().Tasks() {
		if t.GetSlot() > 0 && t.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING && w.random.IntN(20) == 0 {
			transaction := state.New(time.Now())
			state.Update(transaction, t, func(t *warrenv1.Task) { t.Displaced = true })
			w.propose(transaction)
			return
		}
	}
}

func (w *world) replicas() uint32 { return uint32(w.random.IntN(min(2*len(w.agents), 100))) }

// image draws an image that no other revision has.
func (w *world) image() string {
	kind := []string{
		goodImage, goodImage, goodImage, goodImage + ":nodigest", crashImage, badImage, sickImage,
	}[w.random.IntN(7)]
	w.names++
	return fmt.Sprintf("%s:%d", kind, w.names)
}

// update draws how a service's tasks are replaced.
func (w *world) update() *warrenv1.UpdatePolicy {
	p := &warrenv1.UpdatePolicy{
		Parallelism:     uint32(w.random.IntN(5)),
		Delay:           durationpb.New(w.upTo(2 * time.Second)),
		MaxFailureRatio: []float64{0, 0, 0.1, 1}[w.random.IntN(4)],
		FailureAction:   warrenv1.FailureAction(w.random.IntN(4)),
		MaxUnavailable:  uint32(w.random.IntN(4)),
		Strategy:        warrenv1.RolloutStrategy(max(0, w.random.IntN(6)-2)),
		Keep:            durationpb.New(w.upTo(20 * time.Second)),
		Manual:          w.random.IntN(3) == 0,
	}
	if w.random.IntN(2) == 0 {
		p.Monitor = durationpb.New(w.upTo(4 * time.Second))
	}
	if w.random.IntN(2) == 0 {
		p.ProgressDeadline = durationpb.New(time.Second + w.upTo(30*time.Second))
	}
	for weight := uint32(0); weight < 100 && w.random.IntN(3) > 0; {
		weight = min(100, weight+1+uint32(w.random.IntN(60)))
		p.Canary = append(p.Canary, &warrenv1.CanaryStep{Weight: weight, Hold: durationpb.New(w.upTo(8 * time.Second).Truncate(3 * time.Second))})
	}
	return p
}

func (w *world) placement() *warrenv1.Placement {
	return []*warrenv1.Placement{
		nil, nil, {Constraints: []string{"node.labels.tier != back"}}, {Constraints: []string{"engine.labels.zone == a"}},
		{Spread: []string{"engine.labels.zone"}},
	}[w.random.IntN(5)]
}

// create makes a service of a random kind.
func (w *world) create() {
	w.names++
	edit := func(s *warrenv1.Service) {
		s.Spec.Task.Container.Image = w.image()
		s.Spec.Task.Reservations = &warrenv1.Resources{
			NanoCpus: w.random.Int64N(4) * 1e8, MemoryBytes: w.random.Int64N(4) * (64 << 20),
		}
		s.Spec.Placement = w.placement()
		s.Spec.Update = w.update()
		s.Spec.Update.Order = warrenv1.UpdateOrder(w.random.IntN(3))
		s.Spec.NodeLoss = w.nodeLoss()
	}
	name := fmt.Sprintf("s%d", w.names)
	service := statetest.Replicated(name, w.replicas(), edit)
	if w.random.IntN(4) == 0 {
		service = statetest.Global(name, edit)
	}
	w.add(service)
}

// nodeLoss has tasks of about every third service wait for nodes that are down, with or without an end.
func (w *world) nodeLoss() *warrenv1.NodeLossPolicy {
	if w.random.IntN(3) > 0 {
		return nil
	}
	return &warrenv1.NodeLossPolicy{
		Action: warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT, Wait: durationpb.New(w.upTo(20*time.Second) * time.Duration(w.random.IntN(2))),
	}
}

// add makes a service as the API would.
func (w *world) add(service *warrenv1.Service) {
	transaction := state.New(time.Now())
	transaction.Create(service)
	transaction.Create(statetest.Revision(service))
	w.propose(transaction)
}

// pick changes one service, if there is any.
func (w *world) pick(edit func(*warrenv1.Service)) {
	var services []string
	for s := range w.store.Snapshot().Services() {
		if !s.GetRemoving() {
			services = append(services, s.GetMeta().GetId())
		}
	}
	if len(services) > 0 {
		w.change(services[w.random.IntN(len(services))], edit)
	}
}

// change changes a service as the API would: a change of its template is a new revision. It tries until it is not overtaken.
func (w *world) change(id string, edit func(*warrenv1.Service)) {
	for {
		s := w.store.Snapshot().Service(id)
		if s == nil {
			return
		}
		transaction := state.New(time.Now())
		state.Update(transaction, s, func(changed *warrenv1.Service) {
			edit(changed)
			changed.WrittenAt = 0
			if changed.GetRevision() == s.GetRevision() && !proto.Equal(changed.GetSpec().GetTask(), s.GetSpec().GetTask()) {
				changed.Revision = max(s.GetLastRevision(), s.GetRevision()) + 1
				changed.LastRevision, changed.PreviousRevision = changed.Revision, s.GetRevision()
				transaction.Create(statetest.Revision(proto.CloneOf(changed)))
			}
		})
		if w.propose(transaction) {
			return
		}
	}
}

// edit changes a node, if it is known.
func (w *world) edit(id string, edit func(*warrenv1.Node)) {
	if n := w.store.Snapshot().Node(id); n != nil {
		transaction := state.New(time.Now())
		state.Update(transaction, n, edit)
		w.propose(transaction)
	}
}

func (w *world) removeNode(id string) {
	if n := w.store.Snapshot().Node(id); n != nil {
		transaction := state.New(time.Now())
		transaction.Delete(n)
		w.propose(transaction)
	}
}

// propose writes what a user does, and tells whether it was not refused.
func (w *world) propose(transaction *state.Transaction) bool {
	refused, err := w.manager.proposer.Propose(context.Background(), transaction)
	if err != nil {
		w.t.Error(err)
	}
	return refused == nil
}

// calm ends the faults: every machine comes back, all but two nodes take tasks, and every service asks for
// what it can have.
func (w *world) calm() {
	w.faulty.Store(false)
	for i, a := range w.agents {
		a.cut(time.Second)
		a.silence(0)
		availability := warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE
		if i < 2 {
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
			s.Spec.Update.Parallelism = uint32(len(w.agents)) / 4
			s.Spec.Update.ProgressDeadline = nil
			order(s, func(o *warrenv1.RolloutOrders) { o.Paused = false; o.Resumes++ })
		})
	}
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
	for deadline := time.Now().Add(patience); !f() && time.Now().Before(deadline); {
		time.Sleep(time.Second)
	}
}

// await waits until check finds nothing amiss, and fails the test where it still does after long.
func (w *world) await(what string, check func() error) {
	began := time.Now()
	w.until(func() bool { return check() == nil })
	if err := check(); err != nil {
		for service := range w.store.Snapshot().Services() {
			if settled(w.store.Snapshot(), service) != nil {
				w.t.Log(account(w.store.Snapshot(), service))
			}
		}
		w.t.Fatalf("waited %v for %s: %v", patience, what, err)
	}
	w.t.Logf("waited %v for %s", time.Since(began).Round(time.Second), what)
}

// whole tells why the cluster is not as its services say, in the state or on the machines.
func (w *world) whole() error {
	synctest.Wait()
	w.promote()
	s := w.store.Snapshot()
	for _, a := range w.agents {
		if n := s.Node(a.id); n.GetStatus().GetState() != warrenv1.NodeState_NODE_STATE_READY {
			return fmt.Errorf("node %s is not back", a.facts.GetHostname())
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

// rests checks that a cluster that has converged writes nothing more.
func (w *world) rests() {
	_, feed := w.store.Watch()
	time.Sleep(2 * time.Minute)
	for _, c := range feed.Take().Changes {
		w.t.Errorf("the cluster had converged, and then went from %v to %v", c.Before, c.After)
	}
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
