package catalog

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Catalog is safe for concurrent use.
type Catalog struct {
	mu       sync.RWMutex
	services map[string]*service
	tasks    map[string]*task // of all nodes, by id
	version  uint64           // of what managers have sent
	own      netip.Prefix     // this node's subnet
	// arriving are the services and tasks of a full set that is still coming; nil else.
	arriving *arriving

	// barred are tasks that have been withdrawn without having a place, by id: they are not to be adopted.
	barred map[string]struct{}

	// Indexes for names.
	byName map[string]map[*service]struct{} // services by name and alias
	byAddr map[netip.Addr]string            // task by address
	byVIP  map[netip.Addr]*service

	// hostnames are the nodes', by id: tasks of global services are called by them.
	hostnames map[string]string

	// ports are the published ones as last asked for.
	ports        []Port
	portsChanged bool
	// taken are ports of this node that other programs have.
	taken map[Port]struct{}

	// changed are what the rules have not been told of yet.
	changed struct {
		services map[string]struct{}
		tasks    map[string]struct{}
		gone     map[netip.Addr]struct{}
	}
	// unrecorded is what managers have told of and the record does not say yet, by id.
	unrecorded struct{ services, tasks map[string]struct{} }
}

type arriving struct {
	services, tasks map[string]struct{}
}

// service is one service, with those of its tasks that are known.
type service struct {
	id    string
	front *warrenv1.ServiceFront // nil before a manager has told of it
	tasks map[string]*task
}

// task is one task with an address. What is told of it and what is seen of it here may each come first.
type task struct {
	id   string
	told *warrenv1.TaskEndpoint // nil before a manager has told of it
	here *local                 // nil of another node's
	addr netip.Addr
	of   *service
	// dropped: managers knew it and do not any more, so that to them it has ended.
	dropped bool
}

// local is what this node sees of a task of its own.
type local struct {
	slot      uint32
	revision  uint64
	hostPorts []*warrenv1.PortSpec
	serving   bool
}

// Port is one of this node's.
type Port struct {
	Protocol warrenv1.Protocol
	Number   uint32
}

// New returns an empty catalog.
func New() *Catalog {
	c := &Catalog{}
	c.Clear()
	return c
}

// Clear forgets everything.
func (c *Catalog) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.services, c.tasks, c.version, c.arriving = map[string]*service{}, map[string]*task{}, 0, nil
	c.own, c.barred = netip.Prefix{}, map[string]struct{}{}
	c.byName, c.byAddr, c.byVIP = map[string]map[*service]struct{}{}, map[netip.Addr]string{}, map[netip.Addr]*service{}
	c.taken, c.hostnames = map[Port]struct{}{}, map[string]string{}
	c.ports, c.portsChanged = nil, true
	c.forgetChanges()
	c.forgetUnrecorded()
}

// Hostnames says what nodes are called, by id.
func (c *Catalog) Hostnames(byID map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hostnames = byID
}

// Own says what this node's subnet is. Of tasks with addresses in it this node knows better than any manager: it has
// those that were placed here, and no others. What managers tell of others is out of date.
func (c *Catalog) Own(subnet netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own == subnet {
		return
	}
	c.own = subnet
	for _, t := range c.tasks {
		c.believe(t)
	}
}

// Earlier is a task of this node as an earlier agent has left it.
type Earlier struct {
	Task      *warrenv1.Task
	HostPorts []*warrenv1.PortSpec
	Addr      netip.Addr
	Serving   bool // as far as that agent has recorded
}

// Adopt has tasks that an earlier agent has left keep their places until more is seen of them: in force is what that agent
// has put there, and must not become less for the moment in which this one takes its tasks up. They take connections
// if they did by that agent's own record, or as managers were last told, whichever came first.
func (c *Catalog) Adopt(tasks ...Earlier) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range tasks {
		id := e.Task.GetMeta().GetId()
		_, barred := c.barred[id]
		if known := c.tasks[id]; barred || known != nil && known.here != nil || !c.own.Contains(e.Addr) {
			continue
		}
		t := c.task(id, e.Task.GetServiceId())
		t.here = &local{slot: e.Task.GetSlot(), revision: e.Task.GetRevision(), hostPorts: e.HostPorts, serving: e.Serving || t.told.GetServing()}
		c.portsChanged = c.portsChanged || len(e.HostPorts) > 0
		c.setAddr(t, e.Addr)
		c.touch(t)
	}
}

