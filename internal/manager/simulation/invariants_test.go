package simulation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/addressing"
	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/progress"
	"github.com/cuemby/warren/internal/manager/rollout/policy"
	"github.com/cuemby/warren/internal/manager/rollout/shares"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// The rules, by the numbers of what must always hold (DESIGN, section 9; docs/task-model.md has them in detail). That nothing acknowledged is lost is
// the matter of TestUsersSeeOneManagerThatNeverFails, and bad input that of the API's tests.
const (
	ruleSlot      = "2: one task in a slot, or two while an update starts the new one first"
	ruleMonotone  = "3: a task only moves on"
	ruleCapacity  = "4: no more is reserved on a node than it has"
	ruleHeld      = "5: no address, subnet or port is held by two"
	ruleConverges = "6: when faults stop, the cluster comes to be as its services say, and says so"
	ruleRests     = "6: a cluster that has converged writes nothing"
	ruleRemoved   = "8: removing a thing removes all of it"
	ruleStrength  = "a service keeps its strength while it is changed"
	ruleHarm      = "a bad revision takes no more slots than may fail"
	ruleRevisions = "what a rollout leads to and may go back to is kept"
)

// breach is a rule that was broken.
type breach struct {
	rule    string
	service string // with which something is wrong; empty where it is none
	err     error
	after   time.Duration
	account string
}

func (b *breach) String() string {
	return fmt.Sprintf("after %v the rule was broken that says %q: %v", b.after.Round(time.Millisecond), b.rule, b.err)
}

// checkCommit checks what must hold after every commit, given what it changed.
func checkCommit(s state.Snapshot, changes []state.Change) *breach {
	nodes, services, held := map[string]bool{}, map[string]bool{}, false
	for _, c := range changes {
		switch after := c.After.(type) {
		case *warrenv1.Service:
			if err := checkRollout(s, after); err != nil {
				return &breach{rule: ruleRevisions, service: after.GetMeta().GetId(), err: err}
			}
			before, _ := c.Before.(*warrenv1.Service)
			held = held || !proto.Equal(before.GetEndpoint(), after.GetEndpoint())
		case *warrenv1.Node:
			before, _ := c.Before.(*warrenv1.Node)
			held = held || !proto.Equal(before.GetNetwork(), after.GetNetwork())
		case *warrenv1.Task:
			before, _ := c.Before.(*warrenv1.Task)
			if b := checkTask(s, before, after); b != nil {
				b.service, b.err = after.GetServiceId(), fmt.Errorf("task %s of slot %s: %w", after.GetMeta().GetId(), lifecycle.Name(after, after.GetNodeId()), b.err)
				return b
			}
			if before == nil {
				services[after.GetServiceId()] = true
			}
			nodes[after.GetNodeId()] = true
		}
	}
	for id := range services {
		if err := checkHarm(s, s.Service(id)); err != nil {
			return &breach{rule: ruleHarm, service: id, err: err}
		}
	}
	for id := range nodes {
		if err := checkCapacity(s, id); err != nil {
			return &breach{rule: ruleCapacity, err: fmt.Errorf("node %s: %w", id, err)}
		}
	}
	if held {
		if err := checkHeld(s); err != nil {
			return &breach{rule: ruleHeld, err: err}
		}
	}
	return nil
}

// checkTask checks one task that was made or changed.
func checkTask(s state.Snapshot, before, after *warrenv1.Task) *breach {
	if before != nil {
		if err := checkStep(before, after); err != nil {
			return &breach{rule: ruleMonotone, err: err}
		}
		if err := checkStrength(s, before, after); err != nil {
			return &breach{rule: ruleStrength, err: err}
		}
	}
	if err := checkSlot(s, after); err != nil {
		return &breach{rule: ruleSlot, err: err}
	}
	if before.GetStatus().GetAddress() != after.GetStatus().GetAddress() {
		if err := checkAddress(s, after); err != nil {
			return &breach{rule: ruleHeld, err: err}
		}
	}
	return nil
}

// checkRollout: what a rollout leads to and may go back to is kept, and the current revision holds the current template.
func checkRollout(s state.Snapshot, service *warrenv1.Service) error {
	if service.GetRemoving() {
		return nil
	}
	id, r := service.GetMeta().GetId(), service.GetRollout()
	current := s.Revision(id, service.GetRevision())
	switch {
	case current == nil:
		return fmt.Errorf("revision %d, its current one, is gone", service.GetRevision())
	case !proto.Equal(current.GetTask(), service.GetSpec().GetTask()):
		return fmt.Errorf("revision %d is not what the service says", service.GetRevision())
	case policy.Underway(r) && (s.Revision(id, r.GetFrom()) == nil || s.Revision(id, r.GetTo()) == nil):
		return fmt.Errorf("a revision of its rollout from %d to %d is gone", r.GetFrom(), r.GetTo())
	}
	return nil
}

