package state

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/dataformat"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// maxObjectBytes bounds one object of a snapshot, so that a damaged length cannot exhaust memory.
const maxObjectBytes = 16 << 20

// Machine is the raft state machine over a Store. Raft calls it from one goroutine.
type Machine struct{ store *Store }

var _ raft.FSM = (*Machine)(nil)

// NewMachine returns the machine that writes s.
func NewMachine(s *Store) *Machine { return &Machine{store: s} }

// Apply implements raft.FSM. It returns a []error: for each transaction of the entry why it was
// refused, or nil. An entry that cannot be read is refused as a whole with a single error; that
// happens on every replica alike.
func (m *Machine) Apply(log *raft.Log) any {
	var entry statev1.Entry
	if err := proto.Unmarshal(log.Data, &entry); err != nil {
		return []error{fmt.Errorf("%w: %w", ErrMalformed, err)}
	}
	return m.store.apply(log.Index, &entry)
}

func (s *Store) apply(index uint64, entry *statev1.Entry) []error {
	s.write.Lock()
	defer s.write.Unlock()
	w := s.Snapshot().tables.write()
	results := make([]error, len(entry.GetTransactions()))
	var changes []Change
	for i, t := range entry.GetTransactions() {
		planned, err := plan(w, t)
		if err != nil {
			results[i] = err
			continue
		}
		for _, c := range planned {
			if c.After != nil {
				c.After.GetMeta().Version = index
			}
			w.put(c.Before, c.After)
		}
		changes = append(changes, planned...)
	}
	after := w.commit()
	s.publish(Snapshot{tables: &after, index: index}, changes, false)
	return results
}

// plan works out what t changes, or why it must be refused, and changes nothing itself.
func plan(w *writer, t *statev1.Transaction) ([]Change, error) {
	changes := make([]Change, 0, len(t.GetOperations()))
	touched := make(map[Key]struct{}, len(t.GetOperations()))
	for _, op := range t.GetOperations() {
		k, version, after, err := operand(op)
		if err != nil {
			return nil, err
		}
		if _, again := touched[k]; again {
			return nil, refuse(k, fmt.Errorf("%w: touched twice", ErrMalformed))
		}
		touched[k] = struct{}{}
		before := w.lookup(k)
		if _, create := op.GetAction().(*statev1.Operation_Create); create {
			if before != nil {
				return nil, refuse(k, ErrExists)
			}
			if err := nameIsFree(w, after, changes); err != nil {
				return nil, err
			}
		} else {
			if before == nil {
				return nil, refuse(k, ErrNotFound)
			}
			if before.GetMeta().GetVersion() != version {
				return nil, refuse(k, ErrConflict)
			}
			if err := sameName(before, after); err != nil {
				return nil, err
			}
		}
		if _, check := op.GetAction().(*statev1.Operation_Check); !check {
			changes = append(changes, Change{Before: before, After: after, At: t.GetAt(), By: t.GetBy()})
		}
	}
	return changes, nil
}

// operand returns what op is about: the object's key, the version it expects and the object after it,
// nil for a delete and a check.
func operand(op *statev1.Operation) (Key, uint64, Object, error) {
	var named *statev1.Key
	var carried *statev1.Object
	switch a := op.GetAction().(type) {
	case *statev1.Operation_Create:
		carried = a.Create
	case *statev1.Operation_Update:
		carried = a.Update
	case *statev1.Operation_Delete:
		named = a.Delete
	case *statev1.Operation_Check:
		named = a.Check
	}
	if named != nil {
		k := Key{named.GetTable(), named.GetId()}
		if tableNames[k.Table] == "" || k.ID == "" {
			return Key{}, 0, nil, fmt.Errorf("%w: operation without an object", ErrMalformed)
		}
		return k, named.GetVersion(), nil, nil
	}
	o := unwrap(carried)
	if o == nil {
		return Key{}, 0, nil, fmt.Errorf("%w: operation without an object", ErrMalformed)
	}
	if err := indexable(o); err != nil {
		return Key{}, 0, nil, err
	}
	return KeyOf(o), o.GetMeta().GetVersion(), o, nil
}

