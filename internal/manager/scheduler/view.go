package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// view is what the scheduler knows: of every node what its tasks have reserved, of every service
// where its tasks are, and the tasks that wait for a node. It is fed by changes.
//
// Its law: after a change is observed, the view is the one that load would make of the state after
// that change, but for failures whose tasks are no longer kept, and for claims: what the scheduler has
// placed counts at once, before the placement is written and observed.
type view struct {
	nodes    map[string]*node
	services map[string]*service
	order    *order // nil when nodes have come or gone since it was made
	// terrains are the nodes by what services are spread over, for each such list of preferences; nil
	// when nodes or labels have come or gone.
	terrains map[string]*terrain
	claims   map[string]claim

	// queued are the groups with tasks to place, blocked those whose tasks fit nowhere; both in the
	// order in which they became so. A group is in at most one of them.
	queued, blocked []*group
	// better are the nodes that may take what they did not take before: what is blocked is tried on
	// these alone.
	better set[*node]
	// pinned are the nodes that have something to decide about the tasks bound to them.
	pinned set[*node]
	// changes counts what may change the reasons of the blocked.
	changes uint64

	// placed and told are the current decision.
	placed []choice
	told   []remark
}

// choice is a task and the node chosen for it.
type choice struct {
	task *warrenv1.Task
	node *node
	// but says why another node would have been better; mostly empty.
	but string
}

// remark is a task and why it waits.
type remark struct {
	task *warrenv1.Task
	text string
}

// node is a machine and what is on it. It outlives the stored node for as long as tasks are on it.
type node struct {
	id     string
	object *warrenv1.Node // nil where there is none of that id
	open   bool
	// capacity less reserved is free; reserved counts every task placed here that has not ended,
	// whatever is wanted of it.
	capacity, reserved amount
	tasks              int
	// ports counts the tasks that have each of the node's ports, of those that reserved counts.
	ports map[port]int
	// offOverlay is why tasks on the overlay cannot come here; fits where they can.
	offOverlay verdict
	rank       int // its place in the view's order, while that stands
	// waiting are the pending tasks that may go here and nowhere else.
	waiting map[string]*warrenv1.Task
}

// amount is so much of what a node has and a task reserves.
type amount struct {
	cpus   int64 // billionths
	memory int64 // bytes
}

// port is a port of a node's own that leads to one task at a time.
type port struct {
	number uint32
	udp    bool
}

// service is what concerns all tasks of a service.
type service struct {
	id     string
	object *warrenv1.Service // nil where there is none of that id
	rules  *placement.Rules  // nil where they cannot be read
	broken error             // why
	// wanted counts the tasks on each node that have not ended and are wanted, of each numbered slot the newest alone.
	wanted   map[*node]int
	slots    slots
	troubles map[string]trouble // by node id; nil for none
	groups   map[uint64]*group  // by revision
}

// group is the tasks of one service and revision: equal to the scheduler but for their names.
type group struct {
	service  *service
	revision uint64
	need     amount
	ports    []port // of its node's, that each task takes; none twice
	overlay  bool   // its tasks have addresses on the overlay
	template bool   // the revision is there
	// tasks counts those that have not ended, wherever they are; present those on each node.
	tasks   int
	present map[*node]int
	// pending are the tasks that wait for any node; queue has their ids in the order in which they
	// came, and some that wait no more.
	pending map[string]*warrenv1.Task
	queue   []string
	// bound are the tasks that wait for a node that was chosen before.
	bound map[string]*warrenv1.Task

	queued, blocked bool
	reason          reason
}

// reason is why a blocked group's tasks wait.
type reason struct {
	text string
	// of is the count of changes it takes into account, at when it was found.
	of uint64
	at time.Time
	// untold: not all tasks may bear the text yet.
	untold bool
}

// claim is a placement that has been decided and not yet observed.
type claim struct {
	group *group
	node  *node
	task  *warrenv1.Task
}

func newView() *view {
	return &view{
		nodes:    map[string]*node{},
		services: map[string]*service{},
		claims:   map[string]claim{},
		better:   set[*node]{},
		pinned:   set[*node]{},
	}
}

// load fills an empty view.
func (v *view) load(s state.Snapshot) {
	for n := range s.Nodes() {
		v.setNode(nil, n)
	}
	for o := range s.Services() {
		v.setService(o)
	}
	tasks := slices.Collect(s.Tasks())
	slices.SortFunc(tasks, byAge)
	for _, t := range tasks {
		v.setTask(s, nil, t)
	}
}

// byAge orders tasks by their last write, which for one that waits is mostly its first.
func byAge(a, b *warrenv1.Task) int {
	return cmp.Or(
		cmp.Compare(a.GetMeta().GetVersion(), b.GetMeta().GetVersion()),
		cmp.Compare(a.GetMeta().GetId(), b.GetMeta().GetId()),
	)
}

// observe takes a change in; s is the state after it or later.
func (v *view) observe(s state.Snapshot, c state.Change) {
	switch o := cmp.Or(c.After, c.Before).(type) {
	case *warrenv1.Node:
		before, _ := c.Before.(*warrenv1.Node)
		after, _ := c.After.(*warrenv1.Node)
		v.setNode(before, after)
	case *warrenv1.Service:
		if c.After != nil {
			v.setService(o)
		} else {
			v.dropService(o.GetMeta().GetId())
		}
	case *warrenv1.Task:
		before, _ := c.Before.(*warrenv1.Task)
		after, _ := c.After.(*warrenv1.Task)
		if !v.confirm(after) {
			v.unclaim(o.GetMeta().GetId())
			v.setTask(s, before, after)
		}
	}
}

// amountOf returns what of r the scheduler counts.
func amountOf(r *warrenv1.Resources) amount {
	return amount{cpus: r.GetNanoCpus(), memory: r.GetMemoryBytes()}
}

// portsOf returns the ports of their node that tasks of that template take. What is published on whichever
// port is free is not among them.
func portsOf(t *warrenv1.TaskSpec) (ports []port) {
	for _, p := range t.GetHostPorts() {
		taken := port{number: p.GetPublished(), udp: p.GetProtocol() == warrenv1.Protocol_PROTOCOL_UDP}
		if taken.number > 0 && !slices.Contains(ports, taken) {
			ports = append(ports, taken)
		}
	}
	return ports
}

// onOverlay tells whether tasks of that template have addresses on the overlay.
func onOverlay(t *warrenv1.TaskSpec) bool {
	switch t.GetNetwork() {
	case warrenv1.NetworkMode_NETWORK_MODE_UNSPECIFIED, warrenv1.NetworkMode_NETWORK_MODE_OVERLAY:
		return true
	}
	return false
}

// set is a set that is emptied with clear.
type set[T comparable] map[T]struct{}

func (s set[T]) add(x T)    { s[x] = struct{}{} }
func (s set[T]) remove(x T) { delete(s, x) }