// checkStrength: where the new task is started first, one that serves is stopped only when another in its slot does, unless its node
// had to be empty by now; and one that is sent connections only when another in its slot is. Nothing of this is about slots that are given up.
func checkStrength(s state.Snapshot, before, after *warrenv1.Task) error {
	service, n := s.Service(after.GetServiceId()), s.Node(after.GetNodeId())
	if !lifecycle.Wanted(before) || !slot.Serving(before) || after.GetDesired() != warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN || lifecycle.Ended(after.GetStatus().GetState()) {
		return nil
	}
	deadline := n.GetSpec().GetDrainDeadline()
	if service.GetSpec().GetGlobal() != nil || slot.StopFirst(service) || deadline != nil && !deadline.AsTime().After(time.Now()) {
		return nil
	}
	of := slot.At(s, after.GetServiceId(), slot.KeyOf(after))
	if len(of.Live) == 0 || !slot.Serving(of.Live[0]) {
		return fmt.Errorf("a serving task of revision %d was stopped and no other serves", after.GetRevision())
	}
	sent := sentConnections(s, service, after)
	if sent(after.GetRevision()) && !slices.ContainsFunc(of.Live, func(t *warrenv1.Task) bool { return slot.Serving(t) && sent(t.GetRevision()) }) {
		return fmt.Errorf("a task of revision %d that is sent connections was stopped and no other in its slot is sent any", after.GetRevision())
	}
	return nil
}

// sentConnections tells of which of a service's revisions serving tasks are sent connections, the one that is being stopped counted in. As nodes
// have it: revisions with a share; where none of these serves those whose share is 0; and any other only where none of all these does.
func sentConnections(s state.Snapshot, service *warrenv1.Service, stopped *warrenv1.Task) func(revision uint64) bool {
	parts := shares.Of(service)
	if parts == nil {
		return func(uint64) bool { return true }
	}
	rank := func(revision uint64) int {
		for _, p := range parts {
			switch {
			case p.GetRevision() != revision:
			case p.GetPercent() > 0:
				return 0
			default:
				return 1
			}
		}
		return 2
	}
	best := rank(stopped.GetRevision())
	for t := range s.TasksByService(service.GetMeta().GetId()) {
		if lifecycle.Wanted(t) && slot.Serving(t) {
			best = min(best, rank(t.GetRevision()))
		}
	}
	return func(revision uint64) bool { return rank(revision) == best }
}

// checkHarm: a bad revision takes no more slots beside tasks that do well than the first batch, and as many as may fail. Slots whose old task
// has to leave its node are not counted: where the first batch was found good they are updated as they move.
func checkHarm(s state.Snapshot, service *warrenv1.Service) error {
	p := policy.Of(service)
	r := service.GetRollout()
	if service == nil || p.StopFirst || p.Strategy != warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING || p.Action == warrenv1.FailureAction_FAILURE_ACTION_CONTINUE ||
		r.GetRollback() || !policy.Underway(r) || r.GetTo() != service.GetRevision() || service.GetSpec().GetLabels()["changed"] != "" ||
		p.Monitor < sickWithin || strings.HasPrefix(service.GetSpec().GetTask().GetContainer().GetImage(), goodImage) {
		return nil
	}
	slots, taken := 0, 0
	for _, of := range slot.Of(s, service.GetMeta().GetId()) {
		if of.InUse() {
			slots++
		}
		revisions := map[bool]bool{}
		for _, t := range of.Live {
			if old := t.GetRevision() != r.GetTo(); !old || !moves(s, t) {
				revisions[old] = true
			}
		}
		if len(revisions) == 2 {
			taken++
		}
	}
	if allowed := p.Parallelism + int(p.MaxFailureRatio*float64(slots)); taken > allowed {
		return fmt.Errorf("the bad revision %d has come to %d slots where %d are allowed", r.GetTo(), taken, allowed)
	}
	return nil
}

// moves tells whether a task has to leave its node, whatever its revision.
func moves(s state.Snapshot, t *warrenv1.Task) bool {
	return t.GetDisplaced() || s.Node(t.GetNodeId()).GetSpec().GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
}

