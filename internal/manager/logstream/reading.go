package logstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	// maxSources bounds the streams of one reading.
	maxSources = 1000
	// maxSilence is how long the merge waits for sources that send nothing.
	maxSilence = 5 * time.Second
	// maxResponse is about the size at which a response is closed.
	maxResponse = 256 << 10
)

// reading is one call of StreamLogs.
type reading struct {
	store     *state.Store
	open      opener
	of        target
	selection *warrenv1.LogSelection
	send      func(*warrenv1.StreamLogsResponse) error

	chunks chan chunk
	wake   chan struct{} // holds a token when over may have become true, or there is a notice
	done   sync.WaitGroup

	// The goroutine of run's alone.
	merge merge
	held  []chunk             // what must not come before the merge is done; one of each source at most
	told  map[string]struct{} // nodes of which the user knows that they cannot be reached

	mu      sync.Mutex
	sources map[string]*source // by task: all there ever were
	active  int                // sources that have a goroutine
	parked  map[string]*source // by task: sources that wait for their node
	gone    bool               // the service or task was deleted: no source joins or comes back
	notice  string             // to be told
	full    bool               // there were more than maxSources
}

func newReading(store *state.Store, open opener, of target, selection *warrenv1.LogSelection, send func(*warrenv1.StreamLogsResponse) error) *reading {
	return &reading{
		store: store, open: open, of: of, selection: selection, send: send,
		chunks: make(chan chunk), wake: make(chan struct{}, 1),
		merge: merge{waiting: map[*source]struct{}{}}, told: map[string]struct{}{},
		sources: map[string]*source{}, parked: map[string]*source{},
	}
}

// run serves the call. Every goroutine of the reading has ended when it returns.
func (r *reading) run(ctx context.Context, s state.Snapshot, tasks []*warrenv1.Task, feed *state.Feed) error {
	ctx, cancel := context.WithCancel(ctx)
	defer r.done.Wait()
	defer cancel()
	for _, t := range tasks {
		if source := r.join(ctx, s, t); source != nil {
			r.merge.join(source)
		}
	}
	if r.of.task != "" && len(r.sources) == 0 {
		r.tell(fmt.Sprintf("%s has no node yet, and so no output", lifecycle.Name(tasks[0], "")))
	}
	if r.selection.GetFollow() {
		r.done.Go(func() { r.watch(ctx, feed) })
	}
	return r.pass(ctx)
}

