package session

import (
	"cmp"
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
	welcomeTimeout  = 3 * time.Second  // from hello to welcome: less than a node may be silent
	goodbyeTimeout  = time.Second      // for the manager to hear it
	defaultInterval = 2 * time.Second  // between heartbeats, where the manager names none
	maxInterval     = 10 * time.Minute // more is a mistake of the manager's
)

// session is one session with one manager, which has welcomed the node.
type session struct {
	*line
	manager  string
	wire     *wire
	stream   *connect.BidiStreamForClient[warrenv1.AttendRequest, warrenv1.AttendResponse]
	ctx      context.Context // of the stream
	cancel   context.CancelCauseFunc
	began    time.Time
	interval atomic.Int64        // between heartbeats, in nanoseconds
	silence  *time.Timer         // ends the session when the manager is silent for too long
	facts    *warrenv1.NodeFacts // as last sent
}

// begin says hello to a manager and returns the session that it welcomes the node to. The session must be
// held.
func (l *line) begin(ctx context.Context, manager string) (*session, error) {
	s := &session{line: l, manager: manager, facts: l.Facts.Collect(ctx), wire: newWire(manager, l.TLS()), began: time.Now()}
	// The stream outlives ctx for as long as it takes to say goodbye.
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	context.AfterFunc(s.ctx, s.wire.cut)
	s.silence = time.AfterFunc(welcomeTimeout, func() {
		s.cancel(errors.New("the manager fell silent"))
	})
	defer context.AfterFunc(ctx, func() { s.silence.Reset(goodbyeTimeout) })()
	s.stream = s.wire.client.Attend(s.ctx)
	if err := s.greet(); err != nil {
		err = because(s.ctx, err)
		s.close(err)
		return nil, err
	}
	return s, nil
}

// close ends the stream, whatever is on it.
func (s *session) close(why error) {
	s.silence.Stop()
	s.cancel(why)
	s.wire.cut()
}

// hold keeps the session until it breaks, ctx ends, or there is a fresh one, which it returns.
func (s *session) hold(ctx context.Context) (*session, error) {
	defer context.AfterFunc(ctx, func() { s.silence.Reset(goodbyeTimeout) })()
	heard := make(chan error, 1)
	go func() {
		defer close(heard)
		heard <- s.hear(ctx)
	}()
	fresh, err := s.speak(ctx, heard)
	err = because(s.ctx, err)
	s.close(err)
	for range heard { // until it has ended
	}
	return fresh, err
}

// because prefers the reason for which this side ended the stream to what the stream says of it.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// greet says hello and waits for the welcome.
func (s *session) greet() error {
	hello := &warrenv1.Hello{NodeId: s.NodeID, ClusterId: s.ClusterID, Facts: s.facts}
	if err := s.send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	answer, err := s.stream.Receive()
	if err != nil {
		return err
	}
	welcome := answer.GetWelcome()
	if welcome == nil {
		return fmt.Errorf("the manager answered hello with %T instead of a welcome", answer.GetMessage())
	}
	if theirs := welcome.GetClusterId(); theirs != s.ClusterID {
		return otherCluster(s.ClusterID, theirs)
	}
	s.pace(welcome.GetHeartbeatInterval().AsDuration())
	return nil
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
			s.Logger.Debug("told of tasks", "manager", s.manager, "full", m.Assignments.GetFull(), "tasks", len(m.Assignments.GetTasks()), "removed", len(m.Assignments.GetRemoved()))
			s.Tasks.Apply(m.Assignments)
		case *warrenv1.AttendResponse_OpenStream:
			s.openStream(ctx, s.manager, m.OpenStream)
		case *warrenv1.AttendResponse_CloseStream:
			s.closeStream(m.CloseStream.GetStreamId())
		case *warrenv1.AttendResponse_Directory:
			s.Managers.Heed(m.Directory, s.manager)
		case *warrenv1.AttendResponse_Network:
			s.Network.Configure(m.Network)
		case *warrenv1.AttendResponse_Peers:
			s.Network.HeedPeers(m.Peers)
		case *warrenv1.AttendResponse_Endpoints:
			s.Network.HeedEndpoints(m.Endpoints)
		}
		s.alive()
	}
}

