package consensustest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// timeout is how long a message and its answer may take.
const timeout = 2 * time.Second

// Network carries raft's messages between the transports that it has given out. Everybody reaches everybody
// until told otherwise. Addresses are ids.
type Network struct {
	mu    sync.Mutex
	nodes map[raft.ServerID]*Transport
	cut   map[path]bool
	delay func(from, to string) time.Duration
}

// path is the way from one manager to another; the way back is another path.
type path struct{ from, to raft.ServerID }

// NewNetwork returns a network on which messages take no time.
func NewNetwork() *Network {
	return &Network{nodes: map[raft.ServerID]*Transport{}, cut: map[path]bool{}, delay: func(string, string) time.Duration { return 0 }}
}

// Delay has a message take as long as delay says, which is asked once for each. An answer is a message, too.
func (n *Network) Delay(delay func(from, to string) time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = delay
}

// Transport returns a transport for a manager that starts; one of the same id from before is cut off.
func (n *Network) Transport(id string) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &Transport{id: raft.ServerID(id), network: n, requests: make(chan raft.RPC), closed: make(chan struct{})}
	n.nodes[t.id] = t
	return t
}

// Cut has messages from one manager to another get lost. Answers to what comes the other way are messages
// too.
func (n *Network) Cut(from, to string) { n.set(from, to, true) }

// Mend ends Cut.
func (n *Network) Mend(from, to string) { n.set(from, to, false) }

func (n *Network) set(from, to string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[path{raft.ServerID(from), raft.ServerID(to)}] = cut
}

// Isolate cuts a manager off from all others, both ways.
func (n *Network) Isolate(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.nodes {
		n.cut[path{raft.ServerID(id), other}], n.cut[path{other, raft.ServerID(id)}] = true, true
	}
}

// MendAll ends all that Cut and Isolate did.
func (n *Network) MendAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

// pass takes a message's time and tells whether it arrives. One whose sender is gone does not.
func (n *Network) pass(from, to raft.ServerID, gone <-chan struct{}) (*Transport, bool) {
	n.mu.Lock()
	wait := n.delay(string(from), string(to))
	n.mu.Unlock()
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-gone:
			return nil, false
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.nodes[to]
	return t, t != nil && !n.cut[path{from, to}]
}

// Transport is one manager's end of a network.
type Transport struct {
	id       raft.ServerID
	network  *Network
	requests chan raft.RPC
	closed   chan struct{}
	once     sync.Once
	mu       sync.Mutex
	beat     func(raft.RPC)
	calls    sync.WaitGroup
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// Consumer implements raft.Transport.
func (t *Transport) Consumer() <-chan raft.RPC { return t.requests }

// LocalAddr implements raft.Transport.
func (t *Transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.id) }

// EncodePeer implements raft.Transport.
func (t *Transport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }

// DecodePeer implements raft.Transport.
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport.
func (t *Transport) SetHeartbeatHandler(beat func(raft.RPC)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.beat = beat
}

// AppendEntriesPipeline implements raft.Transport. There are none.
func (t *Transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (t *Transport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	sent := *args // raft may change it once it has given up
	return call(t, id, &sent, resp, nil)
}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return call(t, id, args, resp, nil)
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return call(t, id, args, resp, nil)
}

// TimeoutNow implements raft.Transport.
func (t *Transport) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return call(t, id, args, resp, nil)
}

// InstallSnapshot implements raft.Transport.
func (t *Transport) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	content, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	return call(t, id, args, resp, content)
}

// Close implements raft.WithClose. It returns when nothing of this manager is on its way any more.
func (t *Transport) Close() error {
	t.once.Do(func() { close(t.closed) })
	t.calls.Wait()
	return nil
}

var errLost = errors.New("no answer")

// call sends a message and waits for the answer. One that is given up may yet arrive.
func call[T any](t *Transport, to raft.ServerID, request any, response *T, content []byte) error {
	answer := make(chan raft.RPCResponse, 1)
	t.calls.Go(func() {
		if r, ok := t.ask(to, request, content); ok {
			answer <- r
		}
	})
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	select {
	case r := <-answer:
		if r.Error != nil {
			return r.Error
		}
		got, ok := r.Response.(*T)
		if !ok {
			return fmt.Errorf("the answer is a %T", r.Response)
		}
		*response = *got
		return nil
	case <-limit.C:
		return errLost
	case <-t.closed:
		return raft.ErrTransportShutdown
	}
}

// ask takes a message to its receiver and the answer back, if both arrive.
func (t *Transport) ask(to raft.ServerID, request any, content []byte) (raft.RPCResponse, bool) {
	peer, ok := t.network.pass(t.id, to, t.closed)
	if !ok {
		return raft.RPCResponse{}, false
	}
	answer := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: request, RespChan: answer}
	if content != nil {
		rpc.Reader = bytes.NewReader(content)
	}
	if !peer.take(rpc, t.closed) {
		return raft.RPCResponse{}, false
	}
	select {
	case r := <-answer:
		_, ok = t.network.pass(to, t.id, t.closed)
		return r, ok
	case <-peer.closed:
	case <-t.closed:
	}
	return raft.RPCResponse{}, false
}

// take gives raft a message that has arrived.
func (t *Transport) take(rpc raft.RPC, gone <-chan struct{}) bool {
	t.mu.Lock()
	beat := t.beat
	t.mu.Unlock()
	select {
	case <-t.closed:
		return false
	default:
	}
	if args, ok := rpc.Command.(*raft.AppendEntriesRequest); ok && beat != nil && heartbeat(args) {
		beat(rpc) // beside what raft is busy with, as over a real network
		return true
	}
	select {
	case t.requests <- rpc:
		return true
	case <-t.closed:
	case <-gone:
	}
	return false
}

func heartbeat(a *raft.AppendEntriesRequest) bool {
	return a.Term != 0 && a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}