// indexable tells whether o has what the indexes of its table need. A zero byte ends a key there, so no
// name may hold one.
func indexable(o Object) error {
	names := []string{o.GetMeta().GetId()}
	switch o := o.(type) {
	case *warrenv1.Node:
		names = append(names, o.GetFacts().GetHostname())
	case *warrenv1.Service:
		if o.GetSpec().GetName() == "" {
			return refuse(KeyOf(o), fmt.Errorf("%w: without a name", ErrMalformed))
		}
		names = append(names, o.GetSpec().GetName())
	case *warrenv1.Task:
		if o.GetServiceId() == "" {
			return refuse(KeyOf(o), fmt.Errorf("%w: without a service", ErrMalformed))
		}
		names = append(names, o.GetServiceId(), o.GetNodeId())
	}
	for _, name := range names {
		if strings.IndexByte(name, 0) >= 0 {
			return refuse(KeyOf(o), fmt.Errorf("%w: a zero byte in the name %q", ErrMalformed, name))
		}
	}
	return nil
}

// nameIsFree keeps service names unique, also within the transaction that has planned so far.
func nameIsFree(w *writer, o Object, planned []Change) error {
	service, ok := o.(*warrenv1.Service)
	if !ok {
		return nil
	}
	name := service.GetSpec().GetName()
	_, taken := w.services.indexes[serviceByName].Get(str(name))
	for _, c := range planned {
		other, ok := c.After.(*warrenv1.Service)
		taken = taken || ok && other.GetSpec().GetName() == name
	}
	if taken {
		return fmt.Errorf("service %s: %w", name, ErrExists)
	}
	return nil
}

// sameName keeps a service's name, by which others know it, from being changed.
func sameName(before, after Object) error {
	b, ok := before.(*warrenv1.Service)
	if !ok || after == nil {
		return nil
	}
	if b.GetSpec().GetName() != after.(*warrenv1.Service).GetSpec().GetName() {
		return refuse(KeyOf(b), fmt.Errorf("%w: the name cannot be changed", ErrMalformed))
	}
	return nil
}

// FormatOf is the format that a cluster's state is of, or the newest that a manager knows. What was written before formats were
// told is of the first.
func FormatOf(o interface{ GetFormat() uint32 }) uint32 { return max(1, o.GetFormat()) }

// Snapshot implements raft.FSM. It costs nothing; the work is done in Persist, beside further Applies.
func (m *Machine) Snapshot() (raft.FSMSnapshot, error) {
	return saved{m.store.Snapshot()}, nil
}

type saved struct{ Snapshot }

// Persist implements raft.FSMSnapshot.
func (s saved) Persist(sink raft.SnapshotSink) error {
	if err := s.Save(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (saved) Release() {}

// Save writes the snapshot in the format that Load reads: a SnapshotHeader, then every
// object, each behind its length.
func (s Snapshot) Save(w io.Writer) error {
	out := bufio.NewWriterSize(w, 1<<20)
	header := &statev1.SnapshotHeader{Format: FormatOf(s.Cluster()), Index: s.index, Objects: uint64(s.count())}
	if _, err := protodelim.MarshalTo(out, header); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	for o := range s.Objects() {
		if _, err := protodelim.MarshalTo(out, wrap(o)); err != nil {
			return fmt.Errorf("write snapshot: %w", err)
		}
	}
	return out.Flush()
}

// Restore implements raft.FSM: the state becomes what the snapshot holds, or stays as it was where
// the snapshot cannot be read.
func (m *Machine) Restore(from io.ReadCloser) error {
	defer from.Close()
	return m.store.Load(from)
}

// Load replaces the whole state by a snapshot that Save wrote.
func (s *Store) Load(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<20)
	limits := protodelim.UnmarshalOptions{MaxSize: maxObjectBytes}
	var header statev1.SnapshotHeader
	if err := limits.UnmarshalFrom(in, &header); err != nil {
		return fmt.Errorf("read snapshot: header: %w", err)
	}
	if known := dataformat.Manager(); header.GetFormat() > known {
		return fmt.Errorf("read snapshot: its format is %d, this manager knows formats up to %d: upgrade warren-manager", header.GetFormat(), known)
	}
	s.write.Lock()
	defer s.write.Unlock()
	empty := emptyTables()
	w := empty.write()
	for i := range header.GetObjects() {
		var m statev1.Object
		if err := limits.UnmarshalFrom(in, &m); err != nil {
			return fmt.Errorf("read snapshot: object %d of %d: %w", i+1, header.GetObjects(), err)
		}
		o := unwrap(&m)
		if o == nil {
			return fmt.Errorf("read snapshot: object %d of %d is of no known kind: upgrade warren-manager", i+1, header.GetObjects())
		}
		if err := cmp.Or(indexable(o), nameIsFree(w, o, nil)); err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		if w.lookup(KeyOf(o)) != nil {
			return fmt.Errorf("read snapshot: %w", refuse(KeyOf(o), ErrExists))
		}
		w.put(nil, o)
	}
	after := w.commit()
	s.publish(Snapshot{tables: &after, index: header.GetIndex()}, nil, true)
	return nil
}
