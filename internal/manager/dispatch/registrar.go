package dispatch

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// registrar writes what sessions mean for the nodes' objects. It alone does, with one proposal on its
// way at a time, so that of two things that happened to a node the later one is what stays. Nodes
// that come or go while a proposal is on its way gather for the next.
type registrar struct {
	store    *state.Store
	proposer loop.Proposer
	logger   *slog.Logger
	wake     chan struct{}

	mu      sync.Mutex
	entries map[string]*entry // what is to be written, by node
}

// entry is what is to be written of one node.
type entry struct {
	state   warrenv1.NodeState
	since   time.Time // not of a ready node: it is ready since it is written
	message string
	addr    string                  // where set
	facts   *warrenv1.NodeFacts     // where set
	overlay *warrenv1.OverlayStatus // where set
	join    bool                    // a node nobody knows is a new one
	certificate

	done chan struct{} // closed when it is written, or overtaken by a later one
	err  error         // why it could not be written
}

// certificate is the one that the node's agent has shown, where that is known.
type certificate struct {
	issuer  string
	expires time.Time
}

// in tells whether a node's status says so already.
func (c certificate) in(s *warrenv1.NodeStatus) bool {
	return c.expires.IsZero() || (c.issuer == "" || c.issuer == s.GetIssuer()) && c.expires.Equal(s.GetCertificateExpiresAt().AsTime())
}

func (c certificate) write(s *warrenv1.NodeStatus) {
	if !c.expires.IsZero() {
		s.Issuer, s.CertificateExpiresAt = cmp.Or(c.issuer, s.GetIssuer()), timestamppb.New(c.expires)
	}
}

// inherit takes over from an entry that has not been written yet what e does not say itself. It need not have been
// of the same session: what an agent said last holds until it says otherwise.
func (e *entry) inherit(before *entry) {
	if e.expires.IsZero() {
		e.certificate = before.certificate
	}
	if e.state != warrenv1.NodeState_NODE_STATE_READY || before.state != warrenv1.NodeState_NODE_STATE_READY {
		return
	}
	e.addr = cmp.Or(e.addr, before.addr)
	e.facts = cmp.Or(e.facts, before.facts)
	e.overlay = cmp.Or(e.overlay, before.overlay)
	e.join = e.join || before.join
}

func unknown(since time.Time, why string) entry {
	return entry{state: warrenv1.NodeState_NODE_STATE_UNKNOWN, since: since, message: why}
}

func newRegistrar(store *state.Store, proposer loop.Proposer, logger *slog.Logger) *registrar {
	return &registrar{
		store: store, proposer: proposer, logger: logger,
		wake: make(chan struct{}, 1), entries: map[string]*entry{},
	}
}

// put has e written; it overtakes what has not been written yet of that node.
func (r *registrar) put(node string, e entry) *entry {
	e.done = make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	if before := r.entries[node]; before != nil {
		e.inherit(before)
		close(before.done)
	}
	r.entries[node] = &e
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return &e
}

// renew has a ready node's new certificate written, with what else there is to write of it.
func (r *registrar) renew(node string, c certificate) {
	r.mu.Lock()
	waiting := r.entries[node]
	if waiting != nil {
		waiting.expires = c.expires
	}
	r.mu.Unlock()
	if waiting == nil {
		r.put(node, entry{state: warrenv1.NodeState_NODE_STATE_READY, certificate: c})
	}
}

// run writes entries until ctx ends or nothing can be written any more.
func (r *registrar) run(ctx context.Context) error {
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		for {
			entries := r.take()
			if len(entries) == 0 {
				break
			}
			if err := r.write(ctx, entries); err != nil {
				return err
			}
		}
	}
}

func (r *registrar) take() map[string]*entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.entries
	r.entries = map[string]*entry{}
	return taken
}

// errNotGivenUp is why a node is not taken in yet that was removed a moment ago: its tasks would be those of a new node, with
// addresses of the subnet that the old one had and that may be another's by now.
var errNotGivenUp = errors.New("the node was removed from the cluster and its tasks are not given up yet: it is taken in when they are")

// hasTasks tells whether a node has tasks that have not ended.
func hasTasks(s state.Snapshot, node string) bool {
	for t := range s.TasksByNode(node) {
		if !lifecycle.Ended(t.GetStatus().GetState()) {
			return true
		}
	}
	return false
}

