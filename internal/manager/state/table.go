package state

import (
	"encoding/binary"
	"iter"

	"github.com/cilium/statedb/part"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// tables is all tables at one moment. It is a value: the trees behind it are persistent, so a copy
// is a snapshot.
type tables struct {
	clusters  table[*warrenv1.Cluster]
	nodes     table[*warrenv1.Node]
	services  table[*warrenv1.Service]
	revisions table[*warrenv1.Revision]
	tasks     table[*warrenv1.Task]
	authority table[*statev1.Authority]
	members   table[*statev1.Member]
	users     table[*warrenv1.User]
	networks  table[*warrenv1.Network]
}

// The places of the further indexes in their tables.
const (
	nodeByHostname = 0
	serviceByName  = 0
	taskBySlot     = 0
	taskByNode     = 1
)

func emptyTables() tables {
	return tables{
		clusters:  newTable[*warrenv1.Cluster](),
		nodes:     newTable(func(n *warrenv1.Node) []byte { return among(str(n.GetFacts().GetHostname()), n) }),
		services:  newTable(func(s *warrenv1.Service) []byte { return str(s.GetSpec().GetName()) }),
		revisions: newTable[*warrenv1.Revision](),
		tasks: newTable(
			func(t *warrenv1.Task) []byte { return among(slotKey(t.GetServiceId(), t.GetSlot()), t) },
			func(t *warrenv1.Task) []byte { return among(str(t.GetNodeId()), t) },
		),
		authority: newTable[*statev1.Authority](),
		members:   newTable[*statev1.Member](),
		users:     newTable[*warrenv1.User](),
		networks:  newTable[*warrenv1.Network](),
	}
}

// table holds the objects of one kind: by id, and in further indexes by a key computed from the object. An
// empty key leaves an object out of an index.
type table[T Object] struct {
	objects part.Tree[T]
	indexes []part.Tree[T]
	keys    []func(T) []byte
}

func newTable[T Object](keys ...func(T) []byte) table[T] {
	t := table[T]{objects: part.New[T](part.RootOnlyWatch), keys: keys}
	for range keys {
		t.indexes = append(t.indexes, part.New[T](part.RootOnlyWatch))
	}
	return t
}

func (t *table[T]) get(id string) T {
	o, _ := t.objects.Get([]byte(id))
	return o
}

// byID iterates over the objects whose id begins so.
func (t *table[T]) byID(prefix string) iter.Seq[T] { return values(t.objects.Prefix([]byte(prefix))) }

// by iterates over the objects whose key in an index begins so. No key gives no object.
func (t *table[T]) by(index int, prefix []byte) iter.Seq[T] {
	if len(prefix) == 0 {
		return func(func(T) bool) {}
	}
	return values(t.indexes[index].Prefix(prefix))
}

// from iterates over the objects in the order of an index, beginning at a key.
func (t *table[T]) from(index int, key []byte) iter.Seq[T] {
	return values(t.indexes[index].LowerBound(key))
}

func values[T any](it part.Iterator[T]) iter.Seq[T] {
	return func(yield func(T) bool) {
		it.All(func(_ []byte, o T) bool { return yield(o) })
	}
}

// str makes an index key of a string. The closing zero keeps one key from being the beginning of
// another; names and ids hold no zero.
func str(s string) []byte {
	if s == "" {
		return nil
	}
	return append([]byte(s), 0)
}

// among makes the key of one of the objects that an index may hold under the same key.
func among(key []byte, o Object) []byte {
	if len(key) == 0 {
		return nil
	}
	return append(key, o.GetMeta().GetId()...)
}

// slotKey makes the index key of a service's slot; without a slot, what all its slots begin with.
func slotKey(serviceID string, slot ...uint32) []byte {
	k := str(serviceID)
	for _, s := range slot {
		k = binary.BigEndian.AppendUint32(k, s)
	}
	return k
}

// writer changes tables. What it has changed is seen through it at once, and by others after commit.
type writer struct {
	clusters  tableWriter[*warrenv1.Cluster]
	nodes     tableWriter[*warrenv1.Node]
	services  tableWriter[*warrenv1.Service]
	revisions tableWriter[*warrenv1.Revision]
	tasks     tableWriter[*warrenv1.Task]
	authority tableWriter[*statev1.Authority]
	members   tableWriter[*statev1.Member]
	users     tableWriter[*warrenv1.User]
	networks  tableWriter[*warrenv1.Network]
}

func (t *tables) write() *writer {
	return &writer{
		t.clusters.write(), t.nodes.write(), t.services.write(), t.revisions.write(), t.tasks.write(),
		t.authority.write(), t.members.write(), t.users.write(), t.networks.write(),
	}
}

func (w *writer) commit() tables {
	return tables{
		w.clusters.commit(), w.nodes.commit(), w.services.commit(), w.revisions.commit(), w.tasks.commit(),
		w.authority.commit(), w.members.commit(), w.users.commit(), w.networks.commit(),
	}
}

// lookup returns the object of that key, nil where there is none.
func (w *writer) lookup(k Key) Object {
	switch k.Table {
	case statev1.Table_TABLE_CLUSTER:
		return w.clusters.lookup(k.ID)
	case statev1.Table_TABLE_NODE:
		return w.nodes.lookup(k.ID)
	case statev1.Table_TABLE_SERVICE:
		return w.services.lookup(k.ID)
	case statev1.Table_TABLE_REVISION:
		return w.revisions.lookup(k.ID)
	case statev1.Table_TABLE_TASK:
		return w.tasks.lookup(k.ID)
	case statev1.Table_TABLE_AUTHORITY:
		return w.authority.lookup(k.ID)
	case statev1.Table_TABLE_MEMBER:
		return w.members.lookup(k.ID)
	case statev1.Table_TABLE_USER:
		return w.users.lookup(k.ID)
	case statev1.Table_TABLE_NETWORK:
		return w.networks.lookup(k.ID)
	}
	return nil
}

// put makes a change: after in the place of before, either of which may be nil.
func (w *writer) put(before, after Object) {
	o := after
	if o == nil {
		o = before
	}
	switch o.(type) {
	case *warrenv1.Cluster:
		w.clusters.put(before, after)
	case *warrenv1.Node:
		w.nodes.put(before, after)
	case *warrenv1.Service:
		w.services.put(before, after)
	case *warrenv1.Revision:
		w.revisions.put(before, after)
	case *warrenv1.Task:
		w.tasks.put(before, after)
	case *statev1.Authority:
		w.authority.put(before, after)
	case *statev1.Member:
		w.members.put(before, after)
	case *warrenv1.User:
		w.users.put(before, after)
	case *warrenv1.Network:
		w.networks.put(before, after)
	}
}

type tableWriter[T Object] struct {
	objects *part.Txn[T]
	indexes []*part.Txn[T]
	keys    []func(T) []byte
}

func (t *table[T]) write() tableWriter[T] {
	w := tableWriter[T]{objects: t.objects.Txn(), keys: t.keys}
	for i := range t.indexes {
		w.indexes = append(w.indexes, t.indexes[i].Txn())
	}
	return w
}

func (w *tableWriter[T]) commit() table[T] {
	t := table[T]{objects: w.objects.Commit(), keys: w.keys}
	for _, x := range w.indexes {
		t.indexes = append(t.indexes, x.Commit())
	}
	return t
}

func (w *tableWriter[T]) lookup(id string) Object {
	if o, ok := w.objects.Get([]byte(id)); ok {
		return o
	}
	return nil
}

func (w *tableWriter[T]) put(before, after Object) {
	if before != nil {
		o := before.(T)
		for i, key := range w.keys {
			if k := key(o); len(k) > 0 {
				w.indexes[i].Delete(k)
			}
		}
	}
	if after == nil {
		w.objects.Delete([]byte(before.GetMeta().GetId()))
		return
	}
	o := after.(T)
	w.objects.Insert([]byte(o.GetMeta().GetId()), o)
	for i, key := range w.keys {
		if k := key(o); len(k) > 0 {
			w.indexes[i].Insert(k, o)
		}
	}
}
