package raftwire

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/manager/raftlog"
	"github.com/cuemby/warren/internal/pki"
)

// ALPN is the protocol that a connection of raft's negotiates.
const ALPN = "warren-raft/1"

const (
	// defaultTimeout bounds how long a message and its answer may take. Heartbeats tell much sooner that
	// somebody is away.
	defaultTimeout = 2 * time.Second
	// pooled is how many connections to one manager are kept while none uses them: raft has a heartbeat, a
	// stream of entries and now and then an election under way.
	pooled = 3
)

// Options says as whom a wire speaks, and with whom.
type Options struct {
	// ID is this manager's identifier, as its certificate names it.
	ID string
	// Addr is the host:port where the other managers reach this one. SetAddr changes it.
	Addr string
	// Credentials are shown and verified with; there may be none yet.
	Credentials *pki.Holder
	// Admit tells whether the cluster lets a manager take part; nil admits all that have a certificate.
	Admit func(id string) bool
	// Timeout bounds how long a message and its answer may take; 0 for one that suits a LAN. A snapshot is
	// given as much for every 256 KiB.
	Timeout time.Duration
	Logger  *slog.Logger
}

// Wire carries raft's messages. Close it.
type Wire struct {
	*raft.NetworkTransport
	layer *layer
	id    raft.ServerID
	addr  atomic.Pointer[string]
}

var (
	_ raft.Transport   = (*Wire)(nil)
	_ raft.WithPreVote = (*Wire)(nil)
	_ raft.WithClose   = (*Wire)(nil)
)

// New returns a wire. It takes what Serve is given, and dials when raft wants to say something.
func New(o Options) *Wire {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	w := &Wire{id: raft.ServerID(o.ID), layer: newLayer(o)}
	w.SetAddr(o.Addr)
	w.NetworkTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: w.layer, MaxPool: pooled, Timeout: o.Timeout, Logger: raftlog.New(o.Logger), MsgpackUseNewTimeFormat: true,
	})
	return w
}

// Serve carries raft's messages over a connection that came in and negotiated ALPN, and returns when the
// connection has ended. It is for http.Server.TLSNextProto. A server that shuts down waits for it: close
// the wire first.
func (w *Wire) Serve(_ *http.Server, conn *tls.Conn, _ http.Handler) { w.layer.serve(conn) }

// SetAddr changes the host:port where the other managers reach this one. They learn of it as raft's
// membership is changed, which is for the caller to do.
func (w *Wire) SetAddr(addr string) { w.addr.Store(&addr) }

// Recheck closes the connections with managers that may no longer take part: call it when one was removed,
// and when the credentials have changed.
func (w *Wire) Recheck() { w.layer.recheck() }

// LocalAddr implements raft.Transport.
func (w *Wire) LocalAddr() raft.ServerAddress { return raft.ServerAddress(*w.addr.Load()) }

// EncodePeer implements raft.Transport. Raft has members vote for an address; the id is put before it, so
// that no two managers can be taken for each other, whatever their addresses are.
func (w *Wire) EncodePeer(id raft.ServerID, addr raft.ServerAddress) []byte {
	if id == w.id {
		addr = w.LocalAddr()
	}
	return []byte(target(id, addr))
}

// target names a manager and where to reach it, for the pool of connections and for dialing.
func target(id raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(id) + "@" + addr
}

// parseTarget takes apart what target put together.
func parseTarget(t raft.ServerAddress) (id, addr string, err error) {
	id, addr, ok := strings.Cut(string(t), "@")
	if !ok || id == "" || addr == "" {
		return "", "", fmt.Errorf("%q names no manager and its address", t)
	}
	return id, addr, nil
}

// AppendEntriesPipeline implements raft.Transport.
func (w *Wire) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	return w.NetworkTransport.AppendEntriesPipeline(id, target(id, addr))
}

// AppendEntries implements raft.Transport.
func (w *Wire) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	to := target(id, addr)
	return w.again(to, func() error { return w.NetworkTransport.AppendEntries(id, to, args, resp) })
}

// RequestVote implements raft.Transport.
func (w *Wire) RequestVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	to := target(id, addr)
	return w.again(to, func() error { return w.NetworkTransport.RequestVote(id, to, args, resp) })
}

// RequestPreVote implements raft.WithPreVote.
func (w *Wire) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	to := target(id, addr)
	return w.again(to, func() error { return w.NetworkTransport.RequestPreVote(id, to, args, resp) })
}

// TimeoutNow implements raft.Transport.
func (w *Wire) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	to := target(id, addr)
	return w.again(to, func() error { return w.NetworkTransport.TimeoutNow(id, to, args, resp) })
}

// InstallSnapshot implements raft.Transport.
func (w *Wire) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return w.NetworkTransport.InstallSnapshot(id, target(id, addr), args, resp, data)
}

// again makes a call once more for each pooled connection that turns out to have been closed by the other
// side, as all are when a manager was restarted. Raft would take each for a manager that is away, and an
// election could fail as often as there are such connections. What raft says this way may be said twice.
func (w *Wire) again(to raft.ServerAddress, call func() error) error {
	for range pooled {
		dialed := w.layer.dials(to)
		if err := call(); !closedByPeer(err) || w.layer.dials(to) != dialed {
			return err
		}
	}
	return call()
}

func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
