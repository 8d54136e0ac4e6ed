package lease

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// Record is where leases outlive the agent. Nobody waits for it: what was not written before a crash is found
// again at the tasks themselves.
type Record interface {
	// Leases are the addresses of tasks as last saved.
	Leases() (map[string]netip.Addr, error)
	// SaveLease and DropLease are durable soon, in the order of the calls.
	SaveLease(task string, addr netip.Addr)
	DropLease(task string)
}

// Leases are the addresses of a node's tasks.
type Leases struct {
	record Record
	logger *slog.Logger

	mu        sync.Mutex
	allocator *Allocator
}

// Open takes up the leases of the record, and those of tasks that have their address already. Where the two
// differ, the tasks are right. An attached task without a valid address has none yet.
func Open(subnet netip.Prefix, record Record, attached map[string]netip.Addr, logger *slog.Logger) (*Leases, error) {
	allocator, err := NewAllocator(subnet)
	if err != nil {
		return nil, err
	}
	l := &Leases{record: record, logger: logger, allocator: allocator}
	recorded, err := record.Leases()
	if err != nil {
		return nil, fmt.Errorf("read the leases: %w", err)
	}
	for _, task := range slices.Sorted(maps.Keys(attached)) {
		addr := attached[task]
		if !addr.IsValid() {
			continue
		}
		if err := allocator.Adopt(task, addr); err != nil {
			logger.Error("a task has an address that cannot be its own", "task", task, "error", err)
			continue
		}
		if recorded[task] != addr {
			record.SaveLease(task, addr)
		}
	}
	for _, task := range slices.Sorted(maps.Keys(recorded)) {
		if _, has := allocator.byTask[task]; has {
			continue
		}
		if err := allocator.Adopt(task, recorded[task]); err != nil {
			logger.Warn("a recorded address is no longer the task's", "task", task, "error", err)
			record.DropLease(task)
		}
	}
	allocator.Rotate()
	return l, nil
}

// Lease returns the task's address, a new one if it has none. It fails with ErrExhausted.
func (l *Leases) Lease(task string) (netip.Addr, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	had, has := l.allocator.byTask[task]
	if has {
		return had, nil
	}
	addr, err := l.allocator.Give(task)
	if err == nil {
		l.record.SaveLease(task, addr)
	}
	return addr, err
}

// Release takes the task's address back, if it has one. Nothing of the task may use it any more.
func (l *Leases) Release(task string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, had := l.allocator.Free(task); had {
		l.record.DropLease(task)
	}
}

// Move has new leases be of another subnet, as the node gets one when it joins another cluster. Tasks keep the
// addresses they have until they are released.
func (l *Leases) Move(subnet netip.Prefix) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.allocator.Move(subnet)
}

// All are the leases there are. Whose task is gone is to be released.
func (l *Leases) All() map[string]netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.allocator.byTask)
}
