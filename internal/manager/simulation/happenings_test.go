package simulation

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// happening is one thing that befalls a world. All that is drawn for it comes from its seed and its number, so that leaving one out
// changes none of the others.
type happening struct {
	*rand.Rand
	number int
	at     time.Duration
	taste  uint64 // which of several it chooses
}

// deed is what came of a happening.
type deed struct {
	number int
	at     time.Duration
	words  string
}

// planFor draws what happens in a world. The first services come at the beginning.
func planFor(seed uint64, size scale) []happening {
	var plan []happening
	times := rand.New(rand.NewPCG(seed, 4))
	for at := time.Duration(0); at < size.faults; {
		random := rand.New(rand.NewPCG(seed, 1<<32+uint64(len(plan))))
		plan = append(plan, happening{Rand: random, number: len(plan) + 1, at: at, taste: random.Uint64()})
		if len(plan) >= size.services {
			at += time.Duration(times.Int64N(int64(size.pause)))
		}
	}
	return plan
}

func (h happening) upTo(d time.Duration) time.Duration {
	return time.Duration(h.Int64N(int64(d))).Truncate(time.Millisecond)
}

// once in n times it is so.
func (h happening) once(n int) bool { return h.IntN(n) == 0 }

// favourite returns the one of some things that it likes best; "" where there is none. It likes the same one as long as that is there, whatever else is.
func (h happening) favourite(things []string) (best string) {
	liking := uint64(0)
	for _, thing := range things {
		if l := h.liking(thing); best == "" || l > liking {
			best, liking = thing, l
		}
	}
	return best
}

func (h happening) liking(thing string) uint64 {
	sum := fnv.New64a()
	fmt.Fprint(sum, h.taste, thing)
	return sum.Sum64()
}

// happen has it befall the world, and says in words what happened; nothing where there was nothing for it to befall.
func (w *world) happen(h happening) string {
	if h.number <= w.scale.services {
		return w.create(h)
	}
	a := w.agents[h.IntN(len(w.agents))]
	node := "node " + a.facts.GetHostname()
	switch h.IntN(34) {
	case 0, 1:
		d := h.upTo(40 * time.Second)
		a.crash(d)
		return fmt.Sprintf("%s loses its power for %v", node, d)
	case 2:
		d := h.upTo(30 * time.Second)
		return w.some(h, func(a *agent) { a.crash(d) }, fmt.Sprintf("lose their power for %v", d))
	case 3, 4:
		d := h.upTo(30 * time.Second)
		a.cut(d)
		return fmt.Sprintf("%s is cut off for %v", node, d)
	case 5:
		d := h.upTo(40 * time.Second)
		return w.some(h, func(a *agent) { a.silence(d) }, fmt.Sprintf("say and hear nothing for %v, their connections open", d))
	case 6:
		d := h.upTo(30 * time.Second)
		a.restart(d)
		return fmt.Sprintf("%s's agent is restarted and back after %v", node, d)
	case 7:
		return w.changeLeader(h.upTo(10 * time.Second))
	case 8, 9:
		return w.setAvailability(h, a)
	case 10:
		tier := []string{"front", "back"}[h.IntN(2)]
		return when(w.edit(a.id, func(n *warrenv1.Node) { n.Spec.Labels = map[string]string{"tier": tier} }), node+" is labelled tier="+tier)
	case 11:
		return w.removeNode(a)
	case 12, 13:
		return w.create(h)
	case 14:
		return w.pick(h, func(s *warrenv1.Service) string { s.Removing = true; return "removed" })
	case 15, 16:
		return w.pick(h, func(s *warrenv1.Service) string { return w.scaleService(h, s) })
	case 17:
		return w.pick(h, func(s *warrenv1.Service) string { return w.goBack(s, h.once(3)) })
	case 18, 19:
		return w.pick(h, func(s *warrenv1.Service) string { return halt(s, h.once(3)) })
	case 20, 21:
		return w.pick(h, func(s *warrenv1.Service) string {
			order(s, func(o *warrenv1.RolloutOrders) { o.Promotes++ })
			return "promoted"
		})
	case 22:
		return w.displace(h)
	case 23:
		update := w.update(h)
		return w.pick(h, func(s *warrenv1.Service) string {
			update.Order = s.GetSpec().GetUpdate().GetOrder()
			s.Spec.Update = update
			s.Spec.Labels = map[string]string{"changed": "yes"}
			return "to be updated " + updateWords(update)
		})
	case 24:
		ports := h.ports()
		return w.pick(h, func(s *warrenv1.Service) string {
			s.Spec.Endpoint = ports
			return endpointWords(ports)
		})
	case 25, 26, 27:
		final := h.once(2)
		return w.programs(h, a, func(t *local) { a.kill(t, final) }, map[bool]string{false: "crash", true: "crash and are given up"}[final])
	case 28, 29:
		d, killed := h.upTo(10*time.Second), h.once(2)
		return w.programs(h, a, func(t *local) { a.ail(t, d, killed) }, fmt.Sprintf("are unhealthy for %v%s", d, map[bool]string{true: ", and then killed for it"}[killed]))
	}
	image, admits := h.image(), h.placement()
	return w.pick(h, func(s *warrenv1.Service) string {
		s.Spec.Task.Container.Image, s.Spec.Placement = image, admits
		return fmt.Sprintf("image %s%s", image, placementWords(admits))
	})
}