// Heed takes what a manager has sent.
func (c *Catalog) Heed(e *warrenv1.Endpoints) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.GetFull() {
		c.arriving = &arriving{services: map[string]struct{}{}, tasks: map[string]struct{}{}}
	}
	for _, f := range e.GetServices() {
		c.setFront(f.GetServiceId(), f)
		if c.arriving != nil {
			c.arriving.services[f.GetServiceId()] = struct{}{}
		}
	}
	for _, id := range e.GetRemovedServices() {
		c.setFront(id, nil)
	}
	for _, t := range e.GetTasks() {
		c.tell(t)
		if c.arriving != nil {
			c.arriving.tasks[t.GetTaskId()] = struct{}{}
		}
	}
	for _, id := range e.GetRemovedTasks() {
		c.untell(id)
	}
	if e.GetMore() {
		return
	}
	c.version = e.GetVersion()
	if c.arriving == nil {
		return
	}
	for id := range c.services {
		if _, came := c.arriving.services[id]; !came {
			c.setFront(id, nil)
		}
	}
	for id := range c.tasks {
		if _, came := c.arriving.tasks[id]; !came {
			c.untell(id)
		}
	}
	c.arriving = nil
}

// Version is that of what managers have sent, as far as it is whole.
func (c *Catalog) Version() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.version
}

// Unrecorded is what managers have told since it was last called, as a change of what they had told before; false where
// they have told nothing else.
func (c *Catalog) Unrecorded() (*warrenv1.Endpoints, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &warrenv1.Endpoints{Version: c.version}
	for id := range c.unrecorded.services {
		if s := c.services[id]; s != nil && s.front != nil {
			e.Services = append(e.Services, s.front)
		} else {
			e.RemovedServices = append(e.RemovedServices, id)
		}
	}
	for id := range c.unrecorded.tasks {
		if t := c.tasks[id]; t != nil && t.told != nil {
			e.Tasks = append(e.Tasks, t.told)
		} else {
			e.RemovedTasks = append(e.RemovedTasks, id)
		}
	}
	some := len(c.unrecorded.services)+len(c.unrecorded.tasks) > 0
	c.forgetUnrecorded()
	return e, some
}

// NotRecorded takes back what Unrecorded returned and could not be recorded.
func (c *Catalog) NotRecorded(e *warrenv1.Endpoints) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range e.GetServices() {
		c.unrecorded.services[f.GetServiceId()] = struct{}{}
	}
	for _, id := range e.GetRemovedServices() {
		c.unrecorded.services[id] = struct{}{}
	}
	for _, t := range e.GetTasks() {
		c.unrecorded.tasks[t.GetTaskId()] = struct{}{}
	}
	for _, id := range e.GetRemovedTasks() {
		c.unrecorded.tasks[id] = struct{}{}
	}
}

func (c *Catalog) forgetUnrecorded() {
	c.unrecorded.services, c.unrecorded.tasks = map[string]struct{}{}, map[string]struct{}{}
}

// Place notes that a task of this node has an address. It does not take connections yet.
func (c *Catalog) Place(t *warrenv1.Task, hostPorts []*warrenv1.PortSpec, addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := t.GetMeta().GetId()
	delete(c.barred, id)
	known := c.task(id, t.GetServiceId())
	if known.here == nil {
		known.here = &local{}
	}
	c.portsChanged = c.portsChanged || len(known.here.hostPorts)+len(hostPorts) > 0
	known.here.slot, known.here.revision, known.here.hostPorts = t.GetSlot(), t.GetRevision(), hostPorts
	c.setAddr(known, addr)
	c.touch(known)
}

// Serve notes that a task of this node takes connections.
func (c *Catalog) Serve(id string) { c.serve(id, true) }

// Withdraw notes that a task of this node does not take connections any more.
func (c *Catalog) Withdraw(id string) { c.serve(id, false) }

func (c *Catalog) serve(id string, serving bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tasks[id]
	switch {
	case t == nil || t.here == nil:
		if delete(c.barred, id); !serving {
			c.barred[id] = struct{}{}
		}
	case t.here.serving != serving:
		t.here.serving = serving
		c.touch(t)
	}
}

