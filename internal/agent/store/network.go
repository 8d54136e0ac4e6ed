package store

import (
	"bytes"
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

// NetworkUnder returns all that the overlay has recorded under names that begin so, by the rest of the name.
func (s *Store) NetworkUnder(prefix string) (map[string][]byte, error) {
	values := map[string][]byte{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(networkBucket).Cursor()
		for name, value := cursor.Seek([]byte(prefix)); bytes.HasPrefix(name, []byte(prefix)); name, value = cursor.Next() {
			values[string(name[len(prefix):])] = slices.Clone(value)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the network's %s: %w", prefix, err)
	}
	return values, nil
}

// RecordNetwork records something of the overlay under a name, and returns when that is durable; nil forgets it.
func (s *Store) RecordNetwork(name string, value []byte) error {
	return s.RecordNetworkAll(map[string][]byte{name: value})
}

// RecordNetworkAll records things of the overlay under their names, all or none, and returns when that is durable; nil
// forgets one.
func (s *Store) RecordNetworkAll(values map[string][]byte) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(networkBucket)
		for name, value := range values {
			var err error
			if value == nil {
				err = bucket.Delete([]byte(name))
			} else {
				err = bucket.Put([]byte(name), value)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record the network: %w", err)
	}
	return nil
}