// pass sends what comes until nothing more can come.
func (r *reading) pass(ctx context.Context) error {
	patience := time.NewTimer(maxSilence)
	defer patience.Stop()
	for {
		if err := r.advance(); err != nil {
			return err
		}
		if r.over() {
			return nil
		}
		var silence <-chan time.Time
		if len(r.merge.waiting) > 0 {
			// Only the time spent waiting here counts, not the time the user took to read.
			patience.Reset(maxSilence)
			silence = patience.C
		}
		select {
		case c := <-r.chunks:
			if err := r.take(ctx, c); err != nil {
				return err
			}
		case <-silence:
			if err := r.giveUpOnSilent(); err != nil {
				return err
			}
		case <-r.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// advance sends what the merge has ready, once it is done what was held back, and notices.
func (r *reading) advance() error {
	r.mu.Lock()
	notice := r.notice
	r.notice = ""
	r.mu.Unlock()
	if err := r.sendNotice(notice); err != nil {
		return err
	}
	for {
		lines, spent := r.merge.next(maxResponse)
		if len(lines) == 0 {
			break
		}
		if err := r.send(&warrenv1.StreamLogsResponse{Lines: lines}); err != nil {
			return err
		}
		for _, s := range spent {
			s.turn <- struct{}{}
		}
	}
	if !r.merge.done() {
		return nil
	}
	held := r.held
	r.held = nil
	for _, c := range held {
		if err := r.forward(c); err != nil {
			return err
		}
	}
	return nil
}

// take deals with what a source says.
func (r *reading) take(ctx context.Context, c chunk) error {
	s := c.source
	if s.dropped {
		return nil
	}
	if len(c.lines) > 0 || c.caughtUp {
		delete(r.told, s.node)
	}
	if c.notice != "" {
		_, known := r.told[s.node]
		if c.gap == gapUnreachable {
			r.told[s.node] = struct{}{}
		}
		if !known {
			if err := r.sendNotice(c.notice); err != nil {
				return err
			}
		}
	}
	if c.ended || c.parked {
		r.merge.leave(s)
		r.retire()
		if c.parked {
			r.park(ctx, s, c.asked)
		}
		return nil
	}
	switch {
	case r.merge.has(s):
		r.merge.offer(s, c.lines, c.caughtUp)
		if len(c.lines) == 0 {
			s.turn <- struct{}{}
		}
		return nil
	case r.merge.done():
		return r.forward(c)
	}
	r.held = append(r.held, c)
	return nil
}

// forward sends a chunk's lines as they are.
func (r *reading) forward(c chunk) error {
	for lines := c.lines; len(lines) > 0; {
		n, size := 0, 0
		for n < len(lines) && size < maxResponse {
			size += weight(lines[n])
			n++
		}
		if err := r.send(&warrenv1.StreamLogsResponse{Lines: lines[:n]}); err != nil {
			return err
		}
		lines = lines[n:]
	}
	c.source.turn <- struct{}{}
	return nil
}

// giveUpOnSilent lets the merge go on without the sources it waits for. With follow what they send comes
// when it comes; without, the reading does not wait for them.
func (r *reading) giveUpOnSilent() error {
	silent := make([]*source, 0, len(r.merge.waiting))
	for s := range r.merge.waiting {
		silent = append(silent, s)
	}
	slices.SortFunc(silent, func(a, b *source) int { return a.place - b.place })
	for _, s := range silent {
		r.merge.leave(s)
		consequence := "its output comes late, if at all"
		if !r.selection.GetFollow() {
			consequence = "its output is incomplete"
			s.dropped = true
			s.cancel()
			r.retire()
		}
		if err := r.sendNotice(fmt.Sprintf("%s: node %s has sent nothing for %v: %s", s.name, s.hostname, maxSilence, consequence)); err != nil {
			return err
		}
	}
	return nil
}

func (r *reading) sendNotice(text string) error {
	if text == "" {
		return nil
	}
	return r.send(&warrenv1.StreamLogsResponse{Notice: text})
}

// join reads t too, unless it is read already or cannot be. It returns the source that is new.
func (r *reading) join(ctx context.Context, s state.Snapshot, t *warrenv1.Task) *source {
	id := t.GetMeta().GetId()
	if t.GetNodeId() == "" || t.GetStatus().GetState() < warrenv1.TaskState_TASK_STATE_ASSIGNED {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sources[id] != nil {
		return nil
	}
	if r.active+len(r.parked) >= maxSources {
		if !r.full {
			r.full = true
			r.notice = fmt.Sprintf("there are more than %d tasks: output of some is not shown; read them one by one", maxSources)
			r.rouse()
		}
		return nil
	}
	source := newSource(s, t, len(r.sources))
	r.sources[id] = source
	r.start(ctx, source)
	return source
}

// start gives a source its goroutine. The caller holds r.mu.
func (r *reading) start(ctx context.Context, s *source) {
	ctx, s.cancel = context.WithCancel(ctx)
	r.active++
	r.done.Go(func() {
		defer s.cancel()
		r.read(ctx, s)
	})
}

// retire notes that a source's goroutine has nothing more to give.
func (r *reading) retire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active--
}

// park lets s wait for its node, unless that has come back since it was asked at that version.
func (r *reading) park(ctx context.Context, s *source, asked uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return
	}
	r.parked[s.task] = s
	if n := r.store.Snapshot().Node(s.node); n.GetMeta().GetVersion() != asked {
		r.reviveLocked(ctx, n)
	}
}

// tell has a notice sent.
func (r *reading) tell(notice string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notice = notice
	r.rouse()
}

func (r *reading) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// over tells whether nothing more can come.
func (r *reading) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.active > 0:
		return false
	case !r.selection.GetFollow() || r.gone:
		return true
	}
	// A single task that has been read to its end has no more; one that waits for its node may.
	return r.of.task != "" && len(r.sources) > 0 && len(r.parked) == 0
}