// when gives the words for what was done, if it was.
func when(done bool, words string) string {
	if !done {
		return ""
	}
	return words
}

// some does it to a few nodes at once.
func (w *world) some(h happening, do func(*agent), words string) string {
	var names []string
	for _, a := range w.agents {
		if h.liking(a.facts.GetHostname())%3 == 0 {
			do(a)
			names = append(names, a.facts.GetHostname())
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("nodes %s %s", strings.Join(names, ", "), words)
}

// programs does it to about half of the programs that run on a node.
func (w *world) programs(h happening, a *agent, do func(*local), words string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for _, t := range a.tasks {
		if t.running && h.liking(t.name)%2 == 0 {
			do(t)
			names = append(names, t.name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return fmt.Sprintf("on node %s %s %s", a.facts.GetHostname(), strings.Join(names, ", "), words)
}

// changeLeader has nobody lead for a while.
func (w *world) changeLeader(after time.Duration) string {
	if !w.led() {
		return ""
	}
	w.manager.resign()
	absent := make(chan struct{})
	w.absent = absent
	go func() { // stop waits for it
		time.Sleep(after)
		w.manager.lead()
		close(absent)
	}()
	return fmt.Sprintf("the leading manager is lost, and the next one leads after %v", after)
}

func (w *world) setAvailability(h happening, a *agent) string {
	availability := []warrenv1.NodeAvailability{
		warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE, warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE,
		warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN,
	}[h.IntN(3)]
	words := fmt.Sprintf("node %s is set to %s", a.facts.GetHostname(), short(availability))
	var deadline *timestamppb.Timestamp
	if h.once(3) {
		d := h.upTo(20 * time.Second)
		deadline = timestamppb.New(time.Now().Add(d))
		words += fmt.Sprintf(", deadline %v", d)
	}
	return when(w.edit(a.id, func(n *warrenv1.Node) { n.Spec.Availability, n.Spec.DrainDeadline = availability, deadline }), words)
}

func (w *world) removeNode(a *agent) string {
	n := w.store.Snapshot().Node(a.id)
	if n == nil {
		return ""
	}
	transaction := state.New(time.Now())
	transaction.Delete(n)
	return when(w.propose(transaction), fmt.Sprintf("node %s is removed", a.facts.GetHostname()))
}

// pick changes one service, if there is any.
func (w *world) pick(h happening, edit func(*warrenv1.Service) string) (words string) {
	var services []string
	for s := range w.store.Snapshot().Services() {
		if !s.GetRemoving() {
			services = append(services, s.GetMeta().GetId())
		}
	}
	id := h.favourite(services)
	if id != "" {
		w.change(id, func(s *warrenv1.Service) { words = edit(s) })
	}
	if words == "" {
		return ""
	}
	return fmt.Sprintf("service %s: %s", id, words)
}

func (w *world) scaleService(h happening, s *warrenv1.Service) string {
	random := rand.New(rand.NewPCG(h.taste, 0)) // the same, however often it is tried
	h.Rand = random
	s.Spec.NodeLoss = h.nodeLoss()
	words := nodeLossWords(s.GetSpec().GetNodeLoss())
	if r := s.Spec.GetReplicated(); r != nil {
		r.Replicas = w.replicas(h)
		words = fmt.Sprintf("%d replicas, %s", r.GetReplicas(), words)
	}
	return words
}

// goBack goes back to the revision before as the API would, by an update or by a rollback.
func (w *world) goBack(s *warrenv1.Service, updated bool) string {
	r := w.store.Snapshot().Revision(s.GetMeta().GetId(), s.GetPreviousRevision())
	if r == nil {
		return ""
	}
	s.LastRevision = max(s.GetLastRevision(), s.GetRevision())
	s.Spec.Task, s.Revision, s.PreviousRevision = proto.CloneOf(r.GetTask()), r.GetNumber(), 0
	s.Reverted = !updated
	order(s, func(o *warrenv1.RolloutOrders) { o.Paused = false })
	if updated {
		return fmt.Sprintf("to what revision %d holds", r.GetNumber())
	}
	return fmt.Sprintf("back to revision %d", r.GetNumber())
}

func halt(s *warrenv1.Service, paused bool) string {
	order(s, func(o *warrenv1.RolloutOrders) {
		o.Paused = paused
		if !paused {
			o.Resumes++
		}
	})
	if paused {
		return "its rollout is paused"
	}
	return "its rollout is resumed"
}

// order changes what users have ordered of a service's rollouts.
func order(s *warrenv1.Service, edit func(*warrenv1.RolloutOrders)) {
	if s.Orders == nil {
		s.Orders = &warrenv1.RolloutOrders{By: "ann"}
	}
	edit(s.Orders)
}

// displace marks a task as one that a rebalancing has picked.
func (w *world) displace(h happening) string {
	tasks := map[string]*warrenv1.Task{}
	var names []string
	for t := range w.store.Snapshot().Tasks() {
		if t.GetSlot() > 0 && t.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING {
			name := lifecycle.Name(t, t.GetNodeId())
			tasks[name], names = t, append(names, name)
		}
	}
	chosen := h.favourite(names)
	if chosen == "" {
		return ""
	}
	transaction := state.New(time.Now())
	state.Update(transaction, tasks[chosen], func(t *warrenv1.Task) { t.Displaced = true })
	return when(w.propose(transaction), "task "+chosen+" is to move elsewhere")
}

func (w *world) replicas(h happening) uint32 { return uint32(h.IntN(min(2*len(w.agents), 100))) }

// image draws an image that no other happening has.
func (h happening) image() string {
	kind := []string{
		goodImage, goodImage, goodImage, goodImage + ":nodigest", goodImage + ":moving", goodImage + ":slow", crashImage, badImage, sickImage,
	}[h.IntN(9)]
	return fmt.Sprintf("%s:%d", kind, h.number)
}

// update draws how a service's tasks are replaced.
func (w *world) update(h happening) *warrenv1.UpdatePolicy {
	p := &warrenv1.UpdatePolicy{
		Parallelism:     uint32(h.IntN(5)),
		Delay:           durationpb.New(h.upTo(2 * time.Second)),
		MaxFailureRatio: []float64{0, 0, 0.1, 1}[h.IntN(4)],
		FailureAction:   warrenv1.FailureAction(h.IntN(4)),
		MaxUnavailable:  uint32(h.IntN(4)),
		Strategy:        warrenv1.RolloutStrategy(max(0, h.IntN(6)-2)),
		Keep:            durationpb.New(h.upTo(20 * time.Second)),
		Manual:          h.once(3),
	}
	if h.once(2) {
		p.Monitor = durationpb.New(h.upTo(4 * time.Second))
	}
	if h.once(2) {
		p.ProgressDeadline = durationpb.New(time.Second + h.upTo(30*time.Second))
	}
	for weight := uint32(0); weight < 100 && !h.once(3); {
		weight = min(100, weight+1+uint32(h.IntN(60)))
		p.Canary = append(p.Canary, &warrenv1.CanaryStep{Weight: weight, Hold: durationpb.New(h.upTo(8 * time.Second).Truncate(3 * time.Second))})
	}
	return p
}

func (h happening) placement() *warrenv1.Placement {
	return []*warrenv1.Placement{
		nil, nil, {Constraints: []string{"node.labels.tier != back"}}, {Constraints: []string{"engine.labels.zone == a"}},
		{Spread: []string{"engine.labels.zone"}},
	}[h.IntN(5)]
}

// nodeLoss has tasks of about every third service wait for nodes that are down, with or without an end.
func (h happening) nodeLoss() *warrenv1.NodeLossPolicy {
	if !h.once(3) {
		return nil
	}
	return &warrenv1.NodeLossPolicy{
		Action: warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT, Wait: durationpb.New(h.upTo(20*time.Second) * time.Duration(h.IntN(2))),
	}
}

// ports draws how a service is reached: on ports that others want as well, and on any.
func (h happening) ports() *warrenv1.EndpointSpec {
	e := &warrenv1.EndpointSpec{}
	if h.once(4) {
		e.Mode = warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR
	}
	for _, published := range []uint32{80, 81, 0, 0} {
		if h.once(3) {
			e.Ports = append(e.Ports, &warrenv1.PortSpec{Protocol: warrenv1.Protocol(1 + h.IntN(2)), Target: 8000 + uint32(len(e.GetPorts())), Published: published})
		}
	}
	return e
}

// create makes a service of a random kind.
func (w *world) create(h happening) string {
	edit := func(s *warrenv1.Service) {
		s.Spec.Task.Container.Image = h.image()
		s.Spec.Task.Reservations = &warrenv1.Resources{
			NanoCpus: h.Int64N(4) * 1e8, MemoryBytes: h.Int64N(4) * (64 << 20),
		}
		s.Spec.Placement = h.placement()
		s.Spec.Update = w.update(h)
		s.Spec.Update.Order = warrenv1.UpdateOrder(h.IntN(3))
		s.Spec.NodeLoss = h.nodeLoss()
		s.Spec.Endpoint = h.ports()
		if h.once(6) {
			s.Spec.Task.Network = warrenv1.NetworkMode_NETWORK_MODE_HOST
		}
		if h.once(6) {
			s.Spec.Task.HostPorts = []*warrenv1.PortSpec{{Target: 53, Published: 53, Protocol: warrenv1.Protocol(1 + h.IntN(2))}}
		}
		if h.once(6) { // as many as fill the nodes
			s.Spec.Task.Reservations = &warrenv1.Resources{NanoCpus: 15e8}
		}
	}
	name := fmt.Sprintf("s%d", h.number)
	service := statetest.Replicated(name, w.replicas(h), edit)
	if h.once(4) {
		service = statetest.Global(name, edit)
	}
	return when(w.add(service), fmt.Sprintf("service %s is created: %s", name, specWords(service.GetSpec())))
}

// specWords puts in words what makes services differ here.
func specWords(s *warrenv1.ServiceSpec) string {
	words := "global"
	if r := s.GetReplicated(); r != nil {
		words = fmt.Sprintf("%d replicas", r.GetReplicas())
	}
	words += fmt.Sprintf(", image %s%s, updated %s, %s", s.GetTask().GetContainer().GetImage(), placementWords(s.GetPlacement()), updateWords(s.GetUpdate()), nodeLossWords(s.GetNodeLoss()))
	if r := s.GetTask().GetReservations(); r.GetNanoCpus() > 0 || r.GetMemoryBytes() > 0 {
		words += fmt.Sprintf(", reserves %.1f cpus and %d MiB", float64(r.GetNanoCpus())/1e9, r.GetMemoryBytes()>>20)
	}
	if n := s.GetTask().GetNetwork(); n != 0 {
		words += ", network " + short(n)
	}
	if p := s.GetTask().GetHostPorts(); len(p) > 0 {
		words += ", the node's port " + portWords(p)
	}
	return words + ", " + endpointWords(s.GetEndpoint())
}

func placementWords(p *warrenv1.Placement) string {
	switch {
	case len(p.GetConstraints()) > 0:
		return " where " + strings.Join(p.GetConstraints(), ", ")
	case len(p.GetSpread()) > 0:
		return " spread over " + strings.Join(p.GetSpread(), ", ")
	}
	return ""
}

func nodeLossWords(p *warrenv1.NodeLossPolicy) string {
	switch {
	case p == nil:
		return "replaced when a node is lost"
	case p.GetWait().AsDuration() == 0:
		return "waits for lost nodes"
	}
	return fmt.Sprintf("waits %v for lost nodes", p.GetWait().AsDuration())
}

func endpointWords(e *warrenv1.EndpointSpec) string {
	words := "publishes " + portWords(e.GetPorts())
	if len(e.GetPorts()) == 0 {
		words = "publishes nothing"
	}
	if e.GetMode() == warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR {
		words += " (dnsrr)"
	}
	return words
}

func portWords(ports []*warrenv1.PortSpec) string {
	var words []string
	for _, p := range ports {
		words = append(words, fmt.Sprintf("%d:%d/%s", p.GetPublished(), p.GetTarget(), short(p.GetProtocol())))
	}
	return strings.Join(words, ", ")
}

func updateWords(p *warrenv1.UpdatePolicy) string {
	words := []string{fmt.Sprintf("%d at a time", max(1, p.GetParallelism()))}
	add := func(so bool, format string, args ...any) {
		if so {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(p.GetOrder() != 0, "%s", short(p.GetOrder()))
	add(p.GetStrategy() != 0, "%s", short(p.GetStrategy()))
	for _, step := range p.GetCanary() {
		add(p.GetStrategy() == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_CANARY, "%d%% for %v", step.GetWeight(), step.GetHold().AsDuration())
	}
	add(p.GetManual(), "by hand")
	add(p.GetDelay().AsDuration() > 0, "delay %v", p.GetDelay().AsDuration())
	add(p.GetMonitor() != nil, "monitor %v", p.GetMonitor().AsDuration())
	add(p.GetProgressDeadline() != nil, "deadline %v", p.GetProgressDeadline().AsDuration())
	add(p.GetMaxFailureRatio() > 0, "%v may fail", p.GetMaxFailureRatio())
	add(p.GetFailureAction() != 0, "%s", short(p.GetFailureAction()))
	add(p.GetMaxUnavailable() > 0, "%d may be missing", p.GetMaxUnavailable())
	add(p.GetStrategy() == warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_BLUE_GREEN, "kept for %v", p.GetKeep().AsDuration())
	return "(" + strings.Join(words, ", ") + ")"
}

// short makes "drain" of NODE_AVAILABILITY_DRAIN.
func short(enum fmt.Stringer) string {
	name := enum.String()
	for _, prefix := range []string{"NODE_AVAILABILITY_", "NETWORK_MODE_", "PROTOCOL_", "UPDATE_ORDER_", "ROLLOUT_STRATEGY_", "FAILURE_ACTION_"} {
		name = strings.TrimPrefix(name, prefix)
	}
	return strings.ToLower(strings.ReplaceAll(name, "_", "-"))
}

// orderOf is the order that is in force, spelt out.
func orderOf(s *warrenv1.Service) warrenv1.UpdateOrder {
	if slot.StopFirst(s) {
		return warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST
	}
	return warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST
}