// checkStep: a task only ever moves on, what is wanted of it only down, and it is never moved.
func checkStep(before, after *warrenv1.Task) error {
	b, a := before.GetStatus(), after.GetStatus()
	switch {
	case lifecycle.Compare(a, b) < 0:
		return fmt.Errorf("went back from attempt %d %v to attempt %d %v", b.GetAttempt(), b.GetState(), a.GetAttempt(), a.GetState())
	case lifecycle.Ended(b.GetState()) && a.GetState() != b.GetState():
		return fmt.Errorf("had ended as %v and became %v", b.GetState(), a.GetState())
	case after.GetDesired() < before.GetDesired():
		return fmt.Errorf("was wanted %v and is now wanted %v", before.GetDesired(), after.GetDesired())
	case before.GetNodeId() != "" && after.GetNodeId() != before.GetNodeId():
		return fmt.Errorf("was moved from %s to %s", before.GetNodeId(), after.GetNodeId())
	}
	return nil
}

// checkSlot: two tasks of one slot may run at once only where an update starts the new one first, and
// never more than two are wanted, or two of each revision where two revisions are kept side by side.
func checkSlot(s state.Snapshot, t *warrenv1.Task) error {
	service := s.Service(t.GetServiceId())
	if service == nil {
		return fmt.Errorf("the service is gone")
	}
	of := slot.At(s, t.GetServiceId(), slot.KeyOf(t))
	wanted := 2
	if service.GetSpec().GetUpdate().GetStrategy() > warrenv1.RolloutStrategy_ROLLOUT_STRATEGY_ROLLING || service.GetSpec().GetLabels()["changed"] != "" {
		wanted = 4 // of each of two revisions
	}
	if len(of.Live) > wanted {
		return fmt.Errorf("%d tasks are wanted", len(of.Live))
	}
	placed := 0
	for _, t := range append(of.Live, of.Ending...) {
		if !slot.Unassigned(t) {
			placed++
		}
	}
	if slot.StopFirst(service) && placed > 1 {
		return fmt.Errorf("%d tasks may run although the old one is to be stopped first", placed)
	}
	return nil
}

// checkCapacity: what is reserved on a node is not more than it has, and none of its ports is taken twice.
func checkCapacity(s state.Snapshot, nodeID string) error {
	var cpus, memory int64
	ports := map[string]string{}
	for t := range s.TasksByNode(nodeID) {
		if slot.Unassigned(t) || lifecycle.Ended(t.GetStatus().GetState()) {
			continue
		}
		revision := s.Revision(t.GetServiceId(), t.GetRevision())
		if revision == nil {
			return fmt.Errorf("revision %d of task %s is gone", t.GetRevision(), t.GetMeta().GetId())
		}
		cpus += revision.GetTask().GetReservations().GetNanoCpus()
		memory += revision.GetTask().GetReservations().GetMemoryBytes()
		for _, p := range revision.GetTask().GetHostPorts() {
			if err := hold(ports, portName(p.GetPublished(), p.GetProtocol()), t.GetMeta().GetId()); err != nil {
				return err
			}
		}
	}
	if n := s.Node(nodeID); n != nil && (cpus > n.GetFacts().GetResources().GetNanoCpus() || memory > n.GetFacts().GetResources().GetMemoryBytes()) {
		return fmt.Errorf("%d cpus and %d bytes are reserved of %v", cpus, memory, n.GetFacts().GetResources())
	}
	return nil
}

// checkHeld: no subnet, virtual address or published port is held by two.
func checkHeld(s state.Snapshot) error {
	holders := map[string]string{}
	for n := range s.Nodes() {
		if subnet := n.GetNetwork().GetSubnet(); subnet != "" {
			if err := hold(holders, subnet, n.GetMeta().GetId()); err != nil {
				return err
			}
		}
	}
	for service := range s.Services() {
		e := service.GetEndpoint()
		if e.GetVip() != "" {
			if err := hold(holders, e.GetVip(), service.GetMeta().GetId()); err != nil {
				return err
			}
		}
		for _, p := range e.GetPorts() {
			if err := hold(holders, portName(p.GetPublished(), p.GetProtocol()), service.GetMeta().GetId()); err != nil {
				return err
			}
		}
	}
	return nil
}

func portName(number uint32, protocol warrenv1.Protocol) string {
	if protocol == warrenv1.Protocol_PROTOCOL_UDP {
		return fmt.Sprintf("port %d/udp", number)
	}
	return fmt.Sprintf("port %d/tcp", number)
}

