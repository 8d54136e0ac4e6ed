package lease

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// ErrExhausted tells that all addresses of the subnet are in use.
var ErrExhausted = errors.New("no address left")

// ErrTaken tells that another task has the address.
var ErrTaken = errors.New("another task has the address")

// Bits a subnet may have: below a /30 no task would fit, above a /16 the list of free addresses grows too long.
const (
	minBits = 16
	maxBits = 30
)

// Allocator gives addresses of a subnet to tasks. No two tasks have the same, none has the subnet's first
// address, its second, which is the node's own, or its last.
type Allocator struct {
	subnet netip.Prefix
	byTask map[string]netip.Addr
	byAddr map[netip.Addr]string
	// free are the subnet's addresses that are not given, the one freed longest ago first.
	free []netip.Addr
}

// NewAllocator makes an allocator that has given nothing yet.
func NewAllocator(subnet netip.Prefix) (*Allocator, error) {
	a := &Allocator{byTask: map[string]netip.Addr{}, byAddr: map[netip.Addr]string{}}
	return a, a.Move(subnet)
}

// Move has the allocator give addresses of another subnet from now on. Tasks keep what they have until it is
// freed, for a running container cannot change its address.
func (a *Allocator) Move(subnet netip.Prefix) error {
	if !subnet.IsValid() || !subnet.Addr().Is4() || subnet != subnet.Masked() || subnet.Bits() < minBits || subnet.Bits() > maxBits {
		return fmt.Errorf("subnet %s: it must be an IPv4 network of /%d to /%d, with no bit set beyond its length", subnet, minBits, maxBits)
	}
	if subnet == a.subnet {
		return nil
	}
	a.subnet = subnet
	a.free = a.free[:0]
	node := subnet.Addr().Next()
	for addr := node.Next(); subnet.Contains(addr.Next()); addr = addr.Next() {
		if _, given := a.byAddr[addr]; !given {
			a.free = append(a.free, addr)
		}
	}
	return nil
}

// Give returns the task's address, a new one if it has none. It fails with ErrExhausted.
func (a *Allocator) Give(task string) (netip.Addr, error) {
	if addr, has := a.byTask[task]; has {
		return addr, nil
	}
	if len(a.free) == 0 {
		return netip.Addr{}, fmt.Errorf("%w in %s: %d tasks have one; have fewer tasks on this node or add nodes (how large the nodes' subnets are is said once, by cluster init --node-prefix)",
			ErrExhausted, a.subnet, a.given())
	}
	addr := a.free[0]
	a.free = a.free[1:]
	a.byTask[task], a.byAddr[addr] = addr, task
	return addr, nil
}

// given counts the leases in the subnet of now.
func (a *Allocator) given() (n int) {
	for addr := range a.byAddr {
		if a.subnet.Contains(addr) {
			n++
		}
	}
	return n
}

// Adopt notes an address that a task has already, which may be of an earlier subnet. It fails with ErrTaken
// if another task has it.
func (a *Allocator) Adopt(task string, addr netip.Addr) error {
	if other, taken := a.byAddr[addr]; taken && other != task {
		return fmt.Errorf("address %s for task %s: %w: task %s", addr, task, ErrTaken, other)
	}
	if !addr.Is4() || a.subnet.Contains(addr) && !a.gives(addr) {
		return fmt.Errorf("address %s for task %s: no task can have it in subnet %s", addr, task, a.subnet)
	}
	if had, has := a.byTask[task]; has && had != addr {
		a.Free(task)
	}
	a.byTask[task], a.byAddr[addr] = addr, task
	if at := slices.Index(a.free, addr); at >= 0 {
		a.free = slices.Delete(a.free, at, at+1)
	}
	return nil
}

// gives tells whether an address is one that tasks may have.
func (a *Allocator) gives(addr netip.Addr) bool {
	first := a.subnet.Addr()
	return a.subnet.Contains(addr) && addr != first && addr != first.Next() && a.subnet.Contains(addr.Next())
}

// Free takes the task's address back, and tells whether it had one.
func (a *Allocator) Free(task string) (netip.Addr, bool) {
	addr, has := a.byTask[task]
	if !has {
		return addr, false
	}
	delete(a.byTask, task)
	delete(a.byAddr, addr)
	if a.gives(addr) {
		a.free = append(a.free, addr)
	}
	return addr, true
}

// Rotate has the free addresses above the highest given one come first. Addresses are given upwards, so
// after a restart, when it is not known what was freed when, those below are the more recent ones.
func (a *Allocator) Rotate() {
	var highest netip.Addr
	for addr := range a.byAddr {
		if a.subnet.Contains(addr) && highest.Less(addr) {
			highest = addr
		}
	}
	slices.SortFunc(a.free, func(x, y netip.Addr) int {
		below := func(addr netip.Addr) int {
			if addr.Less(highest) {
				return 1
			}
			return 0
		}
		return cmp.Or(below(x)-below(y), x.Compare(y))
	})
}
