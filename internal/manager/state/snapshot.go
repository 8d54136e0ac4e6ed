package state

import (
	"iter"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Snapshot is the state at one moment. It is immutable, as is everything read out of it; copies are
// equal. Lookups return nil where there is nothing of that name.
type Snapshot struct {
	tables *tables
	index  uint64
}

// Index is the raft index of the last entry that is in the snapshot.
func (s Snapshot) Index() uint64 { return s.index }

// Cluster returns the cluster object, nil before there is a cluster.
func (s Snapshot) Cluster() *warrenv1.Cluster {
	for c := range s.tables.clusters.byID("") {
		return c
	}
	return nil
}

// Hostname returns what a node's machine calls itself, also of one that was removed for as long as that is remembered; empty where
// it is not known.
func (s Snapshot) Hostname(node string) string {
	if n := s.Node(node); n != nil {
		return n.GetFacts().GetHostname()
	}
	for _, gone := range s.Authority().GetRemoved() {
		if gone.GetName() == node {
			return gone.GetHostname()
		}
	}
	return ""
}

// Authority returns the certificate authority, nil before there is a cluster.
func (s Snapshot) Authority() *statev1.Authority {
	for a := range s.tables.authority.byID("") {
		return a
	}
	return nil
}

// Member returns what the manager of that id has told of itself.
func (s Snapshot) Member(id string) *statev1.Member { return s.tables.members.get(id) }

// Members iterates over what managers have told of themselves, by id.
func (s Snapshot) Members() iter.Seq[*statev1.Member] { return s.tables.members.byID("") }

// User returns the user of that name.
func (s Snapshot) User(name string) *warrenv1.User { return s.tables.users.get(name) }

// Users iterates over all users by name.
func (s Snapshot) Users() iter.Seq[*warrenv1.User] { return s.tables.users.byID("") }

// Network returns the network of that name, which is its id.
func (s Snapshot) Network(name string) *warrenv1.Network { return s.tables.networks.get(name) }

// Networks iterates over all networks by name.
func (s Snapshot) Networks() iter.Seq[*warrenv1.Network] { return s.tables.networks.byID("") }

// Node returns the node of that id.
func (s Snapshot) Node(id string) *warrenv1.Node {
	return s.tables.nodes.get(id)
}

// Nodes iterates over all nodes by id.
func (s Snapshot) Nodes() iter.Seq[*warrenv1.Node] {
	return s.tables.nodes.byID("")
}

// NodesByIDPrefix iterates over the nodes whose id begins so.
func (s Snapshot) NodesByIDPrefix(prefix string) iter.Seq[*warrenv1.Node] {
	return s.tables.nodes.byID(prefix)
}

// NodesByHostname iterates over the nodes of that hostname, by id. Hostnames need not be unique.
func (s Snapshot) NodesByHostname(hostname string) iter.Seq[*warrenv1.Node] {
	return s.tables.nodes.by(nodeByHostname, str(hostname))
}

// NodesInHostnameOrder iterates over the nodes that have a hostname, by it and then by id.
func (s Snapshot) NodesInHostnameOrder() iter.Seq[*warrenv1.Node] {
	return s.tables.nodes.from(nodeByHostname, nil)
}

// Service returns the service of that id.
func (s Snapshot) Service(id string) *warrenv1.Service {
	return s.tables.services.get(id)
}

// ServiceByName returns the service of that name.
func (s Snapshot) ServiceByName(name string) *warrenv1.Service {
	service, _ := s.tables.services.indexes[serviceByName].Get(str(name))
	return service
}

// Services iterates over all services by id.
func (s Snapshot) Services() iter.Seq[*warrenv1.Service] {
	return s.tables.services.byID("")
}

// ServicesByIDPrefix iterates over the services whose id begins so.
func (s Snapshot) ServicesByIDPrefix(prefix string) iter.Seq[*warrenv1.Service] {
	return s.tables.services.byID(prefix)
}

// ServicesFrom iterates by name over the services whose name is `name` or comes after it.
func (s Snapshot) ServicesFrom(name string) iter.Seq[*warrenv1.Service] {
	return s.tables.services.from(serviceByName, []byte(name))
}

// Revision returns the service's revision of that number.
func (s Snapshot) Revision(serviceID string, number uint64) *warrenv1.Revision {
	return s.tables.revisions.get(RevisionID(serviceID, number))
}

// Revisions iterates over the revisions kept of a service, in no useful order.
func (s Snapshot) Revisions(serviceID string) iter.Seq[*warrenv1.Revision] {
	return s.tables.revisions.byID(serviceID + ".")
}

// Task returns the task of that id.
func (s Snapshot) Task(id string) *warrenv1.Task {
	return s.tables.tasks.get(id)
}

// Tasks iterates over all tasks by id.
func (s Snapshot) Tasks() iter.Seq[*warrenv1.Task] {
	return s.tables.tasks.byID("")
}

// TasksByIDPrefix iterates over the tasks whose id begins so.
func (s Snapshot) TasksByIDPrefix(prefix string) iter.Seq[*warrenv1.Task] {
	return s.tables.tasks.byID(prefix)
}

// TasksByService iterates over a service's tasks by slot, then by id.
func (s Snapshot) TasksByService(serviceID string) iter.Seq[*warrenv1.Task] {
	return s.tables.tasks.by(taskBySlot, slotKey(serviceID))
}

// TasksBySlot iterates over the tasks of one slot of a service, by id.
func (s Snapshot) TasksBySlot(serviceID string, slot uint32) iter.Seq[*warrenv1.Task] {
	return s.tables.tasks.by(taskBySlot, slotKey(serviceID, slot))
}

// TasksByNode iterates over the tasks placed on a node, by id.
func (s Snapshot) TasksByNode(nodeID string) iter.Seq[*warrenv1.Task] {
	return s.tables.tasks.by(taskByNode, str(nodeID))
}

// Objects iterates over every object, table by table and by id: what a raft snapshot holds.
func (s Snapshot) Objects() iter.Seq[Object] {
	return func(yield func(Object) bool) {
		_ = pass(s.tables.clusters.byID(""), yield) && pass(s.tables.nodes.byID(""), yield) &&
			pass(s.tables.services.byID(""), yield) && pass(s.tables.revisions.byID(""), yield) &&
			pass(s.tables.tasks.byID(""), yield) && pass(s.tables.authority.byID(""), yield) &&
			pass(s.tables.members.byID(""), yield) && pass(s.tables.users.byID(""), yield) &&
			pass(s.tables.networks.byID(""), yield)
	}
}

// count is the number of Objects.
func (s Snapshot) count() int {
	t := s.tables
	return t.clusters.objects.Len() + t.nodes.objects.Len() + t.services.objects.Len() + t.revisions.objects.Len() + t.tasks.objects.Len() +
		t.authority.objects.Len() + t.members.objects.Len() + t.users.objects.Len() + t.networks.objects.Len()
}

// TaskCount returns the number of tasks, ended ones included.
func (s Snapshot) TaskCount() int { return s.tables.tasks.objects.Len() }

// ServiceCount returns the number of services.
func (s Snapshot) ServiceCount() int { return s.tables.services.objects.Len() }

// pass yields a sequence's objects and tells whether more are wanted.
func pass[T Object](objects iter.Seq[T], yield func(Object) bool) bool {
	for o := range objects {
		if !yield(o) {
			return false
		}
	}
	return true
}
