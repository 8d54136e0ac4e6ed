package progress

import (
	"context"
	"errors"
	"sync"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/client"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// drainWatch tells when there is something new about nodes that are drained. It follows the cluster's events, which
// tell what has become of nodes and tasks, and, as no event tells what a replacement waits for, the services whose
// tasks are shown. It reads nothing itself: what is so at the time is asked for by who is told.
type drainWatch struct {
	client *client.Client
	ctx    context.Context //nolint:containedctx // of the streams, which live as long as the watch
	// bell rings when there is something to look at; once for all that has come meanwhile.
	bell chan struct{}
	// news is what to say of a break that lasts, or the error that ends it all.
	news    chan drainNews
	streams sync.WaitGroup

	mu       sync.Mutex
	nodes    map[string]bool   // by id: those that are drained
	tasks    map[string]bool   // by id: those that are left there
	looking  bool              // at this moment it is being asked what is left
	missed   []*warrenv1.Event // that came meanwhile, and may be about what comes of it
	awaited  map[string]uint64 // by id of a node or task: the version that was told of
	followed map[string]func() // by id of a service: ends its stream
}

type drainNews struct {
	lost string
	err  error
}

// newDrainWatch returns a watch of nodes that ends with ctx.
func newDrainWatch(ctx context.Context, c *client.Client, nodes []Draining) *drainWatch {
	w := &drainWatch{
		client: c, ctx: ctx, bell: make(chan struct{}, 1), news: make(chan drainNews),
		nodes: map[string]bool{}, awaited: map[string]uint64{}, followed: map[string]func(){},
	}
	for _, n := range nodes {
		w.nodes[n.ID] = true
	}
	w.streams.Go(w.followEvents)
	return w
}

// wait returns when all streams have ended, after ctx.
func (w *drainWatch) wait() { w.streams.Wait() }

func (w *drainWatch) ring() {
	select {
	case w.bell <- struct{}{}:
	default: // it rings already
	}
}

func (w *drainWatch) tell(n drainNews) {
	select {
	case w.news <- n:
	case <-w.ctx.Done():
	}
}

// followEvents rings for each event that is about the drains until ctx ends or the managers have been out of reach
// for too long.
func (w *drainWatch) followEvents() {
	var resumption client.Resumption
	for first := true; w.ctx.Err() == nil; first = false {
		resumption.Open()
		if first {
			resumption.Heard() // they have just taken the order
		}
		err := resumption.Broke(w.ctx, w.readEvents(resumption.Heard), func() {
			w.tell(drainNews{lost: "no manager can be reached; trying again"})
		})
		if err != nil {
			w.tell(drainNews{err: err})
			return
		}
	}
}

// readEvents opens the stream and rings for what comes. It never returns nil.
func (w *drainWatch) readEvents(heard func()) error {
	in, err := w.client.Events.WatchEvents(w.ctx, connect.NewRequest(&warrenv1.WatchEventsRequest{
		Objects: []warrenv1.EventObject{warrenv1.EventObject_EVENT_OBJECT_NODE, warrenv1.EventObject_EVENT_OBJECT_TASK},
	}))
	if err != nil {
		return err
	}
	defer in.Close()
	if len(in.ResponseHeader()) > 0 { // comes at once: from here on nothing is missed, but before
		w.ring()
	}
	for in.Receive() {
		heard()
		for _, e := range in.Msg().GetEvents() {
			w.hear(e)
		}
	}
	if err := in.Err(); err != nil {
		return err
	}
	// A manager that shuts down may end its streams properly.
	return connect.NewError(connect.CodeUnavailable, errors.New("the manager ended the stream"))
}

// hear rings for an event that is about the drains.
func (w *drainWatch) hear(e *warrenv1.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.looking {
		w.missed = append(w.missed, e)
	}
	w.weigh(e)
}

// weigh rings for an event that is about what is known of the drains.
func (w *drainWatch) weigh(e *warrenv1.Event) {
	id, about := e.GetObjectId(), false
	switch e.GetObject() {
	case warrenv1.EventObject_EVENT_OBJECT_NODE:
		about = w.nodes[id]
	case warrenv1.EventObject_EVENT_OBJECT_TASK:
		about = w.tasks[id]
	}
	if !about {
		return
	}
	if e.GetAction() != "removed" { // which no version tells
		w.awaited[id] = max(w.awaited[id], e.GetIndex())
	}
	w.ring()
}

// begin says that what is left is being asked for.
func (w *drainWatch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looking, w.missed = true, nil
	select {
	case <-w.bell: // it is about to be looked at
	default:
	}
}

// settle takes in what has been found, and tells whether it is older than what events have told.
func (w *drainWatch) settle(drains []*drain) (behind bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tasks = map[string]bool{}
	told, shown := w.awaited, map[string]bool{}
	w.awaited = map[string]uint64{}
	older := func(meta *warrenv1.Meta) {
		if version := told[meta.GetId()]; meta.GetVersion() < version {
			w.awaited[meta.GetId()] = version
		}
	}
	for _, d := range drains {
		if d.done() {
			continue
		}
		behind = behind || d.behind
		older(d.latest.GetMeta())
		for i, t := range d.left {
			older(t.GetTask().GetMeta())
			w.tasks[t.GetTask().GetMeta().GetId()] = true
			shown[t.GetTask().GetServiceId()] = shown[t.GetTask().GetServiceId()] || i < shownLeft
		}
	}
	behind = behind || len(w.awaited) > 0
	w.followServices(shown)
	w.looking = false
	for _, e := range w.missed {
		w.weigh(e)
	}
	w.missed = nil
	return behind
}

// followServices follows the services whose tasks are shown, and no others any more.
func (w *drainWatch) followServices(shown map[string]bool) {
	for id, end := range w.followed {
		if !shown[id] {
			end()
			delete(w.followed, id)
		}
	}
	for id, is := range shown {
		if !is || w.followed[id] != nil {
			continue
		}
		ctx, end := context.WithCancel(w.ctx)
		w.followed[id] = end
		w.streams.Go(func() {
			defer end()
			w.followService(ctx, id)
		})
	}
}

// followService rings for each change of a service until ctx ends, or it cannot be had: what its tasks wait for is
// only shown along.
func (w *drainWatch) followService(ctx context.Context, id string) {
	var resumption client.Resumption
	for ctx.Err() == nil {
		resumption.Open()
		if err := resumption.Broke(ctx, w.readService(ctx, id, &resumption), func() {}); err != nil {
			return
		}
	}
}

// readService opens a service's stream and rings for what comes. It never returns nil.
func (w *drainWatch) readService(ctx context.Context, id string, resumption *client.Resumption) error {
	in, err := w.client.Services.WatchService(ctx, connect.NewRequest(&warrenv1.WatchServiceRequest{Ref: id}))
	if err != nil {
		return err
	}
	defer in.Close()
	for in.Receive() {
		resumption.Heard()
		w.ring()
		if in.Msg().GetRemoved() {
			return context.Canceled
		}
	}
	if err := in.Err(); err != nil {
		return err
	}
	return connect.NewError(connect.CodeUnavailable, errors.New("the manager ended the stream"))
}
