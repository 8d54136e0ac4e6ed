package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"connectrpc.com/connect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Stream is a stream that an agent sends. It holds one message at most.
type Stream struct {
	exchange *Exchange
	node     string
	id       string
	dialled  chan struct{}
	messages chan *warrenv1.RelayRequest
	closing  sync.Once
	closed   chan struct{} // by the reader
	ended    chan struct{} // by the agent, for the reason in err
	err      error
}

// AgentError is why an agent cannot serve a stream, in its own words.
type AgentError struct{ Reason string }

// Error implements error.
func (e *AgentError) Error() string { return e.Reason }

// Node returns the id of the node that sends.
func (s *Stream) Node() string { return s.node }

// Receive waits for the next message. At the end of the stream it returns io.EOF, where the agent
// cannot serve it an AgentError, and else why the stream broke.
func (s *Stream) Receive(ctx context.Context) (*warrenv1.RelayRequest, error) {
	select {
	case m := <-s.messages:
		return m, nil
	case <-s.ended:
		return nil, s.err
	case <-s.closed:
		return nil, io.ErrClosedPipe
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends the stream and tells the agent. It may be called any number of times.
func (s *Stream) Close() {
	s.closing.Do(func() {
		close(s.closed)
		s.exchange.claim(s.id, s.node)
		select {
		case <-s.ended:
			return // the agent knows
		default:
		}
		// Best effort: an agent that has dialled also sees its call end, and one that has not is turned
		// away when it does.
		_, _ = s.exchange.sessions.Send(s.node, &warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_CloseStream{
			CloseStream: &warrenv1.CloseStream{StreamId: s.id},
		}})
	})
}

// splice hands what the agent sends, beginning with first, to the reader until either ends the stream.
func (s *Stream) splice(ctx context.Context, first *warrenv1.RelayRequest, receive func() (*warrenv1.RelayRequest, error)) error {
	close(s.dialled)
	go s.pump(first, receive) // returns once both have ended: the handler's return ends receive, Close the rest
	select {
	case <-s.ended:
		return nil
	case <-s.closed:
		return connect.NewError(connect.CodeCanceled, errors.New("nobody reads this stream any more"))
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Stream) pump(m *warrenv1.RelayRequest, receive func() (*warrenv1.RelayRequest, error)) {
	defer close(s.ended)
	for {
		if reason := m.GetError(); reason != "" {
			s.err = &AgentError{reason}
			return
		}
		if m.GetData() != nil {
			select {
			case s.messages <- m:
			case <-s.closed:
				s.err = io.ErrClosedPipe
				return
			}
		}
		var err error
		if m, err = receive(); err != nil {
			s.err = io.EOF
			if !errors.Is(err, io.EOF) {
				s.err = fmt.Errorf("its stream broke: %w", err)
			}
			return
		}
	}
}
