package state

import (
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/go-memdb"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Tables and indexes by the names go-memdb knows them by.
const (
	tableCluster  = "cluster"
	tableNode     = "node"
	tableService  = "service"
	tableRevision = "revision"
	tableTask     = "task"

	indexID       = "id"
	indexName     = "name"
	indexHostname = "hostname"
	indexSlot     = "slot"
	indexNode     = "node"
)

func tableName(t statev1.Table) string {
	switch t {
	case statev1.Table_TABLE_CLUSTER:
		return tableCluster
	case statev1.Table_TABLE_NODE:
		return tableNode
	case statev1.Table_TABLE_SERVICE:
		return tableService
	case statev1.Table_TABLE_REVISION:
		return tableRevision
	case statev1.Table_TABLE_TASK:
		return tableTask
	}
	return ""
}

// index is a go-memdb indexer whose key is computed by a function of the object's type, without
// reflection. A key that is empty leaves the object out of the index.
type index[T Object] struct{ key func(T) []byte }

// FromObject implements memdb.SingleIndexer.
func (x index[T]) FromObject(raw any) (bool, []byte, error) {
	k := x.key(raw.(T))
	return len(k) > 0, k, nil
}

// FromArgs implements memdb.Indexer; the one argument is the key.
func (x index[T]) FromArgs(args ...any) ([]byte, error) {
	if len(args) == 1 {
		if k, ok := args[0].([]byte); ok {
			return k, nil
		}
	}
	return nil, fmt.Errorf("index takes one key of bytes, not %v", args)
}

// PrefixFromArgs implements memdb.PrefixIndexer; the one argument is the beginning of keys.
func (x index[T]) PrefixFromArgs(args ...any) ([]byte, error) { return x.FromArgs(args...) }

// str makes the key of a string. The closing zero keeps one key from being the beginning of another;
// a prefix search leaves it out.
func str(s string) []byte {
	if s == "" {
		return nil
	}
	return append([]byte(s), 0)
}

// slotKey makes the key of a service's slot; of the service alone, the common prefix of its slots.
func slotKey(serviceID string, slot ...uint32) []byte {
	k := str(serviceID)
	for _, s := range slot {
		k = binary.BigEndian.AppendUint32(k, s)
	}
	return k
}

func idIndex[T Object]() *memdb.IndexSchema {
	return &memdb.IndexSchema{
		Name: indexID, Unique: true,
		Indexer: index[T]{func(o T) []byte { return str(o.GetMeta().GetId()) }},
	}
}

func table(name string, indexes ...*memdb.IndexSchema) *memdb.TableSchema {
	t := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{}}
	for _, x := range indexes {
		t.Indexes[x.Name] = x
	}
	return t
}

var schema = &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
	tableCluster: table(tableCluster, idIndex[*warrenv1.Cluster]()),
	tableNode: table(tableNode, idIndex[*warrenv1.Node](), &memdb.IndexSchema{
		Name: indexHostname, AllowMissing: true,
		Indexer: index[*warrenv1.Node]{func(n *warrenv1.Node) []byte { return str(n.GetFacts().GetHostname()) }},
	}),
	tableService: table(tableService, idIndex[*warrenv1.Service](), &memdb.IndexSchema{
		Name: indexName, Unique: true,
		Indexer: index[*warrenv1.Service]{func(s *warrenv1.Service) []byte { return str(s.GetSpec().GetName()) }},
	}),
	tableRevision: table(tableRevision, idIndex[*warrenv1.Revision]()),
	tableTask: table(tableTask, idIndex[*warrenv1.Task](), &memdb.IndexSchema{
		Name:    indexSlot,
		Indexer: index[*warrenv1.Task]{func(t *warrenv1.Task) []byte { return slotKey(t.GetServiceId(), t.GetSlot()) }},
	}, &memdb.IndexSchema{
		Name: indexNode, AllowMissing: true,
		Indexer: index[*warrenv1.Task]{func(t *warrenv1.Task) []byte { return str(t.GetNodeId()) }},
	}),
}}
