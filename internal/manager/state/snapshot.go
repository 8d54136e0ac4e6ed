package state

import (
	"iter"

	"github.com/hashicorp/go-memdb"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Snapshot is the state at one moment. It is immutable, as is everything read out of it; copies are
// equal. Lookups return nil where there is nothing of that name.
type Snapshot struct {
	txn   *memdb.Txn
	index uint64
}

// Index is the raft index of the last entry that is in the snapshot.
func (s Snapshot) Index() uint64 { return s.index }

// Cluster returns the cluster object, nil before there is a cluster.
func (s Snapshot) Cluster() *warrenv1.Cluster {
	for c := range all[*warrenv1.Cluster](s, tableCluster, indexID, nil) {
		return c
	}
	return nil
}

// Node returns the node of that id.
func (s Snapshot) Node(id string) *warrenv1.Node {
	return first[*warrenv1.Node](s, tableNode, indexID, str(id))
}

// Nodes iterates over all nodes by id.
func (s Snapshot) Nodes() iter.Seq[*warrenv1.Node] {
	return all[*warrenv1.Node](s, tableNode, indexID, nil)
}

// NodesByIDPrefix iterates over the nodes whose id begins so.
func (s Snapshot) NodesByIDPrefix(prefix string) iter.Seq[*warrenv1.Node] {
	return all[*warrenv1.Node](s, tableNode, indexID, []byte(prefix))
}

// NodesByHostname iterates over the nodes of that hostname, by id. Hostnames need not be unique.
func (s Snapshot) NodesByHostname(hostname string) iter.Seq[*warrenv1.Node] {
	return all[*warrenv1.Node](s, tableNode, indexHostname, orNothing(str(hostname)))
}

// NodesInHostnameOrder iterates over the nodes that have a hostname, by it and then by id.
func (s Snapshot) NodesInHostnameOrder() iter.Seq[*warrenv1.Node] {
	return all[*warrenv1.Node](s, tableNode, indexHostname, nil)
}

// Service returns the service of that id.
func (s Snapshot) Service(id string) *warrenv1.Service {
	return first[*warrenv1.Service](s, tableService, indexID, str(id))
}

// ServiceByName returns the service of that name.
func (s Snapshot) ServiceByName(name string) *warrenv1.Service {
	return first[*warrenv1.Service](s, tableService, indexName, str(name))
}

// Services iterates over all services by id.
func (s Snapshot) Services() iter.Seq[*warrenv1.Service] {
	return all[*warrenv1.Service](s, tableService, indexID, nil)
}

// ServicesByIDPrefix iterates over the services whose id begins so.
func (s Snapshot) ServicesByIDPrefix(prefix string) iter.Seq[*warrenv1.Service] {
	return all[*warrenv1.Service](s, tableService, indexID, []byte(prefix))
}

// ServicesFrom iterates by name over the services whose name is `name` or comes after it.
func (s Snapshot) ServicesFrom(name string) iter.Seq[*warrenv1.Service] {
	return from[*warrenv1.Service](s, tableService, indexName, []byte(name))
}

// Revision returns the service's revision of that number.
func (s Snapshot) Revision(serviceID string, number uint64) *warrenv1.Revision {
	return first[*warrenv1.Revision](s, tableRevision, indexID, str(RevisionID(serviceID, number)))
}

// Revisions iterates over the revisions kept of a service, in no useful order.
func (s Snapshot) Revisions(serviceID string) iter.Seq[*warrenv1.Revision] {
	return all[*warrenv1.Revision](s, tableRevision, indexID, []byte(serviceID+"."))
}

// Task returns the task of that id.
func (s Snapshot) Task(id string) *warrenv1.Task {
	return first[*warrenv1.Task](s, tableTask, indexID, str(id))
}

// Tasks iterates over all tasks by id.
func (s Snapshot) Tasks() iter.Seq[*warrenv1.Task] {
	return all[*warrenv1.Task](s, tableTask, indexID, nil)
}

// TasksByIDPrefix iterates over the tasks whose id begins so.
func (s Snapshot) TasksByIDPrefix(prefix string) iter.Seq[*warrenv1.Task] {
	return all[*warrenv1.Task](s, tableTask, indexID, []byte(prefix))
}

// TasksByService iterates over a service's tasks by slot, then by id.
func (s Snapshot) TasksByService(serviceID string) iter.Seq[*warrenv1.Task] {
	return all[*warrenv1.Task](s, tableTask, indexSlot, orNothing(slotKey(serviceID)))
}

// TasksBySlot iterates over the tasks of one slot of a service, by id.
func (s Snapshot) TasksBySlot(serviceID string, slot uint32) iter.Seq[*warrenv1.Task] {
	return all[*warrenv1.Task](s, tableTask, indexSlot, orNothing(slotKey(serviceID, slot)))
}

// TasksByNode iterates over the tasks placed on a node, by id.
func (s Snapshot) TasksByNode(nodeID string) iter.Seq[*warrenv1.Task] {
	return all[*warrenv1.Task](s, tableTask, indexNode, orNothing(str(nodeID)))
}

// Lookup returns the object of that key, nil where there is none.
func (s Snapshot) Lookup(k Key) Object { return lookup(s.txn, k) }

// Objects iterates over every object, table by table and by id: what a raft snapshot holds.
func (s Snapshot) Objects() iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for t := statev1.Table_TABLE_CLUSTER; tableName(t) != ""; t++ {
			for o := range all[Object](s, tableName(t), indexID, nil) {
				if !yield(o) {
					return
				}
			}
		}
	}
}

func lookup(txn *memdb.Txn, k Key) Object {
	raw, err := txn.First(tableName(k.Table), indexID, str(k.ID))
	if err != nil || raw == nil {
		return nil
	}
	return raw.(Object)
}

// nothing is the beginning of no key: identifiers and names hold no such byte.
var nothing = []byte{0xff}

// orNothing keeps a search for an empty string from being a search for everything.
func orNothing(k []byte) []byte {
	if len(k) == 0 {
		return nothing
	}
	return k
}

// The errors that go-memdb's reads return name a table or index the schema lacks, or an argument of a
// wrong type: mistakes of this package, all found by its tests.

func first[T Object](s Snapshot, table, index string, key []byte) (none T) {
	if len(key) == 0 {
		return none
	}
	raw, err := s.txn.First(table, index, key)
	if err != nil {
		panic("state: " + err.Error())
	}
	if raw == nil {
		return none
	}
	return raw.(T)
}

func all[T Object](s Snapshot, table, index string, prefix []byte) iter.Seq[T] {
	return func(yield func(T) bool) {
		it, err := s.txn.Get(table, index+"_prefix", prefix)
		if err != nil {
			panic("state: " + err.Error())
		}
		each(it, yield)
	}
}

func from[T Object](s Snapshot, table, index string, key []byte) iter.Seq[T] {
	return func(yield func(T) bool) {
		it, err := s.txn.LowerBound(table, index, key)
		if err != nil {
			panic("state: " + err.Error())
		}
		each(it, yield)
	}
}

func each[T Object](it memdb.ResultIterator, yield func(T) bool) {
	for raw := it.Next(); raw != nil; raw = it.Next() {
		if !yield(raw.(T)) {
			return
		}
	}
}
