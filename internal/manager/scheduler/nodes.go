package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/cuemby/warren/internal/manager/placement"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// setNode replaces what the view holds of a node; before or after is nil where there is none.
func (v *view) setNode(before, after *warrenv1.Node) {
	n := v.node(cmp.Or(after, before).GetMeta().GetId())
	n.object, n.open = after, after != nil && placement.Open(after)
	n.capacity, n.offOverlay = amountOf(after.GetFacts().GetResources()), offOverlay(after)
	if before == nil || after == nil {
		v.order, v.terrains = nil, nil
	} else if !maps.Equal(before.GetSpec().GetLabels(), after.GetSpec().GetLabels()) ||
		!maps.Equal(before.GetFacts().GetEngineLabels(), after.GetFacts().GetEngineLabels()) {
		v.terrains = nil
	}
	v.moved(n)
	v.improved(n)
	v.releaseNode(n)
}

// node returns the node of that id, and makes one up where there is none yet.
func (v *view) node(id string) *node {
	n := v.nodes[id]
	if n == nil {
		n = &node{id: id, waiting: map[string]*warrenv1.Task{}}
		v.nodes[id] = n
	}
	return n
}

// releaseNode forgets a node that is gone and has no tasks.
func (v *view) releaseNode(n *node) {
	if n.object == nil && n.tasks == 0 && len(n.waiting) == 0 {
		delete(v.nodes, n.id)
		v.better.remove(n)
		v.pinned.remove(n)
	}
}

// moved puts n, which has changed, at its place in the orders.
func (v *view) moved(n *node) {
	v.changes++
	if v.order == nil || n.object == nil {
		return
	}
	key := n.key()
	v.order.set(n.rank, key)
	for _, t := range v.terrains {
		t.leaves[n.rank].order.set(t.places[n.rank], key)
	}
}

// improved notes that n may take what it did not take before.
func (v *view) improved(n *node) {
	v.better.add(n)
	if len(n.waiting) > 0 {
		v.pinned.add(n)
	}
}

// inOrder returns the order, which is made anew when nodes have come or gone.
func (v *view) inOrder() *order {
	if v.order == nil {
		nodes := make([]*node, 0, len(v.nodes))
		for _, n := range v.nodes {
			if n.object != nil {
				nodes = append(nodes, n)
			}
		}
		slices.SortFunc(nodes, byID)
		for i, n := range nodes {
			n.rank = i
		}
		v.order = newOrder(nodes)
	}
	return v.order
}

func byID(a, b *node) int { return strings.Compare(a.id, b.id) }

// sorted returns the nodes of a set by id.
func sorted(nodes set[*node]) []*node { return slices.SortedFunc(maps.Keys(nodes), byID) }

// key is n's place in the order: fewest tasks first, then the least share of it in use.
func (n *node) key() uint64 {
	if !n.open {
		return closed
	}
	return uint64(min(n.tasks, 1<<30))<<32 | uint64(n.load())
}

// load is the share of n's processors or of its memory that is reserved, whichever is more, in units of
// 2^-20.
func (n *node) load() uint32 {
	return max(share(n.reserved.cpus, n.capacity.cpus), share(n.reserved.memory, n.capacity.memory))
}

func share(part, whole int64) uint32 {
	switch {
	case part <= 0:
		return 0
	case part >= whole:
		return 1 << 20
	}
	return uint32(float64(part) / float64(whole) * (1 << 20))
}

// occupy counts a task of g onto n.
func (v *view) occupy(g *group, n *node, t *warrenv1.Task) {
	n.reserved.cpus += g.need.cpus
	n.reserved.memory += g.need.memory
	for _, p := range g.ports {
		if n.ports == nil {
			n.ports = map[port]int{}
		}
		n.ports[p]++
	}
	n.tasks++
	g.present[n]++
	g.service.enter(t, n)
	v.moved(n)
}

// vacate takes back what occupy has counted.
func (v *view) vacate(g *group, n *node, t *warrenv1.Task) {
	n.reserved.cpus -= g.need.cpus
	n.reserved.memory -= g.need.memory
	for _, p := range g.ports {
		countDown(n.ports, p)
	}
	n.tasks--
	countDown(g.present, n)
	g.service.exit(t, n)
	v.moved(n)
	v.improved(n)
	v.releaseNode(n)
}

func countDown[K comparable](counts map[K]int, k K) {
	if counts[k]--; counts[k] == 0 {
		delete(counts, k)
	}
}
