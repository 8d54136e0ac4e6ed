package relay

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/caller"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// dialTimeout is how long an agent may take to dial back.
const dialTimeout = 10 * time.Second

var (
	// ErrNoAnswer: the agent has not dialled back in time.
	ErrNoAnswer = errors.New("its agent does not answer")
	// ErrLeft: the agent's session ended before it had dialled back.
	ErrLeft = errors.New("its agent went away")
)

// Sessions reaches agents over their sessions; the dispatcher does.
type Sessions interface {
	// Await waits until a node's agent has a session, or need not be waited for.
	Await(ctx context.Context, node string)
	// Send queues a message for a node's agent and does not wait. The channel is closed when the session
	// that took it has ended.
	Send(node string, m *warrenv1.AttendResponse) (ended <-chan struct{}, err error)
}

// Exchange connects those who want streams with the agents that serve them.
type Exchange struct {
	sessions Sessions

	mu sync.Mutex
	// Asked for and not dialled yet, by the digest of the id, so that how long a lookup takes tells
	// nothing about the ids there are.
	awaited map[[sha256.Size]byte]*Stream
}

// New returns an exchange over the agents' sessions.
func New(sessions Sessions) *Exchange {
	return &Exchange{sessions: sessions, awaited: map[[sha256.Size]byte]*Stream{}}
}

// Open asks the agent of a node for the stream that ask describes and returns it once the agent has
// dialled back; the caller closes it. Open fills in the id of ask, of which it takes possession.
// It fails with ErrNoAnswer, ErrLeft, what Sessions.Send fails with, or the error of ctx.
func (x *Exchange) Open(ctx context.Context, node string, ask *warrenv1.OpenStream) (*Stream, error) {
	s := &Stream{
		exchange: x, node: node, id: rand.Text(),
		dialled: make(chan struct{}), messages: make(chan *warrenv1.RelayRequest),
		closed: make(chan struct{}), ended: make(chan struct{}),
	}
	ask.StreamId = s.id
	x.sessions.Await(ctx, node)
	x.expect(s)
	left, err := x.sessions.Send(node, &warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_OpenStream{OpenStream: ask}})
	if err != nil {
		x.claim(s.id, s.node)
		return nil, err
	}
	timer := time.NewTimer(dialTimeout)
	defer timer.Stop()
	select {
	case <-s.dialled:
		return s, nil
	case <-left:
		err = ErrLeft
	case <-timer.C:
		err = ErrNoAnswer
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.Close()
	return nil, err
}

func (x *Exchange) expect(s *Stream) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.awaited[sha256.Sum256([]byte(s.id))] = s
}

// claim returns the awaited stream of that id, to the first from the node that was asked for it. For
// other nodes there is none.
func (x *Exchange) claim(id, node string) *Stream {
	digest := sha256.Sum256([]byte(id))
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.awaited[digest]
	if s == nil || s.node != node {
		return nil
	}
	delete(x.awaited, digest)
	return s
}

// Relay implements the procedure of warrenv1connect.SessionServiceHandler.
func (x *Exchange) Relay(ctx context.Context, stream *connect.BidiStream[warrenv1.RelayRequest, warrenv1.RelayResponse]) error {
	first, err := receiveFirst(ctx, stream)
	if err != nil {
		return err
	}
	s := x.claim(first.GetStreamId(), caller.From(ctx).Name)
	if s == nil {
		return connect.NewError(connect.CodeNotFound, errors.New("no stream of this id is awaited: nobody asked for it, it was asked for too long ago, or it is taken"))
	}
	return s.splice(ctx, first, stream.Receive)
}

// receiveFirst waits for the message that names the stream.
func receiveFirst(ctx context.Context, stream *connect.BidiStream[warrenv1.RelayRequest, warrenv1.RelayResponse]) (*warrenv1.RelayRequest, error) {
	type received struct {
		message *warrenv1.RelayRequest
		err     error
	}
	first := make(chan received, 1)
	go func() { // returns with the handler at the latest: the server then closes the request's body
		m, err := stream.Receive()
		first <- received{m, err}
	}()
	timer := time.NewTimer(dialTimeout)
	defer timer.Stop()
	select {
	case r := <-first:
		return r.message, r.err
	case <-timer.C:
		return nil, connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("no stream id within %v", dialTimeout))
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
