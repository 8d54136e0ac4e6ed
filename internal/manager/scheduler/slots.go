package scheduler

import (
	"cmp"
	"slices"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/slot"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// slots is where the tasks of a service's numbered slots are. A slot counts once towards how the service is spread: where the
// newest of its tasks is. The others are about to go, for it is what replaces them.
type slots struct {
	// single are the slots with one task, by number less one; nearly all are.
	single []place
	// several are the slots with more tasks than one, and those with numbers that are out of proportion.
	several map[uint32][]place
}

// place is a task and the node that it is on. One that was just placed does not name the node itself.
type place struct {
	task *warrenv1.Task
	node *node
}

// mostSingle bounds the numbers of single slots. Numbers are given out from 1 on, so that few are ever higher.
const mostSingle = 1 << 17

// of returns the places of a slot's tasks.
func (s *slots) of(number uint32) []place {
	if i := int(number) - 1; i >= 0 && i < len(s.single) && s.single[i].task != nil {
		return s.single[i : i+1]
	}
	return s.several[number]
}

// add adds a task to its slot, whose number is not 0.
func (s *slots) add(p place) {
	number := p.task.GetSlot()
	i := int(number) - 1
	others := s.of(number)
	if len(others) > 0 || i >= mostSingle {
		if s.several == nil {
			s.several = map[uint32][]place{}
		}
		s.several[number] = append(slices.Clone(others), p)
		if i < len(s.single) {
			s.single[i] = place{}
		}
		return
	}
	if more := i + 1 - len(s.single); more > 0 {
		s.single = append(s.single, make([]place, more)...)
	}
	s.single[i] = p
}

// remove takes a task out of its slot.
func (s *slots) remove(p place) {
	number := p.task.GetSlot()
	i := int(number) - 1
	if several := s.several[number]; several != nil {
		rest := slices.DeleteFunc(several, func(other place) bool {
			return other.node == p.node && other.task.GetMeta().GetId() == p.task.GetMeta().GetId()
		})
		delete(s.several, number)
		for _, other := range rest {
			s.add(other)
		}
		return
	}
	s.single[i] = place{}
}

// counted returns the node where a slot counts, nil for none.
func (s *slots) counted(number uint32) *node {
	var best place
	for _, p := range s.of(number) {
		if lifecycle.Wanted(p.task) && (best.task == nil || newer(p, best)) {
			best = p
		}
	}
	return best.node
}

func newer(a, b place) bool {
	return cmp.Or(
		a.task.GetMeta().GetCreatedAt().AsTime().Compare(b.task.GetMeta().GetCreatedAt().AsTime()),
		cmp.Compare(a.task.GetRevision(), b.task.GetRevision()),
		cmp.Compare(a.task.GetMeta().GetId(), b.task.GetMeta().GetId()),
	) > 0
}

// enter counts a task that has come onto a node.
func (s *service) enter(t *warrenv1.Task, n *node) {
	number := t.GetSlot()
	if number == 0 {
		if lifecycle.Wanted(t) {
			s.wanted[n]++
		}
		return
	}
	if !s.replaces(number) { // nearly always
		s.slots.add(place{t, n})
		if lifecycle.Wanted(t) {
			s.wanted[n]++
		}
		return
	}
	before := s.slots.counted(number)
	s.slots.add(place{t, n})
	s.recount(before, s.slots.counted(number))
}

// exit takes back what enter has counted.
func (s *service) exit(t *warrenv1.Task, n *node) {
	number := t.GetSlot()
	if number == 0 {
		if lifecycle.Wanted(t) {
			countDown(s.wanted, n)
		}
		return
	}
	before := s.slots.counted(number)
	s.slots.remove(place{t, n})
	s.recount(before, s.slots.counted(number))
}

// recount has a slot count on another node than before; nil is none.
func (s *service) recount(before, after *node) {
	if before == after {
		return
	}
	if before != nil {
		countDown(s.wanted, before)
	}
	if after != nil {
		s.wanted[after]++
	}
}

// replaces tells whether there are tasks that a waiting one of the slot comes beside.
func (s *service) replaces(number uint32) bool { return len(s.slots.of(number)) > 0 }

// setAside has a slot's tasks count no more, neither towards the spread nor, where updates start first, towards the bound per node: they
// make room for one of g that is about to be placed. It returns where the slot counted. bringBack undoes it.
func (g *group) setAside(number uint32) *node {
	home := g.service.slots.counted(number)
	g.service.recount(home, nil)
	if g.outgrows() {
		for _, p := range g.service.slots.of(number) {
			if p.task.GetRevision() == g.revision {
				countDown(g.present, p.node)
			}
		}
	}
	return home
}

func (g *group) bringBack(number uint32) {
	g.service.recount(nil, g.service.slots.counted(number))
	if g.outgrows() {
		for _, p := range g.service.slots.of(number) {
			if p.task.GetRevision() == g.revision {
				g.present[p.node]++
			}
		}
	}
}

// outgrows tells whether the nodes' bound lets a task come beside those that it replaces.
func (g *group) outgrows() bool {
	return g.service.object.GetSpec().GetPlacement().GetMaxReplicasPerNode() > 0 && !slot.StopFirst(g.service.object)
}

// beside returns a node where a waiting task fits because one is there that it replaces: where a node is full, no
// other task does. nil is none.
func (g *group) beside(number uint32) *node {
	if !g.outgrows() || !g.service.replaces(number) {
		return nil
	}
	g.setAside(number)
	defer g.bringBack(number)
	for _, p := range g.service.slots.of(number) {
		if g.judge(p.node) == fits {
			return p.node
		}
	}
	return nil
}
