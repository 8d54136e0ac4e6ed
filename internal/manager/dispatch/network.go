package dispatch

import (
	"iter"
	"maps"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/manager/overlay"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// news is what an agent may have to hear of the network: all of it, or that of some objects, by id.
type news struct {
	config                 bool // its own part
	allPeers, allEndpoints bool
	peers                  map[string]struct{} // nodes
	services, tasks        map[string]struct{}
}

func allNews() news { return news{config: true, allPeers: true, allEndpoints: true} }

func (n *news) add(more news) {
	n.config = n.config || more.config
	n.allPeers = n.allPeers || more.allPeers
	n.allEndpoints = n.allEndpoints || more.allEndpoints
	n.peers = union(n.peers, more.peers)
	n.services = union(n.services, more.services)
	n.tasks = union(n.tasks, more.tasks)
}

// union adds ids to a set, which may be nil.
func union(set, ids map[string]struct{}) map[string]struct{} {
	if set == nil && len(ids) > 0 {
		set = make(map[string]struct{}, len(ids))
	}
	maps.Copy(set, ids)
	return set
}

func only(id string) map[string]struct{} { return map[string]struct{}{id: {}} }

func (s *session) markNews(n news) {
	s.mu.Lock()
	s.news.add(n)
	s.mu.Unlock()
	s.rouse()
}

// observeNetwork marks in each session what its node must hear of a change.
func (t *term) observeNetwork(c state.Change) {
	object := c.After
	if object == nil {
		object = c.Before
	}
	id := object.GetMeta().GetId()
	switch object := object.(type) {
	case *warrenv1.Cluster:
		t.each(func(s *session) { s.markNews(news{config: true}) })
	case *warrenv1.Node:
		before, _ := c.Before.(*warrenv1.Node)
		after, _ := c.After.(*warrenv1.Node)
		peer, view := overlay.PeerNews(before, after), overlay.ViewNews(before, after)
		t.each(func(s *session) {
			if s.node == id {
				s.markNews(news{config: true, allPeers: view})
			} else if peer {
				s.markNews(news{peers: only(id)})
			}
		})
	case *warrenv1.Service:
		before, _ := c.Before.(*warrenv1.Service)
		after, _ := c.After.(*warrenv1.Service)
		if overlay.FrontNews(before, after) {
			mark := news{services: only(id)}
			t.each(func(s *session) { s.markNews(mark) })
		}
	case *warrenv1.Task:
		before, _ := c.Before.(*warrenv1.Task)
		after, _ := c.After.(*warrenv1.Task)
		if overlay.EndpointNews(before, after) {
			mark := news{tasks: only(id)}
			t.each(func(s *session) { s.markNews(mark) })
		} else if (overlay.Lost(before) == nil) != (overlay.Lost(after) == nil) {
			if s := t.session(object.GetNodeId()); s != nil {
				s.markNews(news{tasks: only(id)})
			}
		}
		if overlay.Open(before) && !overlay.Open(after) {
			t.withdrawals.drop(id)
		}
	}
}

// updateOverlay has what an agent says of its overlay written.
func (t *term) updateOverlay(s *session, status *warrenv1.OverlayStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions[s.node] == s {
		t.registrar.put(s.node, entry{state: warrenv1.NodeState_NODE_STATE_READY, overlay: status})
	}
}

// tellNetwork sends what is new of the network.
func (s *session) tellNetwork(w wire, now state.Snapshot, n news) error {
	self := now.Node(s.node)
	if config := overlay.Config(now.Cluster(), self); n.config && config != nil && !proto.Equal(config, s.config) {
		s.config = config
		if err := w.Send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Network{Network: config}}); err != nil {
			return err
		}
	}
	if n.allPeers || len(n.peers) > 0 {
		for piece := range tellPeers(now, self, n) {
			if err := w.Send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Peers{Peers: piece}}); err != nil {
				return err
			}
		}
	}
	if n.allEndpoints || len(n.services) > 0 || len(n.tasks) > 0 {
		for piece := range tellEndpoints(now, s.node, n) {
			if err := w.Send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Endpoints{Endpoints: piece}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellPeers yields, in pieces, the news of other nodes.
func tellPeers(now state.Snapshot, self *warrenv1.Node, n news) iter.Seq[*warrenv1.Peers] {
	return func(yield func(*warrenv1.Peers) bool) {
		piece, size := &warrenv1.Peers{Full: n.allPeers}, 0
		for id, other := range chosen(n.allPeers, n.peers, now.Nodes(), now.Node) {
			if p := overlay.Peer(self, other); p != nil {
				piece.Peers = append(piece.Peers, p)
				size += proto.Size(p)
			} else if !n.allPeers {
				piece.Removed = append(piece.Removed, id)
				size += len(id)
			}
			if size >= maxPieceBytes {
				piece.More = true
				if !yield(piece) {
					return
				}
				piece, size = &warrenv1.Peers{}, 0
			}
		}
		yield(piece)
	}
}

// tellEndpoints yields, in pieces, the news for a node of what services are reached by. The last piece comes even if it is empty: it
// has the version that the agent is to acknowledge.
func tellEndpoints(now state.Snapshot, node string, n news) iter.Seq[*warrenv1.Endpoints] {
	return func(yield func(*warrenv1.Endpoints) bool) {
		piece, size := &warrenv1.Endpoints{Version: now.Index(), Full: n.allEndpoints}, 0
		next := func(grown int) bool {
			if size += grown; size < maxPieceBytes {
				return true
			}
			piece.More = true
			if !yield(piece) {
				return false
			}
			piece, size = &warrenv1.Endpoints{Version: now.Index()}, 0
			return true
		}
		for id, service := range chosen(n.allEndpoints, n.services, now.Services(), now.Service) {
			if f := overlay.Front(service); f != nil {
				piece.Services = append(piece.Services, f)
				if !next(proto.Size(f)) {
					return
				}
			} else if !n.allEndpoints {
				piece.RemovedServices = append(piece.RemovedServices, id)
				if !next(len(id)) {
					return
				}
			}
		}
		for id, task := range chosen(n.allEndpoints, n.tasks, now.Tasks(), now.Task) {
			e := overlay.Endpoint(task)
			if e == nil && task.GetNodeId() == node {
				e = overlay.Lost(task)
			}
			if e != nil {
				piece.Tasks = append(piece.Tasks, e)
				if !next(proto.Size(e)) {
					return
				}
			} else if !n.allEndpoints {
				piece.RemovedTasks = append(piece.RemovedTasks, id)
				if !next(len(id)) {
					return
				}
			}
		}
		yield(piece)
	}
}

// chosen yields all objects, or those of some ids, which may be gone.
func chosen[T state.Object](all bool, ids map[string]struct{}, every iter.Seq[T], get func(string) T) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		if all {
			for o := range every {
				if !yield(o.GetMeta().GetId(), o) {
					return
				}
			}
			return
		}
		for id := range ids {
			if !yield(id, get(id)) {
				return
			}
		}
	}
}
