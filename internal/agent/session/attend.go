package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	maxReports      = 1000             // tasks reported at a time, so that heartbeats go in between
	maxReportBytes  = 1 << 20          // in one message; the manager reads none of more than 4 MiB
	minSilence      = 3 * time.Second  // a manager silent for less is not given up
	welcomeTimeout  = 5 * time.Second  // from hello to welcome
	goodbyeTimeout  = time.Second      // for the manager to hear it
	defaultInterval = 2 * time.Second  // between heartbeats, where the manager names none
	maxInterval     = 10 * time.Minute // more is a mistake of the manager's
)

// session is one session with one manager.
type session struct {
	*line
	manager  string
	stream   *connect.BidiStreamForClient[warrenv1.AttendRequest, warrenv1.AttendResponse]
	interval atomic.Int64        // between heartbeats, in nanoseconds
	silence  *time.Timer         // ends the session when the manager is silent for too long
	facts    *warrenv1.NodeFacts // as last sent
}

// attend holds one session. It tells whether the manager welcomed the node, and why the session ended.
func (l *line) attend(ctx context.Context, manager string) (welcomed bool, err error) {
	// The stream outlives ctx for as long as it takes to say goodbye.
	streamCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	wire := newWire(manager)
	defer context.AfterFunc(streamCtx, wire.cut)()
	defer wire.cut()
	s := &session{line: l, manager: manager, stream: wire.client.Attend(streamCtx)}
	s.silence = time.AfterFunc(welcomeTimeout, func() {
		cancel(errors.New("the manager fell silent"))
	})
	defer s.silence.Stop()
	stopWatching := context.AfterFunc(ctx, func() { s.silence.Reset(goodbyeTimeout) })
	defer stopWatching()

	s.facts = l.Facts.Collect(ctx)
	welcome, err := s.greet()
	if err != nil {
		return false, because(streamCtx, err)
	}
	l.Logger.Info("attending at the manager", "manager", manager, "cluster", welcome.GetClusterId())
	l.lastReason = ""

	heard := make(chan error, 1)
	go func() {
		defer close(heard)
		heard <- s.hear(ctx)
	}()
	err = s.speak(ctx, heard)
	cancel(err)
	for range heard { // until it has ended
	}
	return true, because(streamCtx, err)
}

// because prefers the reason for which this side ended the stream to what the stream says of it.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// greet says hello and waits for the welcome.
func (s *session) greet() (*warrenv1.Welcome, error) {
	hello := &warrenv1.Hello{NodeId: s.Identity.NodeID(), ClusterId: s.Identity.ClusterID(), Facts: s.facts}
	if err := s.send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	answer, err := s.stream.Receive()
	if err != nil {
		return nil, err
	}
	welcome := answer.GetWelcome()
	if welcome == nil {
		return nil, fmt.Errorf("the manager answered hello with %T instead of a welcome", answer.GetMessage())
	}
	switch ours, theirs := s.Identity.ClusterID(), welcome.GetClusterId(); ours {
	case theirs:
	case "":
		if err := s.Identity.JoinCluster(theirs); err != nil {
			return nil, err
		}
	default:
		return nil, otherCluster(ours, theirs)
	}
	s.pace(welcome.GetHeartbeatInterval().AsDuration())
	return welcome, nil
}

// pace takes the manager's wish for the time between heartbeats, and that it lives.
func (s *session) pace(interval time.Duration) {
	if interval <= 0 || interval > maxInterval {
		interval = defaultInterval
	}
	s.interval.Store(int64(interval))
	s.alive()
}

// alive notes that the manager has been heard of.
func (s *session) alive() {
	s.silence.Reset(max(minSilence, 3*time.Duration(s.interval.Load())))
}

// hear takes what the manager says until the stream ends.
func (s *session) hear(ctx context.Context) error {
	for {
		message, err := s.stream.Receive()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("the manager ended the session")
			}
			return err
		}
		if ctx.Err() != nil {
			continue // only the end is of interest any more
		}
		switch m := message.GetMessage().(type) {
		case *warrenv1.AttendResponse_Heartbeat:
			s.pace(m.Heartbeat.GetInterval().AsDuration())
			continue
		case *warrenv1.AttendResponse_Assignments:
			s.Tasks.Apply(m.Assignments)
		case *warrenv1.AttendResponse_OpenStream:
			s.openStream(ctx, s.manager, m.OpenStream)
		case *warrenv1.AttendResponse_CloseStream:
			s.closeStream(m.CloseStream.GetStreamId())
		}
		s.alive()
	}
}

// speak sends what there is to say until the stream ends, or ctx does and the goodbye has been heard.
func (s *session) speak(ctx context.Context, heard <-chan error) error {
	s.Reports.Rewind()
	heartbeat := time.NewTimer(time.Duration(s.interval.Load()))
	defer heartbeat.Stop()
	for {
		var err error
		select {
		case err := <-heard:
			return err
		case <-ctx.Done():
			return s.leave(ctx, heard)
		case <-heartbeat.C:
			heartbeat.Reset(time.Duration(s.interval.Load()))
			err = s.send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Heartbeat{Heartbeat: &warrenv1.Heartbeat{}}})
		case <-s.Reports.Ready():
			err = s.report(s.Reports.Take(maxReports))
		case <-s.Facts.Changed():
			facts := s.Facts.Collect(ctx)
			if sameMachine(facts, s.facts) {
				continue
			}
			s.facts = facts
			err = s.send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Facts{Facts: facts}})
		}
		switch {
		case errors.Is(err, io.EOF):
			return <-heard // which knows why the stream has ended
		case err != nil:
			return err
		}
	}
}

// report sends reports, in as many messages as it takes. Each tells the manager that this agent lives.
func (s *session) report(reports []*warrenv1.TaskReport) error {
	for piece := range pieces(reports) {
		report := &warrenv1.StatusReport{Tasks: piece}
		if err := s.send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Report{Report: report}}); err != nil {
			return err
		}
	}
	return nil
}

// pieces cuts reports into what goes into one message: at least one, and as many as are not too large
// together.
func pieces(reports []*warrenv1.TaskReport) iter.Seq[[]*warrenv1.TaskReport] {
	return func(yield func([]*warrenv1.TaskReport) bool) {
		begin, size := 0, 0
		for i, r := range reports {
			of := proto.Size(r)
			if i > begin && size+of > maxReportBytes {
				if !yield(reports[begin:i]) {
					return
				}
				begin, size = i, 0
			}
			size += of
		}
		if begin < len(reports) {
			yield(reports[begin:])
		}
	}
}

// sameMachine tells whether two facts differ in nothing but what changes all the time.
func sameMachine(a, b *warrenv1.NodeFacts) bool {
	a = proto.CloneOf(a)
	a.DiskFreeBytes = b.GetDiskFreeBytes()
	return proto.Equal(a, b)
}

// leave says goodbye and waits until the manager has heard it, for a while.
func (s *session) leave(ctx context.Context, heard <-chan error) error {
	_ = s.send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Goodbye{Goodbye: &warrenv1.Goodbye{}}})
	_ = s.stream.CloseRequest()
	<-heard //nolint:errcheck // that the stream has ended is what is waited for, not how
	return ctx.Err()
}

// send sends a message. Its error is io.EOF when the stream has ended: receiving tells why.
func (s *session) send(message *warrenv1.AttendRequest) error { return s.stream.Send(message) }
