package state

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Object is what tables hold: *warrenv1.Cluster, Node, Service, Revision, Task, User or Network, or
// *statev1.Authority or Member.
type Object interface {
	proto.Message
	GetMeta() *warrenv1.Meta
}

// Key names an object of a table.
type Key struct {
	Table statev1.Table
	ID    string
}

// KeyOf returns the key under which o is stored.
func KeyOf(o Object) Key { return Key{tableOf(o), o.GetMeta().GetId()} }

// RevisionID returns the id of a service's revision of that number.
func RevisionID(serviceID string, number uint64) string {
	return fmt.Sprintf("%s.%d", serviceID, number)
}

// tableNames are the tables as errors name them.
var tableNames = map[statev1.Table]string{
	statev1.Table_TABLE_CLUSTER:   "cluster",
	statev1.Table_TABLE_NODE:      "node",
	statev1.Table_TABLE_SERVICE:   "service",
	statev1.Table_TABLE_REVISION:  "revision",
	statev1.Table_TABLE_TASK:      "task",
	statev1.Table_TABLE_AUTHORITY: "authority",
	statev1.Table_TABLE_MEMBER:    "manager",
	statev1.Table_TABLE_USER:      "user",
	statev1.Table_TABLE_NETWORK:   "network",
}

func tableOf(o Object) statev1.Table {
	switch o.(type) {
	case *warrenv1.Cluster:
		return statev1.Table_TABLE_CLUSTER
	case *warrenv1.Node:
		return statev1.Table_TABLE_NODE
	case *warrenv1.Service:
		return statev1.Table_TABLE_SERVICE
	case *warrenv1.Revision:
		return statev1.Table_TABLE_REVISION
	case *warrenv1.Task:
		return statev1.Table_TABLE_TASK
	case *statev1.Authority:
		return statev1.Table_TABLE_AUTHORITY
	case *statev1.Member:
		return statev1.Table_TABLE_MEMBER
	case *warrenv1.User:
		return statev1.Table_TABLE_USER
	case *warrenv1.Network:
		return statev1.Table_TABLE_NETWORK
	}
	return statev1.Table_TABLE_UNSPECIFIED
}

// wrap puts o into the message in which it travels.
func wrap(o Object) *statev1.Object {
	switch o := o.(type) {
	case *warrenv1.Cluster:
		return &statev1.Object{Kind: &statev1.Object_Cluster{Cluster: o}}
	case *warrenv1.Node:
		return &statev1.Object{Kind: &statev1.Object_Node{Node: o}}
	case *warrenv1.Service:
		return &statev1.Object{Kind: &statev1.Object_Service{Service: o}}
	case *warrenv1.Revision:
		return &statev1.Object{Kind: &statev1.Object_Revision{Revision: o}}
	case *warrenv1.Task:
		return &statev1.Object{Kind: &statev1.Object_Task{Task: o}}
	case *statev1.Authority:
		return &statev1.Object{Kind: &statev1.Object_Authority{Authority: o}}
	case *statev1.Member:
		return &statev1.Object{Kind: &statev1.Object_Member{Member: o}}
	case *warrenv1.User:
		return &statev1.Object{Kind: &statev1.Object_User{User: o}}
	case *warrenv1.Network:
		return &statev1.Object{Kind: &statev1.Object_Network{Network: o}}
	}
	panic(fmt.Sprintf("state: %T is not kept in a table", o))
}

// unwrap returns the object of a message, nil where it holds none that can be stored.
func unwrap(m *statev1.Object) Object {
	var o Object
	switch k := m.GetKind().(type) {
	case *statev1.Object_Cluster:
		o = k.Cluster
	case *statev1.Object_Node:
		o = k.Node
	case *statev1.Object_Service:
		o = k.Service
	case *statev1.Object_Revision:
		o = k.Revision
	case *statev1.Object_Task:
		o = k.Task
	case *statev1.Object_Authority:
		o = k.Authority
	case *statev1.Object_Member:
		o = k.Member
	case *statev1.Object_User:
		o = k.User
	case *statev1.Object_Network:
		o = k.Network
	default:
		return nil
	}
	if o.GetMeta().GetId() == "" {
		return nil
	}
	return o
}