// speak sends what there is to say until the stream ends, ctx does and the goodbye has been heard, or there
// is a fresh session, which it returns. While that is being opened the session goes on.
func (s *session) speak(ctx context.Context, heard <-chan error) (*session, error) {
	s.Reports.Rewind()
	if err := cmp.Or(s.tellOverlay(), s.acknowledge()); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	heartbeat := time.NewTimer(time.Duration(s.interval.Load()))
	defer heartbeat.Stop()
	var opening chan *session // holds what comes of it; nil while none is being opened
	ended := func(err error) (*session, error) {
		if opening == nil {
			return nil, err
		}
		// A manager that has welcomed the fresh session has ended this one.
		return <-opening, err
	}
	for {
		var err error
		select {
		case err := <-heard:
			return ended(err)
		case fresh := <-opening:
			opening = nil
			if fresh != nil {
				return fresh, errSuperseded
			}
		case <-s.Fresh:
			if opening == nil {
				fresh := make(chan *session, 1)
				s.streams.Go(func() { fresh <- s.freshen(ctx) })
				opening = fresh
			}
		case <-ctx.Done():
			err := s.leave(ctx, heard)
			if fresh, _ := ended(err); fresh != nil {
				fresh.close(err)
			}
			return nil, err
		case <-heartbeat.C:
			heartbeat.Reset(time.Duration(s.interval.Load()))
			err = s.send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Heartbeat{Heartbeat: &warrenv1.Heartbeat{}}})
		case <-s.Reports.Ready():
			err = s.report(s.Reports.Take(maxReports))
		case <-s.Network.Changed():
			err = s.tellOverlay()
		case <-s.Network.Applied():
			err = s.acknowledge()
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
			return ended(<-heard) // which knows why the stream has ended
		case err != nil:
			return ended(err)
		}
	}
}

// errSuperseded ends a session that another has taken the place of.
var errSuperseded = errors.New("a fresh session has taken its place")

// freshen opens another session with the same manager; nil where that does not work, which leaves things as
// they are.
func (s *session) freshen(ctx context.Context) *session {
	fresh, err := s.begin(ctx, s.manager)
	if err != nil {
		s.Logger.Warn("cannot open the session anew; the old one goes on", "manager", s.manager, "error", err)
		return nil
	}
	return fresh
}

// tellOverlay tells how the node's overlay stands, once that is known.
func (s *session) tellOverlay() error {
	status := s.Network.Status()
	if status == nil {
		return nil
	}
	return s.send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Overlay{Overlay: status}})
}

// acknowledge tells which endpoints the node acts by. That holds whichever manager it is told to.
func (s *session) acknowledge() error {
	version := s.Network.InForce()
	if version == 0 {
		return nil
	}
	s.Logger.Debug("acting by endpoints", "manager", s.manager, "version", version)
	return s.send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_InForce{InForce: &warrenv1.EndpointsInForce{Version: version}}})
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

// leave says goodbye and waits until the manager has heard it, for a while. A node that leaves its cluster
// does not: it is not expected back.
func (s *session) leave(ctx context.Context, heard <-chan error) error {
	if errors.Is(context.Cause(ctx), ErrLeave) {
		return ctx.Err()
	}
	_ = s.send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Goodbye{Goodbye: &warrenv1.Goodbye{}}})
	_ = s.stream.CloseRequest()
	<-heard //nolint:errcheck // that the stream has ended is what is waited for, not how
	return ctx.Err()
}

// send sends a message. Its error is io.EOF when the stream has ended: receiving tells why.
func (s *session) send(message *warrenv1.AttendRequest) error { return s.stream.Send(message) }
