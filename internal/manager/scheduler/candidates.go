package scheduler

import "time"

// candidates are the nodes that fit a group, the best first: those on which its service has had no trouble
// of late, then the others.
type candidates struct {
	view  *view
	group *group
	now   time.Time
	// home is where the task that is replaced is, nil for none. Of equal branches its own come first: what is spread
	// evenly over the first preference and unevenly within is not moved about for nothing.
	home    *node
	best    *branch
	failing []*node // still to come
}

// branch is nodes that share the values of a service's first few spread preferences. At the top of its
// heap is its best part: the branch, or at the last preference the node, with the fewest tasks.
type branch struct {
	value    string
	outer    *branch
	home     bool
	tasks    int // of the service, wanted, on whatever node of these values
	branches heap[*branch]
	// At the last preference: nodes with none of the service's tasks are found by walking, as far as they
	// are needed. Those with some come after them, out of the heap.
	walk   *walk
	walked *node // the node last taken, where the walk led to it
	seats  heap[seat]
}

// seat is a node and the number of the service's wanted tasks on it.
type seat struct {
	node  *node
	tasks int
}

// everywhere returns the candidates among all nodes.
func (v *view) everywhere(g *group, home *node, now time.Time) *candidates {
	c := &candidates{view: v, group: g, now: now, home: home, best: &branch{}}
	if g.hopeless() != "" {
		return c
	}
	for id := range g.service.troubles {
		if n := v.nodes[id]; n != nil && n.open && g.failing(n, now) {
			c.failing = append(c.failing, n)
		}
	}
	c.best = c.grow(true, nil)
	return c
}

// among returns the candidates among some nodes.
func (v *view) among(g *group, some []*node, home *node, now time.Time) *candidates {
	c := &candidates{view: v, group: g, now: now, home: home}
	var sound []*node
	for _, n := range some {
		switch {
		case g.judge(n) != fits:
		case g.failing(n, now):
			c.failing = append(c.failing, n)
		default:
			sound = append(sound, n)
		}
	}
	c.best = c.grow(false, sound)
	return c
}

// grow makes the branches of all nodes on which the service is not failing, or of some nodes.
func (c *candidates) grow(all bool, some []*node) *branch {
	s := c.group.service
	ground := c.view.terrain(s.rules.Spread())
	leaves := map[*region]*branch{}
	root := c.branch(ground.root, nil, leaves)
	if c.home != nil && c.home.object != nil {
		for b := leaves[ground.leaves[c.home.rank]]; b != nil; b = b.outer {
			b.home = true
		}
	}
	for n, tasks := range s.wanted {
		if n.object == nil {
			continue
		}
		leaf := leaves[ground.leaves[n.rank]]
		for b := leaf; b != nil; b = b.outer {
			b.tasks += tasks
		}
		if all && n.open && !c.group.failing(n, c.now) {
			leaf.seats.items = append(leaf.seats.items, seat{n, tasks})
		}
	}
	for _, n := range some {
		leaf := leaves[ground.leaves[n.rank]]
		leaf.seats.items = append(leaf.seats.items, seat{n, s.wanted[n]})
	}
	for r, leaf := range leaves {
		if all {
			leaf.walk = r.order.walk()
		} else {
			leaf.seats.settle()
		}
	}
	root.settle()
	return root
}

// branch makes the branches of a region, and notes the innermost in leaves.
func (c *candidates) branch(r *region, outer *branch, leaves map[*region]*branch) *branch {
	b := &branch{value: r.value, outer: outer}
	if r.order != nil {
		keys := c.view.order.keys
		b.seats.less = func(x, y seat) bool {
			if x.tasks != y.tasks {
				return x.tasks < y.tasks
			}
			kx, ky := keys[x.node.rank], keys[y.node.rank]
			return kx < ky || kx == ky && x.node.rank < y.node.rank
		}
		leaves[r] = b
		return b
	}
	b.branches.less = func(x, y *branch) bool {
		switch {
		case x.tasks != y.tasks:
			return x.tasks < y.tasks
		case x.home != y.home:
			return x.home
		}
		return x.value < y.value
	}
	for _, inner := range r.regions {
		b.branches.items = append(b.branches.items, c.branch(inner, b, leaves))
	}
	return b
}

func (b *branch) settle() {
	for _, inner := range b.branches.items {
		inner.settle()
	}
	b.branches.settle()
}

// take returns the best node, nil where none fits any more.
func (c *candidates) take() *node {
	n := c.from(c.best)
	if n == nil && len(c.failing) > 0 {
		c.best, c.failing = c.grow(false, c.failing), nil
		n = c.from(c.best)
	}
	return n
}

// from returns b's best node and leaves it, and the branches that it is in, on top.
func (c *candidates) from(b *branch) *node {
	for b.branches.len() > 0 {
		if n := c.from(b.branches.top()); n != nil {
			return n
		}
		b.branches.pop()
	}
	if b.walk != nil {
		s := c.group.service
		for n := b.walk.next(); n != nil; n = b.walk.next() {
			if s.wanted[n] == 0 && !c.group.failing(n, c.now) && c.group.judge(n) == fits {
				b.walked = n
				return n
			}
		}
		b.walk, b.walked = nil, nil
		b.seats.settle()
	}
	for b.seats.len() > 0 {
		if n := b.seats.top().node; c.group.judge(n) == fits {
			return n
		}
		b.seats.pop()
	}
	return nil
}

// placed says that the node last taken was given a task.
func (c *candidates) placed() {
	c.count(c.best)
}

// count counts a task on the node on top of b.
func (c *candidates) count(b *branch) {
	switch {
	case b.branches.len() > 0:
		inner := b.branches.top()
		inner.tasks++
		c.count(inner)
		b.branches.fix()
	case b.walked != nil:
		b.seats.items = append(b.seats.items, seat{b.walked, 1})
	default:
		b.seats.items[0].tasks++
		b.seats.fix()
	}
}
