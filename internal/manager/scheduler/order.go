package scheduler

// order keeps the nodes that take new tasks in the order in which they are offered: the least used
// first, by id among equals. It is a tournament: a binary tree whose every inner place holds the
// winner of the two below it. A change costs the way from a leaf to the root, and a walk costs only
// as far as it is followed.
type order struct {
	nodes []*node  // by id
	keys  []uint64 // of the node at the same place; lower is offered earlier
	wins  []int32  // the winners' places in nodes; the root at 1, the leaves from size
	size  int      // a power of two, at least len(nodes)
}

// closed is the key of a node that is not offered.
const closed = ^uint64(0)

// nobody is the winner where no node is.
const nobody = int32(-1)

// newOrder makes the order of nodes, which must be sorted by id.
func newOrder(nodes []*node) *order {
	o := &order{nodes: nodes, keys: make([]uint64, len(nodes)), size: 1}
	for o.size < len(nodes) {
		o.size *= 2
	}
	o.wins = make([]int32, 2*o.size)
	for i := range o.wins {
		o.wins[i] = nobody
	}
	for i, n := range nodes {
		o.keys[i] = n.key()
		o.wins[o.size+i] = int32(i)
	}
	for i := o.size - 1; i > 0; i-- {
		o.wins[i] = o.winner(o.wins[2*i], o.wins[2*i+1])
	}
	return o
}

func (o *order) winner(a, b int32) int32 {
	if b == nobody || a != nobody && o.keys[a] <= o.keys[b] {
		return a // of equals the left one: the lower id
	}
	return b
}

// set moves the node at a place in nodes to where its key now puts it.
func (o *order) set(place int, key uint64) {
	if o.keys[place] == key {
		return
	}
	o.keys[place] = key
	for i := (o.size + place) / 2; i > 0; i /= 2 {
		o.wins[i] = o.winner(o.wins[2*i], o.wins[2*i+1])
	}
}

// walk goes through the open nodes in order.
type walk struct {
	order *order
	ahead heap[int32] // places of the tree that hold the nodes to come, by their winners
}

// walk begins a walk. While it lasts, nodes that it has returned may be set, and no others.
func (o *order) walk() *walk {
	w := &walk{order: o, ahead: heap[int32]{less: func(a, b int32) bool {
		wa, wb := o.wins[a], o.wins[b]
		return o.keys[wa] < o.keys[wb] || o.keys[wa] == o.keys[wb] && wa < wb
	}}}
	if o.wins[1] != nobody {
		w.ahead.push(1)
	}
	return w
}

// next returns the next node, nil after the last.
func (w *walk) next() *node {
	if w.ahead.len() == 0 {
		return nil
	}
	o, at := w.order, w.ahead.pop()
	for int(at) < o.size { // down to the winner's leaf; the losers on the way wait
		winner, loser := 2*at, 2*at+1
		if o.wins[winner] != o.wins[at] {
			winner, loser = loser, winner
		}
		if o.wins[loser] != nobody {
			w.ahead.push(loser)
		}
		at = winner
	}
	if n := o.wins[at]; o.keys[n] != closed {
		return o.nodes[n]
	}
	w.ahead.items = nil // only closed ones are left
	return nil
}

// heap is a binary heap; its least element is on top.
type heap[T any] struct {
	less  func(a, b T) bool
	items []T
}

func (h *heap[T]) len() int { return len(h.items) }

func (h *heap[T]) top() T { return h.items[0] }

func (h *heap[T]) push(x T) {
	h.items = append(h.items, x)
	for i := len(h.items) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.less(h.items[i], h.items[parent]) {
			return
		}
		h.items[i], h.items[parent] = h.items[parent], h.items[i]
		i = parent
	}
}

func (h *heap[T]) pop() T {
	top, last := h.items[0], len(h.items)-1
	h.items[0] = h.items[last]
	h.items = h.items[:last]
	h.fix()
	return top
}

// fix restores the order after the top has changed.
func (h *heap[T]) fix() { h.sink(0) }

// settle makes a heap of items in any order.
func (h *heap[T]) settle() {
	for i := len(h.items)/2 - 1; i >= 0; i-- {
		h.sink(i)
	}
}

func (h *heap[T]) sink(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h.items); child++ {
			if h.less(h.items[child], h.items[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		h.items[i], h.items[least] = h.items[least], h.items[i]
		i = least
	}
}