// write proposes what the entries change. Those that the state has overtaken are put back, to be
// decided anew; a later one of that node takes over what it does not say itself.
func (r *registrar) write(ctx context.Context, entries map[string]*entry) error {
	snapshot, now := r.store.Snapshot(), time.Now()
	var nodes []string
	var transactions []*state.Transaction
	for node, e := range entries {
		if e.join && authority.IsRemoved(snapshot.Authority(), node) {
			e.err = authority.ErrRemoved
			close(e.done)
			continue
		}
		if e.join && snapshot.Node(node) == nil && hasTasks(snapshot, node) {
			e.err = errNotGivenUp
			close(e.done)
			continue
		}
		if t := decideNode(snapshot, node, e, now); t != nil {
			nodes, transactions = append(nodes, node), append(transactions, t)
		} else {
			close(e.done)
		}
	}
	if len(transactions) == 0 {
		return nil
	}
	results, err := r.proposer.Propose(ctx, transactions...)
	for i, node := range nodes {
		e := entries[node]
		switch {
		case err != nil:
			e.err = err
			close(e.done)
		case results == nil || results[i] == nil:
			close(e.done)
		case errors.Is(results[i], state.ErrMalformed):
			r.logger.Error("node not written", "node", node, "error", results[i])
			e.err = results[i]
			close(e.done)
		default:
			r.putBack(node, e)
		}
	}
	return err
}

func (r *registrar) putBack(node string, e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if after := r.entries[node]; after != nil {
		after.inherit(e)
		close(e.done)
		return
	}
	r.entries[node] = e
}

// decideNode returns what e changes of a node, nil for nothing.
func decideNode(s state.Snapshot, id string, e *entry, now time.Time) *state.Transaction {
	transaction := state.New(now)
	node := s.Node(id)
	if node == nil {
		if !e.join {
			return nil
		}
		status := &warrenv1.NodeStatus{State: e.state, Since: timestamppb.New(now), Addr: e.addr}
		e.write(status)
		transaction.Create(&warrenv1.Node{
			Meta:   &warrenv1.Meta{Id: id},
			Spec:   &warrenv1.NodeSpec{Availability: warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE},
			Status: status,
			Facts:  e.facts,
		})
		return transaction
	}
	ready := e.state == warrenv1.NodeState_NODE_STATE_READY
	was := node.GetStatus().GetState() == warrenv1.NodeState_NODE_STATE_READY
	if !ready && !was {
		return nil // it was gone before, and since then
	}
	if ready && was && (e.addr == "" || e.addr == node.GetStatus().GetAddr()) && e.in(node.GetStatus()) && (e.facts == nil || proto.Equal(e.facts, node.GetFacts())) &&
		(e.overlay == nil || proto.Equal(e.overlay, node.GetStatus().GetOverlay())) {
		return nil
	}
	state.Update(transaction, node, func(n *warrenv1.Node) {
		if e.facts != nil {
			n.Facts = e.facts
		}
		if n.Status == nil {
			n.Status = &warrenv1.NodeStatus{}
		}
		if e.addr != "" {
			n.Status.Addr = e.addr
		}
		e.write(n.Status)
		if e.overlay != nil {
			n.Status.Overlay = ownKey(s, id, e.overlay)
		}
		if ready && was {
			return
		}
		since := now
		if !ready {
			since = e.since
		}
		n.Status.State, n.Status.Since, n.Status.Message = e.state, timestamppb.New(since), e.message
	})
	return transaction
}

// ownKey is a node's word of its overlay, without a public key that another node has: nobody else could use either then.
// Which of the two it is that means harm cannot be told; the one that came first keeps it.
func ownKey(s state.Snapshot, node string, status *warrenv1.OverlayStatus) *warrenv1.OverlayStatus {
	if status.GetPublicKey() == "" {
		return status
	}
	for other := range s.Nodes() {
		if other.GetMeta().GetId() != node && other.GetStatus().GetOverlay().GetPublicKey() == status.GetPublicKey() {
			refused := proto.CloneOf(status)
			refused.PublicKey = ""
			refused.State = warrenv1.OverlayState_OVERLAY_STATE_FAILED
			refused.Error = "its WireGuard key is that of node " + cmp.Or(other.GetFacts().GetHostname(), other.GetMeta().GetId()) + ": was this machine's data folder copied? Draw another key with `warrenctl node rotate-key`"
			return refused
		}
	}
	return status
}
