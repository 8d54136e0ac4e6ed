package logstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/relay"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// maxBreaks bounds how often in a row a stream is opened anew that breaks before it has brought anything.
const maxBreaks = 3

// source is one task's output in a reading. Its own goroutine reads it and gives the reading one chunk
// at a time.
type source struct {
	task, node, service string
	name, hostname      string
	place               int           // among the sources of the reading
	turn                chan struct{} // holds a token when the last chunk has been passed on
	cancel              context.CancelFunc
	resume              time.Time // of the last line; zero before there was one

	// The reading's alone.
	backlog []*warrenv1.LogLine // being merged
	last    bool                // nothing of the backlog comes after it
	dropped bool
}

// chunk is what a source has to say at a time.
type chunk struct {
	source   *source
	lines    []*warrenv1.LogLine
	caughtUp bool
	notice   string
	gap      gap
	ended    bool // nothing more comes
	parked   bool // nothing more comes until the node is back, whose version was asked when it was tried
	asked    uint64
}

// gap says what kind of hole a notice is about; each is told once of a node until something comes from it.
type gap int

const (
	gapNone gap = iota
	gapUnreachable
)

func newSource(s state.Snapshot, t *warrenv1.Task, place int) *source {
	hostname := s.Hostname(t.GetNodeId())
	if hostname == "" {
		hostname = t.GetNodeId()
	}
	return &source{
		task: t.GetMeta().GetId(), node: t.GetNodeId(), service: t.GetServiceId(),
		name: lifecycle.Name(t, hostname), hostname: hostname, place: place,
		turn: make(chan struct{}, 1),
	}
}

// ask is what the node is asked for: what the user wants less what has come already.
func (s *source) ask(selection *warrenv1.LogSelection) *warrenv1.OpenStream {
	if !s.resume.IsZero() {
		selection = proto.CloneOf(selection)
		selection.Tail = nil
		selection.Since = timestamppb.New(s.resume.Add(1))
	}
	return &warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Logs{
		Logs: &warrenv1.LogsPurpose{TaskId: s.task, Selection: selection},
	}}
}

// read gives the reading everything the task's node sends. Its last chunk says ended or parked.
func (r *reading) read(ctx context.Context, s *source) {
	for breaks := 0; ; {
		// Should the node come back while it is being asked, its object has changed.
		asked := r.store.Snapshot().Node(s.node).GetMeta().GetVersion()
		stream, err := r.open(ctx, s.node, s.ask(r.selection))
		if err != nil {
			r.unreachable(ctx, s, asked, err)
			return
		}
		got, err := r.drain(ctx, s, stream)
		stream.Close()
		var refusal *relay.AgentError
		switch {
		case err == nil, ctx.Err() != nil:
			r.deliver(ctx, chunk{source: s, ended: true})
			return
		case errors.As(err, &refusal):
			r.deliver(ctx, chunk{source: s, ended: true, notice: fmt.Sprintf("%s: node %s cannot give its output: %v", s.name, s.hostname, err)})
			return
		}
		if breaks++; got {
			breaks = 1
		}
		if !r.selection.GetFollow() || breaks == maxBreaks {
			r.deliver(ctx, chunk{source: s, ended: true, notice: fmt.Sprintf("%s: output from node %s is incomplete: %v", s.name, s.hostname, err)})
			return
		}
	}
}

// unreachable ends a source whose node could not be asked, or lets it wait for the node.
func (r *reading) unreachable(ctx context.Context, s *source, asked uint64, err error) {
	c := chunk{source: s, gap: gapUnreachable, asked: asked, notice: fmt.Sprintf(
		"node %s cannot be reached (%v): output of its tasks is missing", s.hostname, err)}
	if c.parked = r.selection.GetFollow(); c.parked {
		c.notice = fmt.Sprintf("node %s cannot be reached (%v): output of its tasks follows when it is back", s.hostname, err)
	}
	c.ended = !c.parked
	r.deliver(ctx, c)
}

// drain passes on what one stream brings, and tells whether it was anything. It returns nil when
// everything asked for has come.
func (r *reading) drain(ctx context.Context, s *source, from stream) (got bool, err error) {
	for {
		m, err := from.Receive(ctx)
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		batch := m.GetLogs()
		for _, l := range batch.GetLines() {
			l.TaskId, l.TaskName, l.NodeHostname = s.task, s.name, s.hostname
			s.resume = l.GetTime().AsTime()
			got = true
		}
		if !r.deliver(ctx, chunk{source: s, lines: batch.GetLines(), caughtUp: batch.GetCaughtUp()}) {
			return got, ctx.Err()
		}
		if batch.GetCaughtUp() && !r.selection.GetFollow() {
			return got, nil
		}
	}
}

// deliver hands a chunk to the reading and, unless it is the last, waits until it has been passed on.
// It tells false where nobody wants it any more.
func (r *reading) deliver(ctx context.Context, c chunk) bool {
	select {
	case r.chunks <- c:
	case <-ctx.Done():
		return false
	}
	if c.ended || c.parked {
		return true // and this goroutine ends: there may be another for the source already
	}
	select {
	case <-c.source.turn:
		return true
	case <-ctx.Done():
		return false
	}
}
