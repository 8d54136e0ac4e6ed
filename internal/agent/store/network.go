package store

import (
	"fmt"
	"net/netip"
	"slices"

	"go.etcd.io/bbolt"
)

// Leases are the addresses of tasks as last saved.
func (s *Store) Leases() (map[string]netip.Addr, error) {
	leases := map[string]netip.Addr{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(leaseBucket).ForEach(func(key, value []byte) error {
			addr, ok := netip.AddrFromSlice(value)
			if !ok {
				return fmt.Errorf("lease of task %s: %d bytes are no address", key, len(value))
			}
			leases[string(key)] = addr
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the leases: %w", err)
	}
	return leases, nil
}

// SaveLease records a task's address: with the next write, or within a second, for it can be found out again from the
// task's network namespace.
func (s *Store) SaveLease(task string, addr netip.Addr) {
	s.queue(noteDelay, func(c *Commit) { c.leases[task] = addr })
}

// DropLease forgets a task's address.
func (s *Store) DropLease(task string) {
	s.queue(noteDelay, func(c *Commit) { c.leases[task] = netip.Addr{} })
}

// Network returns what the overlay has recorded under a name, nil for nothing.
func (s *Store) Network(name string) ([]byte, error) {
	var value []byte
	err := s.db.View(func(tx *bbolt.Tx) error {
		value = slices.Clone(tx.Bucket(networkBucket).Get([]byte(name)))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the network's %s: %w", name, err)
	}
	return value, nil
}

// RecordNetwork records something of the overlay under a name, and returns when that is durable; nil forgets it.
func (s *Store) RecordNetwork(name string, value []byte) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(networkBucket)
		if value == nil {
			return bucket.Delete([]byte(name))
		}
		return bucket.Put([]byte(name), value)
	})
	if err != nil {
		return fmt.Errorf("record the network's %s: %w", name, err)
	}
	return nil
}