func hold(holders map[string]string, what, who string) error {
	if other, ok := holders[what]; ok {
		return fmt.Errorf("%s is held by %s and by %s", what, other, who)
	}
	holders[what] = who
	return nil
}

// checkAddress: no task that has not ended has the address of another.
func checkAddress(s state.Snapshot, t *warrenv1.Task) error {
	address := t.GetStatus().GetAddress()
	if address == "" || lifecycle.Ended(t.GetStatus().GetState()) {
		return nil
	}
	for other := range s.Tasks() {
		if other.GetMeta().GetId() != t.GetMeta().GetId() && other.GetStatus().GetAddress() == address && !lifecycle.Ended(other.GetStatus().GetState()) {
			return fmt.Errorf("%s is held by task %s as well", address, other.GetMeta().GetId())
		}
	}
	return nil
}

// converged tells why the cluster is not yet as its services say.
func converged(s state.Snapshot) error {
	for service := range s.Services() {
		if err := settled(s, service); err != nil {
			return fmt.Errorf("service %s: %w", service.GetSpec().GetName(), err)
		}
	}
	for t := range s.Tasks() {
		if s.Service(t.GetServiceId()) == nil {
			return fmt.Errorf("task %s outlived its service", t.GetMeta().GetId())
		}
	}
	return nil
}

func settled(s state.Snapshot, service *warrenv1.Service) error {
	if service.GetRemoving() {
		return fmt.Errorf("is still being removed")
	}
	want := int(service.GetSpec().GetReplicated().GetReplicas())
	if service.GetSpec().GetGlobal() != nil {
		want = 0
		for n := range s.Nodes() {
			if placement.Open(n) && placement.Admits(service.GetSpec().GetPlacement(), n) {
				want++
			}
		}
	}
	if r := service.GetRollout(); cmp.Or(r.GetTo(), 1) != service.GetRevision() || r != nil && (r.GetState() != warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE || r.GetKeepUntil() != nil) {
		return fmt.Errorf("its rollout to revision %d of %d is %v: %s", r.GetTo(), service.GetRevision(), r.GetState(), r.GetMessage())
	}
	have, pinned := 0, s.Revision(service.GetMeta().GetId(), service.GetRevision()).GetImageDigest()
	for _, of := range slot.Of(s, service.GetMeta().GetId()) {
		switch {
		case len(of.Live) > 1:
			return fmt.Errorf("%d tasks are wanted in slot %v", len(of.Live), of.Key)
		case len(of.Ending) > 0 || len(of.Spent) > 0:
			return fmt.Errorf("tasks of slot %v are still to go", of.Key)
		case len(of.Live) == 0:
			continue
		}
		t := of.Live[0]
		n := s.Node(t.GetNodeId())
		switch {
		case !slot.Serving(t) || t.GetRevision() != service.GetRevision():
			return fmt.Errorf("the task in slot %v is %v, serving %v, at revision %d of %d: %s", of.Key, t.GetStatus().GetState(), t.GetStatus().GetServing(), t.GetRevision(), service.GetRevision(), t.GetStatus().GetMessage())
		case pinned != "" && t.GetStatus().GetImageDigest() != pinned && t.GetStatus().GetImageDigest() != "":
			return fmt.Errorf("the task in slot %v runs image %s where revision %d stands for %s", of.Key, t.GetStatus().GetImageDigest(), t.GetRevision(), pinned)
		case n == nil || !placement.Open(n) || !placement.Admits(service.GetSpec().GetPlacement(), n):
			return fmt.Errorf("the task in slot %v is on node %s, where it may not be", of.Key, t.GetNodeId())
		}
		have++
	}
	if have != want {
		return fmt.Errorf("has %d tasks of %d", have, want)
	}
	if p := progress.Summary(s, service); !p.GetConverged() {
		return fmt.Errorf("is as it should be and does not say so: %v", p)
	}
	return checkEndpoint(service)
}

// checkEndpoint: a service has what it is to be reached by, or says why not.
func checkEndpoint(service *warrenv1.Service) error {
	wanted, has := service.GetSpec().GetEndpoint(), service.GetEndpoint()
	switch {
	case !addressing.OnOverlay(service.GetSpec().GetTask()):
		if has != nil {
			return fmt.Errorf("has an endpoint without being on the overlay: %v", has)
		}
	case len(has.GetProblems()) > 0:
	case (has.GetVip() == "") != (wanted.GetMode() == warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR) || len(has.GetPorts()) != len(wanted.GetPorts()):
		return fmt.Errorf("has %v where it wants %v, and does not say why", has, wanted)
	}
	return nil
}
