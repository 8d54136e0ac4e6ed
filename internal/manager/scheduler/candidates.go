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
	home *node
	best *branch
	// Of candidates for many replacements: where best has grown, nil for others. There may be seats in it that are out of date, since
	// counts have also gone down.
	ground  *terrain
	leaves  map[*region]*branch
	failing []*node // still to come
}

// branch is nodes that share the values of a service's first few spread preferences. At the top of its
// heap is its best part: the branch, or at the last preference the node, with the fewest tasks.
type branch struct {
	region   *region
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

// seat is a node, the number of the service's wanted tasks on it, and the node's key.
type seat struct {
	node  *node
	tasks int
	key   uint64
}

func (s seat) less(other seat) bool {
	switch {
	case s.tasks != other.tasks:
		return s.tasks < other.tasks
	case s.key != other.key:
		return s.key < other.key
	}
	return s.node.rank < other.node.rank
}

// seat returns the node's seat as it is now.
func (c *candidates) seat(n *node) seat {
	return seat{n, c.group.service.wanted[n], c.view.order.keys[n.rank]}
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
			leaf.seats.items = append(leaf.seats.items, seat{n, tasks, c.view.order.keys[n.rank]})
		}
	}
	for _, n := range some {
		leaf := leaves[ground.leaves[n.rank]]
		leaf.seats.items = append(leaf.seats.items, c.seat(n))
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
	b := &branch{region: r, outer: outer}
	if r.order != nil {
		b.seats.less = seat.less
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
		return x.region.value < y.region.value
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
		top := b.seats.top()
		if c.leaves != nil {
			if now := c.seat(top.node); top.less(now) {
				b.seats.items[0] = now
				b.seats.fix()
				continue
			} else if now.less(top) {
				b.seats.pop() // it has a better one
				continue
			}
		}
		if c.group.judge(top.node) == fits {
			return top.node
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
		b.seats.items = append(b.seats.items, seat{b.walked, 1, c.view.order.keys[b.walked.rank]})
	default:
		top := &b.seats.items[0]
		top.tasks++
		top.key = c.view.order.keys[top.node.rank]
		b.seats.fix()
	}
}

// manyReplacements returns the candidates among some nodes for tasks that replace others, to be asked by replacement.
func (v *view) manyReplacements(g *group, some []*node, now time.Time) *candidates {
	c := v.among(g, some, nil, now)
	c.ground, c.leaves = v.terrain(g.service.rules.Spread()), map[*region]*branch{}
	c.note(c.best)
	return c
}

// note notes the innermost branches.
func (c *candidates) note(b *branch) {
	if b.region.order != nil {
		c.leaves[b.region] = b
	}
	for _, inner := range b.branches.items {
		c.note(inner)
	}
}

// replacement returns the best node for a task that replaces those in its slot, nil for none. The slot has been set aside; it
// counted at home. What has come of it must be told with replaced, whatever it is.
//
// Where counts go down, a node is given a better seat, and keeps the other until that is on top; where they have gone up, a seat is
// put right when it is on top. So no seat needs to be found in its heap.
func (c *candidates) replacement(home *node) *node {
	c.shift(home, -1, true)
	return c.take()
}

// replaced tells that a slot, which counted at home, counts at a node now.
func (c *candidates) replaced(home, now *node) {
	c.shift(home, 0, false)
	c.shift(now, 1, false)
}

// shift changes the count of the branches that a node is in, and whether they are home.
func (c *candidates) shift(n *node, by int, home bool) {
	if n == nil || n.object == nil {
		return
	}
	leaf := c.leaves[c.ground.leaves[n.rank]]
	if by < 0 && n.open {
		leaf.seats.push(c.seat(n))
	}
	for b := leaf; b != nil; b = b.outer {
		b.tasks, b.home = b.tasks+by, home
		if b.outer != nil {
			b.outer.branches.settle()
		}
	}
}