// Release notes that a task of this node has no address any more.
func (c *Catalog) Release(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tasks[id]
	if t == nil || t.here == nil {
		return
	}
	c.portsChanged = c.portsChanged || len(t.here.hostPorts) > 0
	t.here = nil
	// What a manager still tells of it is out of date.
	c.remove(t)
}

// Placed is the address of a task of this node; the zero Addr where it has none.
func (c *Catalog) Placed(id string) netip.Addr {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if t := c.tasks[id]; t != nil && t.here != nil {
		return t.addr
	}
	return netip.Addr{}
}

// Declared returns the ports on which a task of this node is said to listen.
func (c *Catalog) Declared(id string) []Port {
	c.mu.RLock()
	defer c.mu.RUnlock()
	t := c.tasks[id]
	if t == nil || t.here == nil {
		return nil
	}
	var ports []Port
	for _, p := range t.of.front.GetPorts() {
		ports = append(ports, Port{p.GetProtocol(), p.GetTarget()})
	}
	for _, p := range t.here.hostPorts {
		ports = append(ports, Port{normal(p.GetProtocol()), p.GetTarget()})
	}
	slices.SortFunc(ports, comparePorts)
	return slices.Compact(ports)
}

// Published returns the ports that are open on this node, taken or not, and whether they may be others than when it was
// last called.
func (c *Catalog) Published() (ports []Port, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.portsChanged {
		return c.ports, false
	}
	for _, s := range c.services {
		for _, p := range s.front.GetPorts() {
			ports = append(ports, Port{p.GetProtocol(), p.GetPublished()})
		}
	}
	for _, t := range c.tasks {
		if t.here != nil {
			for _, p := range t.here.hostPorts {
				ports = append(ports, Port{normal(p.GetProtocol()), p.GetPublished()})
			}
		}
	}
	slices.SortFunc(ports, comparePorts)
	c.ports, c.portsChanged = slices.Compact(ports), false
	return c.ports, true
}

// Taken says which ports of this node other programs have, so that they lead to no service.
func (c *Catalog) Taken(ports []Port) {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := map[Port]struct{}{}
	for _, p := range ports {
		taken[p] = struct{}{}
	}
	if maps.Equal(taken, c.taken) {
		return
	}
	c.taken = taken
	for id, s := range c.services {
		if len(s.front.GetPorts()) > 0 {
			c.changed.services[id] = struct{}{}
		}
	}
	for id, t := range c.tasks {
		if t.here != nil && len(t.here.hostPorts) > 0 {
			c.changed.tasks[id] = struct{}{}
		}
	}
}

func (c *Catalog) service(id string) *service {
	s := c.services[id]
	if s == nil {
		s = &service{id: id, tasks: map[string]*task{}}
		c.services[id] = s
	}
	return s
}

func (c *Catalog) task(id, serviceID string) *task {
	t := c.tasks[id]
	if t == nil {
		t = &task{id: id, of: c.service(serviceID)}
		c.tasks[id], t.of.tasks[id] = t, t
	}
	return t
}

// setFront notes how a service is reached; nil: it is gone.
func (c *Catalog) setFront(id string, f *warrenv1.ServiceFront) {
	s := c.services[id]
	if s == nil && f == nil {
		return
	}
	s = c.service(id)
	if !proto.Equal(s.front, f) {
		c.unrecorded.services[id] = struct{}{}
	}
	c.portsChanged = c.portsChanged || len(s.front.GetPorts())+len(f.GetPorts()) > 0
	for _, name := range s.names() {
		delete(c.byName[name], s)
		if len(c.byName[name]) == 0 {
			delete(c.byName, name)
		}
	}
	if c.byVIP[s.vip()] == s {
		delete(c.byVIP, s.vip())
	}
	s.front = f
	for _, name := range s.names() {
		if c.byName[name] == nil {
			c.byName[name] = map[*service]struct{}{}
		}
		c.byName[name][s] = struct{}{}
	}
	if vip := s.vip(); vip.IsValid() {
		c.byVIP[vip] = s
	}
	c.changed.services[id] = struct{}{}
	for task := range s.tasks { // its networks are theirs
		c.changed.tasks[task] = struct{}{}
	}
	c.sweep(s)
}

// sweep forgets a service of which nothing is known any more.
func (c *Catalog) sweep(s *service) {
	if s.front == nil && len(s.tasks) == 0 {
		delete(c.services, s.id)
	}
}

