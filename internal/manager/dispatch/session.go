package dispatch

import (
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	// maxPosted bounds the messages other than assignments that wait for a session's sender.
	maxPosted = 1024
	// maxUnanswered bounds the heartbeats that come while the sender is stuck in one message, which at
	// the default interval gives a slow line half a minute for it.
	maxUnanswered = 30
)

// errBusy: the session's agent does not read what is sent to it.
var errBusy = errors.New("its agent does not keep up with what it is sent")

// session is one agent's stream from the manager's side. What is to be sent gathers here until the
// sender, which alone writes to the stream, takes it: a slow agent costs memory for the ids of its
// tasks and no more.
type session struct {
	term  *term
	node  string
	pulse pulse
	wake  chan struct{} // holds one token when there is something to send
	ended chan struct{}
	cause error // why it ended; read it once ended is closed
	// inForce is the version of the endpoints that the node is known to balance by; the term's lock guards it.
	inForce uint64
	once    sync.Once
	// directed is the directory as last sent; it is the sender's.
	directed *warrenv1.Directory
	// config is the node's part of the network as last sent; it is the sender's.
	config *warrenv1.NetworkConfig

	mu         sync.Mutex
	full       bool                // the whole set of assignments is due
	directory  bool                // the directory may have changed for the agent
	news       news                // of the network
	dirty      map[string]struct{} // tasks that may have changed for the agent
	heartbeats int                 // of the agent's, not yet answered: one answer will do for all
	posted     []*warrenv1.AttendResponse
	reports    reportBook
}

func newSession(t *term, node string) *session {
	return &session{
		term: t, node: node,
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
		full: true, directory: true, dirty: map[string]struct{}{}, news: allNews(),
	}
}

// end closes the session: its stream ends with cause, which is nil after a goodbye. Only the first
// call counts.
func (s *session) end(cause error) {
	s.once.Do(func() {
		s.cause = cause
		close(s.ended)
	})
}

func (s *session) mark(task string) {
	s.mu.Lock()
	s.dirty[task] = struct{}{}
	s.mu.Unlock()
	s.rouse()
}

func (s *session) markAll() {
	s.mu.Lock()
	s.full = true
	s.mu.Unlock()
	s.rouse()
}

func (s *session) markDirectory() {
	s.mu.Lock()
	s.directory = true
	s.mu.Unlock()
	s.rouse()
}

// answerHeartbeat has a heartbeat answered. It tells false where the sender has answered none for so long
// that the agent cannot be reading.
func (s *session) answerHeartbeat() bool {
	s.mu.Lock()
	s.heartbeats++
	reading := s.heartbeats <= maxUnanswered
	s.mu.Unlock()
	s.rouse()
	return reading
}

func (s *session) post(m *warrenv1.AttendResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.posted) >= maxPosted {
		return errBusy
	}
	s.posted = append(s.posted, m)
	s.rouse()
	return nil
}

func (s *session) rouse() {
	select {
	case s.wake <- struct{}{}:
	default: // a token is there: the sender will see what was just added
	}
}

// errand is what the sender has to send.
type errand struct {
	heartbeat bool
	full      bool
	directory bool
	dirty     map[string]struct{}
	news      news
	posted    []*warrenv1.AttendResponse
}

func (s *session) take() errand {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := errand{heartbeat: s.heartbeats > 0, full: s.full, directory: s.directory, posted: s.posted}
	s.heartbeats, s.full, s.directory, s.posted = 0, false, false, nil
	e.news, s.news = s.news, news{}
	if len(s.dirty) > 0 {
		e.dirty, s.dirty = s.dirty, map[string]struct{}{}
	}
	return e
}

// send writes to the stream what is due, as soon as it is, until the session ends.
func (s *session) send(w wire) error {
	ledger := newLedger(s.node, s.term.withdrawals.mayStop, s.term.logger)
	for {
		if err := s.run(w, s.take(), ledger); err != nil {
			return fmt.Errorf("send to node %s: %w", s.node, err)
		}
		select {
		case <-s.wake:
		case <-s.ended:
			return s.cause
		}
	}
}

// run sends one errand. What is new of the network goes before assignments, which rest on it, and these before what was
// posted, so that a stream is never asked of a task the agent has not heard of.
func (s *session) run(w wire, e errand, l *ledger) error {
	if e.heartbeat {
		interval := s.term.interval()
		s.pulse.pace(interval)
		if err := w.Send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Heartbeat{
			Heartbeat: &warrenv1.Heartbeat{Interval: durationpb.New(interval)},
		}}); err != nil {
			return err
		}
	}
	// Read after the errand was taken, so that it holds whatever was marked.
	snapshot := s.term.store.Snapshot()
	if e.directory {
		if err := s.direct(w, s.term.directory(snapshot)); err != nil {
			return err
		}
	}
	if err := s.tellNetwork(w, snapshot, e.news); err != nil {
		return err
	}
	pieces := l.changes(snapshot, e.dirty)
	if e.full {
		pieces = l.everything(snapshot)
	}
	for piece := range pieces {
		if err := w.Send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Assignments{Assignments: piece}}); err != nil {
			return err
		}
		if s.term.observer != nil {
			s.term.observer.Sent(snapshot, piece)
		}
	}
	for _, m := range e.posted {
		if err := w.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// direct sends the directory, unless the agent has it.
func (s *session) direct(w wire, d *warrenv1.Directory) error {
	if d == nil || proto.Equal(d, s.directed) {
		return nil
	}
	s.directed = d
	return w.Send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Directory{Directory: d}})
}
