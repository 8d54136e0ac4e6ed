package planning

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/scheduler"
	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Moves is what balances a service.
type Moves struct {
	// Tasks are to be moved.
	Tasks []*warrenv1.Task
	// Moving counts the tasks that are being moved already, or will be for another reason.
	Moving int
}

// Rebalance finds the tasks of a replicated service that are to be moved, as few as it takes, so that its tasks are spread
// as its placement prefers and otherwise over nodes, within one. A task is moved only to where the scheduler would put its
// replacement, and only where that makes a difference: from where there are at least two more.
// At most limit tasks are found: what is left another call finds.
func Rebalance(s state.Snapshot, service *warrenv1.Service, now time.Time, limit int) Moves {
	b := &balance{
		judge: newJudge(s, service), snapshot: s, service: service, trial: scheduler.NewTrial(s, now),
		stopFirst: slot.StopFirst(service), counts: map[string]int{}, movable: map[string][]*warrenv1.Task{},
		places: map[string][]string{},
	}
	if b.rules == nil {
		return Moves{}
	}
	b.survey()
	for len(b.moves.Tasks) < limit {
		task := b.next()
		if task == nil {
			break
		}
		b.moves.Tasks = append(b.moves.Tasks, task)
	}
	return b.moves
}

// balance is where a service's tasks are, and where they are to go.
type balance struct {
	judge
	snapshot  state.Snapshot
	service   *warrenv1.Service
	trial     *scheduler.Trial
	stopFirst bool
	// counts is how many tasks will be on each node, and in each region: nodes that share the values of the first few
	// spread preferences.
	counts map[string]int
	places map[string][]string
	// movable are the tasks that may be moved, by node, the newest last.
	movable map[string][]*warrenv1.Task
	moves   Moves
}

// survey counts the tasks where they are, and those that are on their way where they go.
func (b *balance) survey() {
	var moving []slot.Slot
	for _, s := range slot.Of(b.snapshot, b.service.GetMeta().GetId()) {
		if !s.Fits(b.service) {
			continue
		}
		on := placed(&s)
		stays := slices.IndexFunc(on, func(t *warrenv1.Task) bool { return !b.due(t) })
		switch {
		case stays >= 0:
			t := on[stays]
			b.count(t.GetNodeId(), 1)
			if len(s.Live) == 1 && b.snapshot.Node(t.GetNodeId()).GetStatus().GetState() == warrenv1.NodeState_NODE_STATE_READY {
				b.movable[t.GetNodeId()] = append(b.movable[t.GetNodeId()], t)
			}
			if len(on) > 1 {
				b.moves.Moving++
			}
		case len(on) > 0:
			b.moves.Moving++
			if len(on) == len(s.Live) { // else its replacement is made already, and waits
				moving = append(moving, s)
			}
		}
	}
	for _, s := range moving {
		if b.stopFirst {
			b.take(s.Live[0])
		}
		if node, _ := b.trial.Place(b.service, b.service.GetRevision(), s.Key); node != "" {
			b.count(node, 1)
		}
	}
	for _, tasks := range b.movable {
		slices.SortFunc(tasks, func(x, y *warrenv1.Task) int {
			return cmp.Or(x.GetMeta().GetCreatedAt().AsTime().Compare(y.GetMeta().GetCreatedAt().AsTime()),
				strings.Compare(x.GetMeta().GetId(), y.GetMeta().GetId()))
		})
	}
}

func (b *balance) take(t *warrenv1.Task) {
	b.trial.Retire(t)
	b.trial.Remove(t)
}

// count counts tasks on a node and in all its regions.
func (b *balance) count(node string, n int) {
	for _, place := range b.placesOf(node) {
		b.counts[place] += n
	}
}

// placesOf names a node's regions, the widest first, and last the node.
func (b *balance) placesOf(node string) []string {
	if places, known := b.places[node]; known {
		return places
	}
	n := b.snapshot.Node(node)
	var places []string
	var region strings.Builder
	for _, p := range b.rules.Spread() {
		region.WriteString("\x00" + valueOf(p, n))
		places = append(places, region.String())
	}
	b.places[node] = append(places, node)
	return b.places[node]
}

// valueOf is a node's value of a preference; a node that is gone shares that of nodes without the label.
func valueOf(p placement.Preference, n *warrenv1.Node) string {
	if n == nil {
		return ""
	}
	return p.Of(n)
}

// next finds one more task whose move makes a difference, and takes it as moved; nil where there is none. It tries each node in
// turn, since what its task leaves behind may be what another needs.
func (b *balance) next() *warrenv1.Task {
	for _, from := range b.fullest() {
		task := b.movable[from][len(b.movable[from])-1]
		key := slot.KeyOf(task)
		if b.stopFirst {
			b.take(task)
		}
		to, _ := b.trial.Place(b.service, b.service.GetRevision(), key)
		if to != "" && b.better(from, to) {
			return b.move(from, to)
		}
		if to != "" {
			b.trial.Undo(b.service, b.service.GetRevision(), key, to)
		}
		if b.stopFirst {
			b.trial.Restore(task)
		}
	}
	return nil
}

// fullest returns the nodes with tasks to move: those of the fullest regions first, in these the fullest nodes.
func (b *balance) fullest() []string {
	nodes := make([]string, 0, len(b.movable))
	for node, tasks := range b.movable {
		if len(tasks) > 0 {
			nodes = append(nodes, node)
		}
	}
	slices.SortFunc(nodes, b.compare)
	return nodes
}

// compare puts the fuller of two nodes first.
func (b *balance) compare(x, y string) int {
	px, py := b.placesOf(x), b.placesOf(y)
	for i := range px {
		if c := cmp.Or(cmp.Compare(b.counts[py[i]], b.counts[px[i]]), strings.Compare(px[i], py[i])); c != 0 {
			return c
		}
	}
	return 0
}

// better tells whether a task is better off on another node: where the two nodes part, there are at least two fewer.
func (b *balance) better(from, to string) bool {
	there := b.placesOf(to)
	for i, here := range b.placesOf(from) {
		if here != there[i] {
			return b.counts[here]-b.counts[there[i]] >= 2
		}
	}
	return false
}

// move takes the newest task of a node as moved to another, where the trial has it already.
func (b *balance) move(from, to string) *warrenv1.Task {
	tasks := b.movable[from]
	task := tasks[len(tasks)-1]
	b.movable[from] = tasks[:len(tasks)-1]
	b.count(from, -1)
	b.count(to, 1)
	return task
}