// names are those by which a service can be asked for.
func (s *service) names() []string {
	if s.front == nil {
		return nil
	}
	names := []string{s.front.GetServiceName()}
	for _, n := range s.front.GetNetworks() {
		names = append(names, n.GetAliases()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (s *service) vip() netip.Addr {
	addr, err := netip.ParseAddr(s.front.GetVip())
	if err != nil {
		return netip.Addr{}
	}
	return addr
}

// tell notes what a manager tells of a task.
func (c *Catalog) tell(e *warrenv1.TaskEndpoint) {
	if _, err := netip.ParseAddr(e.GetAddress()); err != nil && !e.GetWithdrawn() {
		c.untell(e.GetTaskId())
		return
	}
	t := c.task(e.GetTaskId(), e.GetServiceId())
	if !proto.Equal(t.told, e) {
		c.unrecorded.tasks[t.id] = struct{}{}
	}
	t.told, t.dropped = e, false
	c.believe(t)
	c.touch(t)
}

// believe has a task have the address that a manager tells, unless this node must know it.
func (c *Catalog) believe(t *task) {
	if t.here != nil {
		return
	}
	if addr, err := netip.ParseAddr(t.told.GetAddress()); err == nil && !c.own.Contains(addr) {
		c.setAddr(t, addr)
	} else {
		c.clearAddr(t)
	}
}

// untell notes that managers do not know a task any more, or not with an address.
func (c *Catalog) untell(id string) {
	t := c.tasks[id]
	if t == nil {
		return
	}
	if t.told != nil {
		c.unrecorded.tasks[t.id], t.dropped = struct{}{}, true
	}
	if t.told = nil; t.here == nil {
		c.remove(t)
	} else {
		c.touch(t)
	}
}

func (c *Catalog) setAddr(t *task, addr netip.Addr) {
	if t.addr == addr {
		return
	}
	c.clearAddr(t)
	t.addr = addr
	if holder := c.tasks[c.byAddr[addr]]; holder != nil && holder != t {
		// Its new holder is known before it is known that the old one has gone.
		c.touch(holder)
	}
	c.byAddr[addr] = t.id
	delete(c.changed.gone, addr)
}

func (c *Catalog) clearAddr(t *task) {
	if t.addr.IsValid() && c.byAddr[t.addr] == t.id {
		delete(c.byAddr, t.addr)
		c.changed.gone[t.addr] = struct{}{}
	}
	t.addr = netip.Addr{}
}

func (c *Catalog) remove(t *task) {
	if t.told != nil {
		c.unrecorded.tasks[t.id] = struct{}{}
	}
	c.clearAddr(t)
	delete(c.tasks, t.id)
	delete(c.changed.tasks, t.id)
	delete(t.of.tasks, t.id)
	c.changed.services[t.of.id] = struct{}{}
	c.sweep(t.of)
}

// touch notes that the rules must hear of a task.
func (c *Catalog) touch(t *task) {
	c.changed.tasks[t.id] = struct{}{}
	c.changed.services[t.of.id] = struct{}{}
}

// holds tells whether t is the one that its address is known by.
func (c *Catalog) holds(t *task) bool { return t.addr.IsValid() && c.byAddr[t.addr] == t.id }

// open tells whether new connections may go to a task. Of its own tasks this node knows first whether they take
// connections, a manager whether they are to be sent any.
func (t *task) open() bool {
	if t.here != nil {
		return t.here.serving && !t.told.GetWithdrawn() && !t.dropped
	}
	return t.told.GetServing()
}

func (t *task) slot() uint32 {
	if t.here != nil {
		return t.here.slot
	}
	return t.told.GetSlot()
}

// networks are those a task is on.
func (t *task) networks() []string { return t.of.networks() }

func (s *service) networks() []string {
	var names []string
	for _, n := range s.front.GetNetworks() {
		names = append(names, n.GetNetwork())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// normal is a protocol without the zero that stands for TCP.
func normal(p warrenv1.Protocol) warrenv1.Protocol {
	if p == warrenv1.Protocol_PROTOCOL_UNSPECIFIED {
		return warrenv1.Protocol_PROTOCOL_TCP
	}
	return p
}

func comparePorts(a, b Port) int {
	if a.Protocol != b.Protocol {
		return int(a.Protocol) - int(b.Protocol)
	}
	return int(a.Number) - int(b.Number)
}
